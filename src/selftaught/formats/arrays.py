"""Arrays on disk: ``.npy`` and ``.npz``, memory-mapped wherever the file allows it; HDF5 and Zarr (``stores``).

``file.npz`` means one of its members: ``x``, ``images``, ``data`` and the like, or the only one; ``file.npz::train_x``
or ``file.h5::train/x`` names it. Members of an ``.npz`` that are stored uncompressed are mapped where they lie in the
zip; compressed ones are unpacked once per process. Pickled objects are never loaded: a pickle can run any code.
"""

from __future__ import annotations

import functools
import os
import re
import struct
import zipfile
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy

from selftaught.errors import DataError, UnreadableError, first_line, nearest
from selftaught.formats import stores

EXTENSIONS = frozenset({".npy", ".npz"}) | stores.EXTENSIONS
SEPARATOR = "::"
_KEYED = re.compile(r"(.*?\.(?:np[yz]|h5|hdf5|zarr))::(.*)", re.IGNORECASE | re.DOTALL)
SAMPLES = ("x", "X", "images", "train_images", "data", "train_x", "X_train", "x_train", "signal", "samples")
_LABEL_WORDS = {"x": "y", "X": "y", "images": "labels", "data": "labels", "signal": "label", "samples": "labels"}
LABELS = ("y", "Y", "label", "labels", "target", "targets")
GROUPS = ("group", "groups", "subject", "subjects", "patient", "speaker", "session")


def split_key(path: str | Path) -> tuple[str, str | None]:
    """``"a.npz::train_x"`` -> ``("a.npz", "train_x")``; ``"a.npz"`` -> ``("a.npz", None)``."""
    found = _KEYED.match(str(path))
    return (found[1], found[2]) if found else (str(path), None)


def is_array(path: str | Path) -> bool:
    return split_key(path)[0].lower().endswith(tuple(EXTENSIONS))


def keys(path: str | Path) -> list[str]:
    """The members of an ``.npz``, HDF5 file or Zarr group, in order; ``[]`` for a file that is one array."""
    file, _ = split_key(path)
    if stores.is_store(file):
        return [name for name in stores.members(file, _stamp(file)) if name]
    if not file.lower().endswith(".npz"):
        return []
    return list(_members(file, _stamp(file)))


def choose_key(path: str | Path, key: str | None = None) -> str:
    """The member that holds the samples. Raises ``DataError`` that names the members where it cannot be told."""
    file, named = split_key(path)
    key, members = key or named, keys(file)
    if key is None and not members and stores.is_store(file):
        if not stores.members(file, _stamp(file)):
            raise DataError(f"{Path(file).name} holds no arrays that can be used.")
        return ""  # a Zarr store that is one array
    if key is not None:
        if key not in members:
            known = nearest(key, members) or f"It holds: {', '.join(members) or 'one array, without a name'}."
            raise DataError(f"{Path(file).name} holds no array named {key!r}.", hint=known)
        return key
    for known in (*SAMPLES, *members[: len(members) == 1]):
        if known in members:
            return known
    hint = f"It holds: {', '.join(members)}. Name one: {Path(file).name}{SEPARATOR}{members[0] if members else 'x'}"
    raise DataError(f"{Path(file).name} does not say which of its arrays holds the samples.", hint=hint)


def partner(path: str | Path, names: tuple[str, ...] = LABELS) -> str | None:
    """The path (``file::key``) of the labels that go with the samples in ``path``, or None: ``train_x`` -> ``train_y``.

    With ``names=GROUPS`` the member that says what must stay together. An ``a.npy`` goes with ``a.y.npy`` beside it.
    """
    file, _ = split_key(path)
    if file.lower().endswith(".npy"):
        beside = f"{file[: -len('.npy')]}.{names[0]}.npy"
        return beside if os.path.exists(beside) else None
    key, members = choose_key(path), keys(file)
    group, base = key[: key.rfind("/") + 1], key[key.rfind("/") + 1 :]
    words = [base.replace(word, label) for word, label in _LABEL_WORDS.items() if word in base.split("_")]
    candidates = (*words, *names) if names is LABELS else names
    beside = [above + name for above in dict.fromkeys((group, "")) for name in candidates]
    found = next((name for name in beside if name in members and name != key), None)
    return f"{file}{SEPARATOR}{found}" if found else None


