"""One batch, from its number to tensors: what runs in a worker, and what a sample that cannot be read becomes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from selftaught.data.index import Index
from selftaught.data.kept import Decoded
from selftaught.data.keys import Keyed
from selftaught.data.order import Order
from selftaught.errors import QuarantineError, SelftaughtError, UnreadableError
from selftaught.types import Batch, Modality, Plan, Sample, Views

TRIES = 32  # replacements tried for one position; only data that are nearly all unreadable need more than two


class Answer(NamedTuple):
    """What a worker hands over: the batch, the (path, reason) of what was unreadable, and an error of ours if any."""

    batch: Batch | None
    unreadable: list[tuple[str, str]]
    error: SelftaughtError | None
    tried: int
    asked: int = 0  # decoded samples asked for, where some are kept
    found: int = 0  # of them, those that were kept


@dataclass
class Samples:
    """Row of the index -> views. ``targets`` (one a row of the index) replace what the files say; ``kept``: where
    decoded samples are kept, None = nowhere.
    """

    index: Index
    modality: Modality
    plan: Plan | None
    targets: Any = None
    kept: Decoded | None = None

    def views(self, i: int, rng: np.random.Generator) -> Views:
        sample = self.read(i)
        if self.plan is None:
            return self.modality.plain(sample)
        own = tuple(group for group in self.plan if not group.companion)
        made = self.modality.views(sample, rng, own)
        if len(own) < len(self.plan):
            other = self._companion(i, sample, rng)
            more = self.modality.views(other, rng, tuple(group for group in self.plan if group.companion))
            for name in ("streams", "valid", "observed", "hidden", "drawn"):
                getattr(made, name).update(getattr(more, name))
        return made

    def _companion(self, i: int, sample: Sample, rng: np.random.Generator) -> Sample:
        """The sample before or after in time; the sample itself where there is neither, or it cannot be read."""
        beside = neighbours(self.index, i)
        if not beside:
            return sample
        try:
            return self.read(beside[int(rng.integers(len(beside)))])
        except (UnreadableError, OSError):
            return sample  # named when its own turn comes

    def read(self, i: int) -> Sample:
        def read() -> Sample:
            return self.modality.read(self.index.item(i))

        sample = read() if self.kept is None else self.kept.sample(i, read)
        if self.targets is not None:
            sample.target = self.targets[i]
        return sample


def neighbours(index: Index, i: int) -> list[int]:
    """The rows just before and after row ``i`` in time: of the same file and group, the next lower or higher part.

    Held-out rows between them are passed over, so neighbours may be two parts from each other, or a few.
    """
    rows = [j for j in (i - 1, i + 1) if 0 <= j < len(index)]
    here = index.item(i)
    beside = ((j, index.item(j)) for j in rows)
    return [j for j, item in beside if (item.path, item.entity, item.group) == (here.path, here.entity, here.group)]


@dataclass
class Training:
    """``[t]`` is this rank's share of global batch t: a pure function of (seed, t, rank, world)."""

    samples: Samples
    order: Order
    seed: int
    rank: int = 0
    world: int = 1
    _keys: dict[str, Keyed] = field(default_factory=dict, repr=False)

    def __getitem__(self, t: int) -> Answer:
        return _answer(self._batch, t, self.samples.kept)

    def _batch(self, t: int, bad: list[tuple[str, str]]) -> tuple[Batch | None, int]:
        rows, positions = self.order.share(t, self.rank, self.world)
        made = [self._one(int(i), int(p), bad) for i, p in zip(rows, positions, strict=True)]
        used = np.array([i for i, _ in made], np.int64)
        return self.samples.modality.collate([views for _, views in made], used, positions), len(rows)

    def _one(self, i: int, p: int, bad: list[tuple[str, str]]) -> tuple[int, Views]:
        """(row, views) of position ``p``; if row ``i`` is unreadable, of the first readable of a keyed sequence."""
        for attempt in range(TRIES):
            try:
                return i, self.samples.views(i, self._keyed("")(p))
            except (UnreadableError, OSError) as error:
                bad.append((self.samples.index.name(i), reason_of(error)))
                i = int(self._keyed("/replace")(p).integers(0, self.order.count, TRIES)[attempt])
        raise QuarantineError(f"{TRIES} samples in a row cannot be read, the last {bad[-1][0]!r}: {bad[-1][1]}.")

    def _keyed(self, what: str) -> Keyed:
        if what not in self._keys:
            self._keys[what] = Keyed(self.seed, self.order.stream + what)
        return self._keys[what]


@dataclass
class Evaluation:
    """``[t]`` holds ``rows[t B : (t + 1) B]`` in order; what is unreadable is left out and named.

    Plain, or with the views of a plan, which are keyed by ``seed`` and the place in ``rows``.
    """

    samples: Samples
    rows: np.ndarray
    batch_size: int
    seed: int = 0
    _key: Keyed | None = field(default=None, repr=False)

    def __getitem__(self, t: int) -> Answer:
        return _answer(self._batch, t, self.samples.kept)

    def _batch(self, t: int, bad: list[tuple[str, str]]) -> tuple[Batch | None, int]:
        positions = np.arange(t * self.batch_size, min((t + 1) * self.batch_size, len(self.rows)), dtype=np.int64)
        made, kept = [], []
        for p in positions:
            try:
                made.append(self.samples.views(int(self.rows[p]), self._keyed(int(p))))
                kept.append(p)
            except (UnreadableError, OSError) as error:
                bad.append((self.samples.index.name(int(self.rows[p])), reason_of(error)))
        kept = np.array(kept, np.int64)
        return (self.samples.modality.collate(made, self.rows[kept], kept) if made else None), len(positions)

    def _keyed(self, p: int) -> Any:
        if self.samples.plan is None:
            return _NO_RANDOMNESS
        self._key = self._key or Keyed(self.seed, "once")
        return self._key(p)


_NO_RANDOMNESS: Any = None  # plain views take no generator; one that asked for it would fail at once


def _answer(make: Callable[[int, list], tuple[Batch | None, int]], t: int, kept: Decoded | None) -> Answer:
    bad: list[tuple[str, str]] = []
    before = (kept.asked, kept.found) if kept else (0, 0)
    try:
        batch, tried = make(t, bad)
    except SelftaughtError as error:  # as a value: torch would wrap it into a page of traceback
        return Answer(None, bad, error, 0)
    asked, found = (kept.asked - before[0], kept.found - before[1]) if kept else (0, 0)
    return Answer(batch, bad, None, tried, asked, found)


def reason_of(error: Exception) -> str:
    """Why a sample cannot be read, in words."""
    return f"cannot be opened: {error.strerror}" if isinstance(error, OSError) else str(error)
