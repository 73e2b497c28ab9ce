"""The first look at every file: rows for the index, and reasons for what cannot be used."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np

from selftaught.data.entries import Source, stat
from selftaught.errors import QuarantineError, UnreadableError
from selftaught.formats import arrays
from selftaught.types import Item, Modality

VERSION = 2  # of the index file; a new number makes old ones be scanned again
THREADS = 8  # opening files waits for the disk or the network, not for the processor
CHUNK = 256
ACCEPTED, AT_LEAST = 0.05, 20
_OF_THE_FILE = "\0"  # marks a group that a file's own content named
_OWN = ("part", "length", "entity", "group", "label", "split")
_FACTS = (*_OWN, "size", "mtime_ns", "path", "inside")


@dataclass(slots=True)
class Scan:
    """Columns of the index by name, and (relative path, reason) of the files that are not in it."""

    columns: dict[str, list]
    quarantine: list[tuple[str, str]] = field(default_factory=list)
    numbers: dict[str, str] = field(default_factory=dict)  # what a file says of whose it is -> a number of ours


def scan(source: Source, modality: Modality) -> Scan:
    """Asks ``modality.items`` of every file, in threads; the rows keep the order of ``source.paths``."""
    extra = [name for name in source.columns if name not in _FACTS]
    within = ("inside",) if source.inside else ()
    found = Scan({name: [] for name in ("path", *_OWN, "size", "mtime_ns", *within, *extra)}, list(source.refused))
    with ThreadPoolExecutor(THREADS) as threads:
        chunks = range(0, len(source.paths), CHUNK)
        for looked in threads.map(lambda start: _look(source, modality, start), chunks):
            for row, facts, answer in looked:
                if isinstance(answer, str):
                    found.quarantine.append((source.paths[row], answer))
                else:
                    _add(found, source, row, facts, answer)
    return found


def cache_key(source: Source, modality: Modality) -> str:
    """The name of a cached index: what was asked for. Whether it still holds is for the fingerprint to say."""
    asked = [VERSION, source.root, source.kind, modality.name, sorted(modality.extensions)]
    asked.append(str(getattr(modality, "scan_key", "")))  # where ``items`` depends on the modality's configuration
    if source.kind != "folder":
        asked += [source.paths, {name: values for name, values in source.columns.items()}]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:24]


def check_share(bad: Sequence[tuple[str, str]], tried: int, count: int) -> None:
    """Raises ``QuarantineError`` where more than 5 % of at least 20 cannot be read.

    Before all ``count`` were tried, chance is allowed for (three standard deviations of drawing without replacement):
    else one in twenty, which is accepted, would stop nearly every run within its first batches.
    """
    expected = ACCEPTED * tried
    if tried >= AT_LEAST and len(bad) > expected + 3 * math.sqrt(expected * max(0.0, 1 - tried / count)):
        first = "; ".join(f"{path}: {reason}" for path, reason in bad[:3])
        message = f"{len(bad):,} of {tried:,} files ({len(bad) / tried:.1%}) cannot be read. The first: {first}."
        raise QuarantineError(message, hint="Up to 5 % are left out and named; --accept-unreadable goes on anyway.")


def _look(source: Source, modality: Modality, start: int) -> list[tuple[int, tuple[int, int], list[Item] | str]]:
    rows = range(start, min(start + CHUNK, len(source.paths)))
    return [(row, *_look_at(source.full(row), modality)) for row in rows]


def _look_at(path: str, modality: Modality) -> tuple[tuple[int, int], list[Item] | str]:
    size, mtime = stat(path)
    if size <= 0:
        return (size, mtime), "there is no such file" if size < 0 else "the file is empty (0 bytes)"
    try:
        return (size, mtime), list(_with_groups(modality.items(path), path)) or "holds no samples"
    except UnreadableError as error:
        return (size, mtime), str(error)
    except OSError as error:
        return (size, mtime), f"cannot be opened: {error.strerror}"


def _with_groups(items, path: str) -> Iterator[Item]:
    """Arrays say in a member of their own ("subject", "group") what must stay together."""
    items = [replace(item, group=_OF_THE_FILE + item.group) if item.group else item for item in items]
    beside = arrays.partner(path, arrays.GROUPS) if arrays.is_array(path) else None
    groups = np.asarray(arrays.open_array(beside)).reshape(-1) if beside else ()
    for item in items:
        if len(groups) == len(items) and not item.group:
            item = replace(item, group=str(groups[item.part]))
        yield item


def _add(found: Scan, source: Source, row: int, facts: tuple[int, int], items: list[Item]) -> None:
    """Groups that a file names itself (patients, volumes) become numbers in order of appearance: no name is copied."""
    columns, said = found.columns, {name: values[row] for name, values in source.columns.items()}
    for item in items:
        if item.group.startswith(_OF_THE_FILE):
            item = replace(item, group=found.numbers.setdefault(item.group, str(len(found.numbers) + 1)))
        for name in _OWN:
            columns[name].append(said.get(name, "") or getattr(item, name))
        columns["path"].append(source.paths[row])
        columns["size"].append(facts[0])
        columns["mtime_ns"].append(facts[1])
        if source.inside:
            columns["inside"].append(source.inside[row])
    for name in said.keys() - set(_FACTS):
        columns[name].extend([said[name]] * len(items))
