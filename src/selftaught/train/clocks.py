"""Makes the clock of a step: when we are, and noise that depends on the seed and the sample alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from selftaught.data.keys import generator
from selftaught.types import Clock


def clock_of(step: int, *, steps: int, steps_per_epoch: int, seed: int) -> Clock:
    """The clock of ``step`` in [0, steps)."""

    def noise(name: str, p: Tensor, shape: Sequence[int]) -> Tensor:
        rows = [generator(seed, f"noise/{name}", int(one)).standard_normal(shape, np.float32) for one in p]
        return torch.from_numpy(np.stack(rows)).to(p.device)

    return Clock(step, steps, step // steps_per_epoch, seed, noise)
