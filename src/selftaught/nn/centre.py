"""The running mean of a teacher's scores, taken away so that no prototype wins everything."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from selftaught.nn.batchwise import total


class Centre(nn.Module):
    """Caron et al. 2021 (DINO), eq. 4: c <- m c + (1 - m) mean of the scores of the global batch."""

    mean: Tensor  # (K,)

    def __init__(self, count: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(count))

    def sharpen(self, scores: Tensor, *, temperature: float) -> Tensor:
        """(..., K) -> shares that sum to 1: softmax((scores - centre) / temperature), in float32 at least."""
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        return ((scores - self.mean.to(scores.dtype)) / temperature).softmax(-1)

    @torch.no_grad()
    def follow(self, scores: Tensor, *, momentum: float, weight: Tensor | None = None) -> None:
        """``scores`` (..., K) of this rank; ``weight`` (...) 0 or 1: which rows count, None = all."""
        rows = scores.flatten(0, -2).to(self.mean.dtype)
        counts = rows.new_ones(len(rows)) if weight is None else weight.flatten().to(rows.dtype)
        sums = total(torch.cat([counts @ rows, counts.sum()[None]]))
        if sums[-1] > 0:
            self.mean.lerp_(sums[:-1] / sums[-1], 1 - momentum)
