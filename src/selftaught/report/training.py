"""What the pre-training saw and how it went: samples, views, loss, health."""

from __future__ import annotations

import math
import shlex
from typing import Any

from selftaught.report.figures import Axes, Curve, chart, thin
from selftaught.report.markup import Html, number, picture, tag
from selftaught.report.read import Run, real, records

_PICTURES = {
    "samples": (
        "The data",
        "A sample of what was found, as stored. If this is not what you meant, nothing below matters.",
    ),
    "views": (
        "What the encoder was shown",
        "The same samples as the method got them, cropped and changed at random. Where copies of one sample are to "
        "belong together, the encoder was told to ignore what you cannot recognise here.",
    ),
    "shown": (
        "What it made of samples that it did not learn from",
        "What went in, what of it could be seen, and what came back. Where a method learns patches that are normalised "
        "one by one (MAE, AIM), their true brightness and contrast are put back for the picture.",
    ),
    "generated": ("What it makes out of noise", "New samples."),
}
_ALWAYS = ("samples", "views")  # a run that lacks them is not whole; not every method has something to show
_MEASURES = {  # column -> (heading, what it says)
    "rankme": (
        "Effective rank",
        "How many directions the features use (RankMe). Higher is better; a fall towards 1 is collapse.",
    ),
    "lidar": (
        "Rank beyond views (LiDAR)",
        "How many directions tell samples apart that do not tell views of one sample apart. Higher is better.",
    ),
    "alpha_req": (
        "Spectrum decay (alpha-ReQ)",
        "How fast the feature spectrum falls off. Near 1 is good; far above 1, few directions dominate.",
    ),
    "alignment": (
        "Alignment",
        "Distance between two views of a sample. Lower is better, but 0 together with a low rank is collapse.",
    ),
    "uniformity": ("Uniformity", "How evenly features cover the sphere. Lower is better; 0 means all in one spot."),
    "spread": ("Spread", "Standard deviation of the features. 0 means that every sample gets the same vector."),
    "spread_min": ("Smallest spread", "Standard deviation of the least used dimension. 0 means a dead dimension."),
    "dead_share": ("Dead dimensions", "Share of the dimensions that never change."),
    "drift": (
        "Drift from the start",
        "How far the features are from those of the encoder that the run started from: 0 = the same, 1 = unrelated.",
    ),
    "held_out_loss": (
        "Loss on held-out samples",
        "How badly samples are explained that the training never saw. If it rises, the training learns by heart.",
    ),
    "unexplained": (
        "Left unexplained",
        "That, as a share of what guessing the mean would cost. 1 is no better than the mean.",
    ),
    "knn": ("Nearest-neighbour accuracy", "Online check with labels; the training never saw them."),
}
_LEVELS = {"ok": ("✓", "Healthy"), "warning": ("!", "Warning"), "alarm": ("✕", "Alarm")}


def section(title: str, anchor: str, *children: object, lead: str | None = None) -> Html:
    """One section of the page, with a heading that can be linked to."""
    return tag("section", tag("h2", title), tag("p", lead, class_="lead") if lead else None, *children, id=anchor)


def missing(what: str, command: str) -> Html:
    """The one line that stands in for what is not there."""
    return tag("p", what, " ", tag("code", command), class_="missing")


def command(run: Run, name: str) -> str:
    """The command that makes what is missing, for this run, ready to paste."""
    folder = shlex.quote(str(run.folder))
    data = run.config.get("data")
    data = shlex.quote(data) if isinstance(data, str) and data else "DATA"
    return {
        "pretrain": f"selftaught pretrain {data} --out {folder}",
        "diagnose": f"selftaught diagnose {folder}",
        "evaluate": f"selftaught evaluate {folder} {data} --labels LABELS",
    }[name]


def pictures(run: Run) -> Html:
    """The sample grid, the views, and what came back where a method gives something back."""
    shown = []
    for name, (title, text) in _PICTURES.items():
        if name in run.pictures:
            told = _distance(run) if name == "generated" else ""
            caption = tag("figcaption", tag("strong", title + ". "), text, told)
            shown.append(tag("figure", picture(run.pictures[name], f"{title}: a grid of pictures"), caption))
    if lacks := [name for name in _ALWAYS if name not in run.pictures]:
        lacking = " and ".join(f"{_PICTURES[name][0].lower()} ({name}.png)" for name in lacks)
        shown.append(missing(f"No picture of {lacking}. They are made by:", command(run, "pretrain")))
    beside = len(shown) - len([name for name in run.pictures if name not in _ALWAYS])
    wide = shown[beside:] if not lacks else []  # what came back is too detailed for half a page
    return section("What it saw", "pictures", tag("div", *shown[: len(shown) - len(wide)], class_="pair"), *wide)


def _distance(run: Run) -> str:
    """How far new samples are from true ones, where it was measured."""
    far, usual, count = (real(run.generated.get(name)) for name in ("frechet", "usual", "samples"))
    if not math.isfinite(far + usual + count):
        return ""
    return (
        f" On the run's own features they are {far:.3g} from as many true ones (Frechet distance of {count:.0f} and "
        f"{count:.0f} samples); other true ones are {usual:.3g} from the same."
    )


