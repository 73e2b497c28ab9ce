"""Other people's warnings kept quiet, in many threads at once, which ``warnings.catch_warnings`` is not made for."""

from __future__ import annotations

import contextlib
import logging
import threading
import warnings
from collections.abc import Iterator

_LOCK = threading.Lock()
_inside = 0  # threads
_undo = contextlib.ExitStack()


LOGGERS = ("pydicom", "nibabel.global")


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Nothing is warned of or logged inside; the last thread to leave puts back what the first one found."""
    global _inside
    with _LOCK:
        if _inside == 0:
            _undo.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
            for log in map(logging.getLogger, LOGGERS):
                _undo.callback(log.setLevel, log.level)
                log.setLevel(logging.CRITICAL + 1)
        _inside += 1
    try:
        yield
    finally:
        with _LOCK:
            _inside -= 1
            if _inside == 0:
                _undo.close()
