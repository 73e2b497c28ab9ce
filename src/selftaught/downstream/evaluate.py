"""What the pre-training was worth: the same labels, the same splits, with and without it.

Every protocol is run at every label budget over several seeds; one seed is one draw of the budget (and of the split,
where it is random). The controls see exactly the same samples as the pre-trained encoder, so that differences pair up
by (split, seed). Nothing is chosen on test samples: regularisation comes from the labelled budget, the checkpoint is
the last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from selftaught.downstream.budgets import draw, parse_budgets
from selftaught.downstream.comparison import Run, gains, summarise
from selftaught.downstream.intervals import leave_out
from selftaught.downstream.metrics import NAMES, weighted
from selftaught.downstream.neighbors import knn_predict
from selftaught.downstream.probe import linear_probe
from selftaught.downstream.sentence import gain_sentence
from selftaught.downstream.splits import Split, split_rows
from selftaught.errors import ConfigError, DataError, must_be, nearest

PROTOCOLS = ("knn", "linear", "finetune")
FeatureSource = np.ndarray | Callable[[int], np.ndarray]  # (N, D) float32, or seed -> such (a fresh untrained encoder)
Trainer = Callable[["Request"], np.ndarray]  # trains on request.train, gives probabilities (len(request.test), K)


@dataclass(frozen=True, slots=True)
class Request:
    """One training for the protocol "finetune": which samples, with which targets."""

    train: np.ndarray  # (n,) int64 rows of the evaluated index: the labelled budget
    target: np.ndarray  # (n,) int64 class numbers of ``train``
    test: np.ndarray  # (m,) int64 rows to predict, in this order
    classes: int  # K
    seed: int


@dataclass(slots=True)
class Evaluation:
    """Rows as in DESIGN section 8, their summary with intervals, the gains over each control, and the sentence."""

    rows: list[dict[str, Any]]
    summary: list[dict[str, Any]]
    gains: list[dict[str, Any]]
    sentence: str
    notes: list[str] = field(default_factory=list)  # what had to be said: budget larger than the data, transductive, …
    # Columns of equal length: id, true, predicted, confidence, protocol, budget, seed; of the pre-trained encoder.
    predictions: dict[str, np.ndarray] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """``{"rows", "summary", "gains", "sentence", "notes"}``, what evaluation.json holds."""
        return {name: getattr(self, name) for name in ("rows", "summary", "gains", "sentence", "notes")}


def evaluate(
    features: Mapping[str, FeatureSource],
    labels: np.ndarray,
    *,
    classes: Sequence[str] = (),
    trainers: Mapping[str, Trainer] | None = None,
    protocols: Sequence[str] = ("knn", "linear"),
    budgets: Sequence[str | int] = ("10/class", "all"),
    seeds: int | Sequence[int] = 3,
    test: float = 0.2,
    split: np.ndarray | None = None,
    group: np.ndarray | None = None,
    seen: np.ndarray | None = None,
    transductive: bool = False,
    metrics: Sequence[str] = ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "ece"),
    headline: str = "",
    data: str = "data",
    layer: str = "pooled",
    progress: Callable[[int, int, str], None] | None = None,
) -> Evaluation:
    """Compares "pretrained" with its controls.

    Parameters
    ----------
    features: name ("pretrained", "random", "raw", "public") -> (N, D) array, or seed -> array. For knn and linear.
    labels: (N,) class numbers, -1 = unlabelled (never used, but counted in the notes).
    classes: K names; default the numbers.
    trainers: "pretrained" and "scratch" -> trainer. "scratch" is run whatever the protocols: it is the control of all.
    protocols: of "knn", "linear", "finetune".
    budgets: "10/class", "10%", "100" or 100 (labels in all), "all".
    seeds: how many (0, 1, …), or which.
    test: share of samples for the test where ``split`` does not say it.
    split: (N,) strings; "test" is tested on, "train" (or "") trained on, others ("val") are left out and counted.
    group: (N,) strings or numbers; a group never straddles train and test. "" = a group of its own.
    seen: (N,) bool, True = was in pre-training. Not tested on, unless ``transductive`` or nothing else is left.
    headline: protocol of the sentence; default "finetune" where it is run against scratch, else "linear", else "knn".
    progress: called with (done, total, what).

    Raises DataError where the labels do not allow it (one class, nothing to test), ConfigError for a wrong request.
    """
    labels = np.asarray(labels, np.int64)
    count = len(classes) or int(labels.max(initial=0)) + 1
    labels, notes = _usable(labels, features)
    what = _Parts(dict(features), dict(trainers or {}), labels, count, group, tuple(metrics))
    asked, numbers, jobs = parse_budgets(budgets), _seeds(seeds), what.jobs(protocols)
    limits = {"test": test, "split": split, "group": group, "seen": seen, "transductive": transductive}
    splits = {seed: split_rows(labels, seed=seed, **limits) for seed in numbers}
    runs, predictions = [], []
    for seed, part in splits.items():
        notes += part.notes
        for budget in asked:
            drawn = draw(labels, part.train, budget, seed=seed)
            notes += drawn.notes
            for protocol, name in jobs:
                if progress:
                    progress(len(runs), len(numbers) * len(asked) * len(jobs), f"{protocol} {name} {budget.text}")
                probability = what.predict(protocol, name, part, drawn.rows, seed)
                figures = what.figures(part.test, probability)
                where = (part.name, seed, len(drawn.rows), len(part.test), part.transductive)
                runs.append(Run(protocol, name, budget.text, *where, figures))
                if name == "pretrained":
                    predictions.append(_columns(part.test, labels, probability, (protocol, budget.text, seed)))
    ahead = gains(runs)
    said = gain_sentence(
        ahead,
        protocol=headline or _headline(jobs),
        metric=metrics[0],
        budgets=asked,
        transductive=any(part.transductive for part in splits.values()),
    )
    rows = [row for run in runs for row in run.rows(data, layer)]
    return Evaluation(rows, summarise(runs, data), ahead, said, list(dict.fromkeys(notes)), _joined(predictions))


@dataclass(slots=True)
class _Parts:
    """What is evaluated: everything that a protocol needs besides the draw."""

    features: dict[str, FeatureSource]
    trainers: dict[str, Trainer]
    labels: np.ndarray
    classes: int
    group: np.ndarray | None
    metrics: tuple[str, ...]
    _made: dict[tuple[str, int], np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.metrics:
            if name not in NAMES:
                hint = nearest(name, NAMES)
                raise ConfigError(must_be("metrics", "evaluate", f"some of {', '.join(NAMES)}", name), hint=hint)

    def jobs(self, protocols: Sequence[str]) -> list[tuple[str, str]]:
        """(protocol, features) in order. Training from scratch is run with any protocol: it is the control of all."""
        for name in protocols:
            if name not in PROTOCOLS:
                constraint = f"some of {', '.join(PROTOCOLS)}"
                raise ConfigError(must_be("protocols", "evaluate", constraint, name), hint=nearest(name, PROTOCOLS))
        made = [(name, which) for name in protocols if name != "finetune" for which in self.features]
        tuned = [name for name in self.trainers if name == "scratch" or "finetune" in protocols]
        return made + [("finetune", name) for name in tuned]

    def predict(self, protocol: str, name: str, part: Split, rows: np.ndarray, seed: int) -> np.ndarray:
        """Probabilities (M, K) of the test samples."""
        target = self.labels[rows]
        if protocol == "finetune":
            return self.trainers[name](Request(rows, target, part.test, self.classes, seed))
        x = self._features(name, seed)
        if protocol == "knn":
            return knn_predict(x[rows], target, x[part.test], classes=self.classes)
        group = None if self.group is None else np.asarray(self.group)[rows]
        return linear_probe(
            x[rows], target, x[part.test], classes=self.classes, pool=x[part.train], group=group, seed=seed
        )

    def figures(self, test: np.ndarray, probability: np.ndarray) -> dict[str, np.ndarray]:
        """metric -> (1 + J,): on all test samples, and without each block of them."""
        return weighted(self.metrics, self.labels[test], probability, leave_out(test))

    def _features(self, name: str, seed: int) -> np.ndarray:
        """An array as given; a function's is kept for this seed only."""
        given = self.features[name]
        if isinstance(given, np.ndarray):
            return given
        if (name, seed) not in self._made:
            self._made = {key: value for key, value in self._made.items() if key[0] != name}
            self._made[name, seed] = given(seed)
        return self._made[name, seed]


