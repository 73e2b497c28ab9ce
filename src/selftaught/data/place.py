"""Where things that can be made again are kept (indexes and spooled arrays), and how they get there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from selftaught.errors import WriteError, number_of


def cache_folder(cache: str | Path | None = None) -> Path:
    """``cache``, else ``$SELFTAUGHT_CACHE``, else the platform's cache folder. Not made here."""
    if cache is not None:
        return Path(cache)
    if named := os.environ.get("SELFTAUGHT_CACHE"):
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "selftaught"


def write_atomically(path: Path, what: str, write: Callable[[str], None]) -> None:
    """``write(temporary path)``, then a rename: nobody sees half a file. Raises ``WriteError`` naming ``what``."""
    unfinished = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(str(unfinished))
        os.replace(unfinished, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        number = number_of(error) if isinstance(error, OSError) else None
        if number is None:  # also Arrow's, of what it reads
            raise
        why = os.strerror(number)  # Arrow's words are longer
        hint = f"Set SELFTAUGHT_CACHE to a folder with room; this one is {str(cache_folder())!r}."
        if cache_folder() not in path.parents:
            hint = "Make room there, or choose another place."
        raise WriteError(f"The {what} cannot be written to {str(path.parent)!r}: {why}.", hint=hint) from None
