"""Which step of a run gives its encoder: the last one, unless the run has lost by then what it had.

A run that goes well is best at its end, whatever measure without labels was better before (docs/benchmarks.md). So
RankMe (Garrido et al. 2023), which falls where features collapse, decides only where it ends below half of its highest
and below that of the untrained encoder: such a run gives the encoder of the highest. Runs that went well kept 61 % and
more, with small batches, and ended far above the untrained encoder where they fell at all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from selftaught.diagnostics.verdicts import Verdict
from selftaught.diagnostics.watch import Watch

FALLEN = 0.5  # of the highest RankMe


class Best:
    """Keeps the encoder of the check with the highest RankMe. A callback of the training loop by shape.

    It must follow its ``watch`` in the list of callbacks. ``keep(step)`` writes the encoder as it is, in the place of
    one written before. Step 0 takes no part.
    """

    def __init__(self, watch: Watch, keep: Callable[[int], None]) -> None:
        self.watch, self.keep = watch, keep
        self.step, self.highest = 0, 0.0

    def on_start(self, state: Any) -> None:
        """Nothing: an untrained encoder is never kept."""

    def on_step(self, state: Any, row: Mapping[str, Any]) -> None:
        check = self.watch.history.checks[-1]
        if check["step"] == state.clock.step + 1 and check["rankme"] > self.highest:
            self.step, self.highest = int(check["step"]), check["rankme"]
            self.keep(self.step)

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
        """Whether the last check is so far below the best that the run has collapsed since."""
        checks = self.watch.history.checks
        return bool(self.step) and checks[-1]["rankme"] < min(FALLEN * self.highest, checks[0]["rankme"])

    def verdict(self) -> Verdict:
        """What to tell the user where the run has lost what it had."""
        end = self.watch.history.checks[-1]
        return Verdict(
            int(end["step"]),
            "warning",
            "earlier encoder",
            f"the encoder kept is that of step {self.step:,}, not of the last: the effective rank of its features fell "
            f"from {self.highest:.3g} there to {end['rankme']:.3g} at the end.",
        )

    def state(self) -> dict[str, Any]:
        return {"step": self.step, "highest": self.highest}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.step, self.highest = state.get("step", 0), state.get("highest", 0.0)
