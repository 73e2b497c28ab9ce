"""The colours of Lab as classes: 10 units of a and b wide, those that sRGB can show (Zhang et al. 2016, section 2.1).

They are some 260; the paper counts 313, among them middles that no sRGB colour rounds to.
"""

from __future__ import annotations

import functools

import cv2
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

STEP = 10  # units of a and b that a class is wide


@functools.cache
def classes() -> np.ndarray:
    """(Q, 2) float32: middles in a and b of the classes that some sRGB colour falls into."""
    levels = np.arange(0, 256, 5, dtype=np.float32) / 255
    cube = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(1, -1, 3)
    ab = cv2.cvtColor(cube, cv2.COLOR_RGB2LAB)[0, :, 1:]
    return STEP * np.unique(np.rint(ab / STEP), axis=0).astype(np.float32)


def nearest(ab: Float[Tensor, "B 2 *space"], middles: Float[Tensor, "Q 2"]) -> Int[Tensor, "B ..."]:
    """The class of each colour."""
    flat = ab.flatten(2).transpose(1, 2)  # (B, N, 2)
    return torch.cdist(flat, middles[None].expand(len(flat), -1, -1)).argmin(-1).unflatten(1, ab.shape[2:])


def soft(
    ab: Float[Tensor, "B N 2"], middles: Float[Tensor, "Q 2"], *, neighbours: int = 5, sigma: float = 5.0
) -> tuple[Int[Tensor, "B N k"], Float[Tensor, "B N k"]]:
    """The nearest classes of each colour and their shares: a Gaussian of the distance, summing to 1 (section 2.2)."""
    far, which = torch.cdist(ab, middles[None].expand(len(ab), -1, -1)).topk(neighbours, largest=False)
    return which, (-far.square() / (2 * sigma**2)).softmax(-1)


def mean_colour(
    scores: Float[Tensor, "B Q *space"], middles: Float[Tensor, "Q 2"], *, temperature: float = 0.38
) -> Float[Tensor, "B 2 *space"]:
    """The annealed mean of a distribution over classes (eq. 5): between its mode (dull spots) and its mean (sepia)."""
    return torch.einsum("bq...,qc->bc...", (scores.float() / temperature).softmax(1), middles)


def to_rgb(lightness: Float[Tensor, "B Y X"], ab: Float[Tensor, "B 2 Y X"]) -> Tensor:
    """(B, Y, X, 3) uint8 sRGB; ``lightness`` in [0, 100]."""
    lab = torch.cat([lightness[:, None], ab], dim=1).movedim(1, -1).float().cpu().numpy()
    made = [cv2.cvtColor(np.ascontiguousarray(one), cv2.COLOR_LAB2RGB).clip(0, 1) for one in lab]
    return torch.from_numpy(np.rint(255 * np.stack(made)).astype(np.uint8))
