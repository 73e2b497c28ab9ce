"""What the front door gives: a list of files below one root, and where each one's bytes are."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from selftaught.errors import DataError, nearest
from selftaught.formats import arrays, files


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


# --- What is said where there is nothing --------------------------------------------------------------------------


def nothing(where: str, others: Counter, extensions: frozenset[str]) -> DataError:
    """The error for a place that holds nothing usable: what is there, and what would be used."""
    if not others:
        return DataError(f"{where} is empty.", hint="Hidden files and folders are not looked at.")
    what = ", ".join(f"{count:,} {extension or 'extensionless'}" for extension, count in others.most_common(3))
    files = "file was" if sum(others.values()) == 1 else "files were"
    hint = (
        f"Files that would be used end in {join(extensions)}." if extensions else "Arrays are not read from archives."
    )
    return DataError(f"{where} holds nothing that can be used: {what} {files} found.", hint=hint)


def nearby(path: str) -> str:
    """The most similar name in the folder where a file was looked for; "" where there is none."""
    folder, name = os.path.split(os.path.abspath(path))
    try:
        return nearest(name, os.listdir(folder))
    except OSError:
        return ""


def join(extensions: Iterable[str]) -> str:
    return ", ".join(sorted(extensions))
