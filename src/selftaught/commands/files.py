"""Files that a command writes where the user says: checked before any work, written whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from selftaught.errors import ConfigError, must_be


def writable(out: str | os.PathLike[str], caller: str, endings: Sequence[str]) -> Path:
    """``out`` as a path. Raises ConfigError for another ending, or a folder that is not there or cannot be written."""
    path = Path(out)
    if path.suffix not in endings:
        *most, last = endings
        wanted = f"{', '.join(most)} or {last}" if most else last
        raise ConfigError(must_be("out", caller, f"a file ending in {wanted}", str(out)))
    folder = path.absolute().parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ConfigError(must_be("out", caller, "a file in a folder that can be written to", str(out)))
    return path


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Another name to write to; the file gets its own once it is whole."""
    fresh = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield fresh
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def write_table(path: Path, columns: Mapping[str, Any]) -> None:
    """Columns of equal length, as .csv or .parquet by the path's ending."""
    import pyarrow as pa
    import pyarrow.csv as csv
    import pyarrow.parquet as pq

    with whole(path) as fresh:
        (csv.write_csv if path.suffix == ".csv" else pq.write_table)(pa.table(dict(columns)), fresh)


def write_array(path: Path, values: Any) -> None:
    """One ``.npy``."""
    import numpy as np

    with whole(path) as fresh, fresh.open("wb") as file:
        np.save(file, values)
