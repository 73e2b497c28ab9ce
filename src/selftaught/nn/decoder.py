"""From tokens back to what lies under them: light networks that are thrown away with the method."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
ADAPTIVE_POOLS = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}
SMOOTH = {1: "linear", 2: "bilinear", 3: "trilinear"}


class TokenDecoder(nn.Module):
    """A small transformer over all cells of a grid: those that the encoder saw, and a mask vector for the others.

    He et al. 2022 (MAE, arXiv:2111.06377), section 3. ``position`` (N, dim) is fixed (``ops.tokens.wave_positions``).
    """

    position: Tensor

    def __init__(self, in_dim: int, out_dim: int, position: Tensor, *, depth: int, heads: int = 0) -> None:
        """``heads``: 0 = one for every 64 features."""
        super().__init__()
        dim = position.shape[1]
        self.enter = nn.Linear(in_dim, dim)
        self.mask_vector = nn.Parameter(torch.randn(dim) * 0.02)
        self.register_buffer("position", position, persistent=False)  # the grid's, not learned
        self.blocks = nn.ModuleList(block(dim, heads or heads_for(dim)) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.leave = nn.Linear(dim, out_dim)

    def forward(self, values: Tensor, hidden: Tensor, prefix: Tensor | None = None) -> Tensor:
        """``values`` (B, N, in_dim) of the whole grid, whatever stands where ``hidden`` (B, N, True = hidden) ->
        (B, N, out_dim). ``prefix`` (B, P, in_dim): class and register tokens, seen as well and not given out.
        """
        x = self.enter(values)
        x = torch.where(hidden[..., None], self.mask_vector.to(x.dtype), x) + self.position.to(x.dtype)
        apart = 0 if prefix is None else prefix.shape[1]
        if prefix is not None:
            x = torch.cat([self.enter(prefix).to(x.dtype), x], dim=1)
        for layer in self.blocks:
            x = layer(x)
        return self.leave(self.norm(x[:, apart:]))


def block(dim: int, heads: int) -> nn.TransformerEncoderLayer:
    """One block of a vision transformer: norm first, GELU, four times as wide inside."""
    return nn.TransformerEncoderLayer(
        dim, heads, 4 * dim, dropout=0.0, activation="gelu", norm_first=True, batch_first=True, layer_norm_eps=1e-6
    )


def heads_for(dim: int) -> int:
    """One head for every 64 features, or the nearest number below that divides ``dim``."""
    return next(heads for heads in range(max(1, dim // 64), 0, -1) if dim % heads == 0)


class MapDecoder(nn.Module):
    """A light convnet from a coarse grid to an input: doubles the grid, halves the features, until the size is reached.

    (B, D, *grid) -> (B, C, *space). Enlarging and then a convolution rather than a transposed one, which leaves
    chequerboards (Odena et al. 2016). The last enlargement goes to the exact size.
    """

    def __init__(self, in_dim: int, shape: Sequence[int], grid: Sequence[int], *, width: int) -> None:
        """``shape`` (C, *space) of the input; ``width``: features of the first stage, at least 8 of the last."""
        super().__init__()
        self.space = tuple(shape[1:])
        conv = CONVOLUTIONS[len(grid)]
        ratio = max(-(-size // few) for size, few in zip(self.space, grid, strict=True))
        self.doublings = max(0, (ratio - 1).bit_length())
        self.enter = conv(in_dim, width, 1)
        stages, before = [], width
        for _ in range(self.doublings):
            after = max(8, before // 2)
            enlarged = conv(before, after, 3, padding=1, padding_mode="replicate")  # zeros would paint a frame
            stages.append(nn.Sequential(enlarged, nn.GroupNorm(1, after), nn.GELU()))
            before = after
        self.stages = nn.ModuleList(stages)
        self.leave = conv(before, shape[0], 3, padding=1, padding_mode="replicate")

    def forward(self, maps: Tensor) -> Tensor:
        x = self.enter(maps)
        for number, stage in enumerate(self.stages, start=1):
            size = [min(2 * now, end) for now, end in zip(x.shape[2:], self.space, strict=True)]
            x = stage(F.interpolate(x, self.space if number == self.doublings else size, mode=SMOOTH[len(size)]))
        return self.leave(x)


class VectorDecoder(nn.Module):
    """From one vector to an input: a linear layer makes a coarse grid, ``MapDecoder`` the rest. (B, D) -> (B, C, *)."""

    def __init__(self, in_dim: int, shape: Sequence[int], *, width: int, cells: int = 4) -> None:
        """``cells``: of the coarse grid, along each axis at most."""
        super().__init__()
        self.grid = tuple(min(cells, size) for size in shape[1:])
        self.enter = nn.Linear(in_dim, width * math.prod(self.grid))
        self.maps = MapDecoder(width, shape, self.grid, width=width)

    def forward(self, z: Tensor) -> Tensor:
        return self.maps(self.enter(z).unflatten(1, (-1, *self.grid)))
