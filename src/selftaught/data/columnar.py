"""Tables in columns, Parquet and Arrow: what they say of samples, and the samples' own bytes where they hold them.

Bytes (a binary column, or a struct with ``bytes`` as Hugging Face writes pictures) are copied once to one plain file in
the cache folder, from which any process reads any row (``formats.files``): a Parquet file has to be unpacked by
thousands of rows for one of them. The folders that Hugging Face's ``save_to_disk`` writes are Arrow files.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as types

from selftaught.data.place import cache_folder, write_atomically
from selftaught.errors import DataError, UnreadableError, first_line
from selftaught.formats import files, heads

EXTENSIONS = frozenset({".parquet", ".arrow"})
BYTES = ("image", "picture", "img", "audio", "bytes", "data", "content")  # which binary column, where there are several
SUFFIXES = {"jpeg": ".jpg", "png": ".png", "webp": ".webp", "tiff": ".tif", "bmp": ".bmp"}
FEW = 256  # rows whose bytes are in memory at a time


class Columns(NamedTuple):
    """An open file of columns."""

    schema: pa.Schema
    rows: int
    read: Callable[[list[str]], pa.Table]  # columns by name
    batches: Callable[[str], Iterable[pa.RecordBatch]]  # one column, ``FEW`` rows at a time


def open_columns(path: str) -> Columns:
    """Raises ``pyarrow.ArrowException`` or ``OSError`` for what is neither Parquet nor Arrow."""
    if path.lower().endswith(".parquet"):
        file = pq.ParquetFile(path, memory_map=True)
        batches = lambda name: file.iter_batches(batch_size=FEW, columns=[name])  # noqa: E731
        return Columns(file.schema_arrow, file.metadata.num_rows, lambda names: file.read(columns=names), batches)
    mapped = pa.memory_map(path)
    whole = mapped.read(6) == b"ARROW1"
    mapped.seek(0)
    table = (pa.ipc.open_file if whole else pa.ipc.open_stream)(mapped).read_all()
    table.validate(full=True)  # offsets that lead out of the file would end the process
    batches = lambda name: table.select([name]).to_batches(max_chunksize=FEW)  # noqa: E731
    return Columns(table.schema, table.num_rows, table.select, batches)


def read_columns(
    path: str, cache: str | Path | None, *, bytes_too: bool
) -> tuple[dict[str, tuple[str, ...]], list[str], list[str]]:
    """(strings by column, names and parts of rows that hold bytes, [] where none does). Raises ``DataError``."""
    name = os.path.basename(path)
    try:
        file = open_columns(path)
        plain = plain_columns(file.schema)
        read = file.read(plain)
        columns = {each: strings(read.column(each), class_names(file.schema, each)) for each in plain}
        if not file.rows:
            raise DataError(f"{name} has no rows.")
        binary = binary_column(file.schema, name) if bytes_too and "path" not in columns else None
        return (columns, *_kept_bytes(path, file, binary, cache)) if binary else (columns, [], [])
    except (pa.ArrowException, OSError, SystemError, ValueError, OverflowError) as error:  # offsets may be anything
        kind = "a Parquet" if name.lower().endswith(".parquet") else "an Arrow"
        raise DataError(f"{name} cannot be read as {kind} file: {first_line(error)}.") from None


def plain_columns(schema: Any) -> list[str]:
    """The columns that can be told in a word."""
    return [field.name for field in schema if _is_plain(field.type)]


def _is_plain(kind: Any) -> bool:
    kind = kind.value_type if types.is_dictionary(kind) else kind
    tests = (types.is_string, types.is_large_string, types.is_integer, types.is_floating, types.is_boolean)
    return any(test(kind) for test in (*tests, types.is_temporal, types.is_decimal))


def strings(column: Any, names: list[str]) -> tuple[str, ...]:
    values = ("" if value is None else value for value in column.to_pylist())
    return tuple(
        names[value] if names and isinstance(value, int) and 0 <= value < len(names) else str(value) for value in values
    )


def class_names(schema: Any, column: str) -> list[str]:
    """What the numbers of a column stand for, where Hugging Face's datasets wrote it down."""
    try:
        facts = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][column]
        return [str(name) for name in facts["names"]] if facts["_type"] == "ClassLabel" else []
    except (KeyError, TypeError, ValueError):
        return []


def binary_column(schema: Any, name: str) -> str | None:
    """The column that holds the samples' bytes, None where none does."""

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


def _kept_bytes(path: str, file: Columns, column: str, cache: str | Path | None) -> tuple[list[str], list[str]]:
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


def _copy(file: Columns, column: str, out: str, mtime: int) -> Iterator[tuple[str, int]]:
    """Writes the bytes of all rows one after the other, a few rows at a time, and gives (name, size) of each."""
    row, digits = 0, len(str(file.rows))
    with open(out, "wb") as heap:
        for batch in file.batches(column):
            for value in batch.column(0).to_pylist():
                data, said = held(value)
                heap.write(data)
                yield f"{row:0{digits}}{suffix(data, said)}", len(data)
                row += 1
    os.utime(out, ns=(mtime, mtime))  # made again after the cache was emptied, it is the same data


def held(value: Any) -> tuple[bytes, str | None]:
    """(bytes, the name that is given with them or None) of a value of a column of bytes."""
    content, said = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
    return content or b"", said


def suffix(data: bytes, said: str | None) -> str:
    """The extension that the bytes, or else the name beside them, would give to a file."""
    try:
        return SUFFIXES[heads.kind_of(data[:16])]
    except UnreadableError:
        return os.path.splitext(said or "")[1].lower()
