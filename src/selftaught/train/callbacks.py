"""What the loop tells others, and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from selftaught.types import Clock, Outputs

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from selftaught.train.task import Task

Row = dict[str, Any]  # one row of metrics.csv; callbacks may add columns


@dataclass(slots=True)
class State:
    """Where the training is. ``stop`` may be set by a callback: the loop ends after this step, with a checkpoint."""

    task: Task
    fabric: Fabric
    clock: Clock  # clock.step is the step that was just made
    steps: int
    steps_per_epoch: int
    seconds: float = 0.0  # of training, over all starts of the run
    outputs: Outputs = field(default_factory=dict)  # of the last step, detached, this rank's share
    words: dict[str, str] = field(default_factory=dict)  # shown at the end of the progress line, e.g. {"knn": "0.71"}
    stop: str = ""  # why to stop; "" = go on


class Callback:
    """Base of what watches a training. Works by shape: any object with these methods will do.

    Called on every rank (check ``state.fabric.global_rank``). Measuring does no harm to the training's random numbers,
    which are seeded anew each step; it must put modules back into train mode and leave buffers as they were.
    """

    def on_start(self, state: State) -> None:
        """Before the first step of this start, after a checkpoint was restored."""

    def on_step(self, state: State, row: Row) -> None:
        """After every step. ``row`` holds numbers only on steps that are written to metrics.csv; else it is empty."""

    def on_epoch(self, state: State, row: Row) -> None:
        """After the last step of an epoch and after the last step of the run; columns added to ``row`` are written."""

    def on_end(self, state: State) -> None:
        """After the last step, before the last checkpoint."""

    def rehearse(self, state: State) -> float:
        """Seconds that this will cost in a run of ``state.steps`` steps, for ``--minutes``; leaves no trace."""
        return 0.0

    def state(self) -> dict[str, Any]:
        """JSON-able; part of the checkpoint."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """The counterpart of ``state``."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came out. ``row`` is the last row of metrics; ``stopped`` says why, if before the last step."""

    step: int  # steps done
    steps: int  # steps planned
    seconds: float  # of training, over all starts
    row: Row
    resumed_from: int = 0
    notes: tuple[str, ...] = ()  # what the user should know: a torn checkpoint, another thread count, …
    stopped: str = ""
