"""Decoded samples, kept for the epochs after the first: ``--cache-gb``.

What is kept is what decoding gave, bit for bit, at the scale that was asked for, so a run is the same with it and
without. The first samples that fit are kept and none is thrown out: every epoch draws all of them in another order, and
whatever is thrown out is as likely to be needed next as what takes its place.

It is one file without a name, shared by the workers of a process: it is gone with them, however they end. It is read
and written by position, never mapped: a full disk is then an error that can be met, where a mapped page would kill.
"""

from __future__ import annotations

import mmap
import multiprocessing
import os
import struct
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from selftaught.errors import ConfigError, DataError
from selftaught.formats import pictures
from selftaught.types import Sample

SCALES = 8  # eighths of full size, which JPEGs are decoded at
AXES = 4  # of a sample, at most
_KINDS = tuple(np.dtype(name) for name in ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8", "?"))
_HEAD = struct.Struct(f"<{4 + AXES}q")  # row, scale, kind, axes, lengths: in front of each kept array
_STATE, _KIND, _SCALES, _SHAPE, _PLACES = 0, 1, 2, slice(3, 3 + AXES), 3 + AXES  # columns of the table
_UNKNOWN, _ENCODED, _PLAIN, _NEVER = range(4)  # states of a row


class Decoded:
    """Room for decoded samples of ``rows`` rows of an index, up to ``gigabytes`` (10^9 bytes) in all.

    Make it before the workers are forked, which share it. ``asked`` and ``found`` count in each process for itself.
    Raises ``ConfigError`` where processes do not fork, ``DataError`` where nothing can be written.
    """

    def __init__(self, rows: int, gigabytes: float, folder: Path) -> None:
        if multiprocessing.get_start_method() != "fork":
            raise ConfigError("The 'cache_gb' parameter needs processes that fork, which this system lacks.")
        self.asked = self.found = 0
        self._limit = int(gigabytes * 1e9)
        self._lock = multiprocessing.Lock()
        self._name = ""  # of the stream, once this process has read a sample
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115  # open as long as this object
        except OSError as error:
            hint = "Set SELFTAUGHT_CACHE to a folder that can be written to."
            raise DataError(f"Nothing can be kept in {str(folder)!r}: {error.strerror}.", hint=hint) from None
        weakref.finalize(self, file.close)
        self._file = file
        columns = _PLACES + SCALES
        # anonymous, so that workers see each other's entries; pages that are never touched cost nothing
        numbers = np.frombuffer(mmap.mmap(-1, 8 * (1 + rows * columns)), np.int64)
        self._end, self._table = numbers[:1], numbers[1:].reshape(rows, columns)

    @property
    def size(self) -> int:
        """Bytes kept."""
        return int(self._end[0])

    def sample(self, row: int, read: Callable[[], Sample]) -> Sample:
        """The sample of ``row``: ``read()``, or what is kept of it; then the file is not even opened."""
        facts = self._table[row]
        if not self._name or facts[_STATE] in (_UNKNOWN, _NEVER):
            sample = read()
            if facts[_STATE] == _UNKNOWN:
                self._meet(facts, sample)
            if facts[_STATE] == _NEVER:
                return sample
            (self._name,) = sample.streams
            return self._again(row, lambda: sample.data)
        return self._again(row, lambda: read().data)

    def _again(self, row: int, read: Callable[[], Any]) -> Sample:
        """A sample that can be kept, read by ``read`` where it is not."""
        facts = self._table[row]
        if facts[_STATE] == _ENCODED:
            shape = facts[_SHAPE].tolist()[:3]
            return Sample({self._name: Kept(self, row, shape, _KINDS[facts[_KIND]], bool(facts[_SCALES]), read)})
        return Sample({self._name: self.array(row, SCALES, lambda: np.asarray(read()))})

    def _meet(self, facts: np.ndarray, sample: Sample) -> None:
        """Notes what a sample is. One stream, all of it observed, can be kept; mapped arrays are as good as kept."""
        streams = list(sample.streams.values())
        stream = streams[0]
        several = len(streams) > 1 or sample.observed or sample.facts or sample.target is not None
        if several or _is_mapped(stream) or np.dtype(stream.dtype) not in _KINDS or len(stream.shape) > AXES:
            facts[_STATE] = _NEVER
            return
        encoded = hasattr(stream, "decode")
        facts[_KIND], facts[_SCALES] = _KINDS.index(np.dtype(stream.dtype)), getattr(stream, "scales", False)
        facts[_SHAPE] = (*stream.shape, *[0] * (AXES - len(stream.shape)))
        facts[_STATE] = _ENCODED if encoded else _PLAIN  # last: other workers look at it first

    # --- arrays -------------------------------------------------------------------------------------------------------

    def array(self, row: int, scale: int, make: Callable[[], np.ndarray]) -> np.ndarray:
        """What is kept of a row at ``scale`` (1 to 8), or else ``make()``, which is kept if there is room."""
        self.asked += 1
        array = self._get(row, scale)
        if array is not None:
            self.found += 1
            return array
        array = make()
        self._put(row, scale, array)
        return array

    def _get(self, row: int, scale: int) -> np.ndarray | None:
        place = int(self._table[row, _PLACES + scale - 1])
        if not place:
            return None
        at = place - 1
        head = os.pread(self._file.fileno(), _HEAD.size, at)
        if len(head) < _HEAD.size:
            return None
        whose, which, kind, axes, *lengths = _HEAD.unpack(head)
        if (whose, which) != (row, scale):
            return None
        array = np.empty(lengths[:axes], _KINDS[kind])
        there = os.preadv(self._file.fileno(), [array.reshape(-1).view(np.uint8).data], at + _HEAD.size)
        return array if there == array.nbytes else None

    def _put(self, row: int, scale: int, array: np.ndarray) -> None:
        if array.dtype not in _KINDS or array.ndim > AXES or not array.nbytes:
            return
        room = _HEAD.size + array.nbytes
        with self._lock:
            at = int(self._end[0])
            if at + room > self._limit:
                return
            self._end[0] = at + room
        lengths = (*array.shape, *[0] * (AXES - array.ndim))
        head = _HEAD.pack(row, scale, _KINDS.index(array.dtype), array.ndim, *lengths)
        pixels = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        try:
            written = os.pwritev(self._file.fileno(), [head, pixels], at)
        except OSError:  # the disk is full, or nearly: what was kept so far is used, nothing more is kept
            self._limit, written = 0, 0
        if written == room:
            self._table[row, _PLACES + scale - 1] = at + 1  # 0 means that nothing is there


class Kept:
    """One sample that is encoded in its file, or decoded among those that are kept. ``shape`` is known either way."""

    __slots__ = ("_kept", "_read", "_row", "_scales", "dtype", "shape")

    def __init__(
        self, kept: Decoded, row: int, shape: list[int], dtype: np.dtype, scales: bool, read: Callable[[], Any]
    ) -> None:
        self._kept, self._row, self._scales, self._read = kept, row, scales, read
        self.shape, self.dtype = tuple(shape), dtype

    def decode(self, smallest: float = 1.0) -> np.ndarray:
        """As the encoded sample's own ``decode``, of which it is the result."""
        scale = pictures.eighths(self.shape[:2], smallest) if self._scales else SCALES
        return self._kept.array(self._row, scale, lambda: self._read().decode(smallest))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.decode() if dtype is None else self.decode().astype(dtype, copy=False)


def _is_mapped(stream: Any) -> bool:
    """Whether an array is a part of a file that is mapped."""
    while isinstance(stream, np.ndarray):
        if isinstance(stream, np.memmap):
            return True
        stream = stream.base
    return isinstance(stream, mmap.mmap)
