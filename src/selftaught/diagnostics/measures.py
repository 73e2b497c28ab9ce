"""What representations look like without labels: pure functions of (N, D) tensors.

Each is a figure that a paper showed to go along with downstream accuracy or with collapse. None is a proof alone: an
untrained encoder has a low rank too, and easy data need few dimensions. ``watch`` compares them with step 0.

References
----------
RankMe: Garrido, Balestriero, Najman, LeCun, "RankMe: assessing the downstream performance of pretrained
self-supervised representations by their rank", ICML 2023, equation 1.
alpha-ReQ: Agrawal, Mondal, Ghosh, Richards, "alpha-ReQ: assessing representation quality in self-supervised learning by
measuring eigenspectrum decay", NeurIPS 2022.
Alignment, uniformity: Wang, Isola, "Understanding contrastive representation learning through alignment and uniformity
on the hypersphere", ICML 2020.
LiDAR: Thilak, Huang, Saremi, Dinh, Goh, Nakkiran, Susskind, Littwin, "LiDAR: Sensing Linear Probing Performance in
Joint Embedding SSL Architectures", ICLR 2024.
Drift: Kornblith, Norouzi, Lee, Hinton, "Similarity of Neural Network Representations Revisited", ICML 2019.
Frechet distance: Heusel, Ramsauer, Unterthiner, Nessler, Hochreiter, "GANs trained by a two time-scale update rule
converge to a local Nash equilibrium", NeurIPS 2017.
Spread: Chen, He, "Exploring simple Siamese representation learning", CVPR 2021, section 4.1.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


class Spread(NamedTuple):
    """How much each dimension varies, in units of what an even use of all D dimensions gives."""

    mean: float  # 1.0 = even; 0.0 = every sample is the same
    smallest: float
    dead_share: float  # share of dimensions that vary less than a hundredth of an even use


def rankme(z: Float[Tensor, "N D"], *, centre: bool = False) -> float:
    """Effective rank: exp of the entropy of the normalised singular values, in [1, min(N, D)]; 0 for all zeros.

    ``centre=True`` takes the mean off first: the rank of what tells samples apart, without what they share.
    """
    values = torch.linalg.svdvals(_centred(z) if centre else _wide(z))
    if values[0] <= _nothing(z):
        return 0.0
    share = values / values.sum()
    return float(torch.exp(torch.special.entr(share).sum()))


def frechet(a: Float[Tensor, "N D"], b: Float[Tensor, "M D"]) -> float:
    """Squared distance of two Gaussians with the mean and covariance of each set of features, in [0, inf).

    |m_a - m_b|^2 + trace(A + B - 2 (A B)^1/2) (Heusel et al. 2017, eq. 6). Few samples make it too large: compare it
    with what as many true samples are apart from each other.
    """
    a, b = _wide(a), _wide(b)
    means = (a.mean(0) - b.mean(0)).square().sum()
    first, second = (torch.atleast_2d(torch.cov(one.T)) for one in (a, b))
    values, vectors = torch.linalg.eigh(first)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    common = torch.linalg.eigvalsh(root @ second @ root).clamp(min=0).sqrt().sum()
    return max(0.0, float(means + first.trace() + second.trace() - 2 * common))


def drift(z: Float[Tensor, "N D"], start: Float[Tensor, "N E"]) -> float:
    """How far features are from others of the same samples, up to rotation and scale: 1 - linear CKA, in [0, 1].

    Kornblith, Norouzi, Lee & Hinton 2019, "Similarity of Neural Network Representations Revisited", eq. 4 with linear
    kernels. With fewer samples than dimensions unrelated features look alike, so 1 is not reached.
    """
    a, b = _centred(z), _centred(start)
    scale = (a.T @ a).norm() * (b.T @ b).norm()
    return float(1 - (a.T @ b).square().sum() / scale) if scale > 0 else math.nan


def lidar(pairs: Float[Tensor, "N V D"], *, delta: float = 1e-4) -> float:
    """Effective rank of what tells samples apart, measured against how far views of one sample are from each other.

    RankMe of the spread between samples after the spread within them was made white; in [1, min(N - 1, D)]. Unlike
    RankMe it does not count directions that only tell views apart. Thilak et al. 2024, eq. 1 to 4. We depart in
    ``delta``, which is relative to the mean spread within, so that the scale of the features does not matter. ``nan``
    where views of a sample do not differ.
    """
    z = pairs.flatten(0, 1).double()
    z = z - z.mean(0)
    try:
        basis = torch.linalg.svd(z, full_matrices=False).Vh  # at most N V directions hold everything
        z = (z @ basis.T).unflatten(0, pairs.shape[:2])
        samples = z.mean(1)
        apart = (z - samples[:, None]).flatten(0, 1)
        within = apart.T @ apart / max(1, len(z) * (z.shape[1] - 1))
        floor = delta * within.diagonal().mean()
        values, vectors = torch.linalg.eigh(within + floor * torch.eye(len(within), dtype=z.dtype, device=z.device))
        if values[-1] <= 0:
            return math.nan  # views of a sample do not differ at all: nothing to measure against
        white = vectors * values.clamp(min=floor).rsqrt()
        found = torch.linalg.svdvals(samples @ white).square()
    except RuntimeError:  # no convergence
        return math.nan
    if not found.sum() > 0:
        return 0.0
    return float(torch.exp(torch.special.entr(found / found.sum()).sum()))


def alpha_req(z: Float[Tensor, "N D"]) -> float:
    """Decay of the covariance's eigenvalues: lambda_i ~ i ** -alpha. About 1 is good, large is collapsed, 0 is white.

    Least squares in log-log over the eigenvalues that stand clear of rounding. ``nan`` with fewer than three of them.
    """
    centred = _centred(z)
    values = torch.linalg.svdvals(centred).square()
    values = values[values > values[0] * max(z.shape) * torch.finfo(centred.dtype).eps]
    if len(values) < 3 or values[0] <= _nothing(z) ** 2:
        return float("nan")
    x = torch.arange(1, len(values) + 1, dtype=values.dtype, device=values.device).log()
    y = values.log()
    x = x - x.mean()
    return float(-(x * y).sum() / x.square().sum())


def alignment(a: Float[Tensor, "N D"], b: Float[Tensor, "N D"], *, power: float = 2.0) -> float:
    """Mean distance of two views of the same samples on the unit sphere, to ``power``; in [0, 4] for 2. Low is good."""
    gap = F.normalize(_wide(a), dim=1) - F.normalize(_wide(b), dim=1)
    return float(gap.norm(dim=1).pow(power).mean())


def uniformity(z: Float[Tensor, "N D"], *, t: float = 2.0) -> float:
    """log of the mean Gaussian potential exp(-t |u - v|^2) over pairs on the unit sphere; 0 = all the same, low = good.

    About ``-2 t`` for points spread evenly over a sphere of many dimensions. Needs N >= 2.
    """
    unit = F.normalize(_wide(z), dim=1)
    squared = torch.pdist(unit).square() if unit.device.type == "cpu" else _pairs(unit)
    return float(torch.logsumexp(-t * squared, dim=0)) - math.log(len(squared))


def spread(z: Float[Tensor, "N D"], *, dead: float = 0.01) -> Spread:
    """Standard deviation of each dimension after putting the samples on the unit sphere, times sqrt(D).

    Even use of all dimensions gives 1 everywhere; collapse gives 0. A dimension below ``dead`` counts as dead.
    """
    unit = F.normalize(_wide(z), dim=1)
    each = unit.std(dim=0, correction=0) * unit.shape[1] ** 0.5
    return Spread(float(each.mean()), float(each.min()), float((each < dead).double().mean()))


def variation(z: Float[Tensor, "N D"]) -> float:
    """Share of the unit sphere's length that tells samples apart: sqrt(1 - |mean of unit vectors|^2), in [0, 1]."""
    unit = F.normalize(_wide(z), dim=1)
    return float((unit - unit.mean(dim=0)).square().sum(dim=1).mean().sqrt())


