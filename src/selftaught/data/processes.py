"""Loader processes: made quietly, deaf to the signals meant for their parent, and gone when it is."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import cv2
import torch

from selftaught.errors import WorkerError

_PR_SET_PDEATHSIG = 1
_NOT_OURS = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGHUP")


def set_up() -> Callable[[int], None]:
    """What each process runs first; made in the parent, whose pid it must know."""
    return partial(_in_worker, os.getpid())


def _in_worker(parent: int, worker: int) -> None:
    _die_with(parent)
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


def start(loader: torch.utils.data.DataLoader) -> Iterator[Any]:
    """``iter(loader)`` without side effects on the process: no warning, no signal handler left behind."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGCHLD) if main else None
    with warnings.catch_warnings():
        # Python 3.12 warns when a process with threads forks; the children run numpy, OpenCV and torch on one thread
        warnings.filterwarnings("ignore", message=".*fork.*", category=DeprecationWarning)
        batches = iter(loader)
    if before is not None:
        # torch's handler raises in the middle of whatever the main thread does, a checkpoint for instance; without it
        # the death of a worker is noticed within five seconds, where the next batch is asked for
        signal.signal(signal.SIGCHLD, before)
    return batches


def explain(error: RuntimeError) -> WorkerError | None:
    """torch's words for a dead worker in one sentence; None where the error is another."""
    text = str(error)
    if "DataLoader worker" not in text or not ("exited unexpectedly" in text or "killed by signal" in text):
        return None
    found = re.search(r"pid(?:\(s\))? ([\d, ]+)", text)
    hint = "Most often the machine ran out of memory: try fewer --workers or a smaller --batch-size."
    return WorkerError(f"A loader process died (pid {found[1] if found else 'unknown'}).", hint=hint)
