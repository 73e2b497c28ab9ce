"""Patches cut out of views, each sample at its own place, and guards against what gives their place away.

Random numbers come in as arguments.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor


def cut_at(
    x: Float[Tensor, "B C *space"], start: Int[Tensor, "B A"], size: Sequence[int]
) -> Float[Tensor, "B C *size"]:
    """The box of ``size`` that begins at ``start`` along each axis, another one for each sample."""
    for axis, long in enumerate(size):
        place = start[:, axis, None] + torch.arange(long, device=x.device)  # (B, long)
        index = place.view(len(x), 1, *(long if each == axis else 1 for each in range(len(size))))
        shape = [*x.shape]
        shape[2 + axis] = long
        x = x.gather(2 + axis, index.expand(shape))
    return x


def tiles(
    x: Float[Tensor, "B C *space"], jitter: Float[Tensor, "B N A"], across: int, *, gap: float
) -> Float[Tensor, "B N C *patch"]:
    """A grid of ``across`` tiles along each axis, first axis slowest, each smaller than its cell by the share ``gap``
    and somewhere in it: ``jitter`` in [0, 1) says where.

    Gap and jitter are the guard of Doersch et al. 2015, section 3.1: lines that go on across a border, and equal
    distances, would tell where a patch lies without a look at what it shows.
    """
    space = x.shape[2:]
    cell = [size // across for size in space]
    size = [max(1, round((1 - gap) * one)) for one in cell]
    found = []
    for number, place in enumerate(itertools.product(range(across), repeat=len(space))):
        slack = torch.tensor([one - part + 1 for one, part in zip(cell, size, strict=True)], device=x.device)
        first = torch.tensor([step * one for step, one in zip(place, cell, strict=True)], device=x.device)
        found.append(cut_at(x, first + (jitter[:, number] * slack).long(), size))
    return torch.stack(found, dim=1)


def one_channel(
    patches: Float[Tensor, "B N C *patch"], noise: Float[Tensor, "B N"], values: Float[Tensor, "B N C *patch"]
) -> Float[Tensor, "B N C *patch"]:
    """One channel of each patch, drawn by ``noise`` in [0, 1), and a hundredth of ``values`` (noise) for the rest.

    "Colour dropping" of Doersch et al. 2015, section 3.1: a lens bends colours unlike, most at the border of a picture,
    so the fringes of a patch tell where in the picture it lies.
    """
    channels = patches.shape[2]
    kept = (noise * channels).long()  # (B, N)
    here = torch.arange(channels, device=patches.device) == kept[..., None]  # (B, N, C)
    return torch.where(here.view(*here.shape, *[1] * (patches.ndim - 3)), patches, 0.01 * values.to(patches))


def levelled(patches: Float[Tensor, "B N C *patch"]) -> Float[Tensor, "B N C *patch"]:
    """Each patch less its mean and by its spread, channel by channel: neighbours' brightness is alike (Noroozi &
    Favaro 2016, section 4.2)."""
    flat = patches.flatten(3)
    mean, spread = flat.mean(-1, keepdim=True), flat.std(-1, keepdim=True, correction=0)
    return ((flat - mean) / (spread + 1e-3)).view_as(patches)


def far_permutations(items: int, count: int, *, among: int = 50_000) -> Int[Tensor, "P items"]:
    """``count`` orders of ``items`` things, each as unlike the others as can be: the largest Hamming distance to the
    nearest one chosen before (Noroozi & Favaro 2016, algorithm 1, which takes the mean distance).

    The first one leaves all in place. Of more than ``among`` orders, that many drawn by a fixed seed are looked at.
    """
    if math.factorial(items) <= among:
        pool = torch.tensor(list(itertools.permutations(range(items))), dtype=torch.int8)
    else:
        keys = torch.rand(among - 1, items, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        pool = torch.cat([torch.arange(items)[None], keys.argsort(1)]).to(torch.int8)
    chosen = [0]
    nearest = torch.full((len(pool),), items, dtype=torch.int16)
    while len(chosen) < min(count, len(pool)):
        nearest = torch.minimum(nearest, (pool != pool[chosen[-1]]).sum(1).to(torch.int16))
        chosen.append(int(nearest.argmax()))
    return pool[chosen].long()
