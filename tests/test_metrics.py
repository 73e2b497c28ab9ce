"""Metrics: each the same as scikit-learn's, with and without weights; calibration error against its definition."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference

from selftaught.downstream.metrics import NAMES, score, weighted

RNG = np.random.default_rng(0)


def case(classes: int, n: int = 120, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    true = RNG.integers(classes, size=n)
    logits = RNG.normal(size=(n, classes)) + 1.5 * np.eye(classes)[true]
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    probability = np.round(probability, 1) + 1e-3 if ties else probability
    return true, probability / probability.sum(axis=1, keepdims=True)


def of_scikit_learn(true, probability, weight) -> dict[str, float]:
    predicted = probability.argmax(axis=1)
    classes = probability.shape[1]
    if classes == 2:
        auroc = reference.roc_auc_score(true, probability[:, 1], sample_weight=weight)
    else:
        each = [reference.roc_auc_score(true == k, probability[:, k], sample_weight=weight) for k in range(classes)]
        auroc = np.mean(each)
    support = [weight[true == k].sum() for k in range(classes)]
    recall = [weight[(true == k) & (predicted == k)].sum() / support[k] for k in range(classes) if support[k]]
    return {
        "accuracy": float(reference.accuracy_score(true, predicted, sample_weight=weight)),
        "balanced_accuracy": float(np.mean(recall)),
        "macro_f1": float(reference.f1_score(true, predicted, average="macro", sample_weight=weight)),
        "auroc": float(auroc),
    }


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("ties", [False, True])
def test_all_agree_with_scikit_learn(classes, ties):
    true, probability = case(classes, ties=ties)
    weights = np.stack([np.ones(len(true)), RNG.random(len(true)), (RNG.random(len(true)) < 0.5).astype(float)])
    ours = weighted(NAMES, true, probability, weights)
    for at, weight in enumerate(weights):
        for name, value in of_scikit_learn(true, probability, weight).items():
            assert ours[name][at] == pytest.approx(value, rel=1e-9), (name, at)
    assert ours["balanced_accuracy"][0] == pytest.approx(
        reference.balanced_accuracy_score(true, probability.argmax(axis=1))
    )


def test_multiclass_auroc_is_scikit_learns_one_against_the_rest():
    true, probability = case(4)
    expected = reference.roc_auc_score(true, probability, multi_class="ovr", average="macro")
    assert score(["auroc"], true, probability)["auroc"] == pytest.approx(expected)


def test_calibration_error_by_its_definition():
    """Guo et al. 2017, equation 3."""
    true, probability = case(3, n=400)
    confidence, right = probability.max(axis=1), probability.argmax(axis=1) == true
    expected = 0.0
    for low, high in zip(np.arange(15) / 15, np.arange(1, 16) / 15, strict=True):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert score(["ece"], true, probability)["ece"] == pytest.approx(expected)


def test_calibration_error_closed_forms():
    sure = np.tile([1.0, 0.0], (10, 1))
    assert score(["ece"], np.zeros(10, int), sure)["ece"] == 0.0
    assert score(["ece"], np.ones(10, int), sure)["ece"] == 1.0
    half = np.tile([0.5, 0.5], (10, 1))
    assert score(["ece"], np.arange(10) % 2, half)["ece"] == pytest.approx(0.0)


def test_a_class_that_the_test_lacks():
    true, probability = case(3)
    true, probability = true[true < 2], probability[true < 2]
    found = score(NAMES, true, probability)
    assert all(np.isfinite(value) for value in found.values())
    assert np.isnan(score(["auroc"], np.zeros(5, int), np.full((5, 2), 0.5))["auroc"])
