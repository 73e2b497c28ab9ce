"""Samples to prototypes in equal parts: the Sinkhorn-Knopp iterations."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


@torch.no_grad()
def sinkhorn(scores: Float[Tensor, "B K"], *, epsilon: float, iterations: int = 3) -> Float[Tensor, "B K"]:
    """Soft assignments (rows sum to 1) that use all K prototypes about equally often.

    The matrix nearest to exp(scores / epsilon) whose rows have equal sums and whose columns have equal sums (Cuturi
    2013; Caron et al. 2020, eq. 3 to 5). ``scores``: samples times prototypes, those of all ranks. ``epsilon``:
    smoothness, in (0, inf); small = nearly one prototype each. In float32 at least; logarithms all the way, so that
    nothing overflows and no prototype vanishes.
    """
    logs = scores.to(torch.promote_types(scores.dtype, torch.float32)) / epsilon
    for _ in range(iterations):
        logs = logs - logs.logsumexp(0)
        logs = logs - logs.logsumexp(1, keepdim=True)
    return logs.exp()
