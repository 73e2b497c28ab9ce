"""Layers whose largest stretch is 1, so that an adversary cannot become arbitrarily steep."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Spectral(nn.Module):
    """A linear or convolutional layer divided by its largest singular value (Miyato et al. 2018, algorithm 1).

    Unlike torch's own parametrisation, the power iteration moves in ``refresh``, after a step, and not in ``forward``:
    a forward pass can be repeated (accumulation, the encoder's own look at the adversary) and gives the same.
    """

    u: Tensor  # (out,) and v (in,): the directions that are stretched most, about
    v: Tensor

    def __init__(self, layer: Any, *, rounds: int = 15) -> None:
        """``rounds`` of the power iteration at the start; one after each step."""
        super().__init__()
        self.layer = layer
        matrix = layer.weight.detach().flatten(1)
        self.register_buffer("u", F.normalize(torch.randn(matrix.shape[0]), dim=0))
        self.register_buffer("v", F.normalize(torch.randn(matrix.shape[1]), dim=0))
        self.refresh(rounds)

    @torch.no_grad()
    def refresh(self, rounds: int = 1) -> None:
        matrix = self.layer.weight.flatten(1)
        for _ in range(rounds):
            self.v.copy_(F.normalize(matrix.T @ self.u, dim=0))
            self.u.copy_(F.normalize(matrix @ self.v, dim=0))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.layer.weight
        stretch = (self.u @ weight.flatten(1) @ self.v).clamp(min=1e-6)  # with gradient, as in the paper
        weight = (weight / stretch).to(x.dtype)
        bias = None if self.layer.bias is None else self.layer.bias.to(x.dtype)
        if weight.ndim == 2:
            return F.linear(x, weight, bias)
        return self.layer._conv_forward(x, weight, bias)


def refresh(module: nn.Module) -> None:
    """One round of the power iteration in every ``Spectral`` layer of a network; call it after a step."""
    for part in module.modules():
        if isinstance(part, Spectral):
            part.refresh()
