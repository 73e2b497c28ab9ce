"""``--minutes`` into steps, before step 0 and for good.

A few steps are timed on the real data, model and ranks, and thrown away: weights, buffers and optimiser are then what
they were, to the bit. What remains of the time, less what is known to recur (health, checkpoints) and
what comes after the last step, is filled with steps. The plan is in the first checkpoint, so a run that was down for a
day still makes the steps that it planned.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from selftaught.train.saving import SHARES
from selftaught.train.task import Task

FEWEST = 6  # timed steps, the first two of which warm up
SHARE = 0.08  # of the time goes into the rehearsal …
LONGEST = 20.0  # … and at most this many seconds


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds. ``epoch``: what the method does before one; ``save``: one checkpoint; ``end``: the rest, once a run."""

    step: float
    epoch: float = 0.0
    save: float = 0.0
    end: float = 0.0


def steps_within(seconds: float, costs: Costs, *, steps_per_epoch: int) -> int:
    """The most steps that fit into ``seconds``, at least 1."""
    # Checkpoints: two that always come, and at most SHARES on the way, 20 times their cost apart.
    saves = min(SHARES * costs.save, 0.05 * max(0.0, seconds)) + costs.save
    room = seconds - costs.end - saves
    whole = math.floor(room / (costs.step + costs.epoch / steps_per_epoch))
    return max(1, whole)


class Rehearsal:
    """Times steps until it has seen enough of them. ``seconds``: what the whole run may take."""

    def __init__(self, seconds: float) -> None:
        self.enough = min(LONGEST, SHARE * seconds)
        self._times: list[float] = []
        self._began = self._last = time.perf_counter()

    def step(self) -> bool:
        """To be called after each step; True when enough were timed."""
        now = time.perf_counter()
        self._times.append(now - self._last)
        self._last = now
        return len(self._times) >= FEWEST and now - self._began >= self.enough

    @property
    def seconds_per_step(self) -> float:
        """Mean of all but the first third: by then workers' stocks are used up, so a slow loader shows."""
        late = self._times[max(2, len(self._times) // 3) :] or self._times
        return sum(late) / len(late)


@contextmanager
def thrown_away(task: Task, optimiser: torch.optim.Optimizer) -> Iterator[None]:
    """Whatever happens to weights, buffers and optimiser inside is undone, to the bit."""
    if optimiser.state:
        raise AssertionError("a plan is made before step 0")
    before = {name: value.clone() for name, value in task.state_dict().items()}
    groups = [{k: copy.copy(v) for k, v in group.items() if k != "params"} for group in optimiser.param_groups]
    random = torch.get_rng_state()
    try:
        yield
    finally:
        with torch.no_grad():
            for name, value in task.state_dict().items():
                value.copy_(before[name])
        optimiser.state.clear()
        optimiser.zero_grad(set_to_none=True)
        for group, old in zip(optimiser.param_groups, groups, strict=True):
            group.update(old)
        torch.set_rng_state(random)


def timed(action: Callable[[], object]) -> float:
    """Seconds that ``action`` takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began
