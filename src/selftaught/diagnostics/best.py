"""Which step of a run gives its encoder: the last one, unless the run has lost by then what it had.

A run that goes well is best at its end, whatever measure without labels was better before (docs/benchmarks.md). So
RankMe (Garrido et al. 2023), which falls where features collapse, decides only where a run ends in an alarm, and with
less than half of its highest RankMe: it then gives the encoder of the highest. Half alone says nothing: with batches of
8 healthy runs ended with 61 % of a peak near step 50, and another objective may need half the dimensions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from selftaught.diagnostics.verdicts import Verdict, judge
from selftaught.diagnostics.watch import Watch

FALLEN = 0.5  # of the highest RankMe


class Best:
    """Keeps the encoder of the check with the highest RankMe. A callback of the training loop by shape.

    It must follow its ``watch`` in the list of callbacks. ``keep(step)`` writes the encoder as it is, in the place of
    one written before. ``trained``: whether the encoder is one already at step 0; a new one is never kept.
    """

    def __init__(self, watch: Watch, keep: Callable[[int], None], *, trained: bool = False) -> None:
        self.watch, self.keep, self.trained = watch, keep, trained
        self.step, self.highest = 0, 0.0

    def on_start(self, state: Any) -> None:
        """Of a run that has made no step yet."""
        if self.trained and len(self.watch.history.checks) == 1:
            self._compare(0)

    def on_step(self, state: Any, row: Mapping[str, Any]) -> None:
        """Compares a check that was made after this very step."""
        self._compare(state.clock.step + 1)

    def _compare(self, step: int) -> None:
        check = self.watch.history.checks[-1]
        if check["step"] == step and check["rankme"] > self.highest:
            self.step, self.highest = step, check["rankme"]
            self.keep(step)

    def on_epoch(self, state: Any, row: Mapping[str, Any]) -> None:
        """Nothing: checks are made after steps."""

    def on_end(self, state: Any) -> None:
        """Nothing: who reads ``lost`` decides."""

    def rehearse(self, state: Any) -> float:
        """Seconds of writing at every check, as a run that gets better and better does."""
        started = time.perf_counter()
        self.keep(0)
        return (time.perf_counter() - started) * len(self.watch.planned(state))

    @property
    def lost(self) -> bool:
        """Whether the run ends in an alarm, and the last check is so far below the best that there was a better one."""
        history = self.watch.history
        alarm = any(verdict.level == "alarm" for verdict in judge(history))
        return alarm and history.checks[-1]["rankme"] < FALLEN * self.highest

    def verdict(self) -> Verdict:
        """What to tell the user where the run has lost what it had."""
        end = self.watch.history.checks[-1]
        return Verdict(
            int(end["step"]),
            "alarm",
            "earlier encoder",
            f"the encoder kept is that of step {self.step:,}, not of the last: the effective rank of its features fell "
            f"from {self.highest:.3g} there to {end['rankme']:.3g} at the end.",
        )

    def state(self) -> dict[str, Any]:
        return {"step": self.step, "highest": self.highest}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.step, self.highest = state.get("step", 0), state.get("highest", 0.0)
