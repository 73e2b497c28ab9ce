"""The bytes behind a path: those of a file, or of a part of one where many files lie in one (archives, tables).

A part is written ``photos.zip::4711+52030/cats/a.jpg``: it starts at byte 4,711, is 52,030 bytes long, and is called
what comes after the slash. With ``~`` in place of ``+`` it is deflated, and has so many bytes once it is inflated. So
any process reads any part with one look at the disk, and none has to hold the directory of an archive.
"""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
import re
import stat as modes
import zlib
from dataclasses import dataclass

from selftaught.errors import UnreadableError

OUTSIDE = "SELFTAUGHT_OUTSIDE"  # in the environment: "1" = a table may name files outside of its folder
_PART = re.compile(r"::(\d+)([+~])(\d+)(?=/|$)")
LARGE = 2**26  # bytes
_CHUNK = 2**16
_LOOKED_AT = 20_000  # files of a folder


def extension(path: str) -> str:
    """The ending that says what a file is, lower case: ``.jpg``; two of them where the last one only packs a volume."""
    name, last = os.path.splitext(path.lower())
    return f".nii{last}" if last == ".gz" and name.endswith(".nii") else last


def leaves(path: str) -> bool:
    """Whether a path that somebody wrote leaves the folder that it is relative to; absolute ones do."""
    return os.path.isabs(path) or os.path.normpath(path).split(os.sep)[0] == os.pardir


@dataclass(frozen=True, slots=True)
class Part:
    """``size`` bytes from byte ``at`` of ``file``; ``packed``: so many once they are inflated."""

    file: str
    at: int
    size: int
    packed: bool = False

    def __str__(self) -> str:
        return f"{self.file}::{self.at}{'~' if self.packed else '+'}{self.size}"


def part_of(path: str) -> Part | None:
    """The part that a path names, None for a file of its own."""
    found = _PART.search(path) if "::" in path else None
    return Part(path[: found.start()], int(found[1]), int(found[3]), found[2] == "~") if found else None


def stat(path: str) -> tuple[int, int]:
    """(size, modification time in ns); (-1, 0) where nothing is there. Of a folder: of its newest file."""
    part = part_of(path)
    try:
        facts = os.stat(part.file if part else path)
    except (OSError, ValueError):  # a path with a zero byte is none
        return -1, 0
    if modes.S_ISDIR(facts.st_mode):
        return _newest(path, facts)
    return part.size if part else facts.st_size, facts.st_mtime_ns


def _newest(folder: str, facts: os.stat_result) -> tuple[int, int]:
    """(bytes of all files, the newest one's time): a Zarr store's chunks are rewritten without its folder changing."""
    found = [facts]
    paths = (os.path.join(here, name) for here, _, names in os.walk(folder) for name in names)
    for path in itertools.islice(paths, _LOOKED_AT):
        with contextlib.suppress(OSError):
            found.append(os.stat(path))
    return sum(one.st_size for one in found), max(one.st_mtime_ns for one in found)


def read(path: str, count: int | None = None) -> bytes:
    """All bytes of a file or a part, or the first ``count``. Raises ``UnreadableError`` with the reason."""
    part = part_of(path)
    try:
        with open(part.file if part else path, "rb", buffering=0) as file:
            if part is None:
                return file.read() if count is None else file.read(count)
            wanted = part.size if count is None else min(count, part.size)
            found = _inflated(file.fileno(), part, wanted) if part.packed else os.pread(file.fileno(), wanted, part.at)
    except OSError as error:
        raise UnreadableError(f"cannot be opened: {error.strerror}") from None
    if len(found) < wanted:
        raise UnreadableError(f"truncated: {len(found):,} of {wanted:,} bytes are there")
    return found


def read_at(path: str, at: int, count: int) -> bytes:
    """Up to ``count`` bytes from byte ``at`` of a file or a part. Raises ``UnreadableError``."""
    part = part_of(path)
    if part is not None and part.packed:
        return read(path, at + count)[at:]
    try:
        with open(part.file if part else path, "rb", buffering=0) as file:
            most = count if part is None else max(0, min(count, part.size - at))
            return os.pread(file.fileno(), most, at + (part.at if part else 0))
    except (OSError, ValueError, OverflowError) as error:
        raise UnreadableError(f"cannot be read at byte {at:,}: {error}") from None


def content(path: str) -> bytes | memoryview:
    """All bytes of a file or a part: read, or mapped where they are many. Raises ``UnreadableError``.

    Small files are not mapped, since a mapped one that somebody shortens meanwhile ends the process.
    """
    return mapped(path) if stat(path)[0] > LARGE else read(path)


def mapped(path: str) -> memoryview:
    """All bytes of a file or a part without reading them; deflated parts are read. Raises ``UnreadableError``."""
    part = part_of(path)
    if part is not None and part.packed:
        return memoryview(read(path))
    try:
        with open(part.file if part else path, "rb", buffering=0) as file:
            whole = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
        raise UnreadableError(f"cannot be opened: {error}") from None
    return whole if part is None else whole[part.at : part.at + part.size]


def _inflated(file: int, part: Part, wanted: int) -> bytes:
    """The first ``wanted`` bytes; never more, whatever the archive holds."""
    unpack, at, length, found = zlib.decompressobj(-zlib.MAX_WBITS), part.at, 0, []
    while length < wanted and not unpack.eof:
        stored = unpack.unconsumed_tail
        if not stored:
            stored = os.pread(file, max(_CHUNK, min(wanted, 2**24)), at)
            at += len(stored)
            if not stored:
                break
        try:
            found.append(unpack.decompress(stored, wanted - length))
        except zlib.error as error:
            raise UnreadableError(f"corrupt: {error}") from None
        length += len(found[-1])
    return b"".join(found)
