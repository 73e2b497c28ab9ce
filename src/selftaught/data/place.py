"""Where things that can be made again are kept: indexes and spooled arrays."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(cache: str | Path | None = None) -> Path:
    """``cache``, else ``$SELFTAUGHT_CACHE``, else the platform's cache folder. Not made here."""
    if cache is not None:
        return Path(cache)
    if named := os.environ.get("SELFTAUGHT_CACHE"):
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "selftaught"
