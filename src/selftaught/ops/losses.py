"""Losses that several methods use: pure functions of this rank's samples and of the samples of all ranks.

Each gives sums, not means, so that shares of a batch add up to the whole: the loop divides by the count over all ranks.
Similarities and statistics are taken in float32 at least, whatever the encoder computes in.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def nt_xent(
    local: Float[Tensor, "b V D"], gathered: Float[Tensor, "B V D"], *, start: int, temperature: float
) -> Float[Tensor, "b V"]:
    """The normalised temperature-scaled cross entropy of every anchor (Chen et al. 2020, eq. 1).

    ``local`` are samples ``start`` to ``start + b`` of ``gathered``; every view of them is an anchor, compared with all
    B V - 1 other views. For V = 2 this is eq. 1:

        l_ij = -log( exp(s_ij / t) / sum_{k != i} exp(s_ik / t) ),  s = cosine similarity

    and with more views the mean of l_ij over the V - 1 positives j. In [0, inf). Each anchor's row stands alone, so the
    mean over any partition of the anchors is the loss of the whole.
    """
    local, gathered = unit(local), unit(gathered)
    (b, views, _), anchors = local.shape, local.flatten(0, 1)
    similarity = anchors @ gathered.flatten(0, 1).T / temperature  # (b V, B V)
    row = torch.arange(b * views, device=local.device)
    similarity[row, row + start * views] = -torch.inf  # nothing is compared with itself
    positive = (local @ local.mT / temperature).sum(-1) - local.square().sum(
        -1
    ) / temperature  # (b, V), itself taken out
    return similarity.logsumexp(-1).view(b, views) - positive / (views - 1)


def vicreg_terms(z: Float[Tensor, "B V D"], *, eps: float = 1e-4) -> dict[str, Tensor]:
    """Invariance, variance and covariance of the whole batch's embeddings (Bardes et al. 2022, eq. 1 to 5).

    ``invariance``: squared distance between two views of a sample, mean over D, samples and pairs of views.
    ``variance``: max(0, 1 - sqrt(var + eps)), mean over D and views.
    ``covariance``: squared off-diagonal entries of the covariance matrix divided by D, summed over views.
    Unweighted, each in [0, inf).

    The paper's text and its code differ by constants: eq. 5 sums where the code takes the mean over D in the invariance
    and over the two views in the variance. The published weights (25, 25, 1) belong to the code, so we follow it.
    """
    z = z.to(torch.promote_types(z.dtype, torch.float32))
    batch, views, dim = z.shape
    centred = z - z.mean(0)
    spread = (centred.square().sum(0) / (batch - 1) + eps).sqrt()  # (V, D)
    by_view = centred.transpose(0, 1)  # (V, B, D)
    covariance = by_view.mT @ by_view / (batch - 1)  # (V, D, D)
    off = covariance.square().sum((1, 2)) - covariance.diagonal(dim1=1, dim2=2).square().sum(1)
    # Over all pairs, sum (z_v - z_w)^2 is V times the spread around the mean view.
    around = (z - z.mean(1, keepdim=True)).square().sum(1) * (views / (views * (views - 1) / 2))
    return {"invariance": around.mean(), "variance": F.relu(1 - spread).mean(), "covariance": off.sum() / dim}


def info_nce(
    query: Float[Tensor, "b D"], key: Float[Tensor, "b D"], others: Float[Tensor, "K D"], *, temperature: float
) -> Float[Tensor, " b"]:
    """-log of the softmax share that a query gives its own key among ``others`` (He et al. 2020, eq. 1).

    All of unit length. In [0, inf); the mean over any partition of the queries is the loss of the whole.
    """
    own = (query * key).sum(-1, keepdim=True)
    logits = torch.cat([own, query @ others.T], dim=1) / temperature
    return logits.logsumexp(1) - logits[:, 0]


def across_views(prediction: Float[Tensor, "b V D"], target: Float[Tensor, "b V D"]) -> Float[Tensor, " b"]:
    """Cosine similarity of every view's prediction with the other views' targets, mean over ordered pairs; in [-1, 1].

    BYOL's distance is 2 - 2 cos (Grill et al. 2020, eq. 2), SimSiam's is -cos (Chen & He 2021, eq. 1).
    """
    prediction, target = unit(prediction), unit(target)
    views = prediction.shape[1]
    same = (prediction * target).sum((1, 2))
    return ((prediction.sum(1) * target.sum(1)).sum(1) - same) / (views * (views - 1))


def unit(z: Float[Tensor, "*shape D"]) -> Float[Tensor, "*shape D"]:
    """Every vector divided by its length, in float32 at least."""
    return F.normalize(z.to(torch.promote_types(z.dtype, torch.float32)), dim=-1)
