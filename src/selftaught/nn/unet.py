"""A small U-Net that takes noise away, told how much there is and what the sample is."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught.nn.decoder import CONVOLUTIONS, SMOOTH

LARGE = 32  # cells of the shortest axis from which on the work is done at half the resolution
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
POOLS = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


class UNet(nn.Module):
    """(B, C, *space) noisy, (B,) level in [0, 1] and (B, D) condition -> (B, C, *space).

    Two halvings of the grid (fewer where it is small) and the way back with shortcuts; level and condition scale and
    shift every block (Dhariwal & Nichol 2021, section 3; Preechakul et al. 2022, section 3). From ``LARGE`` cells an
    axis on it works at half the resolution, which costs a quarter in pictures. Level and condition also say how much of
    what came in goes straight out (after Karras et al. 2022, eq. 7), for fine grain is noise at nearly every level, and
    a new network would first have to learn to pass it on.
    """

    def __init__(self, shape: Sequence[int], condition: int, *, width: int) -> None:
        super().__init__()
        axes, space = len(shape) - 1, shape[1:]
        self.stride = 2 if min(space) >= LARGE else 1
        self.depth = min(2, max(0, int(math.log2(max(1, min(space) // self.stride // 4)))))
        conv, inner = CONVOLUTIONS[axes], 4 * width
        self.told = nn.Sequential(
            nn.Linear(2 * width + condition, inner), nn.SiLU(), nn.Linear(inner, inner), nn.SiLU()
        )
        self.rates: Tensor
        self.register_buffer("rates", 1000 * 10_000.0 ** -(torch.arange(width) / width), persistent=False)
        widths = [width * 2**level for level in range(self.depth + 1)]
        self.enter = conv(shape[0], width, 2 * self.stride + 1, stride=self.stride, padding=self.stride)
        pairs = list(zip([width, *widths], widths, strict=False))
        self.down = nn.ModuleList(Block(before, after, inner, axes) for before, after in pairs)
        back = list(zip(widths[1:], widths, strict=False))[::-1]
        self.up = nn.ModuleList(Block(below + here, here, inner, axes) for below, here in back)
        last = TRANSPOSED[axes](width, shape[0], self.stride, stride=self.stride)  # no overlap, so no chequerboard
        self.leave = nn.Sequential(nn.GroupNorm(1, width), nn.SiLU(), last)
        self.straight = nn.Linear(inner, shape[0])  # how much of each channel
        for layer in (last, self.straight):  # at first it says next to nothing: 0, the mean
            nn.init.trunc_normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, level: Tensor, condition: Tensor) -> Tensor:
        angle = level[:, None].float() * self.rates.float()
        told = self.told(torch.cat([angle.sin().to(condition), angle.cos().to(condition), condition], dim=1))
        axes, whole = x.ndim - 2, x.shape[2:]
        straight = self.straight(told).view(len(x), -1, *[1] * axes) * x
        x, kept = self.enter(x), []
        for number, block in enumerate(self.down):
            x = block(x, told)
            if number < self.depth:
                kept.append(x)
                x = POOLS[axes](x, 2, ceil_mode=True)  # type: ignore[operator]
        for block in self.up:
            beside = kept.pop()
            x = block(torch.cat([F.interpolate(x, beside.shape[2:], mode=SMOOTH[axes]), beside], dim=1), told)
        return straight + self.leave(x)[(slice(None), slice(None), *(slice(size) for size in whole))]


class Block(nn.Module):
    """Two convolutions with a shortcut, scaled and shifted between them by what the block is told."""

    def __init__(self, before: int, after: int, told: int, axes: int) -> None:
        super().__init__()
        conv = CONVOLUTIONS[axes]
        self.first = nn.Sequential(nn.GroupNorm(1, before), nn.SiLU(), conv(before, after, 3, padding=1))
        self.norm = nn.GroupNorm(1, after, affine=False)
        self.scale = nn.Linear(told, 2 * after)
        self.second = nn.Sequential(nn.SiLU(), conv(after, after, 3, padding=1))
        self.shortcut = conv(before, after, 1) if before != after else nn.Identity()

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        scale, shift = self.scale(told).view(len(x), -1, *[1] * (x.ndim - 2)).chunk(2, dim=1)
        return self.second(self.norm(self.first(x)) * (1 + scale) + shift) + self.shortcut(x)
