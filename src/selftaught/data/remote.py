"""Data that lie elsewhere: whatever fsspec opens (``s3://``, ``gs://``, ``https://``, ``hf://``, …).

Shards that are learned from are streamed (``shards.py``); everything else that a command is given by its URL is copied
to the cache once and is then a file like any other.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import posixpath
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import fsspec
from fsspec.asyn import reset_lock

from selftaught.data.place import cache_folder, write_atomically
from selftaught.errors import DataError, SelftaughtError, first_line, nearest
from selftaught.formats.files import leaves

_SCHEME = re.compile(r"^([a-zA-Z][a-zA-Z0-9+.-]+)://")
_HUB = re.compile(r"^hf://(?:datasets/)?([\w.-]+(?:/[\w.-]+)?)(?:@([\w./-]+?))?/?$")  # hf://name and hf://owner/name
CONVERTED = "refs/convert/parquet"  # where Hugging Face keeps every data set as Parquet
PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs", "hf": "huggingface_hub"}
SPLITS = ("train", "training")
TRIES, PAUSE = 5, 1.0  # of a connection that breaks; seconds before the second one, doubled from try to try
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Remote:
    """One file elsewhere. ``stamp``: what tells a rewritten one from it, as far as its place says."""

    url: str
    size: int  # bytes; -1 = its place does not say
    stamp: str = ""

    @property
    def name(self) -> str:
        return posixpath.basename(self.url)


def is_url(data: Any) -> bool:
    return isinstance(data, str) and _SCHEME.match(data) is not None


def find(url: str, endings: Sequence[str]) -> list[Remote]:
    """The files behind a URL, in order of their names: one, a pattern of several (``*``, ``{000..099}`` as counted by
    the caller), a folder of files with one of ``endings``, or a data set of Hugging Face's (``hf://owner/name``).

    Raises ``DataError`` in one sentence for what is not there, cannot be reached, or takes a package.
    """
    if hub := _HUB.match(url):
        return _of_hub(hub[1], hub[2], endings)
    return _listed(url, endings)


def _listed(url: str, endings: Sequence[str]) -> list[Remote]:
    with said(url):
        return patiently(lambda: _seen(url, endings))


def _seen(url: str, endings: Sequence[str]) -> list[Remote]:
    system, path = fsspec.core.url_to_fs(url)
    if "*" in path or "?" in path:
        paths = sorted(system.glob(path))
    elif not path.lower().endswith(tuple(endings)) and system.isdir(path):
        paths = sorted(each for each in system.find(path) if each.lower().endswith(tuple(endings)))
    else:
        paths = [path]
    if not paths:
        raise DataError(f"There is nothing at {url} that can be used.", hint=f"Files end in {', '.join(endings)}.")
    return [_facts(system, each) for each in paths]


def _of_hub(name: str, revision: str | None, endings: Sequence[str]) -> list[Remote]:
    """The files of a data set, those for training where they say so; else what Hugging Face made of it."""
    for place in (f"hf://datasets/{name}{f'@{revision}' if revision else ''}", f"hf://datasets/{name}@{CONVERTED}"):
        with contextlib.suppress(DataError):
            found = _listed(f"{place}/", endings)
            parts = [set(re.split(r"[/_.-]", each.url.partition(name)[2].lower())) for each in found]
            train = [each for each, words in zip(found, parts, strict=True) if words & set(SPLITS)]
            return train or found
    raise DataError(f"There is no data set {name!r} that can be used, or it cannot be reached.")


def patiently(action: Callable[[], T]) -> T:
    """What ``action`` gives, tried again where a connection breaks, but not where waiting will not help."""
    for tried in range(1, TRIES):
        try:
            return action()
        except (SelftaughtError, ImportError, FileNotFoundError, PermissionError, ValueError):
            raise
        except Exception:  # every file system has its own
            time.sleep(PAUSE * 2 ** (tried - 1))
    return action()


@contextlib.contextmanager
def said(url: str) -> Iterator[None]:
    """Whatever fsspec and its many file systems raise, as one sentence."""
    scheme = url.split("://")[0]
    try:
        yield
    except DataError:
        raise
    except ImportError:
        package = PACKAGES.get(scheme, f"fsspec[{scheme}]")
        raise DataError(f"Reading {scheme}:// takes {package}.", hint=f"pip install '{package}'") from None
    except FileNotFoundError:
        unreached = ", or it cannot be reached" if scheme.startswith("http") else ""  # fsspec tells no difference
        raise DataError(f"There is nothing at {url}{unreached}.") from None
    except PermissionError as error:
        raise DataError(f"{url} may not be read: {first_line(error)}.") from None
    except ValueError as error:
        if "Protocol not known" not in str(error):
            raise DataError(f"{url} cannot be reached: {first_line(error)}.") from None
        raise DataError(
            f"{scheme}:// is no place that can be read.", hint=nearest(scheme, fsspec.available_protocols())
        ) from None
    except Exception as error:
        raise DataError(f"{url} cannot be reached: {first_line(error)}.") from None


def _facts(system: Any, path: str) -> Remote:
    info = system.info(path)
    known = ("ETag", "etag", "mtime", "LastModified", "last_modified", "created", "sha256", "oid")
    stamp = next((str(info[name]) for name in known if info.get(name) is not None), "")
    size = info.get("size")
    return Remote(system.unstrip_protocol(path), -1 if size is None else int(size), stamp)


@contextlib.contextmanager
def opened(url: str) -> Iterator[BinaryIO]:
    """The file, for reading from its start. Raises ``OSError`` and what its file system has for one."""
    system, path = fsspec.core.url_to_fs(url)
    with system.open(path, "rb") as file:
        yield file


def after_fork() -> None:
    """To be called in each worker before it reads: fsspec's own thread did not come along."""
    reset_lock()


