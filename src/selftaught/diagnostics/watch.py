"""Watches a training without labels: measures held-out samples, looks at the outputs, says in sentences what it sees.

``Watch`` is a callback of the training loop by shape. Two kinds of look:

- a *peek* every few steps, at what the step has anyway: spread of the method's outputs, size of the weights, loss;
- a *check* of held-out samples through the encoder in eval mode: the figures of ``measures``.

When it looks is a function of the step alone, planned before step 0, so that a resumed run sees what an uninterrupted
one sees. Beyond a minimum of early checks, the planned checks cost at most ``SHARE`` of the training.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from selftaught.diagnostics import measures
from selftaught.diagnostics.held_out import (
    Batches,
    batches_of,
    compared,
    embed,
    explained,
    figures,
    jsonable,
    kept_encoder,
    norms,
    sorted_by,
)
from selftaught.diagnostics.schedule import peeks_at, plan_checks
from selftaught.diagnostics.verdicts import History, Peek, Verdict, judge
from selftaught.errors import SelftaughtError
from selftaught.types import Batch

COLUMNS = (  # of metrics.csv
    "rankme", "lidar", "alpha_req", "alignment", "uniformity", "spread", "drift", "knn", "held_out_loss", "unexplained",
)  # fmt: skip


class Watch:
    """Health of a run.

    Parameters
    ----------
    plain: held-out batches with one untouched view per sample ("plain"), in memory, or a callable that gives them.
    paired: held-out batches with two views per sample in their first stream, for alignment; empty = not measured.
    explained: held-out batches with the views of the method's plan, for methods that say how well they explain samples.
    labels: (N,) class numbers of the samples of ``plain``, -1 = unknown: adds online kNN. None = no labels.
    start: where the features are kept that an encoder which is not new started with: adds drift. None = a new one.
    path: where health.json goes; None = nowhere.
    batch_size: of the training, samples a step; what a check may cost is reckoned in its steps.
    held_out: whether the samples were kept from the training; said in health.json.
    compares: whether the method sees several views of a sample; else nothing is said of their likeness.
    say: called with each new warning or alarm (a ``Verdict``), on rank 0.
    """

    def __init__(
        self,
        plain: Batches,
        paired: Batches = (),
        *,
        explained: Sequence[Batch] = (),
        labels: np.ndarray | None = None,
        start: Path | None = None,
        path: str | Path | None = None,
        batch_size: int = 64,
        held_out: bool = True,
        compares: bool = True,
        say: Callable[[Verdict], None] | None = None,
    ) -> None:
        self.plain, self.paired, self.explained, self.held_out = plain, paired, explained, held_out
        self.path = Path(path) if path else None
        self.labels = None if labels is None else torch.as_tensor(np.asarray(labels, np.int64))
        self.say, self.batch_size, self.start = say, batch_size, start
        self._features: torch.Tensor | None = None  # of the encoder that the run started from
        self.history = History(compares=compares)
        self.verdicts: list[Verdict] = []
        self._start: list[float] = []  # norms of the encoder's matrices at step 0
        self._planned: set[int] = set()
        self._loss: float | None = None  # of the last row that was written

    # -- what the loop calls ------------------------------------------------------------------------------------------

    def on_start(self, state: Any) -> None:
        """Plans the checks; at step 0 measures the untrained encoder, with which all later figures are compared."""
        if state.fabric.global_rank != 0:
            return
        self._planned = set(self.planned(state))
        if self.start is not None:
            self._features = self._kept(state, self.start)
        if not self.history.checks:
            self._start = norms(kept_encoder(state.task))
            self._check(state, 0)
            self.write()

    def on_step(self, state: Any, row: dict[str, Any]) -> None:
        """Peeks and checks that are due after this step; health columns go into a ``row`` that is written anyway."""
        step = state.clock.step + 1
        self._loss = row.get("loss", self._loss)  # rows are filled on some steps only: keep the last one's
        if state.fabric.global_rank != 0 or not (peeks_at(step) or step in self._planned):
            return
        if peeks_at(step):
            self.history.peeks.append(self._peek(state, step))
        if step in self._planned:
            self._check(state, step)
        before = len(self.verdicts)
        self._judge(state)
        if step in self._planned or len(self.verdicts) != before:
            self.write()
        if row and step in self._planned:
            row.update(self.columns())

    def on_epoch(self, state: Any, row: dict[str, Any]) -> None:
        """Adds the figures of a check made after this very step."""
        if self.history.checks and self.history.checks[-1]["step"] == state.clock.step + 1:
            row.update(self.columns())

    def on_end(self, state: Any) -> None:
        """Writes health.json a last time."""
        if state.fabric.global_rank == 0 and self.history.checks:
            self._judge(state)
            self.write()

    def rehearse(self, state: Any) -> float:
        """Seconds of all checks in a run of ``state.steps`` steps."""
        started = time.perf_counter()
        self.measure(state)
        return (time.perf_counter() - started) * len(self.planned(state))

    def state(self) -> dict[str, Any]:
        """JSON-able: all that was seen."""
        peeks = [dataclasses.astuple(peek) for peek in self.history.peeks]
        verdicts = [dataclasses.asdict(verdict) for verdict in self.verdicts]
        kept = {"dim": self.history.dim, "samples": self.history.samples, "checks": self.history.checks}
        return {**kept, "peeks": peeks, "verdicts": verdicts, "start": self._start, "loss": self._loss}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """The counterpart of ``state``."""
        peeks = [Peek(*values) for values in state["peeks"]]
        self.history = History(state["dim"], state["samples"], list(state["checks"]), peeks, self.history.compares)
        self.verdicts = [Verdict(**fields) for fields in state["verdicts"]]
        self._start, self._loss = list(state["start"]), state["loss"]

    # -- what it sees -------------------------------------------------------------------------------------------------

    def planned(self, state: Any) -> list[int]:
        """Steps after which a run of ``state.steps`` is checked, in order."""
        return plan_checks(state.steps, state.steps_per_epoch, self._cost())

    def measure(self, state: Any) -> dict[str, float]:
        """The figures of the encoder as it is, in eval mode; it is left as it was."""
        z, pairs = embed(state, self.plain, self.paired)
        self.history.dim, self.history.samples = z.shape[1], len(z)
        seen = figures(z, pairs, self.labels)
        if self.explained:
            seen |= explained(state, self.explained)
        if self._features is not None:
            seen["drift"] = measures.drift(z, self._features.to(z.device))
        return seen

    def _kept(self, state: Any, path: Path) -> torch.Tensor:
        """Features at step 0, written then and read when the run goes on."""
        if not path.exists():
            z, _ = embed(state, self.plain, ())
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_suffix(".part.npy")
            np.save(draft, z.cpu().numpy())
            draft.replace(path)
        return torch.from_numpy(np.load(path))

    def columns(self) -> dict[str, float]:
        """The last check as columns of metrics.csv."""
        return {name: self.history.checks[-1][name] for name in COLUMNS if name in self.history.checks[-1]}

    def to_json(self) -> dict[str, Any]:
        """What health.json holds."""
        verdicts = [dataclasses.asdict(verdict) for verdict in self.verdicts]
        checks = [{name: jsonable(value) for name, value in check.items()} for check in self.history.checks]
        return {"measures": checks, "verdicts": verdicts, "samples": self.history.samples, "held_out": self.held_out}

    def write(self) -> None:
        """health.json, whole or not at all. Raises SelftaughtError where it cannot be written."""
        if self.path is None:
            return
        draft = self.path.with_suffix(".json.part")
        try:
            draft.write_text(json.dumps(self.to_json(), indent=1, allow_nan=False) + "\n", encoding="utf-8")
            os.replace(draft, self.path)
        except OSError as error:
            raise SelftaughtError(f"health.json cannot be written: {error.strerror or error}.") from error

    def _check(self, state: Any, step: int) -> None:
        self.history.checks.append({"step": step, "seconds": round(state.seconds, 3), **self.measure(state)})

    def _peek(self, state: Any, step: int) -> Peek:
        growth = [
            now / start for now, start in zip(norms(kept_encoder(state.task)), self._start, strict=True) if start > 0
        ]
        z, scores = compared(state.outputs), sorted_by(state.outputs)
        return Peek(
            step,
            float(np.median(growth)) if growth else 1.0,
            None if z is None else float(z.std(dim=0).mean()),
            None if z is None else measures.variation(z),
            None if self._loss is None else float(self._loss),
            None if scores is None else measures.winners(scores),
        )

    def _judge(self, state: Any) -> None:
        """Appends what is new: another finding, or health again. A lasting "healthy" is kept up to date."""
        current = judge(self.history)
        if current[0].level == "ok":
            if self.verdicts and self.verdicts[-1].level == "ok":
                self.verdicts.pop()
            self.verdicts.append(current[0])
        for verdict in current:
            if verdict.level != "ok" and not self._said(verdict):
                self.verdicts.append(verdict)
                if self.say:
                    self.say(verdict)
        state.words["health"] = "ok" if current[0].level == "ok" else current[0].name

    def _said(self, verdict: Verdict) -> bool:
        """Whether the same was found since the run was last healthy."""
        for before in reversed(self.verdicts):
            if before.level == "ok":
                return False
            if (before.name, before.level) == (verdict.name, verdict.level):
                return True
        return False

    def _cost(self) -> float:
        """Of one check, in training steps: a forward pass each, against two views forward and backward (three each)."""
        plain = sum(len(batch) for batch in batches_of(self.plain))
        pairs = sum(2 * len(batch) for batch in batches_of(self.paired))
        explained = sum(len(batch) for batch in self.explained)
        return (plain + pairs + explained) / (3 * 2 * self.batch_size)
