"""Vectors of samples seen before: a queue of the last ones, a bank with one for each sample.

Both are part of the method's state, so a resumed run has them.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught.nn.batchwise import gather


class Queue(nn.Module):
    """The last ``size`` vectors, of unit length; at first random ones, as in He et al. 2020 (MoCo), algorithm 1."""

    vectors: Tensor  # (size, D)
    place: Tensor  # () int64: where the next one goes

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("vectors", F.normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))

    def __len__(self) -> int:
        return len(self.vectors)

    @torch.no_grad()
    def push(self, share: Float[Tensor, "b D"]) -> None:
        """Puts in this rank's vectors and those of all others, in order of position, for the oldest ones."""
        fresh = gather(F.normalize(share.to(self.vectors.dtype), dim=1))[-len(self) :]
        rows = (self.place + torch.arange(len(fresh), device=fresh.device)) % len(self)
        self.vectors[rows] = fresh
        self.place.copy_((self.place + len(fresh)) % len(self))

    def nearest(self, queries: Float[Tensor, "b D"]) -> Float[Tensor, "b D"]:
        """For every query of unit length the vector that is most similar to it."""
        return self.vectors[(queries @ self.vectors.T.to(queries.dtype)).argmax(1)]


class Bank(nn.Module):
    """One vector of unit length for every training sample; at first random ones (Wu et al. 2018, section 3)."""

    vectors: Tensor  # (samples, D)

    def __init__(self, samples: int, dim: int) -> None:
        super().__init__()
        if samples < 1:
            raise ValueError("a bank needs the number of training samples: set method.samples before build")
        self.register_buffer("vectors", F.normalize(torch.randn(samples, dim), dim=1))

    def __len__(self) -> int:
        return len(self.vectors)

    @torch.no_grad()
    def put(self, index: Int[Tensor, " b"], share: Float[Tensor, "b D"], *, momentum: float = 0.0) -> None:
        """Moves the vectors of the samples ``index``, of all ranks, to fresh ones: v <- m v + (1 - m) fresh."""
        rows, fresh = gather(index), gather(F.normalize(share.to(self.vectors.dtype), dim=1))
        self.vectors[rows] = F.normalize(self.vectors[rows].lerp(fresh, 1 - momentum), dim=1)