def open_array(path: str | Path, key: str | None = None) -> np.ndarray:
    """The array, read-only, memory-mapped where possible; ``path`` may name the member (``file.npz::key``).

    Raises ``UnreadableError`` (broken, pickled objects) and ``DataError`` (which member is meant).
    """
    file, named = split_key(path)
    if stores.is_store(file):
        return stores.open_member(file, choose_key(file, key or named), _stamp(file))  # type: ignore[return-value]
    if file.lower().endswith(".npy"):
        return _open_npy(file, _stamp(file))
    return _open_member(file, choose_key(file, key or named), _stamp(file))


def rows(path: str | Path) -> int:
    """How many samples: the first axis."""
    array = open_array(path)
    if array.ndim == 0:
        raise UnreadableError("holds a single number, not an array of samples")
    return len(array)


def _stamp(file: str) -> tuple[int, int]:
    """What tells a rewritten file from the one that a process has open already."""
    try:
        facts = os.stat(file)
    except OSError as error:
        raise UnreadableError(f"cannot be opened: {error.strerror}") from None
    return facts.st_size, facts.st_mtime_ns


@functools.lru_cache(maxsize=16)
def _members(file: str, stamp: tuple[int, int]) -> dict[str, zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(file) as archive:
            found = [info for info in archive.infolist() if info.filename.endswith(".npy")]
    except Exception as error:  # zipfile's own errors, and those of the parts that it is made of
        raise UnreadableError(f"not an .npz archive: {first_line(error)}") from None
    return {info.filename.removesuffix(".npy"): info for info in found}


@functools.lru_cache(maxsize=16)
def _open_npy(file: str, stamp: tuple[int, int]) -> np.ndarray:
    with open(file, "rb") as opened:
        return _map(file, opened, stamp[0])


@functools.lru_cache(maxsize=16)
def _open_member(file: str, key: str, stamp: tuple[int, int]) -> np.ndarray:
    info = _members(file, stamp)[key]
    if info.compress_type != zipfile.ZIP_STORED:
        return _unpack(file, info)
    with open(file, "rb") as opened:
        opened.seek(max(0, info.header_offset))
        header = opened.read(30)
        if info.header_offset < 0 or len(header) < 30:
            raise UnreadableError(f"broken .npz archive: {key!r} does not lie where its directory says")
        # the local header has its own name and extra field, whose lengths may differ from the directory's
        name, extra = struct.unpack("<HH", header[26:30])
        start = info.header_offset + 30 + name + extra
        opened.seek(start)
        return _map(file, opened, start + info.file_size)


def _unpack(file: str, info: zipfile.ZipInfo) -> np.ndarray:
    try:
        with zipfile.ZipFile(file) as archive, archive.open(info) as member:
            array = npy.read_array(member, allow_pickle=False)
    except Exception as error:  # numpy reads the header with Python's own parser; zlib and zipfile have errors as well
        raise UnreadableError(_reason(error)) from None
    array.flags.writeable = False
    return array


def _map(file: str, opened: BinaryIO, end: int) -> np.ndarray:
    """Maps the array whose ``.npy`` header starts where ``opened`` stands and that must end by byte ``end``."""
    try:
        version = npy.read_magic(opened)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(opened)
    except Exception as error:  # as above
        raise UnreadableError(_reason(error)) from None
    if dtype.hasobject:
        raise UnreadableError("holds pickled Python objects, which are never loaded: save it as a plain array")
    offset, size = opened.tell(), dtype.itemsize * int(np.prod(shape, dtype=object))
    if offset + size > end:
        raise UnreadableError(f"truncated: {end - offset:,} of {size:,} bytes are there")
    if not size:
        return np.empty(shape, dtype)
    order = "F" if fortran else "C"
    return np.memmap(file, dtype=dtype, mode="r", offset=offset, shape=shape, order=order)


def _reason(error: Exception) -> str:
    if "allow_pickle" in str(error) or "Object arrays" in str(error):
        return "holds pickled Python objects, which are never loaded: save it as a plain array"
    return f"broken array: {(str(error).splitlines() or ['it ends too early'])[0][:120]}"
