"""One front door: whatever the user calls their data becomes a list of files below one root.

A folder (recursive), one file, a CSV manifest with a ``path`` column, a list of paths, ``.npy``/``.npz`` files, or
arrays in memory, which are written once to a memory-mapped file named by their content. Nothing is decoded here.
"""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from selftaught.data.place import cache_folder
from selftaught.data.spool import spool
from selftaught.errors import DataError, nearest
from selftaught.formats import arrays


@dataclass(frozen=True, slots=True)
class File:
    """One file below the root, with what the directory says of it."""

    path: str  # relative to the root; "::key" names an array in an .npz
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Source:
    """Where the data are. ``columns``: what a manifest says besides the path, by name, one string a file."""

    root: str
    kind: str  # "folder", "manifest", "list", "arrays"
    paths: tuple[str, ...]  # relative to the root, in the order of the index
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    others: Mapping[str, int] = field(default_factory=dict)  # extension -> how many files were left alone
    content: str = ""  # digest of arrays that came from memory: their fingerprint, wherever the cache lies
    directories: tuple[str, ...] = ()  # relative; of folders only

    def full(self, path: str) -> str:
        return os.path.join(self.root, path)

    def files(self) -> Iterator[File]:
        """Every file with its size and time, in the order of ``paths``. A file that vanished has size -1."""
        for path in self.paths:
            yield File(path, *stat(self.full(path)))


def stat(path: str) -> tuple[int, int]:
    """(size, mtime_ns) of the file behind a path that may end in ``::key``; (-1, 0) where it is gone."""
    try:
        facts = os.stat(arrays.split_key(path)[0])
    except OSError:
        return -1, 0
    return facts.st_size, facts.st_mtime_ns


def open_source(data: Any, extensions: frozenset[str], *, cache: str | Path | None = None) -> Source:
    """The front door. ``extensions``: the modality's, lower case with the dot; arrays go to any modality.

    ``data``: path of a folder, file, ``.csv`` manifest, ``.npy`` or ``.npz`` (``file.npz::key``); a list of paths; an
    array (samples first); ``(x, y)``; or ``{"x": …, "y": …, "group": …}``. Raises ``DataError`` where there is nothing.
    """
    if isinstance(data, Mapping) or isinstance(data, np.ndarray) or _is_pair(data):
        return _from_memory(data, cache)
    if isinstance(data, str | Path):
        return _from_path(os.path.expanduser(str(data)), extensions)
    if isinstance(data, Sequence):
        return _from_list([os.path.expanduser(str(path)) for path in data], extensions)
    if hasattr(data, "__array__"):
        return _from_memory(np.asarray(data), cache)
    raise DataError(f"The data must be a path, a list of paths or arrays. Got {type(data).__name__} instead.")


def _from_memory(data: Any, cache: str | Path | None) -> Source:
    folder, name, content = spool(data, cache_folder(cache) / "arrays")
    return Source(str(folder), "arrays", (name,), content=content)


def _is_pair(data: Any) -> bool:
    return isinstance(data, tuple) and len(data) == 2 and all(hasattr(part, "__array__") for part in data)


# --- Paths --------------------------------------------------------------------------------------------------------


def _from_path(path: str, extensions: frozenset[str]) -> Source:
    file, key = arrays.split_key(path)
    if not os.path.exists(file):
        raise DataError(f"There is no file or folder {file!r}.", hint=_nearby(file))
    if os.path.isdir(file):
        return _from_folder(file, extensions)
    extension = os.path.splitext(file)[1].lower()
    if extension == ".csv":
        return _from_manifest(file)
    if extension in arrays.EXTENSIONS:
        arrays.choose_key(file, key) if extension == ".npz" else None
        return Source(os.path.dirname(os.path.abspath(file)), "arrays", (os.path.basename(path),))
    if extension in extensions:
        return Source(os.path.dirname(os.path.abspath(file)), "list", (os.path.basename(file),))
    hint = nearest(extension, extensions) or f"Known kinds: {_join(extensions | arrays.EXTENSIONS | {'.csv'})}."
    raise DataError(f"{file!r} is not data of a supported kind ({extension or 'no extension'}).", hint=hint)


def _nearby(path: str) -> str:
    folder, name = os.path.split(os.path.abspath(path))
    try:
        return nearest(name, os.listdir(folder))
    except OSError:
        return ""


