"""Shards elsewhere as something to learn from: what they are, a look at their first samples, their samples in blocks.

The look is a small tar file in the cache: the first samples of some shards, which the training then passes over. It is
a data set like any other, so what is measured before step 0, health on held-out samples and pictures need nothing of
their own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import io
import itertools
import json
import os
import tarfile
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from selftaught.data import lanes, remote, shards
from selftaught.data.place import cache_folder, write_atomically
from selftaught.data.source import counted
from selftaught.errors import DataError, UnreadableError
from selftaught.formats import files
from selftaught.types import Item

LOOK, LOOKED_INTO = 1024, 16  # samples looked at before, and how many shards they come from, at most
AT_MOST = 0.1  # of a shard
HELD = 2**28  # bytes of the samples that a process shuffles, about


@dataclass(frozen=True)
class Stream:
    """Shards, and what was found out at the start of a run. JSON-able by ``state``."""

    shards: tuple[remote.Remote, ...]
    wanted: frozenset[str]  # extensions of members that are samples
    look: str  # a tar file
    skipped: tuple[int, ...]  # of each shard: first samples that were looked at, and are not learned from
    samples: int  # of all shards without those; about, where tar files do not say
    exact: bool  # whether that is no estimate
    mean: int  # bytes of a sample

    @property
    def fingerprint(self) -> str:
        """Of names, sizes and what tells a rewritten shard from another."""
        said = json.dumps([dataclasses.astuple(each) for each in self.shards])
        return hashlib.sha256(said.encode()).hexdigest()

    @functools.cached_property
    def counts(self) -> lanes.Counts:
        """How many samples the shards hold, without those that are passed over."""
        return lanes.Counts(_folder(self.fingerprint) / "counts.jsonl")

    def block(self, lanes_of_a_process: int) -> int:
        """Neighbours to shuffle: a power of two such that all lanes of a process together hold about ``HELD`` bytes."""
        fitting = HELD // max(1, self.mean * lanes_of_a_process)
        return int(2 ** np.clip(np.floor(np.log2(max(1, fitting))), 4, np.log2(lanes.BLOCK)))

    def records(self, shard: int, start: int = 0) -> Iterator[shards.Record]:
        """The samples that are learned from, from number ``start`` on."""
        before = self.skipped[shard] if shard < len(self.skipped) else 0  # shorter: looked at by an earlier version
        return shards.records(self.shards[shard].url, self.wanted, before + start)

    def size(self, shard: int) -> int:
        """How many those are: known, or counted now."""
        counts = self.counts
        known = counts.get(shard)
        if known is None:
            known = 0
            with contextlib.suppress(UnreadableError):  # it ends where it breaks, whoever counts
                for _ in self.records(shard):
                    known += 1
            counts.note(shard, known)
        return known


def is_stream(data: Any) -> bool:
    """Shards (tar, Parquet) given by a URL; anything else by a URL is copied first."""
    if not remote.is_url(data):
        return False
    path = data.split("?")[0].lower()
    return path.endswith(shards.ENDINGS) or path.startswith("hf://") or path.endswith("/")


def open_stream(url: str, wanted: frozenset[str], cache: str | Path | None = None) -> Stream:
    """Finds the shards and looks at their first samples. Raises ``DataError``."""
    found = [each for one in counted(url) for each in remote.find(one, shards.ENDINGS)]
    key = hashlib.sha256(json.dumps([dataclasses.astuple(each) for each in found]).encode()).hexdigest()
    place = _folder(key, cache) / f"look-{hashlib.sha256(''.join(sorted(wanted)).encode()).hexdigest()[:8]}.tar"
    facts = place.with_suffix(".json")
    if not (place.exists() and facts.exists()):
        said: dict[str, Any] = {}
        write_atomically(
            place, "first look at the shards", lambda temporary: said.update(_look(found, wanted, temporary))
        )
        write_atomically(facts, "first look at the shards", lambda temporary: _text(temporary, said))
    said = json.loads(facts.read_text())
    return Stream(
        tuple(found), wanted, str(place), tuple(said["skipped"]), said["samples"], said["exact"], said["mean"]
    )


def _text(path: str, said: dict[str, Any]) -> None:
    Path(path).write_text(json.dumps(said), encoding="utf-8")


def _folder(key: str, cache: str | Path | None = None) -> Path:
    return cache_folder(cache) / "streams" / key[:24]


def _look(found: Sequence[remote.Remote], wanted: frozenset[str], out: str) -> dict[str, Any]:
    """Writes the first samples of some shards into one tar file, and says how many of each and how many there are.

    These shards are spread over all: where they are sorted, by day or by kind, the first few are not like the rest.
    """
    looked = np.unique(np.linspace(0, len(found) - 1, min(len(found), LOOKED_INTO)).round().astype(int)).tolist()
    each = -(-LOOK // len(looked))
    skipped, sizes, per_byte, rest = [0] * len(found), 0, [], 0
    with tarfile.open(out, "w") as archive:
        for number in looked:
            shard = found[number]
            known = _known(shard)
            first = list(itertools.islice(_readable(shard, wanted), each + 1))
            whole = known if known is not None else len(first) if len(first) <= each else None
            stored = sum(len(record.content) + 1024 for record in first)
            about = whole if whole is not None else max(len(first), round(len(first) * shard.size / max(1, stored)))
            kept = first[: min(each, int(AT_MOST * about))]
            for record in kept:
                _add(archive, number, record)
                sizes += len(record.content)
            skipped[number] = len(kept)
            per_byte.append(about / max(1, shard.size))
            rest += about - len(kept)
    if not sum(skipped):
        kinds = ", ".join(sorted(wanted))
        raise DataError("The shards hold too few samples to learn from.", hint=f"Samples end in {kinds}.")
    others = [shard for number, shard in enumerate(found) if number not in looked]
    known = [_known(shard) for shard in others]
    exact = None not in known and all(_known(found[number]) is not None for number in looked)
    rest += sum(
        round(float(np.mean(per_byte)) * max(0, shard.size)) if count is None else count
        for shard, count in zip(others, known, strict=True)
    )
    return {"skipped": skipped, "samples": rest, "exact": exact, "mean": sizes // sum(skipped)}


def _known(shard: remote.Remote) -> int | None:
    with remote.said(shard.url):
        return shards.count(shard.url)


def _readable(shard: remote.Remote, wanted: frozenset[str]) -> Iterator[shards.Record]:
    """Up to where it breaks; a shard that cannot be reached is an error."""
    with remote.said(shard.url), contextlib.suppress(UnreadableError):
        yield from shards.records(shard.url, wanted)


def _add(archive: tarfile.TarFile, number: int, record: shards.Record) -> None:
    """A sample and what is said of it, as WebDataset has them."""
    name = f"{number:04d}/{record.name}".replace("//", "/")
    stem = name.rpartition("/")[0] + "/" + os.path.basename(name).partition(".")[0]
    for member, content in ((name, record.content), (f"{stem}.json", json.dumps(record.columns).encode())):
        if member.endswith(".json") and not record.columns:
            continue
        info = tarfile.TarInfo(member)
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))


# --- Blocks -----------------------------------------------------------------------------------------------------------


class Block:
    """Samples of one shard, held in memory as parts of one file: readers open them by a path, as they do all others."""

    def __init__(self, records: Sequence[shards.Record]) -> None:
        self._file = _memory()
        self.items: list[Item] = []
        at = 0
        for record in records:
            self._file.write(record.content)
            part = files.Part(self._file.name, at, len(record.content))
            self.items.append(Item(f"{part}/{record.name}", label=record.columns.get("label")))
            at += len(record.content)
        self._file.flush()
        self.close = weakref.finalize(self, self._file.close)

    def __len__(self) -> int:
        return len(self.items)


def _memory() -> Any:
    """A file that is nowhere but has a path in this process; one that vanishes with it, where the system has none."""
    if hasattr(os, "memfd_create"):
        number = os.memfd_create("block")
        file = os.fdopen(number, "w+b")
        return _Named(file, f"/proc/self/fd/{number}")
    return tempfile.NamedTemporaryFile()  # noqa: SIM115  # closed with its block


class _Named:
    """A file under another name."""

    def __init__(self, file: Any, name: str) -> None:
        self.name, self.write, self.flush, self.close = name, file.write, file.flush, file.close
