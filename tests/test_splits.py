"""Splits and budgets: stratified, group-aware, drawn by the seed, and nothing dropped in silence."""

from __future__ import annotations

import numpy as np
import pytest

from selftaught.downstream.budgets import draw, parse_budget, parse_budgets
from selftaught.downstream.splits import folds, split_rows
from selftaught.errors import ConfigError, DataError

LABELS = np.repeat(np.arange(4), [40, 30, 20, 10])


@pytest.mark.parametrize(
    ("text", "kind", "amount", "words"),
    [
        ("10/class", "class", 10, "10 labels per class"),
        ("1/class", "class", 1, "1 label per class"),
        (100, "total", 100, "100 labels"),
        ("10%", "share", 0.1, "10 % of the labels"),
        ("100%", "all", 0, "all labels"),
        ("All", "all", 0, "all labels"),
    ],
)
def test_budgets_are_read(text, kind, amount, words):
    budget = parse_budget(text)
    assert (budget.kind, budget.amount, budget.words) == (kind, amount, words)


@pytest.mark.parametrize("text", ["0", "0/class", "-3", "110%", "ten", "10/klass", ""])
def test_other_budgets_are_refused_in_one_sentence(text):
    with pytest.raises(ConfigError, match="The 'budgets' parameter of evaluate must be a number of labels") as caught:
        parse_budget(text)
    assert "10/class" in caught.value.hint


def test_several_budgets_once_each():
    assert [budget.text for budget in parse_budgets("1/class, 10%,all,100%")] == ["1/class", "10%", "all"]


def test_a_drawn_test_is_stratified_and_depends_on_the_seed_alone():
    split = split_rows(LABELS, test=0.2, seed=3)
    np.testing.assert_array_equal(np.bincount(LABELS[split.test]), [8, 6, 4, 2])
    assert not np.intersect1d(split.train, split.test).size
    assert len(split.train) + len(split.test) == 100
    np.testing.assert_array_equal(split.test, split_rows(LABELS, test=0.2, seed=3).test)
    assert set(split.test) != set(split_rows(LABELS, test=0.2, seed=4).test)


@pytest.mark.parametrize("seed", range(5))
def test_groups_never_straddle(seed):
    group = np.arange(100) % 17
    split = split_rows(LABELS, test=0.25, group=group, seed=seed)
    assert not np.intersect1d(group[split.train], group[split.test]).size
    assert 10 <= len(split.test) <= 45


def test_samples_without_a_group_are_their_own():
    group = np.array([""] * 60 + ["a"] * 20 + ["b"] * 20)
    split = split_rows(LABELS, test=0.3, group=group, seed=0)
    for name in "ab":
        assert len({row in split.test for row in np.flatnonzero(group == name)}) == 1
    assert (group[split.test] == "").any()


def test_a_given_split_is_kept_and_what_it_leaves_out_is_said():
    given = np.array(["train"] * 50 + ["test"] * 30 + ["validation"] * 20)
    split = split_rows(np.arange(100) % 4, split=given)
    assert (split.test == np.arange(50, 80)).all()
    assert split.fixed
    assert split.notes == ("20 labelled samples of the split validation are neither trained nor tested on.",)


def test_a_given_split_loses_training_samples_that_share_a_group_with_the_test():
    given, group = np.array(["train"] * 60 + ["test"] * 40), np.arange(100) // 8  # group 7 is rows 56 to 63
    split = split_rows(np.arange(100) % 4, split=given, group=group)
    assert split.train.max() == 55
    assert "4 training samples share a group with test samples" in split.notes[0]


def test_seen_samples_are_not_tested_on():
    given = np.array(["train"] * 60 + ["test"] * 40)
    seen = np.arange(100) < 80
    split = split_rows(np.arange(100) % 4, split=given, seen=seen)
    assert set(split.test) == set(range(80, 100))
    assert not split.transductive
    assert "20 test samples were in pre-training and are left out" in split.notes[0]


