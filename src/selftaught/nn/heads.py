"""Small networks between the encoder and a loss; thrown away after pre-training."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


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
