"""One front door: whatever the user calls their data becomes a list of files below one root.

A folder (recursive), an archive of one (zip, tar) or several, one file, a table (CSV, TSV, JSON lines, Parquet) of
paths or of the bytes themselves, a list of paths, arrays in files (``.npy``, ``.npz``, HDF5, Zarr), or in memory, which
are written once to a memory-mapped file named by their content. Nothing is decoded here.
"""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from selftaught.data import archives, dataset, manifest
from selftaught.data.place import cache_folder
from selftaught.data.spool import spool
from selftaught.errors import DataError, UnreadableError, nearest
from selftaught.formats import arrays, files, stills

MOST_SHARDS = 1_000_000  # files that one pattern may name
_COUNT = re.compile(r"\{(\d+)\.\.(\d+)\}")


@dataclass(frozen=True, slots=True)
class File:
    """One file below the root, with what the directory says of it."""

    path: str  # relative to the root; "::key" names an array in a file of several
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Source:
    """Where the data are. ``columns``: what a table says besides the path, by name, one string a file.

    ``inside``: for samples that lie in another file (an archive), which part of which, one a path; () = none does.
    """

    root: str
    kind: str  # "folder", "archives", "manifest", "list", "arrays"
    paths: tuple[str, ...]  # relative to the root, in the order of the index
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    others: Mapping[str, int] = field(default_factory=dict)  # extension -> how many files were left alone
    content: str = ""  # digest of arrays that came from memory: their fingerprint, wherever the cache lies
    directories: tuple[str, ...] = ()  # relative; of folders only
    inside: tuple[str, ...] = ()  # relative to the root, as ``formats.files.Part`` writes it
    refused: tuple[tuple[str, str], ...] = ()  # (path, reason) of members that no archive should hold

    def full(self, row: int) -> str:
        """What to open for a row of ``paths``."""
        return full_path(self.root, self.paths[row], self.inside[row] if self.inside else "")

    def files(self) -> Iterator[File]:
        """Every file with its size and time, in the order of ``paths``. A file that vanished has size -1."""
        for row, path in enumerate(self.paths):
            yield File(path, *stat(self.full(row)))


def full_path(root: str, path: str, inside: str = "") -> str:
    """The file, or the part of one, behind a row of an index."""
    return os.path.join(root, f"{inside}/{path}" if inside else path)


def stat(path: str) -> tuple[int, int]:
    """(size, mtime_ns) of the file behind a path that may end in ``::key``; (-1, 0) where it is gone."""
    return files.stat(arrays.split_key(path)[0])


def open_source(data: Any, extensions: frozenset[str], *, cache: str | Path | None = None) -> Source:
    """The front door. ``extensions``: the modality's, lower case with the dot; arrays go to any modality.

    ``data``: path of a folder, archive, file, table or arrays (``file.npz``, ``file.h5::key``); several by a pattern
    (``shards-{000..099}.tar``, ``*.zip``); a list of paths; an array (samples first); ``(x, y)``; or
    ``{"x": …, "y": …, "group": …}``; or a dataset object (``dataset.py``). Raises ``DataError`` where there is nothing.
    """
    if isinstance(data, Mapping) or isinstance(data, np.ndarray) or _is_pair(data):
        return _from_memory(data, cache)
    if isinstance(data, str | Path):
        return _from_path(os.path.expanduser(str(data)), extensions, cache)
    if isinstance(data, Sequence):
        return _from_list([os.path.expanduser(str(path)) for path in data], extensions, cache)
    if hasattr(data, "__array__"):
        return _from_memory(np.asarray(data), cache)
    if dataset.is_dataset(data):
        kept = dataset.keep(data, cache_folder(cache) / "datasets")
        more = {"inside": kept.inside, "content": kept.content}
        return Source(str(kept.root), kept.kind, kept.paths, kept.columns, **more)
    wanted = "a path, a list of paths, arrays, or a dataset with a length and samples by number"
    raise DataError(f"The data must be {wanted}. Got {type(data).__name__} instead.")


def _from_memory(data: Any, cache: str | Path | None) -> Source:
    folder, name, content = spool(data, cache_folder(cache) / "arrays")
    return Source(str(folder), "arrays", (name,), content=content)


def _is_pair(data: Any) -> bool:
    return isinstance(data, tuple) and len(data) == 2 and all(hasattr(part, "__array__") for part in data)


# --- Paths --------------------------------------------------------------------------------------------------------


