"""The linear probe: it is scikit-learn's logistic regression, chosen within the labels, on real digits."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from selftaught.downstream import probe
from selftaught.downstream.budgets import draw, parse_budget
from selftaught.downstream.probe import DEFAULT, GRID, choose_strength, linear_probe
from selftaught.downstream.splits import split_rows


def digits() -> tuple[np.ndarray, np.ndarray]:
    x, y = load_digits(return_X_y=True)
    return x.astype(np.float32), y.astype(np.int64)


def accuracy(budget: str, seeds: int = 5) -> float:
    x, y = digits()
    found = []
    for seed in range(seeds):
        part = split_rows(y, test=0.25, seed=seed)
        rows = draw(y, part.train, parse_budget(budget), seed=seed).rows
        made = linear_probe(x[rows], y[rows], x[part.test], classes=10, pool=x[part.train], seed=seed)
        found.append((made.argmax(axis=1) == y[part.test]).mean())
    return float(np.mean(found))


@pytest.mark.parametrize(("budget", "least"), [("1/class", 0.57), ("10/class", 0.86), ("all", 0.95)])
def test_raw_digits_are_a_strong_control(budget, least):
    """The prototype's raw control reached .595 / .895 / .953 at 1 / 10 / 50 labels per class (mean of other draws)."""
    assert accuracy(budget) > least


@pytest.mark.parametrize("dimensions", [5, 200])
def test_rotation_into_the_span_of_the_samples_changes_nothing(dimensions):
    """With n < D the solution lies in the span: the small problem has the answer of the large one."""
    rng = np.random.default_rng(0)
    train, test, y = rng.normal(size=(30, dimensions)), rng.normal(size=(12, dimensions)), np.arange(30) % 3
    small, ask = probe._rotated(train, test)
    assert small.shape[1] == min(30, dimensions)
    full = LogisticRegression(C=1.0, tol=1e-8, max_iter=5000).fit(train, y).predict_proba(test)
    made = LogisticRegression(C=1.0, tol=1e-8, max_iter=5000).fit(small, y).predict_proba(ask)
    np.testing.assert_allclose(made, full, atol=1e-4)


def test_warm_starts_end_where_cold_ones_do():
    x, y = digits()
    x = (x[:200] - x.mean(axis=0)) / 40
    for warm, strength in zip(probe._fit(x, y[:200], GRID), GRID, strict=True):
        cold = LogisticRegression(C=strength, tol=1e-6, max_iter=2000).fit(x, y[:200])
        gap = np.abs(warm.predict_proba(x) - cold.predict_proba(x)).mean()
        assert gap < 0.01, strength


def test_the_choice_is_that_of_exact_fits_where_features_are_far_from_round():
    """As an encoder's are: here what tells digits apart varies least. A solver that stops early sees no gain in C."""
    x, y = digits()
    directions = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)[0][:400, :48]
    mixed = np.linalg.qr(np.random.default_rng(0).normal(size=(48, 48)))[0]
    z = directions * np.geomspace(1e-2, 1, 48) @ mixed
    z, y = z / z.std() / 48**0.5, y[:400]
    fit, check = probe.folds(y, probe.FOLDS, seed=0)[0]
    likelihood = []
    for strength in GRID:
        model = LogisticRegression(C=strength, tol=1e-8, max_iter=20_000).fit(z[fit], y[fit])
        likelihood.append(model.predict_log_proba(z[check])[np.arange(len(check)), y[check]].mean())
    assert choose_strength(z, y) == GRID[int(np.argmax(likelihood))]


def test_noise_wants_strong_regularisation_and_signal_weak():
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    assert choose_strength(rng.normal(size=(60, 40)) / 40**0.5, y) == min(GRID)
    clean = np.stack([y - 0.5, np.zeros(60)], axis=1) + 0.01 * rng.normal(size=(60, 2))
    assert choose_strength(clean, y) == max(GRID)


def test_one_label_per_class_uses_the_documented_default():
    assert choose_strength(np.eye(4), np.arange(4)) == DEFAULT


def test_the_choice_never_sees_the_test(monkeypatch):
    """The strength that is used is the same whatever the test samples are."""
    x, y = digits()
    seen = []
    monkeypatch.setattr(probe, "choose_strength", lambda *a, **k: seen.append(choose_strength(*a, **k)) or seen[-1])
    for test in (x[500:700], 100 * x[900:950]):
        linear_probe(x[:80], y[:80], test, classes=10)
    assert seen[0] == seen[1]


def test_classes_without_labels_get_nothing_and_one_class_gets_all():
    x, _ = digits()
    made = linear_probe(x[:20], np.arange(20) % 2 * 3, x[20:30], classes=5)
    np.testing.assert_allclose(made.sum(axis=1), 1.0)
    assert (made[:, [1, 2, 4]] == 0).all()
    only = linear_probe(x[:3], np.full(3, 2), x[20:30], classes=5)
    assert (only[:, 2] == 1).all()


def test_features_of_any_scale_give_the_same():
    x, y = digits()
    one = linear_probe(x[:100], y[:100], x[100:200], classes=10)
    other = linear_probe(1000 * x[:100] + 5000, y[:100], 1000 * x[100:200] + 5000, classes=10)
    np.testing.assert_allclose(one, other, atol=0.02)


def test_constant_features_do_no_harm():
    made = linear_probe(np.ones((10, 3)), np.arange(10) % 2, np.ones((4, 3)), classes=2)
    np.testing.assert_allclose(made, 0.5, atol=1e-6)
