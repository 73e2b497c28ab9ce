"""Freed memory stays with the process while it trains on a processor.

glibc takes every large tensor from the system and gives it back when it is freed, and the system clears each page
anew: 11,000 page faults a step of a small convnet, a fifth of its time (docs/log.md). Larger blocks still go back: kept
too, they add a third to the memory of a ResNet-18 at 224 pixels and nothing to its speed. Other C libraries, and
accelerators, which keep memory themselves, are left alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import platform
from collections.abc import Iterator

TRIM, MAP = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
WHILE_TRAINING = {MAP: 2**27, TRIM: -1}  # blocks up to 128 MiB come from the heap, and the heap never shrinks
AFTERWARDS = {MAP: 2**25, TRIM: 2**26}  # where glibc's own adaptation ends: 32 MiB, and twice that

_inside = 0  # trainings that are under way in this process


@contextlib.contextmanager
def kept_memory() -> Iterator[None]:
    """Until the outermost one ends, when what is free goes back to the system."""
    global _inside
    libc = _glibc()
    _inside += 1
    if libc is not None and _inside == 1:
        _set(libc, WHILE_TRAINING)
    try:
        yield
    finally:
        _inside -= 1
        if libc is not None and _inside == 0:
            _set(libc, AFTERWARDS)
            release()


def release() -> None:
    """Gives what is free back to the system now: before workers are forked, who would keep a copy of it as their own.

    Measured (ResNet-18, 224 pixels, two workers): docs/log.md.
    """
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


def _set(libc: ctypes.CDLL, values: dict[int, int]) -> None:
    for key, value in values.items():
        libc.mallopt(ctypes.c_int(key), ctypes.c_int(value))
