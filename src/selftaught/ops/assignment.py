"""Samples to prototypes: in equal parts (Sinkhorn-Knopp), or to the nearest one (k-means on the sphere)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F


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


@torch.no_grad()
def spherical_kmeans(
    x: Float[Tensor, "N D"], start: Int[Tensor, " K"], *, iterations: int = 10
) -> tuple[Float[Tensor, "K D"], Int[Tensor, " N"]]:
    """Centroids of unit length, and for every row of ``x`` the one that is most similar to it.

    ``x``: vectors of unit length. ``start``: the rows that the centroids start from. A centroid that loses all its rows
    takes over the row that fits its own centroid worst. Source: Dhillon & Modha 2001, "Concept Decompositions for Large
    Sparse Text Data Using Clustering".
    """
    centroids = x[start]
    for _ in range(iterations):
        similarity, nearest = (x @ centroids.T).max(1)
        sums = torch.zeros_like(centroids).index_add_(0, nearest, x)
        empty = torch.bincount(nearest, minlength=len(centroids)) == 0
        if count := int(empty.sum()):
            sums[empty] = x[similarity.topk(count, largest=False).indices]
        centroids = F.normalize(sums, dim=1)
    return centroids, (x @ centroids.T).argmax(1)
