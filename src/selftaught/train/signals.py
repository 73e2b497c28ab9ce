"""Requests from outside the training: stop, or save and go on.

SIGTERM and SIGINT ask for a checkpoint and an end; a second SIGINT ends at once. SIGUSR1 (what batch systems send
before they take the machine back) asks for a checkpoint. Handlers only set a mark: the loop acts between two steps, and
all ranks act at the same step.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

import torch
import torch.distributed as dist

from selftaught.nn import batchwise

EVERY_ON_DEVICE = 10  # steps between agreements on accelerators, where waiting for each other costs more


class Signals:
    """A context: handlers are there inside it, and the old ones back after it. Does nothing off the main thread."""

    def __init__(self) -> None:
        self.stop = ""  # name of the signal that asked to stop
        self.save = False  # set by SIGUSR1; whoever saves takes it back
        self._old: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
                self._old[number] = signal.signal(number, self._mark)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _mark(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGUSR1:
            self.save = True
        elif number == signal.SIGINT and self.stop:
            raise KeyboardInterrupt
        else:
            self.stop = signal.Signals(number).name


class Agreement:
    """All ranks stop at the same step: the highest of their marks counts, asked for over gloo, away from the device."""

    def __init__(self, *, on_device: bool) -> None:
        self.every = EVERY_ON_DEVICE if on_device else 1
        alone = batchwise.world() == 1
        self.group = None if alone or dist.get_backend() == "gloo" else dist.new_group(backend="gloo")

    def highest(self, mark: int, step: int) -> int:
        """The largest ``mark`` of all ranks, or 0 on steps at which nobody asks."""
        if batchwise.world() == 1:
            return mark
        if step % self.every:
            return 0
        marks = torch.tensor([mark])
        dist.all_reduce(marks, dist.ReduceOp.MAX, group=self.group)
        return int(marks)
