"""What a command works on: the user's data as an index, the kind of data they are, and what is held out."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from selftaught import catalog
from selftaught.data.entries import Source
from selftaught.data.index import Index, build_index
from selftaught.data.keys import Permutation
from selftaught.data.source import open_source
from selftaught.errors import ModalityError, UnreadableError
from selftaught.formats import arrays, files, stills
from selftaught.types import Modality

MEASURED = 512  # samples that a modality measures before step 0
HELD_OUT = 0.05  # share of the samples that health is measured on
FEWEST, MOST = 128, 2048  # of them
AT_MOST = 0.1  # of the data
TOO_FEW = 64  # below, health is measured on training samples
_SAY_WHICH = "Say which with --modality."


@dataclass
class Samples:
    """An opened data set: where it is, its index, and the modality that reads it."""

    source: Source
    modality: Modality
    index: Index

    @property
    def fingerprint(self) -> str:
        return self.index.fingerprint


def open_samples(data: Any, modality: dict[str, Any], *, accept_unreadable: bool = False) -> Samples:
    """The data as the modality reads them (``{"name": "auto"}`` = by content). Heads of files are read, no pixels.

    Raises DataError, ModalityError, QuarantineError.
    """
    name, options = modality["name"], {key: value for key, value in modality.items() if key != "name"}
    if name == "auto":
        name = infer(data)
        refuse_foreign(name, options)
    reader = catalog.load("modality", name)(**options)
    source = open_source(data, reader.extensions)
    return Samples(source, reader, build_index(source, reader, accept_unreadable=accept_unreadable))


def read_again(data: Any, modality: Modality, *, accept_unreadable: bool = False) -> Samples:
    """Other data, as a modality reads them that has measured its own already."""
    source = open_source(data, modality.extensions)
    return Samples(source, modality, build_index(source, modality, accept_unreadable=accept_unreadable))


def infer(data: Any) -> str:
    """The modality that most files belong to; arrays by their shape and type. Raises ModalityError where none does."""
    claims = {name: catalog.load("modality", name).extensions for name in catalog.names("modality")}
    source = open_source(data, frozenset().union(*claims.values()))
    kinds = Counter(files.extension(arrays.split_key(path)[0]) for path in source.paths[:10_000])
    extension, _ = kinds.most_common(1)[0]
    if not any(extension in extensions for extensions in claims.values()) and stills.is_bare_dicom(source.full(0)):
        extension = ".dcm"
    fitting = [name for name, extensions in claims.items() if extension in extensions]
    if extension in arrays.EXTENSIONS and len(fitting) > 1:
        return _by_claim(source.full(0), fitting)
    if len(fitting) != 1:
        which = f"{' or '.join(fitting)}" if fitting else f"no kind known ({', '.join(claims)})"
        raise ModalityError(f"Files ending in {extension!r} may be {which}.", hint=_SAY_WHICH)
    return fitting[0]


def _by_claim(path: str, fitting: list[str]) -> str:
    """Arrays belong to the modality that claims their shape and type most. Raises ModalityError where two do."""
    try:
        array = arrays.open_array(path)
    except UnreadableError as error:
        raise ModalityError(f"The arrays {path!r} cannot be read: {error}.") from error
    claims = {name: catalog.load("modality", name).claims(array.shape[1:], array.dtype.kind) for name in fitting}
    best = [name for name in fitting if claims[name] == max(claims.values())]
    if len(best) > 1:
        raise ModalityError(f"Arrays of shape {array.shape} may be {' or '.join(best)}.", hint=_SAY_WHICH)
    return best[0]


def refuse_foreign(name: str, options: dict[str, Any]) -> None:
    """Options that were checked against every modality, now against the one that the data turned out to be."""
    from selftaught.config import validate_given

    validate_given(catalog.title("modality", name), catalog.signature("modality", name), options)


def measure(samples: Samples, rows: np.ndarray, seed: int) -> None:
    """Lets the modality measure some of ``rows``, drawn by key: the first ones may all be of one class.

    What cannot be read is left for the loader to name.
    """
    drawn = Permutation(len(rows), seed, stream="measured")(np.arange(min(len(rows), MEASURED)))
    found = []
    for row in rows[np.sort(drawn)]:
        with contextlib.suppress(UnreadableError):
            found.append(samples.modality.read(samples.index.item(int(row))))
    samples.modality.fit(found)


def hold_out(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(training rows, rows for health), sorted. With too few samples the second is empty."""
    held = int(min(max(FEWEST, HELD_OUT * count), MOST, AT_MOST * count))
    order = Permutation(count, seed, stream="held-out")(np.arange(count))
    held = 0 if held < TOO_FEW else held
    return np.sort(order[held:]), np.sort(order[:held])


def joined(first: Samples, second: Samples) -> Samples:
    """One index of both, the first one's rows before the second one's."""
    both = (first.source, second.source)
    paths = [os.path.join(one.root, path) for one in both for path in one.paths]
    if not any(one.inside for one in both):
        source = open_source(paths, first.modality.extensions)
    else:
        inside = [
            os.path.join(one.root, part) if part else "" for one in both for part in one.inside or [""] * len(one.paths)
        ]
        source = Source("/", "list", tuple(path.lstrip("/") for path in paths), inside=tuple(inside))
    return Samples(source, first.modality, build_index(source, first.modality, accept_unreadable=True))


def identities(index: Index) -> list[tuple[Any, ...]]:
    """What each sample is known by, to tell whether it was in another index: any one in common is enough.

    A file by its full path and size, or, where a folder moved, by its name, size and time; a row of an array by what it
    holds, for arrays are cut and put together again.
    """
    columns = [index.column(name) for name in ("path", "part", "size", "mtime_ns")]
    found: list[tuple[Any, ...]] = []
    for row, (path, part, size, mtime) in enumerate(zip(*columns, strict=True)):
        full = index.item(row).path  # members of two archives may have one name
        if arrays.is_array(full):
            found.append((_row_digest(full, int(part)),))
        else:
            found.append(((full, int(size)), (os.path.basename(path), int(size), int(mtime))))
    return found


def _row_digest(path: str, part: int) -> str:
    try:
        row = arrays.open_array(path)[part]
    except (UnreadableError, OSError, IndexError):
        return f"{path}[{part}]"  # gone since: nothing can be said but its name
    return hashlib.blake2b(np.ascontiguousarray(row).tobytes(), digest_size=16).hexdigest()
