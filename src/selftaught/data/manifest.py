"""Tables that say which samples there are: CSV, TSV, JSON lines; Parquet and Arrow (``columnar``), which may hold them.

Columns come as strings, "" where nothing is said; nested values are left alone.
"""

from __future__ import annotations

import csv
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from selftaught.data import columnar
from selftaught.errors import DataError

EXTENSIONS = frozenset({".csv", ".tsv", ".jsonl"}) | columnar.EXTENSIONS

SPLITS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
}


@dataclass(slots=True)
class Table:
    """Strings by column, all of one length; ``parts``: where the bytes of each row are, [] where rows name files."""

    columns: dict[str, tuple[str, ...]]
    names: list[str] = field(default_factory=list)  # of the rows that hold bytes
    parts: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.parts) or len(next(iter(self.columns.values()), ()))


def is_table(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in EXTENSIONS


def read_table(path: str, cache: str | Path | None = None, *, bytes_too: bool = False) -> Table:
    """A table by its extension. Raises ``DataError`` where it is empty, ragged or broken."""
    extension = os.path.splitext(path)[1].lower()
    name = os.path.basename(path)
    try:
        if extension in columnar.EXTENSIONS:
            return Table(*columnar.read_columns(path, cache, bytes_too=bytes_too))
        with open(path, newline="", encoding="utf-8-sig") as file:
            return Table(_json_lines(file, name) if extension == ".jsonl" else _csv(file, name, extension))
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        kind = extension[1:].upper() or "CSV"
        raise DataError(f"{name} cannot be read as a {kind} file: {error}.") from None


# --- Text -------------------------------------------------------------------------------------------------------------


def _csv(file: Any, name: str, extension: str) -> dict[str, tuple[str, ...]]:
    rows = [row for row in csv.reader(file, delimiter="\t" if extension == ".tsv" else ",") if row]
    if len(rows) < 2:
        raise DataError(f"{name} has {'no rows below its header' if rows else 'no rows'}.")
    header = [column.strip() for column in rows[0]]
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(header):
            raise DataError(f"Row {number} of {name} has {len(row)} fields, its header has {len(header)}.")
    return {column: tuple(values) for column, values in zip(header, zip(*rows[1:], strict=True), strict=True)}


def _json_lines(file: Any, name: str) -> dict[str, tuple[str, ...]]:
    rows = []
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise DataError(f"Line {number} of {name} is not a JSON object.")
        rows.append(row)
    if not rows:
        raise DataError(f"{name} has no rows.")
    names = dict.fromkeys(key for row in rows for key in row)
    columns = {key: [row.get(key) for row in rows] for key in names}
    plain = {
        key: values for key, values in columns.items() if not any(isinstance(each, dict | list) for each in values)
    }
    return {key: tuple("" if value is None else str(value) for value in values) for key, values in plain.items()}
