"""What can go wrong, and what the shell is told.

::

    SelftaughtError                 exit code 1
    ├── RequestError                2   the request is wrong; nothing was read or written
    │   ├── ConfigError             2   unknown key or flag, value out of range
    │   ├── MethodError             2   a method that does not exist or does not fit
    │   ├── EncoderError            2   an encoder that does not exist or does not fit
    │   ├── ModalityError           2   data of a kind that cannot be told or used
    │   ├── DataError               2   no such data, nothing usable in it
    │   └── RunError                2   a run folder that is not one, is in use, or holds another run
    ├── UnreadableError             1   one file or item that cannot be read (quarantined, not fatal)
    ├── QuarantineError             1   more than the accepted share of the data cannot be read
    ├── CheckpointError             1   a checkpoint that cannot be written, or none that can be read
    ├── WriteError                  1   any other file that cannot be written: a full disk, a limit, no permission
    ├── WorkerError                 1   a loader process or a rank died
    ├── DivergedError               1   the loss is not finite
    ├── OutOfMemory                 1   a step takes more memory than there is
    └── Interrupted                 130 stopped by a signal, after a checkpoint

One sentence form: *The 'temperature' parameter of SimCLR must be a float in (0, inf). Got 0 instead.* Then a hint.
"""

from __future__ import annotations

import difflib
import errno
import os
from collections.abc import Iterable
from typing import ClassVar


class SelftaughtError(Exception):
    """Base of every error that the package raises on purpose.

    ``str(error)`` is one sentence; ``error.hint`` is what to do about it ("" where there is nothing to say).
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def __reduce__(self):  # so that a loader process can hand it to the main one, hint included
        return _rebuild, (type(self), str(self), self.hint)


class RequestError(SelftaughtError):
    """The request is wrong. Raised before data are decoded and before a directory is made."""

    exit_code = 2


class ConfigError(RequestError):
    """Unknown key or flag, or a value outside its range."""


class MethodError(RequestError):
    """A method that does not exist, or does not fit the encoder or the modality."""


class EncoderError(RequestError):
    """An encoder that does not exist, or does not fit the input."""


class ModalityError(RequestError):
    """Data whose kind cannot be told, or that this modality cannot use."""


class DataError(RequestError):
    """Data that are not there, or hold nothing usable."""


class RunError(RequestError):
    """A run folder that is not one, is in use, or holds a different run."""


class UnreadableError(SelftaughtError):
    """One file or item cannot be read; the message is the reason alone, without the path."""


class QuarantineError(SelftaughtError):
    """More than the accepted share of the data cannot be read."""


class CheckpointError(SelftaughtError):
    """A checkpoint cannot be written, or none of those there can be read."""


class WriteError(SelftaughtError):
    """A file cannot be written: the disk is full, a limit is reached, or it may not be written to."""


class WorkerError(SelftaughtError):
    """A loader process or another rank died."""


class DivergedError(SelftaughtError):
    """The loss is not finite; names the step, whose batch is replayable from (seed, step)."""


class OutOfMemory(SelftaughtError):
    """A step takes more memory than there is. ``fits``: samples of which one does not; 0 where that is not known."""

    def __init__(self, message: str, *, hint: str = "", fits: int = 0) -> None:
        super().__init__(message, hint=hint)
        self.fits = fits


class Interrupted(SelftaughtError):
    """Stopped by a signal, after a checkpoint was written."""

    exit_code = 130


def first_line(error: Exception) -> str:
    """What somebody else's error says, as a part of a sentence of ours: its first line, or else its name."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120].rstrip(".")


def cannot_write(error: OSError) -> WriteError | None:
    """The error for a full disk and its like; None for another one."""
    number = number_of(error)
    if number not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS):
        return None
    where = f" {error.filename!r}" if error.filename else ""
    hint = "What was there before still stands. Make room, then give the same command again."
    return WriteError(f"A file{where} cannot be written: {os.strerror(number)}.", hint=hint)


def number_of(error: OSError) -> int | None:
    """``errno``; that of a full disk where numpy only says how much it could write."""
    short = error.errno is None and "requested and" in str(error) and str(error).endswith("written")
    return errno.ENOSPC if short else error.errno


def is_out_of_memory(error: BaseException) -> bool:
    """Whether something failed for want of memory: of an accelerator, or of the machine. Knows torch's words for it."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    words = ("can't allocate memory", "out of memory", "cannot allocate memory")
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)


def must_be(name: str, caller: str, constraint: str, got: object) -> str:
    """The one sentence form: ``The 'name' parameter of caller must be constraint. Got value instead.``"""
    return f"The {name!r} parameter of {caller} must be {constraint}. Got {got!r} instead."


def nearest(name: str, names: Iterable[str], *, least: float = 0.6) -> str:
    """The hint ``Did you mean 'simclr'?``, or "" when no name is so close (``least``, of 1 for the same name)."""
    known = sorted(names)
    close = difflib.get_close_matches(name.lower(), known, n=1, cutoff=least)
    return f"Did you mean {close[0]!r}?" if close else ""


def _rebuild(kind: type[SelftaughtError], message: str, hint: str) -> SelftaughtError:
    return kind(message, hint=hint)
