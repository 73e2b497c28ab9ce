"""From single measurements to summaries and gains, paired by (split, seed)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from selftaught.downstream.intervals import interval, paired

CONTROLS = ("scratch", "random", "raw", "public")
SCRATCH_PROTOCOL = "finetune"  # training from scratch has one way only; every protocol is compared with it


@dataclass(frozen=True, slots=True)
class Run:
    """One fit and its test. ``figures``: metric -> (1 + J,), on all test samples and without each block of them."""

    protocol: str
    features: str
    budget: str
    split: str
    seed: int
    n_train: int
    n_test: int
    seen: bool
    figures: dict[str, np.ndarray] = field(default_factory=dict)

    def rows(self, data: str, layer: str) -> list[dict[str, Any]]:
        """As in evaluation.json, one per metric."""
        facts = {"data": data, "task": "classify", "protocol": self.protocol, "features": self.features, "layer": layer}
        facts |= {"budget": self.budget, "split": self.split, "seed": self.seed}
        sizes = {"n_train": self.n_train, "n_test": self.n_test, "seen": self.seen}
        return [
            {**facts, "metric": metric, "value": _number(values[0]), **sizes} for metric, values in self.figures.items()
        ]


def summarise(runs: Sequence[Run], data: str) -> list[dict[str, Any]]:
    """Mean and 95 % interval over seeds of each (protocol, features, budget, metric), in order of first appearance."""
    made = []
    for (protocol, features, budget), group in _grouped(runs, lambda run: (run.protocol, run.features, run.budget)):
        for metric in group[0].figures:
            figures = np.array([run.figures[metric] for run in group])
            mean, low, high, n = interval(figures[:, 0], figures[:, 1:], bounds=(0.0, 1.0))
            facts = {"data": data, "task": "classify", "protocol": protocol, "metric": metric, "budget": budget}
            facts |= {"features": features, "mean": _number(mean), "low": _number(low), "high": _number(high), "n": n}
            made.append(facts)
    return made


def gains(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """What "pretrained" is ahead of each control, per protocol, budget and metric, in units of the metric."""
    made = []
    for (protocol, budget), group in _grouped(runs, lambda run: (run.protocol, run.budget)):
        ours = [run for run in group if run.features == "pretrained"]
        for against in CONTROLS:
            where = SCRATCH_PROTOCOL if against == "scratch" else protocol
            theirs = [r for r in runs if (r.features, r.protocol, r.budget) == (against, where, budget)]
            made += [_gain(ours, theirs, protocol, budget, against, metric) for metric in _metrics_of(ours, theirs)]
    return made


def _gain(ours: list[Run], theirs: list[Run], protocol: str, budget: str, against: str, metric: str) -> dict[str, Any]:
    first, second = ([((run.split, run.seed), run.figures[metric]) for run in runs] for runs in (ours, theirs))
    mean, low, high, n = interval(*paired(first, second))
    facts = {"protocol": protocol, "metric": metric, "budget": budget, "against": against}
    return {**facts, "gain": _number(mean), "low": _number(low), "high": _number(high), "n": n}


def _metrics_of(ours: Sequence[Run], theirs: Sequence[Run]) -> Iterable[str]:
    """Metrics that both have, where there is at least one common (split, seed)."""
    common = {(run.split, run.seed) for run in ours} & {(run.split, run.seed) for run in theirs}
    return [metric for metric in ours[0].figures if metric in theirs[0].figures] if common else []


def _grouped(runs: Iterable[Run], key: Callable[[Run], tuple[str, ...]]) -> list[tuple[tuple[str, ...], list[Run]]]:
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        groups.setdefault(key(run), []).append(run)
    return list(groups.items())


def _number(value: float) -> float | None:
    """JSON knows no nan: an AUROC of a test with one class is null."""
    return round(float(value), 6) if np.isfinite(value) else None
