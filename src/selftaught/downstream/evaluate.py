"""What the pre-training was worth: the same labels, the same splits, with and without it.

Every protocol is run at every label budget over several seeds; one seed is one draw of the budget (and of the split,
where it is random). The controls see exactly the same samples as the pre-trained encoder, so that differences pair up by
(split, seed). Nothing is chosen on test samples: regularisation comes from the labelled budget, the checkpoint is the last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

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
    predictions: list[dict[str, Any]] = field(default_factory=list)  # id, true, predicted, confidence, protocol, …

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
    trainers: "pretrained" and "scratch" -> trainer, for the protocol "finetune". "scratch" is the control of every protocol.
    protocols: of "knn", "linear", "finetune".
    budgets: "10/class", "10%", "100" or 100 (labels in all), "all".
    seeds: how many (0, 1, …), or which.
    test: share of samples for the test where ``split`` does not say it.
    split: (N,) strings; "test" is tested on, "train" (or "") trained on, others ("val") are left out and counted.
    group: (N,) strings or numbers; a group never straddles train and test. "" = a group of its own.
    seen: (N,) bool, True = was in pre-training. Such test samples are excluded unless ``transductive`` or nothing is left.
    headline: protocol of the sentence; default "finetune" where it is run against scratch, else "linear", else "knn".
    progress: called with (done, total, what).

    Raises DataError where the labels do not allow it (one class, nothing to test), ConfigError for a wrong request.
    """
    raise NotImplementedError
