"""Which samples make global batch t: a pure function of (seed, t), whatever the workers, ranks and interruptions.

Position p counts samples over the whole run. Batch t holds positions [t B, (t + 1) B); an epoch is floor(N / B) whole
batches of one keyed permutation, and each epoch has its own, so the N mod B samples left out change every time.

Where samples are drawn unlike (``shares``), an epoch still has N places: sample i takes N times its share of them, up
or down by less than one (systematic resampling, with one keyed start an epoch), in keyed order.
"""

from __future__ import annotations

import numpy as np

from selftaught.data.keys import Permutation, generator
from selftaught.errors import ConfigError, must_be


class Order:
    """The order of ``count`` samples in global batches of ``batch_size`` (over all ranks)."""

    def __init__(
        self, count: int, batch_size: int, seed: int, stream: str = "train", *, shares: np.ndarray | None = None
    ) -> None:
        """``shares`` (count,): how often each sample is drawn, sums to 1; None = each once an epoch."""
        if batch_size < 1:
            raise ConfigError(must_be("batch_size", "Order", "an int of at least 1", batch_size))
        if batch_size > count:
            raise ConfigError(
                must_be("batch_size", "pretrain", f"an int of at most the number of samples, {count}", batch_size),
                hint=f"Use --batch-size {count} or less, or give more data.",
            )
        self.count, self.batch_size, self.seed, self.stream = count, batch_size, seed, stream
        self.steps_per_epoch = count // batch_size
        self._kept: tuple[int, Permutation] | None = None
        self._ends = None if shares is None else np.cumsum(shares)  # of each sample's part of [0, 1]

    def epoch(self, t: int) -> int:
        """Which pass over the data batch ``t`` belongs to, from 0."""
        return t // self.steps_per_epoch

    def positions(self, t: int) -> np.ndarray:
        """(batch_size,) int64: the global positions of batch ``t``, consecutive."""
        return np.arange(t * self.batch_size, (t + 1) * self.batch_size, dtype=np.int64)

    def indices(self, t: int) -> np.ndarray:
        """(batch_size,) int64 in [0, count): the samples of batch ``t``, in order of position."""
        start = (t % self.steps_per_epoch) * self.batch_size
        places = self._permutation(self.epoch(t))(np.arange(start, start + self.batch_size))
        return places if self._ends is None else self._drawn(places, self.epoch(t))

    def _drawn(self, places: np.ndarray, epoch: int) -> np.ndarray:
        """The samples that an epoch's places belong to."""
        assert self._ends is not None
        start = generator(self.seed, f"{self.stream}/shares", epoch).random()
        where = np.searchsorted(self._ends, (places + start) / self.count, side="right")
        last = int(
            np.searchsorted(self._ends, self._ends[-1], side="left")
        )  # of those with a share: sums fall short of 1
        return np.minimum(where, last).astype(np.int64)

    def share(self, t: int, rank: int, world: int) -> tuple[np.ndarray, np.ndarray]:
        """(indices, positions) of one rank's consecutive share of batch ``t``; shares differ by at most one sample."""
        part = slice(rank * self.batch_size // world, (rank + 1) * self.batch_size // world)
        return self.indices(t)[part], self.positions(t)[part]

    def _permutation(self, epoch: int) -> Permutation:
        if self._kept is None or self._kept[0] != epoch:
            self._kept = epoch, Permutation(self.count, self.seed, stream=f"{self.stream}/order", part=epoch)
        return self._kept[1]
