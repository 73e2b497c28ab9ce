"""One front door: whatever the user calls their data becomes a list of files below one root.

A folder (recursive), an archive of one (zip, tar) or several, one file, a table (CSV, TSV, JSON lines, Parquet) of
paths or of the bytes themselves, a list of paths, arrays in files (``.npy``, ``.npz``, HDF5, Zarr), or in memory, which
are written once to a memory-mapped file named by their content. Nothing is decoded here.
"""

from __future__ import annotations

import dataclasses
import glob
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from selftaught.data import archives, columnar, dataset, manifest, packed, remote
from selftaught.data.entries import Source, join, nearby, nothing
from selftaught.data.place import cache_folder
from selftaught.data.spool import spool
from selftaught.errors import DataError, UnreadableError, nearest
from selftaught.formats import arrays, files, stills

MOST_SHARDS = 1_000_000  # files that one pattern may name
_COUNT = re.compile(r"\{(\d+)\.\.(\d+)\}")


def open_source(data: Any, extensions: frozenset[str], *, cache: str | Path | None = None) -> Source:
    """The front door. ``extensions``: the modality's, lower case with the dot; arrays go to any modality.

    ``data``: path of a folder, archive, file, table or arrays (``file.npz``, ``file.h5::key``); several by a pattern
    (``shards-{000..099}.tar``, ``*.zip``); a list of paths; an array (samples first); ``(x, y)``; or
    ``{"x": …, "y": …, "group": …}``; or a dataset object (``dataset.py``). Raises ``DataError`` where there is nothing.
    """
    if isinstance(data, Mapping) or isinstance(data, np.ndarray) or _is_pair(data):
        return _from_memory(data, cache)
    if remote.is_url(data):
        return _from_elsewhere(data, extensions, cache)
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
        raise DataError(f"There is no file or folder {file!r}.", hint=nearby(file))
    if os.path.isdir(file) and not arrays.is_array(file):  # a Zarr store is a folder
        return _from_folder(file, extensions, cache)
    if archives.is_archive(file):
        return packed.from_archives([file], extensions, cache)
    if manifest.is_table(file):
        return packed.from_tables([file], cache)
    extension = files.extension(file)
    if extension in arrays.EXTENSIONS:
        if extension != ".npy":
            _refuse_unclear(file, key)
        full = os.path.abspath(file)
        return Source(os.path.dirname(full), "arrays", (os.path.basename(full) + path[len(file) :],))
    if extension in extensions or _is_bare(file, extensions):
        return Source(os.path.dirname(os.path.abspath(file)), "list", (os.path.basename(file),))
    known = extensions | arrays.EXTENSIONS | manifest.EXTENSIONS | {".zip", ".tar"}
    hint = nearest(extension, extensions, least=0.75) or f"Known kinds: {join(known)}."
    raise DataError(f"{file!r} is not data of a supported kind ({extension or 'no extension'}).", hint=hint)


def _from_elsewhere(url: str, extensions: frozenset[str], cache: str | Path | None) -> Source:
    """Copied to the cache, where they are files like any other."""
    plain, key = arrays.split_key(url)
    endings = sorted(extensions | arrays.EXTENSIONS | manifest.EXTENSIONS | {".zip", ".tar", ".tgz", ".tar.gz"})
    found = [each for one in counted(plain) for each in remote.find(one, endings)]
    paths = remote.fetch(found, cache)
    if len(paths) == 1:
        return _from_path(f"{paths[0]}::{key}" if key else paths[0], extensions, cache)
    return _from_list(paths, extensions, cache)


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
    return [path for one in counted(pattern) for path in (sorted(glob.glob(one)) if glob.has_magic(one) else [one])]


def counted(pattern: str) -> list[str]:
    """Every path that ``{000..099}`` in a pattern stands for."""
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
        for path in counted(f"{pattern[: found.start()]}{number:0{len(first)}}{pattern[found.end() :]}")
    ]


def _from_folder(folder: str, extensions: frozenset[str], cache: str | Path | None) -> Source:
    root = os.path.abspath(folder)
    wanted = extensions | arrays.EXTENSIONS
    found, directories, others, inside = _walk(root, wanted)
    own = [path for path in found if not arrays.is_array(path)]
    if own and len(own) < len(found):  # arrays beside pictures are somebody's features or labels, not samples
        others.update(os.path.splitext(path)[1].lower() for path in set(found) - set(own))
        found = own
    if not found and inside:  # a folder of archives, or else of tables, and nothing that can be used by itself
        full = [os.path.join(root, path) for path in inside]
        held = [path for path in full if archives.is_archive(path)]
        source = packed.from_archives(held, extensions, cache) if held else packed.from_tables(full, cache)
        alone = Counter(os.path.splitext(path)[1].lower() for path in full if held and path not in held) + others
        return dataclasses.replace(source, others=dict(Counter(source.others) + alone))
    others.update(os.path.splitext(path)[1].lower() for path in inside)
    if not found:
        raise nothing(f"The folder {folder!r}", others, extensions)
    return Source(root, "folder", tuple(found), others=dict(others), directories=tuple(directories))


def _walk(root: str, wanted: frozenset[str]) -> tuple[list[str], list[str], Counter, list[str]]:
    """(files, directories, other extensions, archives and tables in columns), relative; sorted within each directory,
    files before sub-folders.
    """
    found, directories, others, inside = [], [], Counter(), []
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
            elif extension in columnar.EXTENSIONS or archives.is_archive(name):
                inside.append(here + name)
            else:
                others[extension] += 1
        waiting.extend(f"{here}{name}/" for name in reversed(folders))
    return found, directories, others, inside


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
        return packed.from_archives(paths, extensions, cache)
    if all(map(manifest.is_table, paths)):
        return packed.from_tables(paths, cache)
    wanted = extensions | arrays.EXTENSIONS
    for path in paths:
        extension = files.extension(arrays.split_key(path)[0])
        if extension not in wanted and not _is_bare(path, wanted):
            hint = nearest(extension, wanted, least=0.75) or f"Known kinds: {join(wanted)}."
            raise DataError(f"{path!r} is not data of a supported kind ({extension or 'no extension'}).", hint=hint)
    full = [os.path.abspath(path) for path in paths]
    missing = [path for path in full if not os.path.exists(arrays.split_key(path)[0])]
    if len(missing) == len(full):
        raise DataError(f"There is no file {missing[0]!r}, nor any other of the {len(full):,} listed.")
    root = os.path.commonpath([os.path.dirname(arrays.split_key(path)[0]) for path in full])
    return Source(root, "list", tuple(os.path.relpath(path, root) for path in full))
