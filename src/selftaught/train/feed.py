"""How batches reach the loop, and how long it waits for them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Protocol

from selftaught.train import memory
from selftaught.types import Batch


class Batches(Protocol):
    """``batches(start, stop)`` yields this rank's share of global batches start, …, stop - 1; may have ``close``, and
    count decoded samples that were asked for (``asked``) and kept since before (``found``).
    """

    def __call__(self, start: int, stop: int) -> Iterable[Batch]: ...


class Feed:
    """Iterates once; ``waited`` is in seconds since ``begin``. Close it, so that workers end."""

    def __init__(self, batches: Batches, start: int, stop: int) -> None:
        self.source = batches(start, stop) if start < stop else ()
        self._before = (0, 0)
        self.begin()

    def begin(self) -> None:
        """Counts anew from here."""
        self.waited, self._before = 0.0, self._counted()

    @property
    def kept(self) -> float | None:
        """Share of the decoded samples that were kept since before; None where none was asked for."""
        asked, found = (now - then for now, then in zip(self._counted(), self._before, strict=True))
        return found / asked if asked else None

    def _counted(self) -> tuple[int, int]:
        return getattr(self.source, "asked", 0), getattr(self.source, "found", 0)

    def __iter__(self) -> Iterator[Batch]:
        memory.release()  # the first batch starts the workers
        iterator = iter(self.source)
        while True:
            began = time.perf_counter()
            batch = next(iterator, None)
            self.waited += time.perf_counter() - began
            if batch is None:
                return
            yield batch

    def close(self) -> None:
        close = getattr(self.source, "close", None)
        if close is not None:
            close()
