"""Two figures of many marks, as inline SVG: the 2-D map and the confusion matrix."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from statistics import median

from selftaught.report.markup import Html, number, tag

COLOURS = 10  # how many the style sheet has for classes
_NAMED = 24  # more names than this would cover the points


def scatter(
    x: Sequence[float], y: Sequence[float], labels: Sequence[str], titles: Sequence[str], *, size: int = 640
) -> Html | None:
    """Points coloured by label ("" = unknown, grey), each with a hover title; every class named at its middle.

    None where no point is finite. Axes have no unit: only what lies near what means something, so they are not drawn.
    """
    points = [place for place, (a, b) in enumerate(zip(x, y, strict=True)) if math.isfinite(a + b)]
    if not points:
        return None
    fit_x, fit_y = _fit([x[i] for i in points], size), _fit([-y[i] for i in points], size)
    where = {i: (fit_x(x[i]), fit_y(-y[i])) for i in points}
    groups: dict[str, list[int]] = defaultdict(list)
    for i in points:
        groups[labels[i]].append(i)
    names = sorted((name for name in groups if name), key=natural)
    radius = f"{max(1.6, min(5.0, 60 / math.sqrt(len(points)))):.1f}"
    drawn = []
    for name in ("", *names):
        colour = f"k{names.index(name) % COLOURS}" if name else "unknown"
        marks = [
            tag("circle", tag("title", titles[i]), cx=where[i][0], cy=where[i][1], r=radius)
            for i in groups.get(name, [])
        ]
        drawn.append(tag("g", *marks, class_=f"dot {colour}"))
    middles = [(name, *_middle([where[i] for i in groups[name]])) for name in names] if len(names) <= _NAMED else []
    texts = [tag("text", _short(name, 16), x=a, y=b + 5, text_anchor="middle", class_="over") for name, a, b in middles]
    label = f"Map of {len(points)} samples" + (f" in {len(names)} classes" if names else ", labels unknown")
    return tag("svg", *drawn, *texts, viewBox=f"0 0 {size} {size}", role="img", aria_label=label, class_="map")


def matrix(counts: dict[tuple[str, str], int], classes: Sequence[str], *, size: int = 640) -> Html:
    """Confusion matrix: a row per true class, a column per predicted one; darker = a larger share of the row.

    Right is on the diagonal and blue, wrong off it and orange. Classes are named, cells numbered where there is room.
    """
    count = len(classes)
    margin = 16 + min(110.0, 7.5 * max(len(_short(name, 14)) for name in classes)) if count <= 40 else 16.0
    cell = (size - margin) / count
    totals = {name: sum(value for (true, _), value in counts.items() if true == name) for name in classes}
    place = {name: i for i, name in enumerate(classes)}
    parts = [tag("rect", x=margin, y=margin, width=size - margin, height=size - margin, class_="field")]
    for (true, guessed), value in counts.items():
        x, y, share = margin + place[guessed] * cell, margin + place[true] * cell, value / totals[true]
        kind = "right" if true == guessed else "wrong"
        told = tag("title", f"{value} of {totals[true]} × {true} called {guessed}")
        box = tag(
            "rect", told, x=x, y=y, width=cell, height=cell, class_=kind, fill_opacity=f"{0.12 + 0.88 * share:.2f}"
        )
        parts.append(box)
        if cell >= 26:
            strong = "on" if share > 0.5 else "off"
            parts.append(
                tag(
                    "text",
                    number(value),
                    x=x + cell / 2,
                    y=y + cell / 2 + 5,
                    text_anchor="middle",
                    class_=f"count {strong}",
                )
            )
    if count <= 40:
        parts += _names(classes, margin, cell)
    label = f"Confusion matrix of {sum(counts.values())} predictions over {count} classes"
    return tag("svg", *parts, viewBox=f"0 0 {size} {size}", role="img", aria_label=label, class_="matrix")


def natural(name: str) -> tuple[int, float, str]:
    """Sort key: numbers by value, before words in order of the alphabet."""
    try:
        value = float(name)
    except ValueError:
        return 1, 0.0, name
    return (0, value, name) if math.isfinite(value) else (1, 0.0, name)


def _names(classes: Sequence[str], margin: float, cell: float) -> list[Html]:
    parts = []
    for i, name in enumerate(classes):
        middle = margin + (i + 0.5) * cell
        parts.append(tag("text", _short(name, 14), x=margin - 8, y=middle + 4, text_anchor="end"))
        turn = (
            f"translate({middle + 4:.1f} {margin - 8:.1f}) rotate(-90)" if cell < 7.5 * len(_short(name, 14)) else None
        )
        upright = {"x": middle, "y": margin - 8, "text_anchor": "middle"}
        parts.append(tag("text", _short(name, 14), **({"transform": turn} if turn else upright)))
    return parts


def _fit(values: Sequence[float], size: int):
    """Values to pixels with a margin; the ends are the 0.5 and 99.5 % points if outliers would shrink all else."""
    low, high = min(values), max(values)
    span = high - low or 1.0
    return lambda value: 14 + (value - low) / span * (size - 28) if high > low else size / 2


def _middle(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return median(a for a, _ in points), median(b for _, b in points)


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
