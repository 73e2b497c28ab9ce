"""Notices a loss or weights that are not finite, without making an accelerator wait at every step."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from selftaught.errors import DivergedError


class Losses:
    """Losses are added as they come, still on the device, and read together when somebody waits anyway."""

    def __init__(self, *, seed: int) -> None:
        self.seed = seed
        self._unread: list[Tensor] = []

    def add(self, loss: Tensor) -> None:
        self._unread.append(loss)

    def check(self, done: int) -> None:
        """Raises DivergedError for the first loss since the last check that is not finite; ``done`` steps are made."""
        values = torch.stack(self._unread).tolist() if self._unread else []
        self._unread = []
        for step, value in enumerate(values, start=done - len(values)):
            if not math.isfinite(value):
                raise self._error(f"The loss is {value}", step)

    def check_weights(self, module: nn.Module, done: int) -> None:
        """Raises DivergedError where a finite loss had a gradient that was not."""
        weights = [p for p in module.parameters() if p.is_floating_point()]
        if weights and not torch.nn.utils.get_total_norm(weights).isfinite():
            raise self._error("The weights are not finite", done - 1)

    def _error(self, what: str, step: int) -> DivergedError:
        return DivergedError(
            f"{what} at step {step}, whose batch is that of (seed, step) = ({self.seed}, {step}).",
            hint="The last good checkpoint stands. Try a lower --lr, or --precision 32-true.",
        )
