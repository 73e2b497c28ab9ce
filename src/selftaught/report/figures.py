"""Curves as inline SVG: crisp at any width, coloured by the page's style sheet (so they follow dark mode), no script.

Curves differ by marker and dash as well as by colour, and carry their names at their ends. Text has the size of the
page's text when an SVG is shown at its own width, so a chart is drawn once per width class instead of being shrunk.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from selftaught.report.markup import Html, join, number, tag

_CHARACTER = 6.3  # mean width of a character of 12-pixel text, in pixels
_DIGIT = 7.8  # of a digit, of which tick labels consist
_BOLD = 7.2  # of a character in bold
_LINE = 15.0  # height of a line of text


@dataclass(frozen=True)
class Curve:
    """One line of a chart. NaN in ``y`` is a gap; ``low`` and ``high`` are the ends of an interval, or a range."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    style: str = "main"  # class of the style sheet: colour and dash
    marker: str = ""  # circle, square, triangle, diamond, cross; "" = none
    whiskers: bool = False  # intervals at each point rather than a band


@dataclass(frozen=True)
class Axes:
    """What a chart says about itself."""

    label: str  # for those who do not see it
    x_name: str
    size: tuple[int, int] = (360, 210)
    x_log: bool = False
    x_ticks: Sequence[tuple[float, str]] = ()  # (value, text); () = chosen
    y_text: Callable[[float], str] = number
    y_within: tuple[float, float] | None = None  # never shows more than this range
    names: bool = True  # names at the ends of the curves


