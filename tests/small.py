"""A small training for the tests of the loop: an encoder, samples in memory, batches keyed by (seed, t)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from selftaught.data.keys import generator
from selftaught.types import Batch, Features, Method, Stream, Tokens


class ConvEncoder(nn.Module):
    """(B, 1, 8, 8) -> (B, 8): two convolutions with batch norm, and dropout if asked."""

    dim = 8
    hides: frozenset[str] = frozenset()
    gives_tokens = False

    def __init__(self, *, dropout: float = 0.0) -> None:
        super().__init__()
        first = (nn.Conv2d(1, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU())
        self.body = nn.Sequential(*first, nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(dropout))

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Features:
        return Features(self.body(x).mean((2, 3)))

    def grid(self, shape: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        raise NotImplementedError

    def embed(self, x: Tensor, valid: Tensor | None = None) -> Tokens:
        raise NotImplementedError

    def context(self, tokens: Tokens, *, hidden=None, attend=None, layers=()) -> tuple[Tokens, list[Tensor]]:
        raise NotImplementedError

    def pool(self, tokens: Tokens) -> Tensor:
        raise NotImplementedError


class Pictures:
    """``batches(start, stop)`` of noisy 8 x 8 pictures as uint8, two views; this rank's share of every global batch."""

    def __init__(self, batch_size: int, *, rank: int = 0, world: int = 1, seed: int = 0) -> None:
        self.batch_size, self.rank, self.world, self.seed = batch_size, rank, world, seed

    def __call__(self, start: int, stop: int) -> Iterator[Batch]:
        share = self.batch_size // self.world
        for t in range(start, stop):
            first = t * self.batch_size + self.rank * share
            p = np.arange(first, first + share)
            data = np.stack([self._sample(int(one)) for one in p])
            views = Stream(torch.from_numpy(data))
            yield Batch({"views": views}, torch.from_numpy(p % 64), torch.from_numpy(p))

    def _sample(self, p: int) -> np.ndarray:
        """(V, 8, 8, 1): one of 64 patterns, shown twice with noise."""
        pattern = generator(self.seed, "pattern", p % 64).integers(0, 200, (8, 8, 1))
        noise = generator(self.seed, "views", p).integers(0, 55, (2, 8, 8, 1))
        return (pattern + noise).astype(np.uint8)


def normalise(data: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """(B, V, 8, 8, 1) uint8 -> (B, V, 1, 8, 8)."""
    return (data.to(dtype) / 64 - 2).movedim(-1, 2)


def build(method: Method, *, dropout: float = 0.0, dtype: torch.dtype = torch.float32):
    """A Task of ConvEncoder and ``method``, from one seed."""
    from selftaught.train.loop import Task

    torch.manual_seed(7)
    encoder = ConvEncoder(dropout=dropout)
    method.build({"encoder": encoder})
    return Task({"encoder": encoder}, method, normalise).to(dtype)
