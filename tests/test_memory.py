"""Freed memory stays with the process while it trains, and only then."""

from __future__ import annotations

import platform
import resource

import psutil
import pytest
import torch

from selftaught.train.feed import Feed
from selftaught.train.memory import kept_memory

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left alone")


def faults() -> int:
    """Page faults of taking, filling and freeing 64 MB ten times."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(16 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@glibc
def test_freed_blocks_are_used_again_while_training() -> None:
    usual = faults()
    with kept_memory():
        faults()  # the first of them takes the memory from the system
        assert faults() < usual / 10
        with kept_memory():
            pass
        assert faults() < usual / 10, "an inner training ended the outer one's"
        kept = psutil.Process().memory_info().rss
    assert psutil.Process().memory_info().rss < kept - 50 * 2**20, "64 MB that nobody uses any more"


@glibc
def test_free_memory_goes_back_before_workers_are_forked() -> None:
    """A worker gets a copy of its parent, free blocks and all: 200 MB each at 224 pixels (docs/log.md)."""
    with kept_memory():
        faults()
        kept = psutil.Process().memory_info().rss
        assert list(Feed(lambda start, stop: [], 0, 1)) == []
        assert psutil.Process().memory_info().rss < kept - 50 * 2**20


def test_an_error_passes_through() -> None:
    with pytest.raises(ValueError, match="mine"), kept_memory():
        raise ValueError("mine")
