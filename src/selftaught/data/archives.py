"""Archives as folders: what a zip or tar file holds, and where in it, so that nothing is ever unpacked to a path.

A member is read where it lies (``formats.files``), so a name that leaves the archive cannot reach anything; it is
refused all the same, as are encrypted members, unknown compressions, and sizes that only bombs have. A tar file that is
compressed as a whole has no place to look at: it is unpacked once, to one plain tar file in the cache folder.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import hashlib
import json
import lzma
import os
import posixpath
import shutil
import stat as modes
import struct
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

from selftaught.data.place import cache_folder, write_atomically
from selftaught.errors import DataError, UnreadableError, first_line
from selftaught.formats import files

COMPRESSED = {".gz": gzip.open, ".tgz": gzip.open, ".bz2": bz2.open, ".tbz2": bz2.open, ".xz": lzma.open}
COMPRESSED |= {".txz": lzma.open}
LARGEST = 2**31  # bytes of one member
RATIO = 200  # how many times its size a member, or a whole archive, may unpack to
HARMLESS = 2**26  # bytes up to which nobody asks for the ratio
MOST = 20_000_000  # members
BESIDE = (".cls", ".txt", ".json")  # what WebDataset keeps beside a sample, under the same name
LONGEST = 2**16  # bytes of such a member


class Member(NamedTuple):
    """``name`` is relative to the archive; ``part`` says where in it (``formats.files``)."""

    name: str
    part: files.Part


@dataclass(slots=True)
class Listing:
    """What an archive holds, in its order; ``columns`` has one string a member, from what lies beside it."""

    members: list[Member] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)  # (name, reason)
    others: Counter = field(default_factory=Counter)  # extension -> how many members were left alone
    columns: dict[str, list[str]] = field(default_factory=dict)


def is_archive(path: str) -> bool:
    return stem(path) != path


def stem(path: str) -> str:
    """The path without what makes it an archive's: ``a.tar.gz`` -> ``a``; others as they are."""
    name, extension = os.path.splitext(path)
    if extension.lower() in (".zip", ".tar", ".tgz", ".tbz2", ".txz"):
        return name
    if extension.lower() in COMPRESSED and name.lower().endswith(".tar"):
        return name[: -len(".tar")]
    return path


def list_archive(path: str, wanted: frozenset[str], cache: str | Path | None = None) -> Listing:
    """The members whose extension is ``wanted``. Raises ``DataError`` for what is no archive, or is cut off.

    Hidden members and what a Mac adds (``__MACOSX``) are passed over, as in folders. Of two members of one name the
    later counts, as when an archive is unpacked; the earlier is named.
    """
    plain = _plain(path, cache)
    found, beside, place = Listing(), {}, {}
    for name, part in (
        _zip(plain, found) if plain.lower().endswith(".zip") else _tar(plain, found, os.path.basename(path))
    ):
        extension = files.extension(name)
        if extension in wanted:
            if name in place:
                found.refused.append((name, "the archive holds another member of this name further on"))
                found.members[place[name]] = Member(name, part)
            else:
                place[name] = len(found.members)
                found.members.append(Member(name, part))
        elif extension in BESIDE and part.size <= LONGEST:
            beside[name] = part
        else:
            found.others[extension] += 1
    _read_beside(found, beside)
    return found


# --- What is inside ---------------------------------------------------------------------------------------------------


def _zip(path: str, found: Listing) -> Iterator[Member]:
    try:
        archive = zipfile.ZipFile(path)
    except Exception as error:  # its own errors, and those of the parts that it is made of
        raise _broken(path, "zip", error) from None
    with archive, open(path, "rb") as raw:
        for info in archive.infolist():
            if info.filename.endswith("/") or (name := _clean(info.filename, found)) is None:
                continue
            reason = _unfit(info)
            if modes.S_ISLNK(info.external_attr >> 16):
                found.others["links"] += 1
            elif reason:
                found.refused.append((name, reason))
            else:
                packed = info.compress_type == zipfile.ZIP_DEFLATED
                yield Member(name, files.Part(path, _start(raw, info), info.file_size, packed))


def _start(raw: BinaryIO, info: zipfile.ZipInfo) -> int:
    """Where a member's bytes begin: behind a header of its own, which has other lengths than the directory's."""
    raw.seek(max(0, info.header_offset))
    header = raw.read(30)
    if info.header_offset < 0 or len(header) < 30 or not header.startswith(b"PK\x03\x04"):
        raise _broken(raw.name, "zip", ValueError(f"{info.filename!r} does not start where its directory says"))
    return info.header_offset + 30 + sum(struct.unpack_from("<HH", header, 26))


def _unfit(info: zipfile.ZipInfo) -> str:
    if info.flag_bits & 1:
        return "it is encrypted"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"it is compressed by method {info.compress_type}; zip it again with deflate"
    if info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size:
        return "its size is not told rightly"
    return _too_large(info.file_size, info.compress_size)


