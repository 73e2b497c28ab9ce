"""Loader processes: made quietly, deaf to the signals meant for their parent, and gone when it is."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from typing import Any

import cv2
import torch

from selftaught.errors import WorkerError

_PR_SET_PDEATHSIG = 1
_LOWEST = 19  # of Unix's priorities
_NOT_OURS = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGHUP")


def set_up(*, give_way: bool = False) -> Callable[[int], None]:
    """What each process runs first; made in the parent, whose pid it must know. ``give_way``: at the lowest priority.

    Where training and workers share the processor, a worker that interrupts one of the training's threads makes all of
    them wait; one that runs while the training waits for data costs nobody anything (docs/log.md: 12 % faster).
    """
    return partial(_in_worker, os.getpid(), give_way)


def _in_worker(parent: int, give_way: bool, worker: int) -> None:
    _die_with(parent)
    if give_way:
        os.nice(_LOWEST)
    # Ctrl-C, and a scheduler that signals every process of a job, must reach the parent alone: it finishes the step and
    # saves, and needs batches until then. The parent ends us through torch's own event, or by dying.
    for name in _NOT_OURS:
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def _die_with(parent: int) -> None:
    """SIGKILL when the parent dies, however it dies (Linux). The kernel watches the *thread* that forked us."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the request was made
        os._exit(1)


@contextlib.contextmanager
def unwarned() -> Iterator[None]:
    """Without what Python and torch say of processes whose number somebody chose."""
    with warnings.catch_warnings():
        # Python 3.12 warns when a process with threads forks; the children run numpy, OpenCV and torch on one thread
        warnings.filterwarnings("ignore", message=".*fork.*", category=DeprecationWarning)
        # how many workers are too many, who asked for them knows: reading from elsewhere waits more than it works
        warnings.filterwarnings("ignore", message=".*will create .* worker processes.*", category=UserWarning)
        yield


def start(loader: torch.utils.data.DataLoader) -> tuple[Iterator[Any], list[BaseProcess]]:
    """``iter(loader)`` and its processes, without side effects on this one: no warning, no signal handler left."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGCHLD) if main else None
    others = set(multiprocessing.active_children())
    with unwarned():
        batches = iter(loader)
    if before is not None:
        # torch's handler raises in the middle of whatever the main thread does, a checkpoint for instance; without it
        # the death of a worker is noticed within five seconds, where the next batch is asked for
        signal.signal(signal.SIGCHLD, before)
    return batches, [process for process in multiprocessing.active_children() if process not in others]


def death(workers: Sequence[BaseProcess]) -> WorkerError | None:
    """The error for a worker that died, or None where all live: then whatever went wrong is something else.

    A batch on its way from a dead worker fails in many ways (a closed pipe, a missing file, torch's own message), and
    may fail a moment before the process is gone.
    """
    ended = connection.wait([worker.sentinel for worker in workers], timeout=1.0)
    for worker in workers:
        if worker.sentinel in ended:
            worker.join(1.0)  # its pipes close before the kernel reports it dead
    dead = [worker for worker in workers if not worker.is_alive()]
    if not dead:
        return None
    code = dead[0].exitcode or 0
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    hint = "Most often the machine ran out of memory: try fewer --workers or a smaller --batch-size."
    return WorkerError(f"A loader process died (pid {dead[0].pid}, {how}).", hint=hint)