def _from_folder(folder: str, extensions: frozenset[str]) -> Source:
    root = os.path.abspath(folder)
    wanted = extensions | arrays.EXTENSIONS
    found, directories, others = _walk(root, wanted)
    own = [path for path in found if not arrays.is_array(path)]
    if own and len(own) < len(found):  # arrays beside pictures are somebody's features or labels, not samples
        others.update(os.path.splitext(path)[1].lower() for path in set(found) - set(own))
        found = own
    if not found:
        if not others:
            raise DataError(f"The folder {folder!r} is empty.", hint="Hidden files and folders are not looked at.")
        what = ", ".join(f"{count:,} {extension or 'extensionless'}" for extension, count in others.most_common(3))
        files = "file" if sum(others.values()) == 1 else "files"
        hint = f"Files that would be used end in {_join(extensions)}."
        raise DataError(f"The folder {folder!r} holds nothing that can be used: {what} {files} were found.", hint=hint)
    return Source(root, "folder", tuple(found), others=dict(others), directories=tuple(directories))


def _walk(root: str, wanted: frozenset[str]) -> tuple[list[str], list[str], Counter]:
    """(files, directories, other extensions), relative; sorted within each directory, files before sub-folders."""
    found, directories, others = [], [], Counter()
    seen, waiting = set(), [""]
    while waiting:
        here = waiting.pop()
        names, folders = _list(root, here, seen)
        if names is None:
            continue
        directories.append(here)
        for name in names:
            extension = os.path.splitext(name)[1].lower()
            if extension in wanted:
                found.append(here + name)
            else:
                others[extension] += 1
        waiting.extend(f"{here}{name}/" for name in reversed(folders))
    return found, directories, others


def _list(root: str, here: str, seen: set) -> tuple[list[str] | None, list[str]]:
    """(file names, folder names) in one directory, or (None, []) where it was listed before (a loop of links)."""
    full = os.path.join(root, here)
    try:
        facts = os.stat(full)
        entries = [entry for entry in os.scandir(full) if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"The folder {full!r} cannot be read: {error.strerror}.") from None
    if (facts.st_dev, facts.st_ino) in seen:
        return None, []
    seen.add((facts.st_dev, facts.st_ino))
    folders = {entry.name for entry in entries if entry.is_dir()}
    return sorted(entry.name for entry in entries if entry.name not in folders), sorted(folders)


def _from_list(paths: Sequence[str], extensions: frozenset[str]) -> Source:
    if not paths:
        raise DataError("The list of paths is empty.")
    wanted = extensions | arrays.EXTENSIONS
    for path in paths:
        extension = os.path.splitext(arrays.split_key(path)[0])[1].lower()
        if extension not in wanted:
            hint = nearest(extension, wanted) or f"Known kinds: {_join(wanted)}."
            raise DataError(f"{path!r} is not data of a supported kind ({extension or 'no extension'}).", hint=hint)
    full = [os.path.abspath(path) for path in paths]
    missing = [path for path in full if not os.path.exists(arrays.split_key(path)[0])]
    if len(missing) == len(full):
        raise DataError(f"There is no file {missing[0]!r}, nor any other of the {len(full):,} listed.")
    root = os.path.dirname(full[0]) if len(full) == 1 else os.path.commonpath([os.path.dirname(path) for path in full])
    return Source(root, "list", tuple(os.path.relpath(path, root) for path in full))


# --- Manifests ----------------------------------------------------------------------------------------------------


def read_csv(path: str) -> dict[str, tuple[str, ...]]:
    """Column -> strings. Raises ``DataError`` where the file is empty, ragged or not text."""
    name = os.path.basename(path)
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise DataError(f"{name} cannot be read as a CSV file: {error}.") from None
    if len(rows) < 2:
        raise DataError(f"{name} has {'no rows below its header' if rows else 'no rows'}.")
    header = [column.strip() for column in rows[0]]
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(header):
            raise DataError(f"Row {number} of {name} has {len(row)} fields, its header has {len(header)}.")
    return {column: tuple(values) for column, values in zip(header, zip(*rows[1:], strict=True), strict=True)}


def _from_manifest(path: str) -> Source:
    columns = read_csv(path)
    if "path" not in columns:
        hint = nearest("path", columns) or f"Its columns: {', '.join(columns)}."
        raise DataError(f"{os.path.basename(path)} has no column 'path'.", hint=hint)
    paths = columns.pop("path")
    root = os.path.dirname(os.path.abspath(path))
    if not any(os.path.exists(os.path.join(root, arrays.split_key(one)[0])) for one in paths):
        message = f"None of the {len(paths):,} paths in {os.path.basename(path)} exists, for one {paths[0]!r}."
        raise DataError(message, hint="Paths are relative to the folder that holds the CSV file.")
    return Source(root, "manifest", paths, columns)


def _join(extensions: frozenset[str]) -> str:
    return ", ".join(sorted(extensions))
