"""Which tokens of a grid are hidden. Masks say so: ``hidden`` (True = hidden from the model), (B, N), on any grid.

Random numbers come in as arguments: standard normal noise, one number a cell, drawn by key.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

POOLS = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def patches_in_some(
    noise: Float[Tensor, "B M"], grid: Sequence[int], *, some: float, low: float, high: float
) -> Bool[Tensor, "B N"]:
    """Patches of a share uniform in [low, high) in about ``some`` of the samples, nothing in the others.

    ``noise``: two numbers and then one for each of the N cells. Where anything is hidden, it is one cell at least and
    round(high N) at most.
    """
    cells = math.prod(grid)
    share = low + (high - low) * uniform(noise[:, 0])
    count = (share * cells).round().long().clamp(1, max(1, round(high * cells)))
    return patches(noise[:, 2:], torch.where(uniform(noise[:, 1]) < some, count, 0), grid)


def scattered(noise: Float[Tensor, "B N"], count: Int[Tensor, " B"]) -> Bool[Tensor, "B N"]:
    """Exactly ``count`` cells of each sample, anywhere."""
    order = noise.argsort(dim=1, descending=True).argsort(dim=1)
    return order < count[:, None]


def patches(noise: Float[Tensor, "B N"], count: Int[Tensor, " B"], grid: Sequence[int]) -> Bool[Tensor, "B N"]:
    """Exactly ``count`` cells of each sample, in connected patches a few cells wide.

    Where smoothed noise is highest: the counterpart of the rectangles of Bao et al. 2022 (BEiT, algorithm 1) on a grid
    of any number of axes, with an exact share and no loop.
    """
    axes = len(grid)
    field = noise.view(-1, 1, *grid)
    width = [3 if size >= 3 else 1 for size in grid]
    smooth = POOLS[axes](field, width, stride=1, padding=[size // 2 for size in width], count_include_pad=False)  # type: ignore[operator]
    return scattered((smooth + 1e-3 * field).flatten(1), count)


def uniform(noise: Tensor) -> Tensor:
    """Standard normal numbers -> uniform ones in [0, 1)."""
    return (0.5 * (1 + torch.erf(noise / math.sqrt(2)))).clamp(max=1 - 1e-7)


def picked(values: Float[Tensor, "B N D"], where: Int[Tensor, "B M"]) -> Float[Tensor, "B M D"]:
    """The tokens at ``where``."""
    return values.gather(1, where[..., None].expand(-1, -1, values.shape[2]))