def curves(run: Run) -> Html:
    """Loss and health over the steps, each in its own small chart."""
    tiles = [tile for tile in (*_losses(run), *_health(run)) if tile]
    if not tiles:
        return section(
            "How the training went",
            "training",
            missing("No metrics.csv with a finished step. It is made by:", command(run, "pretrain")),
        )
    lead = (
        "The loss says that something is being learned; the health measures, taken without labels, say whether it is "
        "worth anything."
    )
    note = None
    if not any(name in run.metrics for name in ("rankme", "uniformity")) and not records(run.health.get("measures")):
        note = missing("No health measures yet. They are made by:", command(run, "diagnose"))
    return section(
        "How the training went",
        "training",
        _verdicts(run),
        tag("div", *tiles, class_="tiles"),
        note,
        _held_out(run),
        lead=lead,
    )


def verdict(run: Run) -> tuple[str, str] | None:
    """(level, sentence) of the latest verdicts, the gravest first; None where there is none."""
    found = records(run.health.get("verdicts"))
    if not found:
        return None
    last = max((real(one.get("step")) for one in found if not math.isnan(real(one.get("step")))), default=math.nan)
    latest = [one for one in found if real(one.get("step")) == last] or found[-1:]
    grave = max(latest, key=lambda one: list(_LEVELS).index(_level(one)))
    return _level(grave), str(grave.get("sentence") or grave.get("name") or "")


def badge(level: str, sentence: str) -> Html:
    """A verdict: sign, word and colour say the same thing."""
    sign, word = _LEVELS[level]
    rest = sentence if not sentence.lower().startswith(f"{word.lower()}:") else sentence[len(word) + 1 :].strip()
    return tag("p", tag("span", f"{sign} {word}", class_="sign"), " ", rest, class_=f"badge {level}")


def _level(one: dict[str, Any]) -> str:
    level = one.get("level")
    return level if isinstance(level, str) and level in _LEVELS else "warning"


def _verdicts(run: Run) -> Html | None:
    """Warnings and alarms on the way: a run that recovered still had them."""
    items = [
        tag("li", f"Step {number(one.get('step'))}: ", str(one.get("sentence") or one.get("name") or ""))
        for one in records(run.health.get("verdicts"))
        if _level(one) != "ok"
    ]
    return tag("div", tag("p", "Raised during the run:"), tag("ul", *items[:20]), class_="raised") if items else None


def _losses(run: Run) -> list[Html | None]:
    names = [name for name in run.metrics if name == "loss" or name.startswith("loss.")]
    if len(names) == 2:  # a single term is the loss itself
        names = names[:1]
    tiles = []
    for name in names:
        heading = "Loss" if name == "loss" else f"Loss term: {name.removeprefix('loss.')}"
        text = "Lower is better, for this method, batch size and data only: never compare it between runs that differ."
        tiles.append(_tile(heading, text if name == "loss" else None, _steps(run), run.metrics[name]))
    if "lr" in run.metrics:
        tiles.append(_tile("Learning rate", "As planned before step 0.", _steps(run), run.metrics["lr"]))
    return tiles


def _steps(run: Run) -> list[float]:
    longest = max((len(column) for column in run.metrics.values()), default=0)
    return run.metrics.get("step") or [float(place) for place in range(longest)]


def _health(run: Run) -> list[Html | None]:
    measures = records(run.health.get("measures"))
    tiles = []
    for name, (heading, text) in _MEASURES.items():
        steps, values = _steps(run), run.metrics.get(name, [])
        if measures:  # health.json is the whole story; metrics.csv has the same rows
            steps, values = [real(one.get("step")) for one in measures], [real(one.get(name)) for one in measures]
        dim = real(measures[-1].get("dim")) if measures and name == "rankme" else math.nan
        tiles.append(_tile(heading, text, steps, values, of="" if math.isnan(dim) else f" of {number(dim)}"))
    return tiles


def _tile(heading: str, text: str | None, x: list[float], y: list[float], *, of: str = "") -> Html | None:
    """A small chart under its latest value; None where nothing was measured."""
    middle, mean, low, high = thin(x, y)
    if not mean:
        return None
    finite = [value for value in y if math.isfinite(value)]
    band = (low, high) if len(finite) > len(mean) else ((), ())
    label = f"{heading} over {len(finite)} measurements: first {number(finite[0])}, last {number(finite[-1])}"
    drawn = chart([Curve("", middle, mean, *band)], Axes(label=label, x_name="step", size=(340, 180), names=False))
    head = tag("div", tag("h3", heading), tag("span", number(finite[-1]) + of, class_="value"), class_="head")
    return tag("div", head, drawn, tag("p", text) if text else None, class_="tile")


def _held_out(run: Run) -> Html | None:
    count = real(run.health.get("samples"))
    if math.isnan(count):
        return None
    kind = (
        "held-out samples that were not trained on"
        if run.health.get("held_out")
        else "samples that were also trained on"
    )
    return tag(
        "p", f"Health is measured on {number(count)} {kind}. Shaded: range within neighbouring steps.", class_="note"
    )