def _from_path(path: str, extensions: frozenset[str], cache: str | Path | None) -> Source:
    file, key = arrays.split_key(path)
    if not os.path.exists(file):
        if several := _matching(file):
            return _from_list(several, extensions, cache)
        raise DataError(f"There is no file or folder {file!r}.", hint=_nearby(file))
    if os.path.isdir(file) and not arrays.is_array(file):  # a Zarr store is a folder
        return _from_folder(file, extensions, cache)
    if archives.is_archive(file):
        return _from_archives([file], extensions, cache)
    if manifest.is_table(file):
        return _from_tables([file], cache)
    extension = files.extension(file)
    if extension in arrays.EXTENSIONS:
        if extension != ".npy":
            _refuse_unclear(file, key)
        full = os.path.abspath(file)
        return Source(os.path.dirname(full), "arrays", (os.path.basename(full) + path[len(file) :],))
    if extension in extensions or _is_bare(file, extensions):
        return Source(os.path.dirname(os.path.abspath(file)), "list", (os.path.basename(file),))
    known = extensions | arrays.EXTENSIONS | manifest.EXTENSIONS | {".zip", ".tar"}
    hint = nearest(extension, extensions) or f"Known kinds: {_join(known)}."
    raise DataError(f"{file!r} is not data of a supported kind ({extension or 'no extension'}).", hint=hint)


def _refuse_unclear(file: str, key: str | None) -> None:
    """Which member of an array file is meant must be clear before anything is read."""
    try:
        arrays.choose_key(file, key)
    except UnreadableError as error:
        raise DataError(f"{os.path.basename(file)} cannot be read: {error}.") from None


def _matching(pattern: str) -> list[str]:
    """The files that a pattern names, in order: ``{000..099}`` counts, ``*``, ``?`` and ``[…]`` are the shell's."""
    if not (_COUNT.search(pattern) or glob.has_magic(pattern)):
        return []
    return [path for one in _counted(pattern) for path in (sorted(glob.glob(one)) if glob.has_magic(one) else [one])]


def _counted(pattern: str) -> list[str]:
    found = _COUNT.search(pattern)
    if not found:
        return [pattern]
    first, last = found.groups()
    numbers = range(int(first), int(last) + 1)
    if len(numbers) > MOST_SHARDS:
        raise DataError(f"{pattern!r} names {len(numbers):,} files, more than {MOST_SHARDS:,}.")
    return [
        path
        for number in numbers
        for path in _counted(f"{pattern[: found.start()]}{number:0{len(first)}}{pattern[found.end() :]}")
    ]


def _nearby(path: str) -> str:
    folder, name = os.path.split(os.path.abspath(path))
    try:
        return nearest(name, os.listdir(folder))
    except OSError:
        return ""


def _from_folder(folder: str, extensions: frozenset[str], cache: str | Path | None) -> Source:
    root = os.path.abspath(folder)
    wanted = extensions | arrays.EXTENSIONS
    found, directories, others, packed = _walk(root, wanted)
    own = [path for path in found if not arrays.is_array(path)]
    if own and len(own) < len(found):  # arrays beside pictures are somebody's features or labels, not samples
        others.update(os.path.splitext(path)[1].lower() for path in set(found) - set(own))
        found = own
    if not found and packed:  # a folder of archives, or of tables, and nothing else that can be used
        full = [os.path.join(root, path) for path in packed]
        inside = [path for path in full if archives.is_archive(path)]
        return _from_archives(inside, extensions, cache) if inside else _from_tables(full, cache)
    others.update(os.path.splitext(path)[1].lower() for path in packed)
    if not found:
        raise _nothing(f"The folder {folder!r}", others, extensions)
    return Source(root, "folder", tuple(found), others=dict(others), directories=tuple(directories))


def _nothing(where: str, others: Counter, extensions: frozenset[str]) -> DataError:
    if not others:
        return DataError(f"{where} is empty.", hint="Hidden files and folders are not looked at.")
    what = ", ".join(f"{count:,} {extension or 'extensionless'}" for extension, count in others.most_common(3))
    files = "file was" if sum(others.values()) == 1 else "files were"
    hint = (
        f"Files that would be used end in {_join(extensions)}." if extensions else "Arrays are not read from archives."
    )
    return DataError(f"{where} holds nothing that can be used: {what} {files} found.", hint=hint)


def _walk(root: str, wanted: frozenset[str]) -> tuple[list[str], list[str], Counter, list[str]]:
    """(files, directories, other extensions, archives and Parquet tables), relative; sorted within each directory,
    files before sub-folders.
    """
    found, directories, others, packed = [], [], Counter(), []
    seen, waiting = set(), [""]
    while waiting:
        here = waiting.pop()
        names, folders = _list(root, here, seen)
        if names is None:
            continue
        directories.append(here)
        for name in names:
            extension = files.extension(name)
            if extension in wanted or _is_bare(os.path.join(root, here, name), wanted):
                found.append(here + name)
            elif extension == ".parquet" or archives.is_archive(name):
                packed.append(here + name)
            else:
                others[extension] += 1
        waiting.extend(f"{here}{name}/" for name in reversed(folders))
    return found, directories, others, packed


