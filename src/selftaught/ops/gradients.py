"""Which way values rise, place by place: histograms of oriented gradients (Dalal & Triggs 2005) on any grid."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from selftaught.ops.tokens import cell_widths, cells, from_cells

BINS = 9  # directions in a picture, over half a turn
PARTS = 2  # histograms along each axis of a cell, where it is wide enough


def directions(axes: int) -> Float[Tensor, "K A"]:
    """Unit vectors. Of a series up and down; of a picture the middles of nine bins over half a turn; of a volume the 13
    axes through the faces, edges and corners of a cube. In pictures and volumes a direction and its opposite are one.
    """
    if axes == 1:
        return torch.tensor([[1.0], [-1.0]])
    if axes == 2:
        angles = (torch.arange(BINS) + 0.5) * math.pi / BINS
        return torch.stack([angles.sin(), angles.cos()], dim=1)
    half = [one for one in itertools.product((-1.0, 0.0, 1.0), repeat=axes) if one > (0.0,) * axes]
    vectors = torch.tensor(half)
    return vectors / vectors.norm(dim=1, keepdim=True)


def edge_histograms(x: Float[Tensor, "B C *space"], grid: Sequence[int]) -> Float[Tensor, "B N F"]:
    """How much values rise in each direction, channel by channel, in 2 x 2 (x 2) parts of every token's cell.

    Central differences; each place's length goes to the nearest direction; every part's histogram of a channel has unit
    length, or is 0 where nothing rises. F is parts x channels x directions. In float32 at least.
    """
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    axes = x.ndim - 2
    rises = torch.stack([_rise(x, axis) for axis in range(axes)], dim=-1)  # (B, C, *space, A)
    ways = directions(axes).to(x)
    along = rises @ ways.T  # (B, C, *space, K)
    which = (along if axes == 1 else along.abs()).argmax(-1)
    strength = F.one_hot(which, len(ways)).to(x) * rises.norm(dim=-1, keepdim=True)
    maps = strength.movedim(-1, 2).flatten(1, 2)  # (B, C K, *space)
    parts = _parts(x.shape[2:], grid)
    finer = [few * part for few, part in zip(grid, parts, strict=True)]
    sums = cells(maps, finer).unflatten(2, (-1, x.shape[1], len(ways))).sum(2)  # (B, finer, C, K)
    unit = F.normalize(sums, dim=-1, eps=1e-6).flatten(2)
    return cells(unit.transpose(1, 2).unflatten(2, finer), grid)


def drawn_edges(
    histograms: Float[Tensor, "B N F"], grid: Sequence[int], shape: Sequence[int]
) -> Float[Tensor, "B C *space"]:
    """The histograms for people: strokes across each direction, as strong as its share; bright on the mean."""
    channels, *space = shape
    axes = len(grid)
    ways, parts = directions(axes).to(histograms), _parts(space, grid)
    finer = [few * part for few, part in zip(grid, parts, strict=True)]
    fine = cells_of_parts(histograms, grid, parts).unflatten(2, (channels, len(ways)))  # (B, finer, C, K)
    widths = cell_widths(space, finer)
    places = torch.meshgrid(*(torch.arange(width) - (width - 1) / 2 for width in widths), indexing="ij")
    place = torch.stack(places, dim=-1).to(histograms)  # (*width, A)
    stroke = torch.exp(-((place @ ways.T) ** 2))  # (*width, K): a line through the middle, across the direction
    patches = torch.einsum("bnck,...k->bn...c", fine.clamp(min=0), stroke)
    return 2 * from_cells(patches.flatten(2), finer, shape)


def cells_of_parts(values: Float[Tensor, "B N F"], grid: Sequence[int], parts: Sequence[int]) -> Tensor:
    """(B, N, parts F') -> (B, finer N, F'): each part of a cell as a cell of the finer grid."""
    finer = [few * part for few, part in zip(grid, parts, strict=True)]
    channels = values.shape[2] // math.prod(parts)
    return from_cells(values, grid, (channels, *finer)).flatten(2).transpose(1, 2)


def _rise(x: Tensor, axis: int) -> Tensor:
    """Central differences along an axis, the border repeated."""
    size = x.shape[2 + axis]
    place = torch.arange(size, device=x.device)
    after, before = (place + 1).clamp(max=size - 1), (place - 1).clamp(min=0)
    return x.index_select(2 + axis, after) - x.index_select(2 + axis, before)


def _parts(space: Sequence[int], grid: Sequence[int]) -> tuple[int, ...]:
    """Histograms along each axis of a cell: two where it is four wide or more."""
    return tuple(PARTS if width >= 2 * PARTS and width % PARTS == 0 else 1 for width in cell_widths(space, grid))
