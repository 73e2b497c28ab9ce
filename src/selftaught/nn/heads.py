"""Small networks between the encoder and a loss; thrown away after pre-training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught.types import Features


def each_view(views: Tensor, *parts: Callable[[Tensor], Any]) -> Tensor:
    """(B, V, ...) -> (B, V, D): every view through ``parts`` one after the other, all views in one pass.

    Of what an encoder gives, the pooled vector goes on.
    """
    x = views.flatten(0, 1)
    for part in parts:
        out = part(x)
        x = out.pooled if isinstance(out, Features) else out
    return x.unflatten(0, views.shape[:2])


def projection(
    in_dim: int, hidden: int, out_dim: int, *, layers: int = 2, norm: bool = True, last_norm: bool = False
) -> nn.Sequential:
    """A perceptron (B, in_dim) -> (B, out_dim): linear, batch norm, ReLU, …, linear.

    ``layers`` counts the linear ones, at least 1. ``norm``: batch norm before each ReLU. ``last_norm``: one more after
    the last layer, without weights, as SimCLR's code and Barlow Twins' successors have it.
    """
    parts: list[nn.Module] = []
    for layer in range(layers):
        last = layer == layers - 1
        width = out_dim if last else hidden
        normed = last_norm if last else norm
        parts.append(nn.Linear(in_dim if layer == 0 else hidden, width, bias=not normed))
        if normed:
            parts.append(nn.BatchNorm1d(width, affine=not last))
        if not last:
            parts.append(nn.ReLU(inplace=True))
    return nn.Sequential(*parts)


class Bottleneck(nn.Module):
    """Three linear layers with GELU between them, (..., D) -> (..., out_dim): DINO's head up to its prototypes.

    ``norm``: batch norm before each GELU. Without it, and with few steps, the differences between samples drown in what
    all have in common, and prototypes cannot tell them apart.
    """

    def __init__(self, in_dim: int, hidden: int, out_dim: int, *, norm: bool = True) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in (in_dim, hidden):
            layers += [nn.Linear(width, hidden), *([nn.BatchNorm1d(hidden)] if norm else []), nn.GELU()]
        self.layers = nn.Sequential(*layers, nn.Linear(hidden, out_dim))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.flatten(0, -2)).unflatten(0, x.shape[:-1])


class Prototypes(nn.Module):
    """Cosine similarity with ``count`` learned directions: (B, D) -> (B, K), in [-1, 1].

    A linear layer under weight normalisation with its scale fixed at 1, fed with vectors of unit length (DINO's and
    SwAV's last layer).
    """

    def __init__(self, dim: int, count: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(F.normalize(torch.randn(count, dim), dim=1))

    def forward(self, z: Tensor) -> Tensor:
        return F.linear(F.normalize(z, dim=-1), F.normalize(self.weight, dim=-1))
