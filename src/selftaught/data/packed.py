"""Samples that lie in other files: archives as folders, tables of paths, tables that hold the samples themselves."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from selftaught.data import archives, manifest
from selftaught.data.entries import Source, nearby, nothing
from selftaught.errors import DataError, nearest
from selftaught.formats import arrays, files

SOURCE = "source"  # column that says which of several archives or tables a sample came from


def from_archives(paths: Sequence[str], extensions: frozenset[str], cache: str | Path | None) -> Source:
    """Members as if the archives were folders: below the archive's name where there are several."""
    full = [os.path.abspath(path) for path in paths]
    _all_there(full)
    root = os.path.commonpath([os.path.dirname(path) for path in full])
    names, sources, inside, refused, others = [], [], [], [], Counter()
    columns: dict[str, list[str]] = {}
    for path in full:
        listing = archives.list_archive(path, extensions - arrays.EXTENSIONS, cache)
        above = f"{os.path.relpath(archives.stem(path), root)}/" if len(full) > 1 else ""
        for name, values in listing.columns.items():
            columns.setdefault(name, [""] * len(names)).extend(values)
        names += [above + member.name for member in listing.members]
        sources += [above.rstrip("/")] * len(listing.members)
        inside += [os.path.relpath(str(member.part), root) for member in listing.members]
        refused += [(above + name, reason) for name, reason in listing.refused]
        others += listing.others
        for values in columns.values():
            values.extend([""] * (len(names) - len(values)))
    if not names:
        if refused:
            raise DataError(f"Nothing in {paths[0]!r} can be used, for one {refused[0][0]!r}: {refused[0][1]}.")
        where = f"The archive {paths[0]!r}" if len(paths) == 1 else "None of the archives"
        raise nothing(where, others, extensions - arrays.EXTENSIONS)
    said = {name: tuple(values) for name, values in columns.items()}
    if len(full) > 1:  # for ``--balance source``
        said.setdefault(SOURCE, tuple(sources))
    more = {"inside": tuple(inside), "refused": tuple(refused), "others": dict(others)}
    return Source(root, "archives", tuple(names), said, **more)


def _all_there(full: Sequence[str]) -> None:
    missing = next((path for path in full if not os.path.exists(path)), None)
    if missing:
        raise DataError(f"There is no file {missing!r}.", hint=nearby(missing))


def from_tables(paths: Sequence[str], cache: str | Path | None) -> Source:
    """Rows of all tables, one after the other; one in columns may hold the samples' bytes itself."""
    full = [os.path.abspath(path) for path in paths]
    _all_there(full)
    read = [manifest.read_table(path, cache, bytes_too=True) for path in full]
    holding = [bool(table.parts) for table in read]
    if any(holding) != all(holding):
        raise DataError(f"Some of the {len(read)} tables hold the samples themselves, others do not.")
    columns = _stacked(read)
    if "split" not in columns and (split := _split_by_name(read, full)):
        columns["split"] = split
    if all(holding):
        names = _named_rows(read, full)
        inside = [part for table in read for part in table.parts]
        if len(full) > 1:
            columns.setdefault(SOURCE, tuple(name.rsplit("/", 1)[0] for name in names))
        return Source(os.path.dirname(full[0]), "archives", tuple(names), columns, inside=tuple(inside))
    return _from_paths(columns, full)


def _stacked(tables: Sequence[manifest.Table]) -> dict[str, tuple[str, ...]]:
    """One column of each name; "" where a table has it not."""
    names = dict.fromkeys(name for table in tables for name in table.columns)
    return {
        name: tuple(value for table in tables for value in table.columns.get(name, ("",) * len(table)))
        for name in names
    }


def _split_by_name(tables: Sequence[manifest.Table], paths: Sequence[str]) -> tuple[str, ...]:
    """Of several tables that are all called after a split (``train-00000-of-00002.parquet``), or whose folders are
    (``train/data-00000-of-00002.arrow``); () of others.
    """
    names = [re.split(r"[-_.]", os.path.basename(path).lower())[0] for path in paths]
    if not all(name in manifest.SPLITS for name in names):
        names = [os.path.basename(os.path.dirname(path)).lower() for path in paths]
    if len(set(names)) < 2 or not all(name in manifest.SPLITS for name in names):
        return ()
    return tuple(manifest.SPLITS[name] for name, table in zip(names, tables, strict=True) for _ in range(len(table)))


def _named_rows(tables: Sequence[manifest.Table], paths: Sequence[str]) -> list[str]:
    root = os.path.commonpath([os.path.dirname(path) for path in paths])
    stems = [f"{os.path.splitext(os.path.relpath(path, root))[0]}/" if len(paths) > 1 else "" for path in paths]
    return [above + name for above, table in zip(stems, tables, strict=True) for name in table.names]


def _from_paths(columns: dict[str, tuple[str, ...]], tables: Sequence[str]) -> Source:
    """Files that a table names, relative to the folder that it lies in."""
    name = os.path.basename(tables[0])
    if "path" not in columns:
        hint = nearest("path", columns) or f"Its columns: {', '.join(columns)}."
        raise DataError(f"{name} has no column 'path'.", hint=hint)
    paths, root = columns.pop("path"), os.path.dirname(tables[0])
    if any(os.path.dirname(table) != root for table in tables):
        raise DataError("The tables lie in several folders, so their paths cannot be relative to one.")
    paths = tuple(os.path.relpath(path, root) if path.startswith(f"{root}{os.sep}") else path for path in paths)
    away = [path for path in paths if files.leaves(path)]
    if away and os.environ.get(files.OUTSIDE) != "1":
        more = f" and {len(away) - 1:,} more" if len(away) > 1 else ""
        message = f"{name} names files outside of its folder: {away[0]!r}{more}."
        raise DataError(message, hint="If you know that table, --outside reads them.")
    if not any(os.path.exists(os.path.join(root, arrays.split_key(one)[0])) for one in paths):
        message = f"None of the {len(paths):,} paths in {name} exists, for one {paths[0]!r}."
        raise DataError(message, hint="Paths are relative to the folder that holds the table.")
    return Source(root, "manifest", paths, columns)