def _is_bare(path: str, wanted: frozenset[str]) -> bool:
    """Scanners give DICOM files no extension."""
    return ".dcm" in wanted and stills.is_bare_dicom(path)


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
    folders = {entry.name for entry in entries if entry.is_dir() and not arrays.is_array(entry.name)}
    return sorted(entry.name for entry in entries if entry.name not in folders), sorted(folders)


def _from_list(paths: Sequence[str], extensions: frozenset[str], cache: str | Path | None) -> Source:
    if not paths:
        raise DataError("The list of paths is empty.")
    if all(map(archives.is_archive, paths)):
        return _from_archives(paths, extensions, cache)
    if all(map(manifest.is_table, paths)):
        return _from_tables(paths, cache)
    wanted = extensions | arrays.EXTENSIONS
    for path in paths:
        extension = files.extension(arrays.split_key(path)[0])
        if extension not in wanted and not _is_bare(path, wanted):
            hint = nearest(extension, wanted) or f"Known kinds: {_join(wanted)}."
            raise DataError(f"{path!r} is not data of a supported kind ({extension or 'no extension'}).", hint=hint)
    full = [os.path.abspath(path) for path in paths]
    missing = [path for path in full if not os.path.exists(arrays.split_key(path)[0])]
    if len(missing) == len(full):
        raise DataError(f"There is no file {missing[0]!r}, nor any other of the {len(full):,} listed.")
    root = os.path.commonpath([os.path.dirname(arrays.split_key(path)[0]) for path in full])
    return Source(root, "list", tuple(os.path.relpath(path, root) for path in full))


# --- Archives and tables ------------------------------------------------------------------------------------------


def _from_archives(paths: Sequence[str], extensions: frozenset[str], cache: str | Path | None) -> Source:
    """Members as if the archives were folders: below the archive's name where there are several."""
    full = [os.path.abspath(path) for path in paths]
    _all_there(full)
    root = os.path.commonpath([os.path.dirname(path) for path in full])
    names, inside, refused, others = [], [], [], Counter()
    columns: dict[str, list[str]] = {}
    for path in full:
        listing = archives.list_archive(path, extensions - arrays.EXTENSIONS, cache)
        above = f"{os.path.relpath(archives.stem(path), root)}/" if len(full) > 1 else ""
        for name, values in listing.columns.items():
            columns.setdefault(name, [""] * len(names)).extend(values)
        names += [above + member.name for member in listing.members]
        inside += [os.path.relpath(str(member.part), root) for member in listing.members]
        refused += [(above + name, reason) for name, reason in listing.refused]
        others += listing.others
        for values in columns.values():
            values.extend([""] * (len(names) - len(values)))
    if not names:
        if refused:
            raise DataError(f"Nothing in {paths[0]!r} can be used, for one {refused[0][0]!r}: {refused[0][1]}.")
        where = f"The archive {paths[0]!r}" if len(paths) == 1 else "None of the archives"
        raise _nothing(where, others, extensions - arrays.EXTENSIONS)
    said = {name: tuple(values) for name, values in columns.items()}
    more = {"inside": tuple(inside), "refused": tuple(refused), "others": dict(others)}
    return Source(root, "archives", tuple(names), said, **more)


def _all_there(full: Sequence[str]) -> None:
    missing = next((path for path in full if not os.path.exists(path)), None)
    if missing:
        raise DataError(f"There is no file {missing!r}.", hint=_nearby(missing))


def _from_tables(paths: Sequence[str], cache: str | Path | None) -> Source:
    """Rows of all tables, one after the other; a Parquet file may hold the samples' bytes itself."""
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
    """Of several tables that are all called after a split (``train-00000-of-00002.parquet``); () of others."""
    names = [re.split(r"[-_.]", os.path.basename(path).lower())[0] for path in paths]
    if len(set(names)) < 2 or not all(name in manifest.SPLITS for name in names):
        return ()
    return tuple(manifest.SPLITS[name] for name, table in zip(names, tables, strict=True) for _ in range(len(table)))


def _named_rows(tables: Sequence[manifest.Table], paths: Sequence[str]) -> list[str]:
    stems = [f"{os.path.splitext(os.path.basename(path))[0]}/" if len(paths) > 1 else "" for path in paths]
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
    if not any(os.path.exists(os.path.join(root, arrays.split_key(one)[0])) for one in paths):
        message = f"None of the {len(paths):,} paths in {name} exists, for one {paths[0]!r}."
        raise DataError(message, hint="Paths are relative to the folder that holds the table.")
    return Source(root, "manifest", paths, columns)


def _join(extensions: frozenset[str]) -> str:
    return ", ".join(sorted(extensions))
