"""Arrays in HDF5 and Zarr: read row by row, whatever their size. Their packages are extras, imported when asked for.

What would read other files than the one that was named is refused: links to other files, virtual datasets, data kept
outside. Pickled objects are never loaded.
"""

from __future__ import annotations

import functools
import os
from types import ModuleType
from typing import Any

import numpy as np

from selftaught.errors import DataError, UnreadableError, first_line

HDF5, ZARR = frozenset({".h5", ".hdf5"}), frozenset({".zarr"})
EXTENSIONS = HDF5 | ZARR


def is_store(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in EXTENSIONS


class Rows:
    """An array that stays on disk: what is read of it is read when it is asked for, whole or row by row."""

    def __init__(self, stored: Any) -> None:
        self.stored, self.shape, self.dtype, self.ndim = stored, tuple(stored.shape), stored.dtype, stored.ndim

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, which: Any) -> np.ndarray:
        try:
            return np.asarray(self.stored[which])
        except IndexError:
            raise
        except Exception as error:  # HDF5's filters and Zarr's codecs each have their own
            raise UnreadableError(f"corrupt: {first_line(error)}") from None

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[...] if dtype is None else self[...].astype(dtype, copy=False)


def members(path: str, stamp: tuple[int, int]) -> list[str]:
    """Names of the arrays, those of groups with slashes; [""] for a Zarr folder that is one array."""
    return list(_opened(path, stamp, os.getpid()))


def open_member(path: str, name: str, stamp: tuple[int, int]) -> Any:
    """``Rows``; texts as an array in memory. Raises ``UnreadableError``, and ``KeyError`` for a name that is not there.

    Handles are kept for each process: one that was opened before a fork must not be used after it.
    """
    array = _opened(path, stamp, os.getpid())[name]
    kind = getattr(array.dtype, "kind", "O")
    if kind in "OSTU" and getattr(array, "ndim", 0) == 1:  # labels: texts, of whichever of their many types
        return _texts(array)
    if kind not in "biufc":
        raise UnreadableError(f"holds values of type {array.dtype}, which are neither numbers nor texts")
    return Rows(array)


def _texts(array: Any) -> np.ndarray:
    values = array.asstr()[:] if hasattr(array, "asstr") and array.dtype.kind == "O" else np.asarray(array[:])
    decoded = [value.decode("utf-8", "replace") if isinstance(value, bytes) else value for value in values.tolist()]
    if not all(isinstance(value, str) for value in decoded):
        raise UnreadableError("holds Python objects, which are never loaded")
    return np.array(decoded, dtype=str)


@functools.lru_cache(maxsize=16)
def _opened(path: str, stamp: tuple[int, int], process: int) -> dict[str, Any]:
    return _hdf5(path) if os.path.splitext(path)[1].lower() in HDF5 else _zarr(path)


def _hdf5(path: str) -> dict[str, Any]:
    try:
        import h5py
    except ImportError:
        raise _missing("h5py", "hdf5") from None
    try:
        file = h5py.File(path, "r", locking=False)
        return _datasets(file, h5py, "", {file["/"]})
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise UnreadableError(f"broken HDF5 file: {first_line(error)}") from None


def _datasets(group: Any, h5py: ModuleType, above: str, seen: set) -> dict[str, Any]:
    """Arrays of this file alone; a group that is reached twice counts once."""
    found: dict[str, Any] = {}
    for name in group:
        if isinstance(group.get(name, getlink=True), h5py.ExternalLink):
            continue
        one = group.get(name)
        if isinstance(one, h5py.Group):
            if one not in seen:  # compared by what they are in the file, not by name
                seen.add(one)
                found |= _datasets(one, h5py, f"{above}{name}/", seen)
        elif isinstance(one, h5py.Dataset) and one.ndim and not one.is_virtual and not one.external:
            found[above + name] = one
    return found


def _zarr(path: str) -> dict[str, Any]:
    try:
        import zarr
    except ImportError:
        raise _missing("zarr", "zarr") from None
    try:
        opened = zarr.open(path, mode="r")
        if isinstance(opened, zarr.Array):
            return {"": opened}
        return {name: one for name, one in sorted(opened.members(max_depth=None)) if isinstance(one, zarr.Array)}
    except Exception as error:  # zarr raises what its many parts raise: JSON, codecs, stores
        raise UnreadableError(f"broken Zarr store: {first_line(error)}") from None


def _missing(package: str, extra: str) -> DataError:
    return DataError(f"Reading this file takes {package}.", hint=f"pip install 'selftaught[{extra}]'")
