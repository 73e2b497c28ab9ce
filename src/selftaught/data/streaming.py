"""Batches from shards that are read from start to end: the same whatever the workers, ranks and restarts.

Each worker reads some lanes and gives their part of every batch; the parts are put together in the order of the lanes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from selftaught.data import remote, shards
from selftaught.data.fetch import TRIES, Answer, reason_of
from selftaught.data.keys import Keyed
from selftaught.data.lanes import Lanes
from selftaught.data.loader import Feed
from selftaught.data.stream import Block, Stream
from selftaught.errors import DataError, QuarantineError, SelftaughtError, UnreadableError
from selftaught.types import Batch, Modality, Plan, Views

NUMBERED = 2**32  # a sample's number in ``Batch.index``: its shard times this, and its place in the shard


@dataclass
class Lane:
    """The samples of one lane, from one that was taken ``taken`` samples ago on, without end."""

    number: int
    lanes: Lanes
    stream: Stream
    modality: Modality
    plan: Plan | None
    seed: int
    taken: int
    bad: list[tuple[str, str]] = field(default_factory=list)  # what could not be read, until somebody takes it
    _keys: dict[str, Keyed] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self._samples = self._read()

    def take(self, p: int) -> tuple[int, Views]:
        """(number, views) of the next sample, which stands at position ``p`` of the run."""
        number, block, place = next(self._samples)
        for attempt in range(TRIES):
            try:
                return number, self._views(block, place, p)
            except (UnreadableError, OSError) as error:
                self.bad.append((self._name(number // NUMBERED, block, place), reason_of(error)))
                place = int(self._keyed("/replace")(p).integers(0, len(block), TRIES)[attempt])
        raise QuarantineError(f"{TRIES} samples in a row cannot be read, the last {self.bad[-1][0]!r}.")

    def _views(self, block: Block, place: int, p: int) -> Views:
        sample = self.modality.read(block.items[place])
        return self.modality.plain(sample) if self.plan is None else self._of_plan(sample, p)

    def _of_plan(self, sample: Any, p: int) -> Views:
        assert self.plan is not None
        return self.modality.views(sample, self._keyed("")(p), self.plan)

    def _keyed(self, what: str) -> Keyed:
        if what not in self._keys:
            self._keys[what] = Keyed(self.seed, self.lanes.stream + what)
        return self._keys[what]

    def _read(self) -> Iterator[tuple[int, Block, int]]:
        """(number, block, place in the block) of every sample, shard after shard."""
        k, within = self.lanes.locate(self.number, self.taken, self.stream.size)
        empty = 0
        while True:
            epoch, shard = self.lanes.shard(self.number, k)
            given = False
            for start, block in self._blocks(shard, within // self.lanes.block):
                order = self.lanes.within(epoch, shard, start // self.lanes.block, len(block))
                for place in order[max(0, within - start) :].tolist():
                    given = True
                    yield shard * NUMBERED + start + place, block, place
                block.close()
            empty = 0 if given else empty + 1
            if empty > self.lanes.shards:
                raise DataError("The shards hold no samples that can be used.")
            k, within = k + 1, 0

    def _blocks(self, shard: int, first: int) -> Iterator[tuple[int, Block]]:
        """(number of its first sample, block) of a shard, from block ``first`` on. Notes how many samples there are."""
        start = first * self.lanes.block
        number, held = start, []
        try:
            for record in self.stream.records(shard, start):
                held.append(record)
                number += 1
                if len(held) == self.lanes.block:
                    yield start, Block(held)
                    start, held = number, []
        except UnreadableError as error:
            self.bad.append((shards.stem(self.stream.shards[shard].url), str(error)))
        if held:
            yield start, Block(held)
        self.stream.counts.note(shard, number)

    def _name(self, shard: int, block: Block, place: int) -> str:
        path = block.items[place].path
        return f"{shards.stem(self.stream.shards[shard].url)}/{path.partition('::')[2].partition('/')[2]}"


class Streaming(IterableDataset):
    """This rank's part of the batches ``start`` to ``stop``, or, in a worker, that worker's part of it."""

    def __init__(
        self,
        stream: Stream,
        lanes: Lanes,
        modality: Modality,
        plan: Plan | None,
        *,
        seed: int,
        steps: range,
        rank: int,
        world: int,
    ) -> None:
        self.stream, self.lanes, self.modality, self.plan = stream, lanes, modality, plan
        self.seed, self.steps, self.rank, self.world = seed, steps, rank, world

    def __iter__(self) -> Iterator[Answer]:
        own, info = list(self.lanes.of(self.rank, self.world)), get_worker_info()
        if info is not None:
            remote.after_fork()
            own = own[info.id * len(own) // info.num_workers : (info.id + 1) * len(own) // info.num_workers]
        parts = [
            Lane(
                each, self.lanes, self.stream, self.modality, self.plan, self.seed, self.steps.start * self.lanes.share
            )
            for each in own
        ]
        for t in self.steps:
            yield self._answer(parts, t)

    def _answer(self, parts: list[Lane], t: int) -> Answer:
        bad: list[tuple[str, str]] = []
        try:
            made, rows, positions = [], [], []
            for lane in parts:
                first = t * self.lanes.batch_size + lane.number * self.lanes.share
                for p in range(first, first + self.lanes.share):
                    number, views = lane.take(p)
                    made.append(views)
                    rows.append(number)
                    positions.append(p)
                bad += lane.bad
                lane.bad.clear()
            batch = self.modality.collate(made, np.array(rows, np.int64), np.array(positions, np.int64))
        except SelftaughtError as error:
            return Answer(None, bad, error, 0)
        return Answer(batch, bad, None, len(rows))


class StreamLoader(Feed):
    """This rank's share of the global batches ``start`` to ``stop`` (None = without end), in order, from lanes.

    What ``Loader`` is for samples that are indexed, with the same errors. ``count`` is that of all samples, or about.
    """

    def __init__(
        self,
        stream: Stream,
        lanes: Lanes,
        modality: Modality,
        plan: Plan | None,
        *,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
        start: int = 0,
        stop: int | None = None,
        seed: int | None = None,
        unreadable: list[tuple[str, str]] | None = None,
        accept_unreadable: bool = False,
        prefetch: int = 2,
        pin_memory: bool = False,
        give_way: bool = False,
    ) -> None:
        workers = min(workers, len(lanes.of(rank, world)))
        self._parts = max(1, workers)
        data = Streaming(
            stream,
            lanes,
            modality,
            plan,
            seed=lanes.seed if seed is None else seed,
            steps=range(start, 2**40 if stop is None else stop),
            rank=rank,
            world=world,
        )
        super().__init__(
            data,
            None,
            workers=workers,
            prefetch=prefetch,
            pin_memory=pin_memory,
            give_way=give_way,
            unreadable=unreadable,
            accept_unreadable=accept_unreadable,
            count=stream.samples,
        )

    def _next(self) -> Answer:
        """Torch asks the workers in turn, so the next answers are their parts of one batch, in order of the lanes."""
        answers = [super(StreamLoader, self)._next() for _ in range(self._parts)]
        batches = [each.batch for each in answers if each.batch is not None]
        error = next((each.error for each in answers if each.error is not None), None)
        bad = [one for each in answers for one in each.unreadable]
        whole = None if error else batches[0] if len(batches) == 1 else joined(batches)
        return Answer(whole, bad, error, sum(each.tried for each in answers))


def joined(batches: list[Batch]) -> Batch:
    """Parts of one batch, one after the other."""
    leaves = [_leaves(batch) for batch in batches]
    together = iter([torch.cat(parts) for parts in zip(*leaves, strict=True)])
    return batches[0].map(lambda _: next(together))


def _leaves(batch: Batch) -> list[torch.Tensor]:
    """Every tensor, in the order in which ``Batch.map`` meets them."""
    found: list[torch.Tensor] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        found.append(tensor)
        return tensor

    batch.map(note)
    return found
