"""LARS: momentum SGD in which every weight tensor moves by a fixed share of its own norm.

You, Gitman & Ginsburg 2017, "Large Batch Training of Convolutional Networks", algorithm 1. As SimCLR and its
successors use it, tensors of at most one axis (biases, norms) take plain momentum steps, without the trust ratio.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class LARS(torch.optim.Optimizer):
    """``momentum`` in [0, 1); ``trust``, the paper's eta: share of a tensor's norm that one step at lr 1 moves."""

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        *,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 1e-3,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group)
        return loss

    def _move(self, parameter: Tensor, group: dict[str, Any]) -> None:
        assert parameter.grad is not None
        change = parameter.grad.add(parameter, alpha=group["weight_decay"])
        if parameter.ndim > 1:
            change = change * _trust_ratio(parameter, change, group["trust"])
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        velocity = state["momentum"].mul_(group["momentum"]).add_(change)
        parameter.add_(velocity, alpha=-group["lr"])


def _trust_ratio(parameter: Tensor, change: Tensor, trust: float) -> Tensor:
    """eta * |w| / |g + decay * w|; 1 where either norm is 0 (freshly zeroed weights must be able to move)."""
    size, move = parameter.norm(), change.norm()
    fine = (size > 0) & (move > 0)
    return torch.where(fine, trust * size / move.clamp_min(torch.finfo(move.dtype).tiny), torch.ones_like(size))
