"""How many labels: budgets as the user states them, and one draw of them per seed.

A budget larger than a class is met as far as it goes, and said; every class gets one label at least.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int

from selftaught.errors import ConfigError, must_be


@dataclass(frozen=True, slots=True)
class Budget:
    """How many labels: ``kind`` is "class" (so many per class), "total", "share" (of the training part) or "all"."""

    text: str
    kind: str
    amount: float = 0.0

    @property
    def words(self) -> str:
        """For a sentence: "10 labels per class", "1 % of the labels", "all labels"."""
        number = f"{self.amount:g}"
        plural = "label" if self.amount == 1 else "labels"
        return {
            "class": f"{number} {plural} per class",
            "total": f"{number} {plural}",
            "share": f"{self.amount * 100:g} % of the labels",
            "all": "all labels",
        }[self.kind]


@dataclass(frozen=True, slots=True)
class Draw:
    """The labelled budget of one seed."""

    rows: np.ndarray
    notes: tuple[str, ...] = field(default=())


def parse_budget(text: str | int) -> Budget:
    """``10/class``, ``10%``, ``100`` (labels in all) or ``all``; 100% is all. Raises ConfigError."""
    word = str(text).strip().lower().replace(" ", "")
    try:
        if word in ("all", "100%"):
            return Budget("all", "all")
        if word.endswith("/class"):
            return _positive(Budget(word, "class", int(word[: -len("/class")])))
        if word.endswith("%"):
            return _positive(Budget(word, "share", float(word[:-1]) / 100))
        return _positive(Budget(word, "total", int(word)))
    except ValueError:
        constraint = "a number of labels (100), a number per class (10/class), a percentage in (0, 100] (10%), or all"
        hint = "Several budgets are given with commas: --budgets 1/class,10/class,all"
        raise ConfigError(must_be("budgets", "evaluate", constraint, text), hint=hint) from None


def parse_budgets(texts: str | Sequence[str | int]) -> list[Budget]:
    """Several budgets, from a list or one comma-separated string; each once, in the order given."""
    parts = texts.split(",") if isinstance(texts, str) else texts
    return list({budget.text: budget for budget in map(parse_budget, parts)}.values())


def draw(labels: Int[np.ndarray, " N"], rows: Int[np.ndarray, " n"], budget: Budget, *, seed: int) -> Draw:
    """The labelled budget out of ``rows``: stratified, at least one label per class, sorted. A function of the seed."""
    if budget.kind == "all":
        return Draw(np.sort(rows))
    rng = np.random.default_rng([seed, 0xB0D6E7])
    present, counts = np.unique(labels[rows], return_counts=True)
    want = _per_class(budget, counts)
    chosen = [rng.permutation(rows[labels[rows] == k])[:n] for k, n in zip(present, want, strict=True)]
    return Draw(np.sort(np.concatenate(chosen)), _shortage(budget, counts, want))


def _per_class(budget: Budget, counts: np.ndarray) -> np.ndarray:
    """Labels wanted of each class; a total is shared out in proportion, largest remainders first, one at least."""
    if budget.kind == "class":
        return np.full(len(counts), int(budget.amount))
    total = budget.amount if budget.kind == "total" else round(budget.amount * counts.sum())
    exact = np.maximum(1.0, total * counts / counts.sum())
    want = np.floor(exact).astype(int)
    spare = int(total) - want.sum()
    if spare > 0:
        want[np.argsort(want - exact, kind="stable")[:spare]] += 1
    return want


def _shortage(budget: Budget, counts: np.ndarray, want: np.ndarray) -> tuple[str, ...]:
    notes = []
    if (short := int((want > counts).sum())) or want.sum() > counts.sum():
        notes.append(
            f"Budget {budget.text}: {short} of {len(counts)} classes have fewer labels (the smallest {counts.min()}); "
            "all of theirs are used."
        )
    if budget.kind in ("total", "share") and want.sum() > max(
        1, round(budget.amount * (counts.sum() if budget.kind == "share" else 1))
    ):
        notes.append(
            f"Budget {budget.text}: {want.sum()} labels are used, so that each of {len(counts)} classes has one."
        )
    return tuple(notes)


def _positive(budget: Budget) -> Budget:
    if not budget.amount > 0 or (budget.kind == "share" and budget.amount > 1):
        raise ValueError
    return budget