@pytest.mark.parametrize(("seen", "asked"), [(np.ones(100, bool), False), (np.arange(100) < 80, True)])
def test_else_the_result_is_called_transductive(seen, asked):
    given = np.array(["train"] * 60 + ["test"] * 40)
    split = split_rows(np.arange(100) % 4, split=given, seen=seen, transductive=asked)
    assert len(split.test) == 40
    assert split.transductive
    assert split.notes[0].startswith("Transductive: ")


def test_a_random_test_is_drawn_from_unseen_samples():
    seen = np.arange(100) % 2 == 0
    split = split_rows(LABELS, test=0.2, seen=seen, seed=1)
    assert not seen[split.test].any()
    assert len(split.test) == pytest.approx(20, abs=2)


def test_unlabelled_samples_are_on_neither_side():
    labels = LABELS.copy()
    labels[::3] = -1
    split = split_rows(labels, seed=0)
    assert (labels[np.concatenate([split.train, split.test])] >= 0).all()


@pytest.mark.parametrize(
    "request_",
    [
        {"labels": np.zeros(10, int)},
        {"labels": np.arange(10) % 2, "split": np.array(["test"] * 10)},
        {"labels": np.arange(10) % 2, "group": np.zeros(10)},
    ],
)
def test_what_cannot_be_split_is_refused(request_):
    with pytest.raises(DataError):
        split_rows(**request_)


@pytest.mark.parametrize("share", [0.0, 1.0, -1, 3])
def test_a_share_out_of_range_is_refused(share):
    with pytest.raises(ConfigError, match="'test' parameter of evaluate must be a share in"):
        split_rows(LABELS, test=share)


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        ("5/class", [5, 5, 5, 5]),
        ("20", [8, 6, 4, 2]),
        ("10%", [4, 3, 2, 1]),
        ("33", [13, 10, 7, 3]),
        ("all", [40, 30, 20, 10]),
    ],
)
def test_draws_have_the_labels_asked_for(budget, expected):
    drawn = draw(LABELS, np.arange(100), parse_budget(budget), seed=0)
    np.testing.assert_array_equal(np.bincount(LABELS[drawn.rows]), expected)
    assert drawn.notes == ()


def test_a_seed_is_a_draw():
    rows = np.arange(100)
    one, same, other = (draw(LABELS, rows, parse_budget("5/class"), seed=seed).rows for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert set(one) != set(other)


def test_a_budget_larger_than_a_class_is_said():
    drawn = draw(LABELS, np.arange(100), parse_budget("15/class"), seed=0)
    np.testing.assert_array_equal(np.bincount(LABELS[drawn.rows]), [15, 15, 15, 10])
    assert drawn.notes[0].startswith("Budget 15/class: 1 of 4 classes have fewer labels (the smallest 10)")


@pytest.mark.parametrize("budget", ["2", "1%"])
def test_every_class_has_a_label_and_that_is_said(budget):
    drawn = draw(LABELS, np.arange(100), parse_budget(budget), seed=0)
    np.testing.assert_array_equal(np.bincount(LABELS[drawn.rows]), [1, 1, 1, 1])
    assert "4 labels are used, so that each of 4 classes has one" in drawn.notes[0]


def test_folds_cover_the_budget_and_keep_groups_and_classes():
    target, group = np.arange(24) % 2, np.arange(24) // 3
    parts = folds(target, 3, group=group)
    assert len(parts) == 3
    np.testing.assert_array_equal(np.sort(np.concatenate([check for _, check in parts])), np.arange(24))
    for fit, check in parts:
        assert not np.intersect1d(group[fit], group[check]).size
        assert set(target[fit]) == {0, 1}


def test_one_label_per_class_leaves_nothing_to_validate_on():
    assert folds(np.arange(10), 3) == []
    assert len(folds(np.repeat(np.arange(5), 2), 3)) == 2
