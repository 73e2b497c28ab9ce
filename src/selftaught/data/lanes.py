"""Which samples make batch t where the data are shards that are read from start to end: a function of (seed, t).

The shards are dealt out to L lanes: epoch e is one keyed order of all shards, slot k of the whole sequence is shard
k mod S of epoch k // S, and lane l reads the slots l, l + L, l + 2 L, …. Within a shard, blocks of neighbours are
shuffled by key. Every lane gives B / L samples to each batch, lane after lane, so neither workers nor ranks matter, as
long as each holds whole lanes.

Where a lane stands at batch t follows from how many samples the shards hold that it has passed by then. Those are facts
of the data, noted when a shard ends (``Counts``): a checkpoint need not know of lanes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from selftaught.data.keys import Permutation
from selftaught.errors import ConfigError, must_be

BLOCK = 4096  # neighbours that are shuffled among themselves, at most
MOST = 16  # lanes


@dataclass(frozen=True)
class Lanes:
    """``shards`` (S) in ``count`` lanes (L), ``share`` samples of each lane a batch; ``block``: see above."""

    shards: int
    count: int
    batch_size: int
    seed: int
    block: int = BLOCK
    stream: str = "train"

    @property
    def share(self) -> int:
        return self.batch_size // self.count

    def shard(self, lane: int, k: int) -> tuple[int, int]:
        """(epoch, shard): what a lane reads as its ``k``-th."""
        epoch, place = divmod(lane + k * self.count, self.shards)
        order = Permutation(self.shards, self.seed, stream=f"{self.stream}/shards", part=epoch)
        return epoch, int(order(np.array([place]))[0])

    def within(self, epoch: int, shard: int, block: int, length: int) -> np.ndarray:
        """(length,) int64: the order of the samples of one block, which numbers its neighbours from 0."""
        key = f"{self.stream}/within/{epoch}/{shard}"
        return Permutation(length, self.seed, stream=key, part=block)(np.arange(length))

    def of(self, rank: int, world: int) -> range:
        """The lanes of a rank, or of a worker among those of a rank."""
        return range(rank * self.count // world, (rank + 1) * self.count // world)

    def locate(self, lane: int, taken: int, size: Callable[[int], int]) -> tuple[int, int]:
        """(k, samples of that shard that were taken) after a lane has given ``taken`` samples; ``size(shard)``."""
        k = 0
        while True:
            _, shard = self.shard(lane, k)
            held = size(shard) if taken else 1
            if taken < held:
                return k, taken
            taken, k = taken - held, k + 1


def choose(shards: int, batch_size: int, world: int) -> int:
    """How many lanes: the most that divide the batch, are whole on every rank and have a shard each, up to ``MOST``.

    Raises ``ConfigError`` where there is no such number.
    """
    fitting = [
        n for n in range(world, min(shards, batch_size, max(MOST, world)) + 1) if batch_size % n == n % world == 0
    ]
    if not fitting:
        wanted = f"as many shards as processes at least, {world}, and a batch that they divide"
        raise ConfigError(must_be("devices", "pretrain", wanted, f"{shards} shards, batches of {batch_size}"))
    return fitting[-1]


class Counts:
    """How many samples each shard holds, in a file that every process adds to: facts of the data, whoever counts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[int, int] = {}
        self._read = 0

    def get(self, shard: int) -> int | None:
        if shard not in self._known:
            self._refresh()
        return self._known.get(shard)

    def __len__(self) -> int:
        self._refresh()
        return len(self._known)

    @property
    def total(self) -> int:
        """Samples of all shards that are known."""
        self._refresh()
        return sum(self._known.values())

    def note(self, shard: int, samples: int) -> None:
        """One line, written at once: two processes do not tear each other's."""
        if self.get(shard) == samples:
            return
        self._known[shard] = samples
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, (json.dumps([shard, samples]) + "\n").encode())
        finally:
            os.close(file)

    def _refresh(self) -> None:
        try:
            with self.path.open("rb") as file:
                file.seek(self._read)
                new = file.read()
        except OSError:
            return
        whole = new[: new.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            try:
                shard, samples = json.loads(line)
                self._known[int(shard)] = int(samples)
            except (ValueError, TypeError):
                continue  # torn by a full disk: that shard is counted again