def fetch(files: Sequence[Remote], cache: str | Path | None = None) -> list[str]:
    """Copies in the cache folder, made once; their names are kept, and of several the folders that they lie in.

    Raises ``DataError``, ``WriteError``.
    """
    store = cache_folder(cache) / "fetched"
    if len(files) == 1:
        return [_fetch(files[0], store)]
    above = len(os.path.commonprefix([each.url for each in files]).rpartition("/")[0]) + 1
    names = [each.url[above:] for each in files]
    stray = [name for name in names if leaves(name)]
    if stray:
        raise DataError(f"A file is named {stray[0]!r}, which leads out of its folder.")
    copies = [_fetch(each, store) for each in files]
    tree = store / hashlib.sha256("\n".join(copies).encode()).hexdigest()[:24]
    return [_placed(copy, tree / name) for copy, name in zip(copies, names, strict=True)]


def _placed(copy: str, place: Path) -> str:
    """The copy again, where it lay: labels and splits may be folders. One file, two names."""

    def link(temporary: str) -> None:
        try:
            os.link(copy, temporary)
        except OSError:  # a file system without links
            shutil.copyfile(copy, temporary)

    if not place.exists():
        write_atomically(place, "copy of what lies elsewhere", link)
    return str(place)


def _fetch(file: Remote, folder: Path) -> str:
    key = hashlib.sha256(f"{file.url} {file.size} {file.stamp}".encode()).hexdigest()[:24]
    place = folder / key / file.name
    if not place.exists():

        def save(temporary: str) -> None:
            with open(temporary, "wb") as target:
                target.writelines(_chunks(file.url))
            if file.size >= 0 and os.path.getsize(temporary) != file.size:
                there = os.path.getsize(temporary)
                raise DataError(f"{file.url} broke off after {there:,} of {file.size:,} bytes.", hint="Try again.")

        write_atomically(place, "copy of what lies elsewhere", save)
    return str(place)


def _chunks(url: str) -> Iterator[bytes]:
    """A file from its start to its end, going on where a connection broke."""
    at, source = 0, None
    with said(url), contextlib.ExitStack() as files:

        def following() -> bytes:
            nonlocal source
            try:
                if source is None:
                    source = files.enter_context(opened(url))
                    if at:
                        source.seek(at)
                return source.read(2**22)
            except Exception:
                source = None
                raise

        while chunk := patiently(following):
            at += len(chunk)
            yield chunk
