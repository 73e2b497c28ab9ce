"""NIfTI volumes as pictures: one slice after the other, upright, whichever way the scanner stored them.

Axes are turned to the nearest anatomical ones (left to right, back to front, foot to head), so that ``axis`` 2 cuts
axial slices of every volume, 1 coronal and 0 sagittal ones, each with its front, or the head, on top.
"""

from __future__ import annotations

import contextlib
import functools
import os
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from selftaught.errors import DataError, UnreadableError, first_line
from selftaught.formats import files
from selftaught.formats.silence import silent

EXTENSIONS = frozenset({".nii", ".nii.gz"})
LARGEST = 2**32  # bytes of an unpacked volume
_KEPT = 4  # volumes that a process keeps: slices of one are mostly asked for one after the other


def slices(path: str, axis: int) -> int:
    """How many slices, those of all time points together. Raises ``UnreadableError``."""
    with _header():
        shape = _turned_shape(_opened(_start(path), path), path)
        return shape[axis] * int(np.prod(shape[3:], dtype=np.int64))


@contextlib.contextmanager
def _header() -> Iterator[None]:
    """A header's numbers may be anything, and nibabel looks at most of them when they are asked for."""
    try:
        yield
    except (UnreadableError, DataError):
        raise
    except Exception as error:
        raise UnreadableError(f"broken NIfTI header: {first_line(error)}") from None


def read_slice(path: str, part: int, axis: int) -> np.ndarray:
    """(Y, X, 1), as stored, or float32 where the file scales its values. Raises ``UnreadableError``."""
    volume = _volume(path, files.stat(path))
    count = volume.shape[axis]
    time, place = divmod(part, count)
    if time >= volume.shape[3]:
        raise UnreadableError(f"has {count * volume.shape[3]} slices, number {part + 1} was asked for")
    plane = volume[..., time].take(place, axis=axis)  # (first, second) of the axes left
    return np.ascontiguousarray(plane.T[::-1, :, None])


@functools.lru_cache(maxsize=_KEPT)
def _volume(path: str, stamp: tuple[int, int]) -> np.ndarray:
    """(X, Y, Z, T) along anatomical axes."""
    import nibabel as nib

    with _header():
        data = _inflated(files.read(path), _needed(_opened(_start(path), path)))
    try:
        with silent():
            image = nib.as_closest_canonical(_opened(data, path))
            values = np.asanyarray(image.dataobj)
    except UnreadableError:
        raise
    except Exception as error:
        raise UnreadableError(f"truncated or corrupt NIfTI: {first_line(error)}") from None
    if values.dtype.kind not in "biuf":
        raise UnreadableError(f"holds values of type {values.dtype}, which are not pixels")
    values = values.astype(np.float32) if values.dtype == np.float64 else values
    return values.reshape(*values.shape[:3], -1)


def _needed(image: Any) -> int:
    """Bytes of the whole file once unpacked, as its header says: what comes after that is not unpacked."""
    header = image.header
    values = int(np.prod(header.get_data_shape(), dtype=object))
    needed = int(image.dataobj.offset) + values * header.get_data_dtype().itemsize
    if not 0 < needed <= LARGEST:
        raise UnreadableError(f"claims {needed:,} bytes, more than {LARGEST:,}")
    return needed


def _opened(data: bytes, path: str) -> Any:
    """A NIfTI image of the whole file's bytes, or of its first ones, for what its header says."""
    try:
        import nibabel as nib
    except ImportError:
        raise DataError("Reading NIfTI takes nibabel.", hint="pip install 'selftaught[nifti]'") from None
    kind = nib.Nifti2Image if data[:4] in (b"\x1c\x02\x00\x00", b"\x00\x00\x02\x1c") else nib.Nifti1Image
    try:
        with silent():  # it says what it corrects in a header, once for each slice
            return kind.from_bytes(data)
    except Exception as error:
        raise UnreadableError(f"no NIfTI volume: {first_line(error)}") from None


def _turned_shape(image: Any, path: str) -> tuple[int, ...]:
    import nibabel as nib

    shape = image.shape
    if len(shape) not in (3, 4, 5) or 0 in shape:
        raise UnreadableError(f"a NIfTI file of shape {shape}, not a volume")
    order = nib.io_orientation(image.affine)[:, 0]
    if np.isnan(order).any() or sorted(order) != [0, 1, 2]:
        raise UnreadableError("its header does not say which way its axes point")
    turned = [0, 0, 0]
    for stored, anatomical in enumerate(order.astype(int)):
        turned[anatomical] = shape[stored]
    return (*turned, *shape[3:])


def _start(path: str) -> bytes:
    """Enough of the file for its header, unpacked."""
    return _inflated(files.read(path, 2**16) if files.stat(path)[0] > 2**16 else files.read(path), 4096)


def _inflated(data: bytes, most: int) -> bytes:
    if data[:2] != b"\x1f\x8b":
        return data
    try:
        return zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(data, most)
    except zlib.error as error:
        raise UnreadableError(f"corrupt gzip: {first_line(error)}") from None


def is_nifti(path: str) -> bool:
    return os.path.basename(path).lower().endswith((".nii", ".nii.gz"))
