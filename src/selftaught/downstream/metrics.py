"""How good predictions are: accuracy, balanced accuracy, macro-F1, AUROC and calibration error.

All are in [0, 1]. ``ece`` is the only one where low is good.
Expected calibration error: Guo, Pleiss, Sun, Weinberger, "On calibration of modern neural networks", ICML 2017,
equation 3, with 15 bins of equal width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

NAMES = ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "ece")
LOW_IS_GOOD = frozenset({"ece"})
BINS = 15


def score(names: Sequence[str], true: Int[np.ndarray, " M"], probability: Float[np.ndarray, "M K"]) -> dict[str, float]:
    """The metrics asked for, by name. See ``jackknife`` for their uncertainty."""
    return {
        name: float(value[0]) for name, value in weighted(names, true, probability, np.ones((1, len(true)))).items()
    }


def weighted(
    names: Sequence[str],
    true: Int[np.ndarray, " M"],
    probability: Float[np.ndarray, "M K"],
    weights: Float[np.ndarray, "J M"],
) -> dict[str, Float[np.ndarray, " J"]]:
    """The metrics under J weightings of the samples at once.

    scikit-learn takes one weighting a call, which makes the jackknife of a whole evaluation take longer than its fits;
    tests compare every metric with scikit-learn's, weights included.
    """
    confusion = _confusion(true, probability, weights)
    made = {}
    for name in names:
        if name in FROM_CONFUSION:
            made[name] = FROM_CONFUSION[name](confusion)
        else:
            made[name] = {"auroc": auroc, "ece": ece}[name](true, probability, weights)
    return made


def _confusion(true: np.ndarray, probability: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(J, K, K): weight of the samples of class i that were predicted as j."""
    classes = probability.shape[1]
    cell = true * classes + probability.argmax(axis=1)
    onehot = np.zeros((len(true), classes * classes))
    onehot[np.arange(len(true)), cell] = 1.0
    return (weights @ onehot).reshape(-1, classes, classes)


def _accuracy(confusion: np.ndarray) -> np.ndarray:
    return np.trace(confusion, axis1=1, axis2=2) / confusion.sum(axis=(1, 2))


def _balanced_accuracy(confusion: np.ndarray) -> np.ndarray:
    """Mean recall over the classes that the test has."""
    support = confusion.sum(axis=2)
    return _mean_where(np.diagonal(confusion, axis1=1, axis2=2), support, support > 0)


def _macro_f1(confusion: np.ndarray) -> np.ndarray:
    """Mean F1 over the classes that are in the test or among the predictions, as scikit-learn does."""
    both = confusion.sum(axis=1) + confusion.sum(axis=2)
    return _mean_where(2 * np.diagonal(confusion, axis1=1, axis2=2), both, both > 0)


FROM_CONFUSION = {"accuracy": _accuracy, "balanced_accuracy": _balanced_accuracy, "macro_f1": _macro_f1}


def auroc(true: np.ndarray, probability: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(J,): binary, or the mean over classes of one against the rest. nan where the test has fewer than two classes."""
    classes = probability.shape[1]
    if classes == 2:
        return _binary_auroc(true == 1, probability[:, 1], weights)
    present = [k for k in range(classes) if 0 < (true == k).sum() < len(true)]
    if not present:
        return np.full(len(weights), np.nan)
    return np.mean([_binary_auroc(true == k, probability[:, k], weights) for k in present], axis=0)


def _binary_auroc(positive: np.ndarray, value: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weight of the (positive, negative) pairs in the right order, ties half, over the weight of all pairs."""
    order = np.argsort(value, kind="stable")
    edges = np.flatnonzero(np.diff(value[order], prepend=-np.inf))  # where each run of equal values starts
    for_true = np.add.reduceat(weights[:, order] * positive[order], edges, axis=1)
    for_false = np.add.reduceat(weights[:, order] * ~positive[order], edges, axis=1)
    below = np.cumsum(for_false, axis=1) - for_false / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return (for_true * below).sum(axis=1) / (for_true.sum(axis=1) * for_false.sum(axis=1))


def ece(true: np.ndarray, probability: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(J,): gap between confidence and accuracy, averaged over 15 bins of confidence by their weight."""
    confidence = probability.max(axis=1)
    gap = confidence - (probability.argmax(axis=1) == true)
    which = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    inside = np.zeros((len(true), BINS))
    inside[np.arange(len(true)), which] = gap
    return np.abs(weights @ inside).sum(axis=1) / weights.sum(axis=1)


def _mean_where(top: np.ndarray, bottom: np.ndarray, use: np.ndarray) -> np.ndarray:
    """Mean over the last axis of top / bottom, where ``use``."""
    ratio = np.divide(top, bottom, out=np.zeros_like(bottom), where=use)
    return ratio.sum(axis=1) / use.sum(axis=1)
