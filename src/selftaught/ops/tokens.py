"""Tokens of a grid: dropping the hidden ones, putting them back, moving masks between coarse and fine grids; and the
cells of an input that lie under the tokens, which is what masked methods predict.

Masks say in their name what True means: ``hidden`` (True = hidden from the model), ``valid`` (False = padding).
A mask drawn on a coarse grid is enlarged to a finer one with the strides of a padded convolution: cell i of n at
stride s lies under cell i // s of ceil(n / s).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from selftaught.types import Features, Tokens

FEWEST_VALUES = 8  # of a patch that is normalised by itself


def keep(tokens: Tokens, hidden: Bool[Tensor, "B N"]) -> Tokens:
    """The tokens that are not hidden, in their order, with their positions: what MAE's encoder sees.

    Samples may hide different numbers: the result has as many tokens as the sample that keeps most, and ``valid`` is
    False on the rest of the others. With equal numbers ``valid`` stays None. At least one token must be kept somewhere.
    """
    shown = ~hidden if tokens.valid is None else ~hidden & tokens.valid
    counts = shown.sum(1)
    size = int(counts.max())
    if size == 0:
        raise ValueError("every token of every sample is hidden")
    order = shown.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :size]  # (B, kept)
    values = tokens.values.gather(1, order[..., None].expand(-1, -1, tokens.values.shape[2]))
    valid = None if bool((counts == size).all()) else torch.arange(size, device=hidden.device) < counts[:, None]
    return dataclasses.replace(tokens, values=values, position=tokens.position.gather(1, order), valid=valid)


def put_back(kept: Tokens, fill: Float[Tensor, " D"] | Float[Tensor, "B N D"] | None = None) -> Float[Tensor, "B N D"]:
    """All cells of the grid: ``kept`` at their positions, elsewhere ``fill``: a vector, a whole grid, None = 0."""
    batch, _, dim = kept.values.shape
    cells = math.prod(kept.grid)
    fill = kept.values.new_zeros(dim) if fill is None else fill
    whole = fill.to(kept.values.dtype).expand(batch, cells, dim)
    position = kept.position
    if kept.valid is not None:  # padding is written to a cell past the end, and cut off
        position = position.masked_fill(~kept.valid, cells)
    whole = torch.cat([whole, whole[:, :1]], dim=1)
    return whole.scatter(1, position[..., None].expand(-1, -1, dim), kept.values)[:, :cells]


def at_positions(table: Float[Tensor, "N D"], position: Int[Tensor, "B K"]) -> Float[Tensor, "B K D"]:
    """Rows of ``table`` (positions of the whole grid, targets) for the tokens given."""
    return F.embedding(position, table)


def all_positions(batch: int, grid: Sequence[int], device: torch.device | None = None) -> Int[Tensor, "B N"]:
    """Flat places of a whole grid, last axis fastest, for every sample (a view: nothing is copied)."""
    return torch.arange(math.prod(grid), device=device).expand(batch, -1)


def to_map(values: Float[Tensor, "B N D"], grid: Sequence[int]) -> Float[Tensor, "B D *grid"]:
    """(B, N, D) -> (B, D, *grid) without a copy: channels-last in memory where the tokens are contiguous."""
    return values.transpose(1, 2).unflatten(2, tuple(grid))


def to_tokens(maps: Float[Tensor, "B D *grid"]) -> Float[Tensor, "B N D"]:
    """(B, D, *grid) -> (B, N, D) without a copy."""
    return maps.flatten(2).transpose(1, 2)


def map_of(features: Features) -> Float[Tensor, "B D *grid"]:
    """What an encoder gave for each place, as a map. For encoders that give tokens."""
    assert features.tokens is not None
    return to_map(features.tokens, features.grid)


def enlarge(cells: Bool[Tensor, "B N"], grid: Sequence[int], finer: Sequence[int]) -> Bool[Tensor, "B M"]:
    """A mask on ``grid`` seen on the ``finer`` grid that it was strided from."""
    mask = cells.unflatten(1, tuple(grid))
    for axis, (few, many) in enumerate(zip(grid, finer, strict=True), start=1):
        mask = mask.index_select(axis, _under(few, many, cells.device))
    return mask.flatten(1)


def shrink(valid: Bool[Tensor, "B ..."], grid: Sequence[int]) -> Bool[Tensor, "B N"]:
    """Which cells of ``grid`` hold anything valid: a cell of padding alone is padding."""
    mask = valid
    for axis, few in enumerate(grid, start=1):
        many = mask.shape[axis]
        order = _under(few, many, mask.device)
        shape = (*mask.shape[:axis], few, *mask.shape[axis + 1 :])
        mask = torch.zeros(shape, dtype=torch.int32, device=mask.device).index_add_(axis, order, mask.int()) > 0
    return mask.flatten(1)


def cells(x: Float[Tensor, "B C *space"], grid: Sequence[int]) -> Float[Tensor, "B N P"]:
    """What lies under each token: P values of a cell, its axes first, then channels.

    Cells are ceil(size / number) wide along each axis; what the last ones have beyond the input's end is zero.
    """
    widths = cell_widths(x.shape[2:], grid)
    missing = [width * few - size for width, few, size in zip(widths, grid, x.shape[2:], strict=True)]
    if any(missing):
        x = F.pad(x, [pad for size in reversed(missing) for pad in (0, size)])
    axes = len(grid)
    split = x.unflatten(2, (grid[0], widths[0]))
    for axis in range(1, axes):
        split = split.unflatten(2 + 2 * axis, (grid[axis], widths[axis]))
    order = (0, *range(2, 2 + 2 * axes, 2), *range(3, 3 + 2 * axes, 2), 1)
    return split.permute(order).flatten(1 + axes).flatten(1, axes)


def from_cells(
    values: Float[Tensor, "B N P"], grid: Sequence[int], shape: Sequence[int]
) -> Float[Tensor, "B C *space"]:
    """The way back from ``cells`` to inputs of ``shape`` (C, *space)."""
    channels, *space = shape
    widths, axes = cell_widths(space, grid), len(grid)
    split = values.unflatten(2, (*widths, channels)).unflatten(1, tuple(grid))
    order = (0, 1 + 2 * axes, *(place for axis in range(axes) for place in (1 + axis, 1 + axes + axis)))
    whole = split.permute(order)
    for axis in range(axes):
        whole = whole.flatten(2 + axis, 3 + axis)
    return whole[(slice(None), slice(None), *(slice(size) for size in space))]


def normalised(
    patches: Float[Tensor, "B N P"], observed: Bool[Tensor, "B N P"] | None = None
) -> tuple[Float[Tensor, "B N P"], Float[Tensor, "B N 1"], Float[Tensor, "B N 1"]]:
    """(patches, mean, spread): each patch less its mean and by its spread, (x - mean) / sqrt(variance + 1e-6).

    He et al. 2022 (MAE), section 4.2; the variance is the unbiased one, as in its code. For patches of
    ``FEWEST_VALUES`` values or more: smaller ones have no mean and spread to speak of. Both are of what was
    ``observed`` (True), all if not given.
    """
    if observed is None:
        variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    else:
        count = observed.sum(-1, keepdim=True)
        mean = (patches * observed).sum(-1, keepdim=True) / count.clamp(min=1)
        variance = ((patches - mean).square() * observed).sum(-1, keepdim=True) / (count - 1).clamp(min=1)
    spread = (variance + 1e-6).sqrt()
    return (patches - mean) / spread, mean, spread


def cell_widths(space: Sequence[int], grid: Sequence[int]) -> tuple[int, ...]:
    """How wide a token's cell is along each axis of an input."""
    return tuple(-(-size // few) for size, few in zip(space, grid, strict=True))


def wave_positions(grid: Sequence[int], dim: int) -> Float[Tensor, "N D"]:
    """Fixed positions of a whole grid: sines and cosines of each axis' place at wavelengths from 2 pi to 10,000 * 2 pi.

    Vaswani et al. 2017, section 3.5, with an equal part of ``dim`` for each axis, sines first, the first axis first;
    what does not divide stays 0.
    """
    axes = len(grid)
    waves = dim // (2 * axes)
    places = torch.meshgrid(*(torch.arange(size, dtype=torch.float64) for size in grid), indexing="ij")
    rates = 10_000.0 ** -(torch.arange(waves, dtype=torch.float64) / max(1, waves))
    angles = [place.flatten()[:, None] * rates for place in places]
    parts = [part for angle in angles for part in (angle.sin(), angle.cos())]
    return F.pad(torch.cat(parts, dim=1), (0, dim - 2 * waves * axes)).float()


def _under(few: int, many: int, device: torch.device) -> Int[Tensor, " many"]:
    """For each of ``many`` cells along an axis, the coarse cell it lies under."""
    stride = -(-many // few)
    index = torch.arange(many, device=device)
    exact = -(-many // stride) == few  # grids that were not made by padded strides are shared out evenly
    return index // stride if exact else index * few // many
