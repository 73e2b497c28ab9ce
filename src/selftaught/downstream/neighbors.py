"""Nearest neighbours by cosine similarity: the vote that needs no training, and search.

kNN as in Wu, Xiong, Yu, Lin, "Unsupervised feature learning via non-parametric instance discrimination", CVPR 2018,
section 3.4: each of the k nearest labelled samples votes for its class with weight exp(similarity / temperature).
Similarities are made in chunks, so memory stays bounded whatever the number of samples.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int

CHUNK = 2**24  # similarities held at once: 64 MB of float32


def knn_predict(
    train: Float[np.ndarray, "N D"],
    target: Int[np.ndarray, " N"],
    test: Float[np.ndarray, "M D"],
    *,
    classes: int,
    k: int = 20,
    temperature: float = 0.07,
) -> Float[np.ndarray, "M K"]:
    """Class shares of the weighted vote, (M, K), rows sum to 1. With fewer than ``k`` labelled samples all vote."""
    index, similarity = search(train, test, k=k)
    # Softmax over the k: a common factor cancels, and nothing overflows at small temperatures.
    weight = torch.softmax(torch.from_numpy(similarity).double() / temperature, dim=1)
    votes = torch.zeros(len(test), classes, dtype=torch.float64)
    votes.scatter_add_(1, torch.from_numpy(np.asarray(target, np.int64)[index]), weight)
    return votes.numpy()


def search(
    bank: Float[np.ndarray, "N D"], queries: Float[np.ndarray, "M D"], *, k: int = 10, exclude_self: bool = False
) -> tuple[Int[np.ndarray, "M k"], Float[np.ndarray, "M k"]]:
    """The k nearest rows of ``bank`` to each query, best first: (index, cosine similarity), k at most N.

    ``exclude_self``: query i is row i of the bank and is not its own neighbour.
    """
    k = min(k, len(bank) - exclude_self)
    unit, ask = (F.normalize(torch.from_numpy(np.ascontiguousarray(x, np.float32)), dim=1) for x in (bank, queries))
    index, similarity = [np.empty((0, k), np.int64)], [np.empty((0, k), np.float32)]
    rows = max(1, CHUNK // max(1, len(unit)))
    for start in range(0, len(ask), rows):
        scores = ask[start : start + rows] @ unit.T
        if exclude_self:
            own = torch.arange(len(scores))
            scores[own, own + start] = -torch.inf
        best, where = scores.topk(k, dim=1)
        index.append(where.numpy())
        similarity.append(best.numpy())
    return np.concatenate(index), np.concatenate(similarity)
