"""Which samples are labelled, and which are tested on.

The test is stratified by class and never shares a group (patient, speaker) with the training part. ``budgets`` then
draws the labels from the training part.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from selftaught.errors import ConfigError, DataError, must_be


@dataclass(frozen=True, slots=True)
class Split:
    """Rows of one split. ``name`` pairs rows of different features; ``fixed`` = the same for every seed."""

    train: np.ndarray
    test: np.ndarray
    name: str
    fixed: bool
    transductive: bool = False
    notes: tuple[str, ...] = ()


def split_rows(
    labels: Int[np.ndarray, " N"],
    *,
    test: float = 0.2,
    split: np.ndarray | None = None,
    group: np.ndarray | None = None,
    seen: np.ndarray | None = None,
    transductive: bool = False,
    seed: int = 0,
) -> Split:
    """Train and test rows among the labelled ones (label >= 0).

    ``split`` (N,) of strings decides where it names a "test"; else ``test`` is the share drawn for this seed.
    ``seen`` (N,) True = in pre-training: not tested on, unless ``transductive`` or nothing else is left.
    Raises DataError where there is nothing to train or test on, ConfigError for a share outside (0, 1).
    """
    known = np.flatnonzero(labels >= 0)
    if len(np.unique(labels[known])) < 2:
        raise DataError(
            must_be("labels", "evaluate", "labels of at least two classes", len(np.unique(labels[known]))),
            hint="Labels are 'folders', a column, or a CSV of path,label.",
        )
    seen = np.zeros(len(labels), bool) if seen is None else np.asarray(seen, bool)
    group = _own_groups(labels, group)
    stated = None if split is None else np.asarray(split).astype(str)
    if stated is not None and (stated == "test").any():
        made = _stated(known, stated, group)
    else:
        made = _drawn(known, labels, test, group, seen & (not transductive), seed)
    return _without_seen(made, seen, transductive)


def folds(
    target: Int[np.ndarray, " n"], count: int, *, group: np.ndarray | None = None, seed: int = 0
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Up to ``count`` stratified (fit, validate) parts of a labelled budget, groups kept whole.

    Every fit part has every class; fewer folds, or none, where the labels do not allow it (one label per class).
    """
    count = min(count, int(np.bincount(target)[np.unique(target)].min()))
    if count < 2:
        return []
    parts = _k_fold(target, count, group, seed)
    return [
        (fit, check) for fit, check in parts if len(np.unique(target[fit])) == len(np.unique(target)) and len(check)
    ]


def _k_fold(target: np.ndarray, count: int, group: np.ndarray | None, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    groups = len(target) if group is None else len(np.unique(group))
    if groups < count:
        return []
    grouped = groups < len(target)
    kind = StratifiedGroupKFold if grouped else StratifiedKFold
    with (
        warnings.catch_warnings()
    ):  # "least populated class": a class smaller than the folds; we look at that ourselves
        warnings.simplefilter("ignore", UserWarning)
        splitter = kind(count, shuffle=True, random_state=seed)
        return list(splitter.split(np.zeros(len(target)), target, group if grouped else None))


def _own_groups(labels: np.ndarray, group: np.ndarray | None) -> np.ndarray | None:
    """Groups as numbers; a sample without one ("") is its own. None where no two samples share one."""
    if group is None:
        return None
    names = np.asarray(group).astype(str)
    _, number = np.unique(names, return_inverse=True)
    number = np.where(names == "", number.max() + 1 + np.arange(len(names)), number)
    return number if len(np.unique(number)) < len(number) else None


def _stated(known: np.ndarray, split: np.ndarray, group: np.ndarray | None) -> Split:
    test = known[split[known] == "test"]
    train = known[np.isin(split[known], ("train", ""))]
    notes = []
    if others := len(known) - len(test) - len(train):
        names = ", ".join(sorted(set(split[known]) - {"train", "test", ""}))
        notes.append(f"{others} labelled samples of the split {names} are neither trained nor tested on.")
    if group is not None and (both := np.intersect1d(group[train], group[test])).size:
        straddle = np.isin(group[train], both)
        notes.append(f"{int(straddle.sum())} training samples share a group with test samples and are left out.")
        train = train[~straddle]
    return Split(train, test, "given", True, notes=tuple(notes))


def _drawn(
    known: np.ndarray, labels: np.ndarray, test: float, group: np.ndarray | None, seen: np.ndarray, seed: int
) -> Split:
    """A share of the unseen rows (of all rows when every one was seen), whole groups, stratified by class."""
    if not 0.0 < test < 1.0:
        raise ConfigError(must_be("test", "evaluate", "a share in (0, 1), or data", test))
    candidates = known[~seen[known]] if (~seen[known]).any() else known
    rng = np.random.default_rng([seed, 0x7E57])
    wanted = max(1, round(test * len(known)))
    if group is None:
        held = _stratified(candidates, labels, min(wanted / len(candidates), 1.0), rng)
    else:
        held = _whole_groups(candidates, labels, group, wanted, seed)
    away = np.isin(known, held) if group is None else np.isin(group[known], group[held])
    # Samples that share a group with the test but were seen are neither: training on them would leak the group.
    return Split(known[~away], np.sort(held), f"drawn-{seed}", False)


def _stratified(rows: np.ndarray, labels: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """So much of each class, rounded; a class of one sample stays in training."""
    chosen = []
    for k in np.unique(labels[rows]):
        of_class = rng.permutation(rows[labels[rows] == k])
        count = min(max(1, round(share * len(of_class))), len(of_class) - 1) if share < 1 else len(of_class)
        chosen.append(of_class[:count])
    return np.concatenate(chosen)


def _whole_groups(rows: np.ndarray, labels: np.ndarray, group: np.ndarray, wanted: int, seed: int) -> np.ndarray:
    names = np.unique(group[rows])
    if len(names) < 2:
        hint = (
            "Groups never straddle train and test; give --test data of other groups, or labels without a group column."
        )
        raise DataError(must_be("group", "evaluate", "at least two groups", len(names)), hint=hint)
    count = int(np.clip(round(len(rows) / wanted), 2, len(names)))
    parts = _k_fold(labels[rows], count, group[rows], seed)
    return rows[parts[0][1]] if parts else rows[group[rows] == names[seed % len(names)]]


def _without_seen(made: Split, seen: np.ndarray, transductive: bool) -> Split:
    notes, test = list(made.notes), made.test
    in_both = seen[test]
    if in_both.any() and not transductive and not in_both.all():
        notes.append(f"{int(in_both.sum())} test samples were in pre-training and are left out of the test.")
        test = test[~in_both]
    elif in_both.any():
        notes.append(
            f"Transductive: {int(in_both.sum())} of {len(test)} test samples were in pre-training (without labels)."
        )
    if not len(test) or not len(made.train):
        raise DataError(
            f"Nothing is left to {'train' if len(test) else 'test'} on.", hint="Look at --test and the split column."
        )
    return Split(made.train, test, made.name, made.fixed, bool(seen[test].any()), tuple(notes))
