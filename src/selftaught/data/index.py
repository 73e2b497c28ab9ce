"""What is there: one row a sample, in an Arrow file that all processes map and none copies.

The first start scans (the modality looks at each file's head), the next ones compare fingerprints and map the file.
Pickling an ``Index`` sends the file's name, so a worker costs a few megabytes of private memory, not the table.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from selftaught.data.entries import Source, full_path
from selftaught.data.fingerprint import fingerprint_of
from selftaught.data.place import cache_folder, write_atomically
from selftaught.data.scan import Scan, cache_key, check_share, scan
from selftaught.errors import DataError
from selftaught.types import Item, Modality

__all__ = ["Index", "build_index", "fingerprint_of"]

_FACTS = b"selftaught"  # where the facts lie in the Arrow schema's metadata
_MISSING = "The index file {path!r} {what}."


def build_index(
    source: Source, modality: Modality, cache: str | Path | None = None, *, accept_unreadable: bool = False
) -> Index:
    """The index of ``source`` as ``modality`` reads it, from the cache where the data did not change.

    Files whose head cannot be read are in ``.quarantine``. Raises ``QuarantineError`` where they are more than 5 % of
    at least 20 (unless ``accept_unreadable``) and ``DataError`` where nothing is left.
    """
    path = cache_folder(cache) / "index" / f"{cache_key(source, modality)}.arrow"
    fingerprint = fingerprint_of(source)
    index = _cached(path, fingerprint)
    if index is None:
        found = scan(source, modality)
        _write(path, _table(found, source, fingerprint))
        index = Index.open(path)
    if not len(index):
        where, why = index.quarantine[0]
        raise DataError(f"None of the {len(index.quarantine):,} files can be read, for one {where!r}: {why}.")
    if not accept_unreadable:
        tried = len(source.paths) + len(source.refused)
        check_share(index.quarantine, tried, tried)
    return index


class Index:
    """The samples, in a fixed order. ``rows`` (int64) picks some of the file's rows; None = all of them."""

    def __init__(self, path: str | Path, rows: np.ndarray | None = None) -> None:
        self.path = str(path)
        self.rows = rows
        self._map()

    @classmethod
    def open(cls, path: str | Path) -> Index:
        """Raises ``DataError`` where there is no index, or it is broken."""
        return cls(path)

    def _map(self) -> None:
        try:
            table = pa.ipc.open_file(pa.memory_map(self.path)).read_all()
            table.validate(full=True)  # offsets that lead out of the file would end the process
            self.facts: dict[str, Any] = json.loads(table.schema.metadata[_FACTS])
        except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
            what = "is not there" if isinstance(error, FileNotFoundError) else "is broken"
            raise DataError(_MISSING.format(path=self.path, what=what)) from None
        # one chunk a column, so that reading one value needs no search for its chunk
        self._columns = {name: table.column(name).combine_chunks() for name in table.column_names}
        self._table = table
        self._readers = [_reader(self._columns[name]) for name in _ITEM]
        self._inside = _reader(self._columns["inside"]) if "inside" in self._columns else _nowhere

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "rows": self.rows, "fingerprint": self.fingerprint}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.path, self.rows = state["path"], state["rows"]
        self._map()
        if self.fingerprint != state["fingerprint"]:
            raise DataError(_MISSING.format(path=self.path, what="was rewritten while it was in use"))

    @property
    def root(self) -> str:
        return self.facts["root"]

    @property
    def fingerprint(self) -> str:
        return self.facts["fingerprint"]

    @property
    def quarantine(self) -> list[tuple[str, str]]:
        """(path, reason) of every file that the scan could not use."""
        return [(path, reason) for path, reason in self.facts["quarantine"]]

    @property
    def names(self) -> list[str]:
        """The columns, a manifest's own ones included."""
        return list(self._columns)

    def __len__(self) -> int:
        return self._table.num_rows if self.rows is None else len(self.rows)

    def item(self, i: int) -> Item:
        """Row ``i``, with the full path."""
        row = int(i) if self.rows is None else int(self.rows[i])
        path, *rest = (read(row) for read in self._readers)
        return Item(full_path(self.root, path, self._inside(row)), *rest)

    def name(self, i: int) -> str:
        """What to call row ``i`` in a message: its relative path, and the row in an array."""
        row = int(i) if self.rows is None else int(self.rows[i])
        path, part = self._columns["path"][row].as_py(), self._columns["part"][row].as_py()
        return f"{path}[{part}]" if part else path

    def column(self, name: str) -> np.ndarray:
        """(N,) int64, or objects: strings and None. Raises ``KeyError`` for a column that is not in ``names``."""
        values = self._columns[name].to_numpy(zero_copy_only=False)
        return values if self.rows is None else values[self.rows]

    def select(self, which: np.ndarray | Sequence[int]) -> Index:
        """The rows of a boolean mask or of indices, in their order; the file is shared."""
        which = np.asarray(which)
        which = np.flatnonzero(which) if which.dtype == bool else which.astype(np.int64)
        selected = Index.__new__(Index)
        selected.__dict__.update(self.__dict__)
        selected.rows = which if self.rows is None else self.rows[which]
        return selected

    def save(self, path: str | Path) -> Index:
        """Writes the selected rows to a file of their own, atomically, and opens it."""
        table = self._table if self.rows is None else self._table.take(pa.array(self.rows))
        _write(Path(path), table.replace_schema_metadata(self._table.schema.metadata))
        return Index(path)


_ITEM = ("path", "part", "length", "entity", "group", "label", "split")


def _nowhere(row: int) -> str:
    """Every sample is a file of its own, or a row of one."""
    return ""


def _reader(column: Any) -> Callable[[int], Any]:
    """One value of a column as Python has it; most columns say nothing, and asking Arrow for that takes 1 us each."""
    if not pa.types.is_large_string(column.type):
        return column.to_numpy().item
    if column.null_count == len(column):
        return lambda row: None
    if not column.null_count and not pc.max(pc.binary_length(column)).as_py():  # type: ignore[attr-defined]
        return lambda row: ""
    return lambda row: column[row].as_py()


def _cached(path: Path, fingerprint: str) -> Index | None:
    try:
        index = Index.open(path)
    except DataError:
        return None
    return index if index.fingerprint == fingerprint else None


def _table(found: Scan, source: Source, fingerprint: str) -> pa.Table:
    facts = {
        "root": source.root,
        "kind": source.kind,
        "fingerprint": fingerprint,
        "quarantine": found.quarantine,
        "others": dict(source.others),
    }
    columns = {name: pa.array(values, _kind(name)) for name, values in found.columns.items()}
    return pa.table(columns).replace_schema_metadata({_FACTS: json.dumps(facts)})


def _kind(name: str) -> pa.DataType:
    return pa.int64() if name in ("part", "length", "size", "mtime_ns") else pa.large_string()


def _write(path: Path, table: pa.Table) -> None:
    def save(temporary: str) -> None:
        with pa.OSFile(temporary, "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table.combine_chunks())

    write_atomically(path, "index", save)
