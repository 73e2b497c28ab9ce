"""Losses that several methods use: pure functions of this rank's samples and of the samples of all ranks.

Each gives sums, not means, so that shares of a batch add up to the whole: the loop divides by the count over all ranks.
Similarities and statistics are taken in float32 at least, whatever the encoder computes in.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from selftaught.ops.similarity import log_sum_exp


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
    b, views, _ = local.shape
    itself = torch.arange(b * views, device=local.device)[:, None] + start * views
    every = log_sum_exp(local.flatten(0, 1), gathered.flatten(0, 1), scale=1 / temperature, skip=itself)
    positive = (local @ local.mT).sum(-1) - local.square().sum(-1)  # (b, V), itself taken out
    return every.view(b, views) - positive / temperature / (views - 1)


def vicreg_terms(z: Float[Tensor, "B V D"], *, eps: float = 1e-4) -> dict[str, Tensor]:
    """Invariance, variance and covariance of the whole batch's embeddings (Bardes et al. 2022, eq. 1 to 5).

    ``invariance``: squared distance between two views of a sample, mean over D, samples and pairs of views.
    ``variance``: max(0, 1 - sqrt(var + eps)), mean over D and views.
    ``covariance``: squared off-diagonal entries of the covariance matrix divided by D, summed over views.
    Unweighted, each in [0, inf).

    The paper's text and its code differ by constants: eq. 5 sums where the code takes the mean over D in the invariance
    and over the two views in the variance. The published weights (25, 25, 1) belong to the code, so we follow it.
    """
    z = at_least_single(z)
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
    own = (query * key).sum(-1) / temperature
    return torch.logaddexp(own, log_sum_exp(query, others, scale=1 / temperature)) - own


def told_apart(
    query: Float[Tensor, "b D"], keys: Float[Tensor, "K D"], own: Int[Tensor, " b"], *, temperature: float
) -> Float[Tensor, " b"]:
    """-log of the softmax share that a query gives the key in row ``own`` among all ``keys``, in [0, inf)."""
    agreement = (query * keys[own]).sum(-1) / temperature
    return log_sum_exp(query, keys, scale=1 / temperature) - agreement


def across_views(prediction: Float[Tensor, "b V D"], target: Float[Tensor, "b V D"]) -> Float[Tensor, " b"]:
    """Cosine similarity of every view's prediction with the other views' targets, mean over ordered pairs; in [-1, 1].

    BYOL's distance is 2 - 2 cos (Grill et al. 2020, eq. 2), SimSiam's is -cos (Chen & He 2021, eq. 1).
    """
    prediction, target = unit(prediction), unit(target)
    views = prediction.shape[1]
    same = (prediction * target).sum((1, 2))
    return ((prediction.sum(1) * target.sum(1)).sum(1) - same) / (views * (views - 1))


def swapped(
    scores: Float[Tensor, "b V K"], target: Float[Tensor, "b T K"], *, temperature: float
) -> Float[Tensor, " b"]:
    """Cross-entropy of every view's scores with the targets of the other views, summed over the T (V - 1) pairs.

    Target t belongs to view t; ``target`` holds shares of K classes that sum to 1. What DINO (Caron et al. 2021,
    eq. 3) and SwAV (Caron et al. 2020, eq. 1) have in common. In [0, inf).
    """
    log_share = log_shares(scores, temperature=temperature)
    own = log_share[:, : target.shape[1]]
    return -(target * (log_share.sum(1, keepdim=True) - own)).sum((1, 2))


def squared_error(
    back: Float[Tensor, "b ..."], target: Float[Tensor, "b ..."], asked: Bool[Tensor, "b ..."] | None = None
) -> Float[Tensor, " b"]:
    """The mean squared error of each sample, over all its values or those that are ``asked`` for; in [0, inf)."""
    return mean_where((at_least_single(back) - at_least_single(target)).square(), asked)


def absolute_error(
    back: Float[Tensor, "b ..."], target: Float[Tensor, "b ..."], asked: Bool[Tensor, "b ..."] | None = None
) -> Float[Tensor, " b"]:
    """The mean absolute error of each sample, over all its values or those that are ``asked`` for; in [0, inf)."""
    return mean_where((at_least_single(back) - at_least_single(target)).abs(), asked)


def mean_where(values: Float[Tensor, "b ..."], asked: Bool[Tensor, "b ..."] | None) -> Float[Tensor, " b"]:
    """The mean of each sample's values, or of those that are ``asked`` for; 0 where none are."""
    if asked is None:
        return values.flatten(1).mean(1)
    weight = asked.expand_as(values).flatten(1)
    return (values.flatten(1) * weight).sum(1) / weight.sum(1).clamp(min=1)


def told_wrong(scores: Float[Tensor, "*shape K"], truth: Int[Tensor, "*shape"]) -> Float[Tensor, ""]:
    """The cross-entropy of scores with the true classes, summed over all of them; log K each where all are alike."""
    return F.cross_entropy(at_least_single(scores).flatten(0, -2), truth.flatten(), reduction="sum")


def at_least_single(x: Tensor) -> Tensor:
    """In float32, or in float64 where it is: what losses are taken in."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def log_shares(scores: Float[Tensor, "*shape K"], *, temperature: float) -> Float[Tensor, "*shape K"]:
    """Logarithm of the softmax over the last axis, in float32 at least."""
    return F.log_softmax(at_least_single(scores) / temperature, dim=-1)


def unit(z: Float[Tensor, "*shape D"]) -> Float[Tensor, "*shape D"]:
    """Every vector divided by its length, in float32 at least."""
    return F.normalize(at_least_single(z), dim=-1)
