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


def regular(noise: Float[Tensor, "B A"], count: Int[Tensor, " B"], grid: Sequence[int]) -> Bool[Tensor, "B N"]:
    """Exactly ``count`` cells of each sample, spread evenly; ``noise``: one number for each axis, the pattern's start.

    The cells that stay are the first in the order of ordered dithering (Bayer 1973), on a grid of any number of axes:
    with three quarters hidden on an even 2-D grid, one of every two by two stays (MAE's "grid", its figure 6).
    """
    levels = max(1, (max(grid) - 1).bit_length())
    starts = (uniform(noise) * 2**levels).long()  # (B, A)
    rank = torch.zeros(len(noise), *grid, dtype=torch.long, device=noise.device)
    axes = len(grid)
    places = []
    for axis, size in enumerate(grid):
        place = torch.arange(size, device=noise.device) + starts[:, axis, None]
        places.append(place.view(len(noise), *(size if each == axis else 1 for each in range(axes))))
    for level in range(levels):  # the lowest bits of the places decide first
        bits = [place >> level & 1 for place in places]
        parity = bits[0]
        for bit in bits[1:]:
            parity = parity ^ bit
        for bit in (parity, *bits[:-1]):
            rank = 2 * rank + bit
    order = rank.flatten(1).argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return order < count[:, None]


def block(noise: Float[Tensor, "B A"], size: Sequence[int], grid: Sequence[int]) -> Bool[Tensor, "B N"]:
    """One box of ``size`` cells in each sample, anywhere inside the grid; ``noise``: one number for each axis."""
    inside = torch.ones(len(noise), *grid, dtype=torch.bool, device=noise.device)
    for axis, (long, whole) in enumerate(zip(size, grid, strict=True)):
        start = (uniform(noise[:, axis]) * (whole - long + 1)).long()[:, None]
        place = torch.arange(whole, device=noise.device)
        along = (place >= start) & (place < start + long)
        inside &= along.view(len(noise), *(whole if each == axis else 1 for each in range(len(grid))))
    return inside.flatten(1)


def block_size(share: float, aspect: float, grid: Sequence[int]) -> tuple[int, ...]:
    """Cells along each axis of a box of about ``share`` of the grid; ``aspect``: the first axis against the others."""
    axes = len(grid)
    scale = share ** (1 / axes)
    stretch = [aspect ** ((axes - 1) / axes), *[aspect ** (-1 / axes)] * (axes - 1)] if axes > 1 else [1.0]
    return tuple(min(size, max(1, round(size * scale * by))) for size, by in zip(grid, stretch, strict=True))


MASKS = ("random", "patches", "grid")  # what ``hidden_cells`` knows


def hidden_cells(
    kind: str, noise: Float[Tensor, "B N"], share: float, grid: Sequence[int], *, least: int = 1
) -> Bool[Tensor, "B N"]:
    """round(share N) cells of each sample by one of ``MASKS``; at least ``least`` are hidden, and as many stay."""
    total = math.prod(grid)
    fewest = min(least, total // 2)
    count = torch.full((len(noise),), min(total - fewest, max(fewest, round(share * total))), device=noise.device)
    if kind == "random":
        return scattered(noise, count)
    return patches(noise, count, grid) if kind == "patches" else regular(noise[:, : len(grid)], count, grid)


def after_a_start(noise: Float[Tensor, " B"], count: int) -> tuple[Bool[Tensor, "B N N"], Bool[Tensor, "B N"]]:
    """(may, told) for telling tokens one after the other, but for a start that all may see.

    ``may`` (True = the row's token may look at the column's): those up to itself, and a start of 1 to N - 1 tokens,
    drawn by ``noise`` for each sample. ``told``: tokens from which the next one is to be told, which must not be in the
    start.
    """
    start = 1 + (uniform(noise) * (count - 1)).long()  # (B,)
    place = torch.arange(count, device=noise.device)
    may = (place <= place[:, None]) | (place < start[:, None, None])
    told = (place + 1 >= start[:, None]) & (place < count - 1)
    return may, told


def uniform(noise: Tensor) -> Tensor:
    """Standard normal numbers -> uniform ones in [0, 1)."""
    return (0.5 * (1 + torch.erf(noise / math.sqrt(2)))).clamp(max=1 - 1e-7)


def picked(values: Float[Tensor, "B N D"], where: Int[Tensor, "B M"]) -> Float[Tensor, "B M D"]:
    """The tokens at ``where``."""
    return values.gather(1, where[..., None].expand(-1, -1, values.shape[2]))