def winners(scores: Float[Tensor, "N K"]) -> float:
    """How many of K prototypes are the nearest of some sample, as the perplexity of their shares: 1 = the same for all.

    At most min(N, K). Temperature plays no part, so scores of any method compare.
    """
    counts = torch.bincount(scores.argmax(dim=1), minlength=1).to(torch.float64)
    shares = counts[counts > 0] / counts.sum()
    return float((-(shares * shares.log()).sum()).exp())


def knn_accuracy(
    z: Float[Tensor, "N D"], labels: Int[Tensor, " N"], *, k: int = 20, temperature: float = 0.07
) -> float:
    """Leave-one-out accuracy of the temperature-weighted kNN vote (Wu et al. 2018), in [0, 1]; label -1 = no label."""
    known = labels >= 0
    unit, labels = F.normalize(_wide(z[known]), dim=1), labels[known]
    if len(labels) < 2:
        return float("nan")
    similarity = (unit @ unit.T).fill_diagonal_(-torch.inf)
    nearest, index = similarity.topk(min(k, len(labels) - 1), dim=1)
    votes = torch.zeros(len(labels), int(labels.max()) + 1, dtype=unit.dtype, device=unit.device)
    votes.scatter_add_(1, labels[index], ((nearest - 1) / temperature).exp())
    return float((votes.argmax(dim=1) == labels).double().mean())


def _wide(z: Tensor) -> Tensor:
    """float32 at least: half precision has no singular values, and its sums lose what we look for."""
    return z.detach() if z.dtype == torch.float64 else z.detach().float()


def _centred(z: Tensor) -> Tensor:
    z = _wide(z)
    return z - z.mean(dim=0, keepdim=True)


def _nothing(z: Tensor) -> float:
    """Below this singular value there is only rounding."""
    z = _wide(z)
    return float(z.abs().max()) * max(z.shape) * torch.finfo(z.dtype).eps


def _pairs(unit: Tensor) -> Tensor:
    """Squared distances of all pairs; ``pdist`` has no bfloat16 and no fast kernel on some accelerators."""
    row, column = torch.triu_indices(len(unit), len(unit), offset=1, device=unit.device)
    return (2 - 2 * (unit @ unit.T)[row, column]).clamp(min=0)