def _too_large(size: int, packed: int) -> str:
    if size > LARGEST:
        return f"it claims {size:,} bytes, more than {LARGEST:,}"
    if size > HARMLESS and size > RATIO * packed:
        return f"it claims to unpack to {size:,} bytes, more than {RATIO} times what is stored"
    return ""


def _tar(path: str, found: Listing, name: str) -> Iterator[Member]:
    try:
        with tarfile.open(path, "r:") as archive:
            while (info := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # else it remembers them all
                if info.isdir() or (clean := _clean(info.name, found)) is None:
                    continue
                if not info.isreg() or info.sparse is not None:
                    found.others["links" if info.issym() or info.islnk() else "special files"] += 1
                elif reason := _too_large(info.size, info.size):
                    found.refused.append((clean, reason))
                else:
                    yield Member(clean, files.Part(path, info.offset_data, info.size))
            end = archive.offset
    except (tarfile.TarError, OSError, ValueError) as error:
        raise _broken(name, "tar", error) from None
    if files.read(str(files.Part(path, end, max(0, min(512, os.path.getsize(path) - end))))).strip(b"\0"):
        raise _broken(name, "tar", ValueError(f"what stands at byte {end:,} is no header"))  # tarfile just stops there


def _broken(path: str, kind: str, error: Exception) -> DataError:
    message = f"{os.path.basename(path)} cannot be read as a {kind} archive: {first_line(error)}."
    return DataError(message, hint="It may be cut off: compare its size with the original's.")


def _clean(name: str, found: Listing) -> str | None:
    """The name as a path below the archive; None for what is hidden, or leaves the archive, which is noted."""
    if len(found.members) + len(found.refused) > MOST:
        raise DataError(f"The archive holds more than {MOST:,} files.")
    clean = posixpath.normpath(name.replace("\\", "/"))
    if clean.startswith(("/", "../")) or clean == ".." or clean[1:2] == ":" or "\0" in clean:
        found.refused.append((name, "its name leaves the archive"))
        return None
    parts = clean.split("/")
    return None if any(part.startswith(".") or part == "__MACOSX" for part in parts) else clean


# --- WebDataset: what lies beside a sample ----------------------------------------------------------------------------


def _read_beside(found: Listing, beside: Mapping[str, files.Part]) -> None:
    """Columns from ``a.cls``, ``a.txt`` and the plain values in ``a.json`` beside ``a.jpg``; the rest is left alone."""
    used = set()
    for row, member in enumerate(found.members):
        start = key(member.name)
        for extension in BESIDE:
            part = beside.get(start + extension)
            if part is not None:
                used.add(start + extension)
                for name, value in _values(part, extension).items():
                    found.columns.setdefault(name, [""] * len(found.members))[row] = value
    found.others.update(os.path.splitext(name)[1].lower() for name in beside.keys() - used)


def key(name: str) -> str:
    """WebDataset's: up to the first dot of the file's name."""
    folder, base = posixpath.split(name)
    return posixpath.join(folder, base.partition(".")[0])


def _values(part: files.Part, extension: str) -> dict[str, str]:
    try:
        return values(files.read(str(part)), extension)
    except UnreadableError:
        return {}


def values(content: bytes, extension: str) -> dict[str, str]:
    """What a neighbour of a sample says of it, by name."""
    text = content.decode("utf-8", "replace").strip()
    if extension != ".json":
        return {extension[1:]: text}
    try:
        said = json.loads(text)
    except ValueError:
        return {}
    named = said.items() if isinstance(said, dict) else ()
    return {name: str(value) for name, value in named if isinstance(value, str | int | float)}


# --- Compressed as a whole --------------------------------------------------------------------------------------------


def _plain(path: str, cache: str | Path | None) -> str:
    """The archive itself, or, where a tar file is compressed as a whole, a plain one in the cache folder."""
    extension = os.path.splitext(path)[1].lower()
    if extension not in COMPRESSED:
        return path
    size, mtime = files.stat(path)
    name = hashlib.sha256(f"{os.path.abspath(path)} {size} {mtime}".encode()).hexdigest()[:32]
    out = cache_folder(cache) / "archives" / f"{name}.tar"
    if not out.exists():
        write_atomically(out, "unpacked archive", lambda temporary: _unpack(path, temporary))
    return str(out)


def _unpack(path: str, out: str) -> None:
    size, mtime = files.stat(path)
    most = max(HARMLESS, RATIO * size)
    try:
        with COMPRESSED[os.path.splitext(path)[1].lower()](path, "rb") as source, open(out, "wb") as target:
            while piece := source.read(2**20):
                target.write(piece)
                if target.tell() > most:
                    message = f"{os.path.basename(path)} unpacks to more than {RATIO} times its size."
                    raise DataError(message, hint="As bombs do. If it is yours, unpack it into a folder.")
                if shutil.disk_usage(os.path.dirname(out)).free < 2**28:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.utime(out, ns=(mtime, mtime))  # made again after the cache was emptied, it is the same data
    except (EOFError, OSError, lzma.LZMAError, zlib.error, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk's own; bz2 and gzip give no number
            raise
        raise _broken(path, "compressed tar", error) from None
