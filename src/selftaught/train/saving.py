"""When a checkpoint is due: at most 30 s of work are lost, and saving never takes more than a twentieth of the time."""

from __future__ import annotations

import time

LONGEST = 30.0  # seconds of work that a kill may cost
DEAREST = 20.0  # an interval is at least this many times the cost of a save
SHARES = 20  # short jobs are saved this many times


class Saving:
    """A clock for checkpoints. ``every`` in seconds overrides the rule; 0 = after each step."""

    def __init__(self, every: float | None = None) -> None:
        self.every = every
        self.cost = 0.0  # seconds that the last save took
        self.job = 0.0  # seconds that the whole job is expected to take; 0 = not known yet
        self._last = time.perf_counter()

    @property
    def interval(self) -> float:
        """Seconds between two checkpoints."""
        if self.every is not None:
            return self.every
        wanted = min(LONGEST, self.job / SHARES) if self.job else LONGEST
        return max(wanted, DEAREST * self.cost)

    def due(self) -> bool:
        return time.perf_counter() - self._last >= self.interval

    def saved(self, cost: float) -> None:
        """To be called after a save that took ``cost`` seconds."""
        self.cost = cost
        self._last = time.perf_counter()
