"""The linear probe: L2-regularised logistic regression on standardised features (scikit-learn, Newton's method).

How it stays fast enough for hundreds of fits: with fewer labels n than dimensions D the solution lies in the span of
the samples, so the features are first rotated into it (n columns instead of D, the same solution exactly); the grid of
regularisations is walked from strong to weak with warm starts; and past ``HOLD_OUT`` labels one validation part
replaces the folds. On digits (64 pixels, 10 classes) a probe takes 20 to 110 ms at any budget.

Features of encoders are far from round (the largest direction may vary 10^5 times as much as the smallest), and there
lbfgs stops long before its end: it chose too strong a regularisation, and cost up to eleven points (docs/log.md).
"""

from __future__ import annotations

import warnings

import numpy as np
from jaxtyping import Float, Int
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from selftaught.downstream.splits import folds

GRID = (0.1, 1.0, 10.0, 100.0, 1000.0)  # inverse strength C, for samples of about unit length
DEFAULT = 100.0  # where one label per class leaves nothing to choose it on: best of the grid on digits, docs/log.md
FOLDS = 3
HOLD_OUT = 500  # from so many labels on one validation part is steady enough
TOLERANCE = 1e-5  # of the gradient's largest entry; choosing needs it as much as fitting does
QUIET = 1.0  # a dimension counts as varying at least so much of the typical one


def linear_probe(
    train: Float[np.ndarray, "N D"],
    target: Int[np.ndarray, " N"],
    test: Float[np.ndarray, "M D"],
    *,
    classes: int,
    pool: Float[np.ndarray, "P D"] | None = None,
    group: np.ndarray | None = None,
    seed: int = 0,
) -> Float[np.ndarray, "M K"]:
    """Class probabilities of the test samples, (M, K); a class without labels gets 0.

    ``pool``: unlabelled training samples to standardise by (never test ones); default the labelled ones.
    ``group`` (N,): kept on one side when the regularisation is chosen within the labelled budget.
    """
    present, y = np.unique(target, return_inverse=True)
    probability = np.zeros((len(test), classes))
    if len(present) == 1:
        probability[:, present[0]] = 1.0
        return probability
    x, ask = _rotated(*_standardised(train, test, train if pool is None else pool))
    strength = choose_strength(x, y, group=group, seed=seed)
    probability[:, present] = _fit(x, y, [strength])[0].predict_proba(ask)
    return probability


def choose_strength(
    x: Float[np.ndarray, "N D"], y: Int[np.ndarray, " N"], *, group: np.ndarray | None = None, seed: int = 0
) -> float:
    """The C of ``GRID`` with the highest validation likelihood inside the labelled budget; ``DEFAULT`` without one."""
    parts = folds(y, FOLDS, group=group, seed=seed)
    parts = parts[:1] if len(y) >= HOLD_OUT else parts
    if not parts:
        return DEFAULT
    loss = np.zeros(len(GRID))
    for fit, check in parts:
        for at, model in enumerate(_fit(x[fit], y[fit], GRID)):
            right = model.predict_log_proba(x[check])[np.arange(len(check)), y[check]]
            loss[at] -= right.mean()
    return GRID[int(loss.argmin())]


def _fit(x: np.ndarray, y: np.ndarray, grid: tuple[float, ...] | list[float]) -> list[LogisticRegression]:
    """One model per C, each started where the one before ended."""
    made: list[LogisticRegression] = []
    for strength in grid:
        model = LogisticRegression(C=strength, solver="newton-cg", tol=TOLERANCE, warm_start=bool(made))
        if made:
            model.coef_, model.intercept_ = np.array(made[-1].coef_), np.array(made[-1].intercept_)
            model.classes_ = made[-1].classes_
        with warnings.catch_warnings():  # where classes come apart, weak regularisation has no end to reach
            warnings.simplefilter("ignore", ConvergenceWarning)
            warnings.filterwarnings("ignore", "Line Search failed")  # at the end of what float64 can tell apart
            made.append(model.fit(x, y))
    return made


def _standardised(train: np.ndarray, test: np.ndarray, pool: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Zero mean and unit spread per dimension as in ``pool``, then scaled so that a sample has about unit length.

    Dimensions that vary less than is typical (the border of digits) are not blown up to the size of the others: that
    would make a straw man of the control "raw" (digits, 10 labels per class: .875 with, .887 without).
    """
    mean, scale = pool.mean(axis=0, dtype=np.float64), pool.std(axis=0, dtype=np.float64)
    scale = np.maximum(scale, QUIET * np.sqrt(np.mean(scale**2))) + np.finfo(np.float32).tiny
    scale *= np.sqrt(train.shape[1])
    return (train - mean) / scale, (test - mean) / scale


def _rotated(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both in an orthonormal basis of what the training samples span, where that has fewer dimensions."""
    if len(train) >= train.shape[1]:
        return train, test
    _, _, basis = np.linalg.svd(train, full_matrices=False)
    return train @ basis.T, test @ basis.T
