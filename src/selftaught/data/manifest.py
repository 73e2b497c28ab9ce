"""Tables that say which samples there are: CSV, TSV, JSON lines and Parquet, with paths or with the bytes themselves.

Columns come as strings, "" where nothing is said; nested values are left alone. Bytes in a Parquet file (a binary
column, or a struct with ``bytes`` as Hugging Face writes pictures) are copied once to one plain file in the cache
folder, from which any process reads any row (``formats.files``): a Parquet file has to be unpacked by thousands of rows
for one of them.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from selftaught.data.place import cache_folder, write_atomically
from selftaught.errors import DataError, UnreadableError
from selftaught.formats import files, heads

EXTENSIONS = frozenset({".csv", ".tsv", ".jsonl", ".parquet"})
BYTES = ("image", "picture", "img", "audio", "bytes", "data", "content")  # which binary column, where there are several
SUFFIXES = {"jpeg": ".jpg", "png": ".png", "webp": ".webp", "tiff": ".tif", "bmp": ".bmp"}

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
        if extension == ".parquet":
            return _parquet(path, cache, bytes_too)
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


# --- Parquet ----------------------------------------------------------------------------------------------------------


def _parquet(path: str, cache: str | Path | None, bytes_too: bool) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    name = os.path.basename(path)
    try:
        file = pq.ParquetFile(path, memory_map=True)
        schema = file.schema_arrow
        plain = [field.name for field in schema if _is_plain(field.type)]
        read = file.read(columns=plain)
        columns = {each: _strings(read.column(each), _class_names(schema, each)) for each in plain}
        if not file.metadata.num_rows:
            raise DataError(f"{name} has no rows.")
        binary = _binary(schema, name) if bytes_too and "path" not in columns else None
        return Table(columns, *_kept_bytes(path, file, binary, cache)) if binary else Table(columns)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{name} cannot be read as a Parquet file: {str(error).splitlines()[0][:120]}.") from None


def _is_plain(kind: Any) -> bool:
    import pyarrow.types as types

    kind = kind.value_type if types.is_dictionary(kind) else kind
    tests = (types.is_string, types.is_large_string, types.is_integer, types.is_floating, types.is_boolean)
    return any(test(kind) for test in (*tests, types.is_temporal, types.is_decimal))


def _strings(column: Any, names: list[str]) -> tuple[str, ...]:
    values = ("" if value is None else value for value in column.to_pylist())
    return tuple(
        names[value] if names and isinstance(value, int) and 0 <= value < len(names) else str(value) for value in values
    )


def _class_names(schema: Any, column: str) -> list[str]:
    """What the numbers of a column stand for, where Hugging Face's datasets wrote it down."""
    try:
        facts = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][column]
        return [str(name) for name in facts["names"]] if facts["_type"] == "ClassLabel" else []
    except (KeyError, TypeError, ValueError):
        return []


def _binary(schema: Any, name: str) -> str | None:
    """The column that holds the samples' bytes, None where none does."""
    import pyarrow.types as types

    def holds_bytes(kind: Any) -> bool:
        if types.is_struct(kind):
            index = kind.get_field_index("bytes")
            return index >= 0 and holds_bytes(kind.field(index).type)
        return types.is_binary(kind) or types.is_large_binary(kind)

    found = [field.name for field in schema if holds_bytes(field.type)]
    if len(found) < 2:
        return found[0] if found else None
    known = next((each for each in BYTES if each in found), None)
    if known is None:
        raise DataError(f"{name} does not say which of its columns holds the samples: {', '.join(found)}.")
    return known


def _kept_bytes(path: str, file: Any, column: str, cache: str | Path | None) -> tuple[list[str], list[str]]:
    """(names, parts) of the rows; the bytes of all of them lie in one file of the cache."""
    size, mtime = files.stat(path)
    key = hashlib.sha256(f"{os.path.abspath(path)} {size} {mtime} {column}".encode()).hexdigest()[:32]
    heap = cache_folder(cache) / "tables" / f"{key}.bytes"
    facts = heap.with_suffix(".json")
    if not (heap.exists() and facts.exists()):
        rows: list[tuple[str, int]] = []
        write_atomically(
            heap, "copy of the table's samples", lambda temporary: rows.extend(_copy(file, column, temporary, mtime))
        )
        write_atomically(facts, "list of the table's samples", _writer(json.dumps(rows)))
    try:
        names, sizes = zip(*json.loads(facts.read_text(encoding="utf-8")), strict=True)
    except (OSError, ValueError, TypeError):
        raise DataError(
            f"The copy of {os.path.basename(path)} in the cache is broken.", hint=f"Delete {facts}."
        ) from None
    starts = np.cumsum([0, *sizes[:-1]]).tolist()
    return list(names), [str(files.Part(str(heap), at, length)) for at, length in zip(starts, sizes, strict=True)]


def _writer(text: str) -> Callable[[str], Any]:
    return lambda temporary: Path(temporary).write_text(text, encoding="utf-8")


def _copy(file: Any, column: str, out: str, mtime: int) -> Iterator[tuple[str, int]]:
    """Writes the bytes of all rows one after the other, a few rows at a time, and gives (name, size) of each."""
    row, digits = 0, len(str(file.metadata.num_rows))
    with open(out, "wb") as heap:
        for batch in file.iter_batches(batch_size=256, columns=[column]):
            for value in batch.column(0).to_pylist():
                held, said = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
                data = held or b""
                heap.write(data)
                yield f"{row:0{digits}}{_suffix(data, said)}", len(data)
                row += 1
    os.utime(out, ns=(mtime, mtime))  # made again after the cache was emptied, it is the same data


def _suffix(data: bytes, said: str | None) -> str:
    """The extension that the bytes, or else the name beside them, would give to a file."""
    try:
        return SUFFIXES[heads.kind_of(data[:16])]
    except UnreadableError:
        return os.path.splitext(said or "")[1].lower()
