"""When to look: a function of the step, planned before step 0, so that a resumed run looks at the same steps."""

from __future__ import annotations

import math

EARLY = (25, 50, 100, 150, 200)  # steps of the first checks, whatever they cost: collapse shows here
SHARE = 0.02  # of the training that later checks may cost
MOST = 200  # checks a run at most


def plan_checks(steps: int, steps_per_epoch: int, cost: float) -> list[int]:
    """Numbers of finished steps after which to check. ``cost`` of a check in training steps.

    The early ones, then ends of epochs (and every 1,000 steps) that are far enough from the last check, then the end.
    """
    apart = max(1, math.ceil(cost / SHARE), steps // MOST)
    planned = {0, steps} | {step for step in EARLY if step < steps}
    last = max((step for step in planned if step < steps), default=0)
    for step in range(steps_per_epoch, steps, steps_per_epoch) if steps_per_epoch < 1000 else range(1000, steps, 1000):
        if step - last >= apart and steps - step >= apart:
            planned.add(step)
            last = step
    return sorted(planned)


def peeks_at(step: int) -> bool:
    """Whether to peek after ``step`` finished steps: every fifth at first, where things go wrong, later every 50th."""
    return step % (5 if step <= 300 else 50) == 0
