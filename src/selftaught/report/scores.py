"""What the pre-training was worth: the label-efficiency curve, the gains over each control, all numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import median
from typing import Any

from selftaught.report.figures import Axes, Curve, chart, legend
from selftaught.report.markup import Html, join, number, table, tag
from selftaught.report.read import Run, real, records
from selftaught.report.training import command, missing, section

Key = tuple[str, str]  # (features, protocol)

_FEATURES = {
    "pretrained": "pre-trained",
    "public": "public weights",
    "scratch": "from scratch",
    "random": "untrained",
    "raw": "raw input",
}
_PROTOCOLS = {"linear": "linear", "finetune": "fine-tuned", "knn": "kNN"}
_LOOKS = {  # (features, protocol) -> colour and dash, marker: what was pre-trained is coloured, controls are grey
    ("pretrained", "linear"): ("main", "circle"),
    ("pretrained", "finetune"): ("second", "square"),
    ("pretrained", "knn"): ("third", "triangle"),
    ("public", "linear"): ("fourth", "diamond"),
    ("public", "finetune"): ("fourth", "square"),
    ("scratch", "finetune"): ("control", "diamond"),
    ("random", "linear"): ("control dotted", "triangle"),
    ("raw", "linear"): ("control dashed", "cross"),
}
_SHARES = ("accuracy", "balanced_accuracy", "macro_f1")  # shown in percent
_METRICS = {
    "accuracy": "Accuracy, %",
    "balanced_accuracy": "Balanced accuracy, %",
    "macro_f1": "Macro-F1, %",
    "auroc": "AUROC",
    "ece": "Expected calibration error (lower is better)",
}


def worth(run: Run) -> Html:
    """The section with the curve, the gains and the tables; one set per data and task that was evaluated."""
    title, anchor = "What the pre-training was worth", "worth"
    summary = [one for one in records(run.evaluation.get("summary")) if "budget" in one and "mean" in one]
    if not summary:
        return section(
            title,
            anchor,
            missing("Not evaluated yet. The comparison with the controls is made by:", command(run, "evaluate")),
        )
    lead = (
        "The same labels, the same test samples, with and without pre-training. Every control that comes close is a "
        "reason not to need it."
    )
    groups = list(dict.fromkeys((str(one.get("data", "")), str(one.get("task", ""))) for one in summary))
    parts = [_group(run, summary, group, headed=len(groups) > 1) for group in groups]
    return section(title, anchor, *parts, _notes(run), lead=lead)


def budget_name(budget: object) -> str:
    """``10/class`` -> "10 per class", ``10%`` -> "10 % of the labels", ``100`` -> "100 labels", ``all``."""
    text = str(budget)
    if text.endswith("/class"):
        return f"{text.removesuffix('/class')} per class"
    if text.endswith("%"):
        return f"{text.removesuffix('%')} % of labels"
    return f"{text} labels" if text.isdigit() else f"{text} labels" if text == "all" else text


def key_name(key: Key) -> str:
    """How a line of the chart, or a row of a table, is called."""
    features, protocol = key
    return (
        f"{_FEATURES.get(features, features)}, {_PROTOCOLS.get(protocol, protocol)}"
        if features != "scratch"
        else "from scratch"
    )


def main_metric(found: Iterable[str]) -> str:
    """Accuracy where it was measured, else the first metric."""
    names = list(found)
    return "accuracy" if "accuracy" in names else names[0]


def _group(run: Run, summary: list[dict[str, Any]], group: tuple[str, str], *, headed: bool) -> Html:
    chosen = [one for one in summary if (str(one.get("data", "")), str(one.get("task", ""))) == group]
    rows = [
        one
        for one in records(run.evaluation.get("rows"))
        if (str(one.get("data", "")), str(one.get("task", ""))) == group
    ]
    metrics = list(dict.fromkeys(str(one.get("metric")) for one in chosen))
    metrics.sort(key=lambda name: list(_METRICS).index(name) if name in _METRICS else len(_METRICS))
    main = main_metric(metrics)
    labels, per_class = _labels(rows, [str(one["budget"]) for one in chosen])
    heading = tag("h3", " · ".join(filter(None, group))) if headed else None
    tables = [_numbers([one for one in chosen if one.get("metric") == name], name, labels) for name in metrics]
    more = tag("details", tag("summary", "The other metrics"), *tables[1:]) if tables[1:] else None
    figure = _efficiency([one for one in chosen if one.get("metric") == main], main, labels, per_class=per_class)
    return join([heading, figure, _basis(rows), _gains(run, main, labels), tables[0], more])


def _labels(rows: list[dict[str, Any]], budgets: list[str]) -> tuple[dict[str, float], bool]:
    """Budget -> how many labels it was (from the rows), per class where the classes can be counted; x of the chart."""
    counts = {
        name: _middle(real(one.get("n_train")) for one in rows if str(one.get("budget")) == name)
        for name in dict.fromkeys(budgets)
    }
    stated = {name: real(name.removesuffix("/class")) for name in counts if name.endswith("/class")}
    classes = _middle(counts[name] / value for name, value in stated.items() if value > 0)
    if stated and not math.isfinite(classes):  # no rows: what the budgets say is all there is
        return {name: stated.get(name, math.nan) for name in counts}, True
    if not math.isfinite(classes):
        return {name: count if math.isfinite(count) else real(name) for name, count in counts.items()}, False
    return {name: stated.get(name, counts[name] / classes) for name in counts}, True


def _middle(values: Iterable[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return float(median(finite)) if finite else math.nan


def _order(labels: dict[str, float]) -> list[str]:
    return sorted(labels, key=lambda name: labels[name] if math.isfinite(labels[name]) else math.inf)


def _scale(metric: str) -> float:
    return 100.0 if metric in _SHARES else 1.0


def _text(metric: str, value: float) -> str:
    return (
        "–"
        if not math.isfinite(value)
        else f"{100 * value:.1f}"
        if metric in _SHARES
        else f"{value:.3f}".replace("-", "−")
    )


def _efficiency(chosen: list[dict[str, Any]], metric: str, labels: dict[str, float], *, per_class: bool) -> Html:
    """The label-efficiency curve, wide with names inside, narrow with a legend below."""
    keys = _keys(chosen)
    shown = [key for key in keys if key[1] != "knn"] or keys
    curves = [_line(chosen, key, metric, labels) for key in shown]
    ticks = [(labels[name], number(round(labels[name], 1))) for name in _order(labels) if math.isfinite(labels[name])]
    title = _METRICS.get(metric, metric)
    x_name = "labels per class (log scale)" if per_class else "labels (log scale)"

    def drawn(size: tuple[int, int], *, names: bool) -> Html | None:
        axes = Axes(label, x_name, size, True, ticks, _tick, (0.0, 100.0) if metric in _SHARES else None, names)
        return chart(curves, axes)

    label = f"{title} against {x_name}: " + "; ".join(
        f"{one.name}, {number(one.y[-1])} at the most labels" for one in curves
    )
    wide, narrow = drawn((860, 430), names=True), drawn((360, 330), names=False)
    if wide is None:
        return tag("p", "The budgets carry no number of labels: see the table.", class_="note")
    caption = tag(
        "figcaption",
        tag("strong", f"{title}. "),
        "Whiskers are 95 % intervals over seeds; where they overlap, the order may be chance.",
    )
    return tag(
        "figure",
        tag("div", wide, class_="wide"),
        tag("div", narrow, legend(curves), class_="narrow"),
        caption,
        class_="curve",
    )


def _tick(value: float) -> str:
    return number(value)


def _keys(chosen: list[dict[str, Any]]) -> list[Key]:
    """Pre-trained first, then the controls, in a fixed order."""
    found = dict.fromkeys((str(one.get("features")), str(one.get("protocol"))) for one in chosen)

    def place(key: Key) -> tuple[int, int]:
        return tuple(
            list(names).index(name) if name in names else 9
            for name, names in zip(key, (_FEATURES, _PROTOCOLS), strict=True)
        )  # type: ignore[return-value]

    return sorted(found, key=place)


def _line(chosen: list[dict[str, Any]], key: Key, metric: str, labels: dict[str, float]) -> Curve:
    rows = {str(one["budget"]): one for one in chosen if (str(one.get("features")), str(one.get("protocol"))) == key}
    order = [name for name in _order(labels) if name in rows]
    by = _scale(metric)
    mean, low, high = ([by * real(rows[name].get(part)) for name in order] for part in ("mean", "low", "high"))
    style, marker = _LOOKS.get(key, ("control", "circle"))
    return Curve(key_name(key), [labels[name] for name in order], mean, low, high, style, marker, whiskers=True)


def _basis(rows: list[dict[str, Any]]) -> Html | None:
    """On how much the numbers rest."""
    if not rows:
        return None
    tests = [int(count) for one in rows if math.isfinite(count := real(one.get("n_test")))]
    seeds = len({str(one.get("seed")) for one in rows})
    size = (
        f"{number(min(tests))}{f' to {number(max(tests))}' if min(tests) < max(tests) else ''} test samples"
        if tests
        else "an unknown number of test samples"
    )
    seen = any(one.get("seen") is True for one in rows)
    told = " The encoder saw the test samples, without labels, in pre-training (transductive)." if seen else ""
    return tag("p", f"Measured on {size}, over {seeds} {'seed' if seeds == 1 else 'seeds'}.{told}", class_="note")


def _gains(run: Run, metric: str, labels: dict[str, float]) -> Html | None:
    """What pre-training adds to each control, in points, paired by split and seed."""
    gains = [
        one
        for one in records(run.evaluation.get("gains"))
        if one.get("metric", metric) == metric and str(one.get("budget")) in labels
    ]
    if not gains:
        return None
    budgets = [name for name in _order(labels) if any(str(one.get("budget")) == name for one in gains)]
    cells = {(str(one.get("protocol")), str(one.get("against")), str(one.get("budget"))): one for one in gains}
    lines = dict.fromkeys((protocol, against) for protocol, against, _ in cells)
    body = [
        [f"{_PROTOCOLS.get(protocol, protocol)}, against {_FEATURES.get(against, against)}"]
        + [_gain(cells.get((protocol, against, name)), metric) for name in budgets]
        for protocol, against in lines
    ]
    unit = "points: percentage points" if metric in _SHARES else "in units of the metric"
    what = _METRICS.get(metric, metric).split(",")[0].lower()
    caption = f"What pre-training adds ({unit} of {what}; 95 % interval, paired by seed)"
    key = "▲ better and ▼ worse than the control beyond the interval; ○ no difference that these seeds can show."
    return join([table(["", *map(budget_name, budgets)], body, caption=caption), tag("p", key, class_="note")])


def _gain(one: dict[str, Any] | None, metric: str) -> Html:
    if one is None:
        return tag("span", "–")
    by = _scale(metric)
    gain, low, high = (by * real(one.get(part)) for part in ("gain", "low", "high"))
    sign, kind = ("▲", "up") if low > 0 else ("▼", "down") if high < 0 else ("○", "even")
    digits = 1 if by > 1 else 3

    def signed(value: float) -> str:
        return "–" if not math.isfinite(value) else f"{value:+.{digits}f}".replace("-", "−")

    interval = (
        tag("small", f"{signed(low)} to {signed(high)}") if math.isfinite(low + high) else tag("small", "no interval")
    )
    return tag("span", tag("b", f"{sign} {signed(gain)}"), interval, class_=f"cell {kind}")


def _numbers(chosen: list[dict[str, Any]], metric: str, labels: dict[str, float]) -> Html:
    """Every mean with its interval: rows are features and protocol, columns are budgets."""
    budgets = [name for name in _order(labels) if any(str(one["budget"]) == name for one in chosen)]
    cells = {(str(one.get("features")), str(one.get("protocol")), str(one["budget"])): one for one in chosen}
    body = [[key_name(key), *(_mean(cells.get((*key, name)), metric) for name in budgets)] for key in _keys(chosen)]
    caption = f"{_METRICS.get(metric, metric)}: mean and 95 % interval over seeds"
    return table(["", *map(budget_name, budgets)], body, caption=caption)


def _mean(one: dict[str, Any] | None, metric: str) -> Html:
    if one is None:
        return tag("span", "–")
    mean, low, high = (real(one.get(part)) for part in ("mean", "low", "high"))
    ends = (
        f"{_text(metric, low)} to {_text(metric, high)}"
        if math.isfinite(low + high)
        else f"n = {number(one.get('n'))}, no interval"
    )
    return tag("span", tag("b", _text(metric, mean)), tag("small", ends), class_="cell")


def _notes(run: Run) -> Html | None:
    notes = run.evaluation.get("notes")
    items = [tag("li", str(one)) for one in notes] if isinstance(notes, list) else []
    return tag("ul", *items, class_="note") if items else None