def _seeds(seeds: int | Sequence[int]) -> list[int]:
    numbers = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    if not numbers or len(set(numbers)) < len(numbers) or min(numbers) < 0:
        raise ConfigError(must_be("seeds", "evaluate", "an int in [1, inf), or different non-negative ints", seeds))
    return numbers


def _headline(jobs: Sequence[tuple[str, str]]) -> str:
    """Fixed before anything is measured, so that the sentence is not the best of several."""
    run = {protocol for protocol, name in jobs if name == "pretrained"}
    return next((protocol for protocol in ("finetune", "linear", "knn") if protocol in run), "")


def _usable(labels: np.ndarray, features: Mapping[str, FeatureSource]) -> tuple[np.ndarray, list[str]]:
    """Labels, -1 also where a sample could not be read (its features are nan); and what to say about both."""
    notes, missing = [], np.zeros(len(labels), bool)
    if unlabelled := int((labels < 0).sum()):
        notes.append(f"{unlabelled} of {len(labels)} samples have no label and are neither trained nor tested on.")
    for name, given in features.items():
        if isinstance(given, np.ndarray):
            if given.shape[:1] != labels.shape:
                raise DataError(f"There are {len(given)} features {name!r} for {len(labels)} labels.")
            missing |= ~np.isfinite(given).all(axis=1)
    if gone := int((missing & (labels >= 0)).sum()):
        notes.append(f"{gone} labelled samples cannot be read, or have features that are not finite, and are left out.")
    return np.where(missing, -1, labels), notes


def _columns(
    test: np.ndarray, labels: np.ndarray, probability: np.ndarray, key: tuple[str, str, int]
) -> dict[str, np.ndarray]:
    """Predictions of one run, as columns."""
    protocol, budget, seed = (np.full(len(test), value) for value in key)
    found = {"id": test, "true": labels[test], "predicted": probability.argmax(axis=1)}
    confidence = probability.max(axis=1).astype(np.float32)
    return {**found, "confidence": confidence, "protocol": protocol, "budget": budget, "seed": seed}


def _joined(parts: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}