@dataclass(frozen=True)
class _Scale:
    """Data to pixels, along one axis."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        share = ((math.log(value) if self.log else value) - low) / (high - low)
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)


def chart(curves: Sequence[Curve], axes: Axes) -> Html | None:
    """A line chart, or None where no curve has a single finite point."""
    curves = [kept for one in curves if (kept := _finite(one, axes.x_log)).x]
    if not curves:
        return None
    x, y, y_ticks = _scales(curves, axes)
    names = _names(curves, x, y) if axes.names else Html("")
    parts = [_grid(axes, x, y, y_ticks), *(_curve(one, x, y, rank) for rank, one in enumerate(curves)), names]
    width, height = axes.size
    return tag(
        "svg", *parts, viewBox=f"0 0 {width} {height}", role="img", aria_label=axes.label, style=f"max-width:{width}px"
    )


def legend(curves: Sequence[Curve]) -> Html:
    """Marker, dash and name of every curve, for charts too narrow to name them inside."""
    entries = []
    for one in curves:
        line = tag("line", x1=0, y1=7, x2=28, y2=7, class_=f"stroke {one.style}")
        mark = _marker(one.marker, 14.0, 7.0, one.style) if one.marker else None
        sample = tag("svg", line, mark, viewBox="0 0 28 14", width=28, height=14, aria_hidden="true")
        entries.append(tag("li", sample, " ", one.name))
    return tag("ul", *entries, class_="legend")


def thin(
    x: Sequence[float], y: Sequence[float], *, most: int = 240
) -> tuple[list[float], list[float], list[float], list[float]]:
    """Long series for a small chart: (x, mean, lowest, highest) of at most ``most`` runs of neighbouring points."""
    points = [(a, b) for a, b in zip(x, y, strict=False) if math.isfinite(a) and math.isfinite(b)]
    count = min(most, len(points))
    edges = [len(points) * part // count for part in range(count + 1)] if count else []
    groups = [points[a:b] for a, b in zip(edges, edges[1:], strict=False)]
    middle = [sum(a for a, _ in group) / len(group) for group in groups]
    values = [[b for _, b in group] for group in groups]
    return middle, [sum(v) / len(v) for v in values], [min(v) for v in values], [max(v) for v in values]


def ticks(low: float, high: float, *, count: int = 4) -> list[float]:
    """About ``count`` round numbers (1, 2, 2.5 or 5 times a power of ten apart) that enclose [low, high]."""
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next((m * power for m in (1, 2, 2.5, 5) if m * power >= raw * 0.999), 10 * power)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [place * step for place in range(first, last + 1)]


def _finite(one: Curve, log: bool) -> Curve:
    keep = [
        i for i, (a, b) in enumerate(zip(one.x, one.y, strict=False)) if math.isfinite(a + b) and (a > 0 or not log)
    ]

    def only(values: Sequence[float]) -> list[float]:
        return [values[i] if i < len(values) and math.isfinite(values[i]) else one.y[i] for i in keep]

    ends = (only(one.low), only(one.high)) if len(one.low) and len(one.high) else ((), ())
    return Curve(one.name, only(one.x), only(one.y), *ends, one.style, one.marker, one.whiskers)


def _scales(curves: Sequence[Curve], axes: Axes) -> tuple[_Scale, _Scale, list[float]]:
    xs = [value for one in curves for value in one.x]
    ys = [value for one in curves for values in (one.y, one.low, one.high) for value in values]
    marks = ticks(*_widened(min(ys), max(ys), axes.y_within))
    left = 12 + _DIGIT * max(len(axes.y_text(mark)) for mark in marks)
    right = 16 + _BOLD * max(len(one.name) for one in curves) if axes.names else 14
    width, height = axes.size
    low, high = (min(xs), max(xs)) if min(xs) < max(xs) else (min(xs) * 0.5 - (not axes.x_log), max(xs) * 2 + 1)
    if axes.x_log:  # room for whiskers that are moved apart
        low, high = low / 1.12, high * 1.12
    return _Scale(low, high, left, width - right, axes.x_log), _Scale(marks[0], marks[-1], height - 40.0, 12.0), marks


def _widened(low: float, high: float, within: tuple[float, float] | None) -> tuple[float, float]:
    room = (high - low) * 0.04 or abs(high) * 0.1 or 1.0
    if within is None:
        return low - room * (low < 0 or low - room > 0), high + room  # a positive measure never shows a negative axis
    return max(within[0], low - room), min(within[1], high + room)


def _grid(axes: Axes, x: _Scale, y: _Scale, y_ticks: Sequence[float]) -> Html:
    parts = []
    for mark in y_ticks:
        parts.append(tag("line", x1=x.start, x2=x.end, y1=y(mark), y2=y(mark), class_="grid"))
        parts.append(tag("text", axes.y_text(mark), x=x.start - 6, y=y(mark) + 4, text_anchor="end"))
    shown = -math.inf
    for value, text in axes.x_ticks or _x_ticks(x):
        half = len(text) * _CHARACTER / 2
        if x(value) - half < shown or not x.low <= value <= x.high:
            continue  # would run into its neighbour
        shown = x(value) + half + 6
        parts.append(tag("line", x1=x(value), x2=x(value), y1=y.start, y2=y.start + 4, class_="tick"))
        parts.append(tag("text", text, x=x(value), y=y.start + 18, text_anchor="middle"))
    parts.append(tag("text", axes.x_name, x=(x.start + x.end) / 2, y=y.start + 35, text_anchor="middle", class_="axis"))
    return tag("g", *parts, class_="frame")


def _x_ticks(x: _Scale) -> list[tuple[float, str]]:
    return [(value, number(value)) for value in ticks(x.low, x.high) if x.low <= value <= x.high]


def _curve(one: Curve, x: _Scale, y: _Scale, rank: int) -> Html:
    moved = (rank % 5 - 2) * 2.5 if one.whiskers else 0.0  # whiskers beside each other rather than on top
    points = [(x(a) + moved, y(b)) for a, b in zip(one.x, one.y, strict=True)]
    parts: list[Html | None] = []
    if one.low:
        ends = [(x(a) + moved, y(low), y(high)) for a, low, high in zip(one.x, one.low, one.high, strict=True)]
        parts += _whiskers(ends, one.style) if one.whiskers else [_band(ends, one.style)]
    if len(points) > 1:
        parts.append(tag("polyline", points=_path(points), class_=f"stroke {one.style}"))
    marker = one.marker or ("circle" if len(points) == 1 else "")
    parts += [_marker(marker, *point, one.style) for point in points if marker]
    return tag("g", *parts)


def _whiskers(ends: Sequence[tuple[float, float, float]], style: str) -> list[Html]:
    return [tag("line", x1=a, x2=a, y1=low, y2=high, class_=f"whisker {style}") for a, low, high in ends]


def _band(ends: Sequence[tuple[float, float, float]], style: str) -> Html:
    outline = [(a, high) for a, _, high in ends] + [(a, low) for a, low, _ in reversed(ends)]
    return tag("polygon", points=_path(outline), class_=f"band {style}")


def _path(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in points)


def _marker(kind: str, x: float, y: float, style: str) -> Html:
    r, classes = 4.0, f"mark {style}"
    if kind == "square":
        return tag("rect", x=x - 3.6, y=y - 3.6, width=7.2, height=7.2, class_=classes)
    if kind == "cross":
        return tag("path", d=f"M{x - r:.1f},{y - r:.1f}l8,8m0,-8l-8,8", class_=f"stroke {style} solid")
    corners = {"triangle": ((0, -5), (4.8, 3.8), (-4.8, 3.8)), "diamond": ((0, -5.4), (5.4, 0), (0, 5.4), (-5.4, 0))}
    if kind in corners:
        return tag("polygon", points=_path([(x + a, y + b) for a, b in corners[kind]]), class_=classes)
    return tag("circle", cx=x, cy=y, r=r, class_=classes)


def _names(curves: Sequence[Curve], x: _Scale, y: _Scale) -> Html:
    """Names at the ends, moved apart so that none covers another."""
    order = sorted(curves, key=lambda one: y(one.y[-1]))
    places = [y(one.y[-1]) for one in order]
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + _LINE)
    over = max(0.0, places[-1] - y.start)
    for i in reversed(range(len(places))):
        places[i] = min(places[i] - over if i == len(places) - 1 else places[i], *(places[i + 1 : i + 2] or [math.inf]))
        if i + 1 < len(places):
            places[i] = min(places[i], places[i + 1] - _LINE) if over else places[i]
    texts = [
        tag("text", one.name, x=x.end + 10, y=place + 4, class_=f"name {one.style}")
        for one, place in zip(order, places, strict=True)
    ]
    return join(texts)
