"""The one sentence that says what the pre-training was worth, also where it was worth nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from selftaught.downstream.budgets import Budget

AGAINST = {
    "scratch": "training from scratch",
    "random": "the same encoder untrained",
    "raw": "the raw input",
    "public": "public weights",
}
Gain = Mapping[str, Any]


def gain_sentence(
    gains: Sequence[Gain], *, protocol: str, metric: str, budgets: Sequence[Budget], transductive: bool = False
) -> str:
    """*With 10 labels per class pre-training is worth +14.2 points (95 % CI 11.9 to 16.4) over training from scratch;
    with all labels +0.6 (-0.2 to 1.3).* Against scratch where it was run, else the untrained encoder, else raw input.

    A gain whose interval includes zero, a loss, and a control that does better are said in so many words. "" where no
    control was run.
    """
    usable = {(gain["against"], gain["budget"]): gain for gain in gains if _fits(gain, protocol, metric)}
    against = next((name for name in AGAINST if any(key[0] == name for key in usable)), "")
    few, many = _few_and_many([budget for budget in budgets if (against, budget.text) in usable])
    if few is None:
        return ""
    said = f"With {few.words} {_worth(usable[against, few.text], AGAINST[against])}"
    if many is not None:
        said += f"; with {many.words} {_short(usable[against, many.text])}"
    said += "." + _rivals(usable, few, against)
    return said + (" Transductive: test samples were in pre-training, without labels." if transductive else "")


def _fits(gain: Gain, protocol: str, metric: str) -> bool:
    return gain["protocol"] == protocol and gain["metric"] == metric and gain["gain"] is not None


def _few_and_many(budgets: Sequence[Budget]) -> tuple[Budget | None, Budget | None]:
    """10 labels per class where asked for, else the first; and the last, where it is another."""
    if not budgets:
        return None, None
    few = next((budget for budget in budgets if budget.text == "10/class"), budgets[0])
    many = next((budget for budget in budgets if budget.kind == "all"), budgets[-1])
    return few, None if many == few else many


def _worth(gain: Gain, against: str) -> str:
    value, low, high = (100 * gain[part] for part in ("gain", "low", "high"))
    if low > 0:
        return f"pre-training is worth {value:+.1f} points (95 % CI {low:.1f} to {high:.1f}) over {against}"
    if high < 0:
        return f"pre-training costs {-value:.1f} points (95 % CI {-high:.1f} to {-low:.1f}) against {against}"
    return f"pre-training makes no clear difference to {against}: {value:+.1f} points (95 % CI {low:.1f} to {high:.1f})"


def _short(gain: Gain) -> str:
    return f"{100 * gain['gain']:+.1f} ({100 * gain['low']:.1f} to {100 * gain['high']:.1f})"


def _rivals(usable: Mapping[tuple[str, str], Gain], few: Budget, against: str) -> str:
    """Other controls that do better, or no worse for all we know, at the small budget."""
    said = ""
    for name, words in AGAINST.items():
        gain = usable.get((name, few.text))
        if gain is None or name == against or gain["low"] > 0:
            continue
        ahead = f"{-100 * gain['gain']:+.1f} points (95 % CI {-100 * gain['high']:.1f} to {-100 * gain['low']:.1f})"
        subject = words[0].upper() + words[1:]
        verb = "do" if name == "public" else "does"
        if gain["high"] < 0:
            said += f" {subject} {verb} better there: {ahead}."
        else:
            said += f" {subject} {verb} as well there, for all we can tell: {ahead}."
    return said
