"""Between the loop and its store: what goes into a checkpoint, when, and whether one belongs to this run."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import torch

from selftaught.errors import RunError, must_be
from selftaught.nn import batchwise
from selftaught.train import snapshot
from selftaught.train.callbacks import Callback
from selftaught.train.checkpoint import Checkpoint, Store
from selftaught.train.saving import Saving
from selftaught.train.settings import Settings
from selftaught.train.task import Task


class Keeper:
    """``store=None`` keeps nothing. Only rank 0 writes, since all ranks hold the same."""

    def __init__(
        self,
        store: Store | None,
        task: Task,
        optimiser: torch.optim.Optimizer,
        *,
        settings: Settings,
        callbacks: Sequence[Callback],
    ) -> None:
        self.store, self.task, self.optimiser = store, task, optimiser
        self.settings, self.callbacks = settings, callbacks
        self.saving = Saving(settings.save_every)
        self.notes: list[str] = []
        self.writes = store is not None and batchwise.rank() == 0
        self._saved: tuple[int, int] | None = None

    def restore(self) -> Checkpoint | None:
        """Everything as it was after the last checkpoint's step; None where there is none."""
        found = self.store.load_latest(discard=self.writes) if self.store else None
        if found is None:
            return None
        self._same_run(found)
        now = snapshot.surroundings(self.task, self.optimiser)
        self.notes += [*found.notes, *snapshot.adopt(found.facts["surroundings"], now)]
        snapshot.restore(found.tensors, self.task, self.optimiser)
        snapshot.restore_groups(found.facts["groups"], self.optimiser)
        for callback in self.callbacks:
            callback.load_state(found.facts["callbacks"].get(type(callback).__name__, {}))
        self._saved = (found.step, found.facts["steps"])
        return found

    def save(self, done: int, steps: int, *, seconds: float) -> None:
        """A checkpoint after ``done`` of ``steps`` steps, unless there is one already."""
        if not self.writes or self.store is None or self._saved == (done, steps):
            return
        facts = {
            "steps": steps,
            "seconds": seconds,
            "settings": self._identity(),
            "groups": snapshot.groups_of(self.optimiser),
            "callbacks": {type(callback).__name__: callback.state() for callback in self.callbacks},
            "surroundings": snapshot.surroundings(self.task, self.optimiser),
        }
        began = time.perf_counter()
        self.store.save(snapshot.tensors_of(self.task, self.optimiser), facts, step=done)
        self.saving.saved(time.perf_counter() - began)
        self._saved = (done, steps)

    def _same_run(self, found: Checkpoint) -> None:
        saved = found.facts["settings"]
        for name, value in self._identity().items():
            if saved.get(name) != value:
                message = must_be(name, self.settings.caller, f"{saved.get(name)!r} as in the run's checkpoint", value)
                raise RunError(message, hint="Go on with the run's own settings, or start another run elsewhere.")

    def _identity(self) -> dict[str, Any]:
        """What must not change within a run, as JSON gives it back."""
        names = ("seed", "batch_size", "steps", "minutes", "steps_per_epoch", "accumulate")
        recipe = dataclasses.asdict(self.settings.optimiser)
        own = {name: getattr(self.settings, name) for name in names}
        return own | {f"optimiser.{k}": list(v) if isinstance(v, tuple) else v for k, v in recipe.items()}
