"""From figures to sentences: what the signs of collapse and divergence are, and what to do about them.

``judge`` is a pure function of what was seen so far, so that each rule can be tested with figures alone. Thresholds
were found on SimCLR and VICReg, healthy and broken on purpose, on digits (docs/log.md). Each compares with step 0 or
with a little while ago, never with a fixed figure alone: an untrained encoder may have a low rank, and easy data need
few dimensions. Alarms ask for a sign that no healthy run gave; doubtful signs are warnings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

SHRUNK = 0.05  # outputs at a twentieth of what they were RECENT steps ago: no weight decay is that fast
SHRUNK_TOO = 0.15  # a seventh, while they point more and more the same way
SAME_WAY = 0.75  # share of the widest spread of directions so far; healthy runs widen it or lose a tenth
ONE_DIRECTION = 0.05  # of 1: all outputs within about three degrees
GROWING = 2.5  # growth of the weights. Healthy: 1.0 to 1.1 (AdamW), to 3.3 (SGD at 10 times its default) in 200 steps;
GREW = 4.0  # AdamW at 100 times its default: 4.3 (width 16, batch 64) to 9; SGD at 100 times: 20 to 90
RANK_SHAKEN = 0.65  # of the rank at step 0: healthy runs that grew kept 0.72 and more, AdamW at 100 times 0.5
RECENT = 500  # steps; over longer times weights and outputs may well change their size in health
RANK_LEFT = 0.2  # of the rank at step 0; healthy runs kept 0.5 and more
RANK_ROOM = 0.1  # of the dimensions there are
RANK_FALLING = 0.55  # of the rank at step 0: SimCLR at 100 times its rate fell to 0.5, healthy runs kept 0.72
ALONE = 2.0  # prototypes in use: broken DINO and SwAV fell to 1.0 to 1.6, healthy ones kept 6.5 and more
STARTED = 20  # steps: an untrained network may well put all samples nearest to one prototype
NO_BETTER = 0.005  # of the loss at the start
COMES_DOWN = 0.01  # of the highest loss, mean of three peeks
CLOSER = 0.75  # of how far apart two views of a sample lay at step 0
SETTLED = 100  # steps before which a loss need not have moved


@dataclass(frozen=True, slots=True)
class Verdict:
    """One finding. ``level``: "ok", "warning" (look at it) or "alarm" (this run is not learning)."""

    step: int
    level: str
    name: str  # stable: "healthy", "collapsing", "rate too high", "rank falling", "views apart", "loss stuck", and
    # "earlier encoder" from ``best.py``
    sentence: str


@dataclass(frozen=True, slots=True)
class Peek:
    """Cheap signs of one training step."""

    step: int
    growth: float = 1.0  # size of the encoder's weights, median over matrices, relative to step 0
    scale: float | None = None  # spread of the method's outputs over the batch; None = it gives none to compare
    variation: float | None = None  # of their directions, in [0, 1]
    loss: float | None = None
    winners: float | None = None  # prototypes in use over the batch (a perplexity); None = the method has none


@dataclass(slots=True)
class History:
    """All that was seen: ``checks`` are rows of health.json (the first is step 0), ``peeks`` in order of step."""

    dim: int = 0  # D of the features
    samples: int = 0
    checks: list[dict[str, float]] = field(default_factory=list)
    peeks: list[Peek] = field(default_factory=list)
    compares: bool = True  # False = the method sees one view of each sample: it does not ask that views be alike


def judge(history: History) -> list[Verdict]:
    """What is wrong now, worst first; one "healthy" where nothing is."""
    found = [verdict for rule in RULES if (verdict := rule(history))]
    if found:
        return sorted(found, key=lambda verdict: verdict.level != "alarm")
    return [_healthy(history)] if history.checks else []


def outputs_collapse(history: History) -> Verdict | None:
    """The outputs of different samples become one: they shrink to a point, or turn to one direction."""
    peeks = [peek for peek in history.peeks if peek.scale is not None and peek.variation is not None]
    if len(peeks) < 2:
        return None
    since = _lasting(peeks, lambda peek: _collapsed(peek, peeks))
    if since is None:
        return None
    now, first = peeks[-1], peeks[0]
    return Verdict(
        now.step,
        "alarm",
        "collapsing",
        f"collapsing: the outputs of different samples are becoming one since step {since} (their spread is "
        f"{now.scale:.2g}, at the start {first.scale:.2g}; their directions vary by {now.variation:.2f} of 1). "
        "Try a larger weight on the term that keeps samples apart, or a lower learning rate.",
    )


def _collapsed(peek: Peek, peeks: Sequence[Peek]) -> bool:
    before = [other for other in peeks if other.step <= peek.step]
    recent = max(other.scale or 0.0 for other in before if peek.step - other.step <= RECENT)
    widest = max(other.variation or 0.0 for other in before)
    scale, variation = peek.scale or 0.0, peek.variation or 0.0
    return (
        scale < SHRUNK * recent
        or (scale < SHRUNK_TOO * recent and variation < SAME_WAY * widest)
        or (variation < ONE_DIRECTION and variation < 0.3 * widest)
    )


def one_prototype(history: History) -> Verdict | None:
    """All samples of the batch are nearest to the same prototype: there is nothing left to tell them apart by."""
    peeks = [peek for peek in history.peeks if peek.winners is not None and peek.step >= STARTED]
    since = _lasting(peeks, lambda peek: (peek.winners or 0.0) < ALONE, least=4)
    if since is None:
        return None
    most = max(peek.winners or 0.0 for peek in history.peeks if peek.winners is not None)
    return Verdict(
        peeks[-1].step,
        "alarm",
        "collapsing",
        f"collapsing: nearly all samples fall to one prototype since step {since} ({peeks[-1].winners:.1f} are in use, "
        f"at most {most:.0f} were). Try Sinkhorn or a faster centre, a slower teacher, or a lower learning rate.",
    )


def rate_too_high(history: History) -> Verdict | None:
    """Weights that multiply within some hundred steps: each step throws away what the one before learned."""
    if not history.peeks:
        return None
    # The largest growth counts, also when it is over: large weights make later steps relatively small, and look calm.
    growth, at = max((_recent_growth(history.peeks, peek), peek.step) for peek in history.peeks)
    kept = history.checks[-1]["rank"] / max(history.checks[0]["rank"], 1e-9) if history.checks else 1.0
    if growth < GROWING:
        return None
    sentence = f"the encoder's weights grew to {growth:.1f} times their size by step {at}"
    if growth >= GREW or kept < RANK_SHAKEN:
        sentence = f"learning rate too high: {sentence}, so each step undoes the last"
        sentence += f" (effective rank at {100 * kept:.0f} % of that at the start)." if kept < 1 else "."
        level = "alarm"
    else:
        sentence, level = f"learning rate high: {sentence}.", "warning"
    return Verdict(
        history.peeks[-1].step, level, "rate too high", sentence + " Try a tenth of it, or a longer warm-up."
    )


def _recent_growth(peeks: Sequence[Peek], now: Peek) -> float:
    """Size of the weights against the smallest of the last RECENT steps; step 0 has size 1."""
    window = [peek.growth for peek in peeks if 0 <= now.step - peek.step <= RECENT]
    return now.growth / max(min([*window, 1.0] if now.step <= RECENT else window), 1e-9)


def rank_lost(history: History) -> Verdict | None:
    """The features of held-out samples use few dimensions, where they used many at step 0."""
    if len(history.checks) < 2:
        return None
    first, now = history.checks[0]["rank"], history.checks[-1]["rank"]
    room = min(history.dim, history.samples)
    step = int(history.checks[-1]["step"])
    lost = _lasting_check(
        history.checks, lambda check: check["rank"] < RANK_LEFT * first and check["rank"] < RANK_ROOM * room
    )
    if lost is not None:
        return Verdict(
            step,
            "alarm",
            "collapsing",
            f"collapsing: effective rank {now:.0f} of {room} since step {lost} (at the start {first:.0f}). "
            "Try a lower learning rate, a larger batch, or a stronger term against collapse.",
        )
    if now < RANK_FALLING * first and now < 0.3 * room:
        return Verdict(
            step,
            "warning",
            "rank falling",
            f"effective rank fell from {first:.0f} to {now:.0f} of {room}: fine on easy data, "
            "else a sign that the learning rate is high.",
        )
    return None


def views_apart(history: History) -> Verdict | None:
    """Two views of a sample lie no closer than two samples, and further apart than untrained."""
    if not history.compares or len(history.checks) < 2 or "closeness" not in history.checks[0]:
        return None
    first, now = history.checks[0]["closeness"], history.checks[-1]["closeness"]
    step = int(history.checks[-1]["step"])
    if step < SETTLED or now < 1.0 or now < 1.1 * first:
        return None
    sentence = (
        f"two views of a sample are {now:.1f} times as far apart as two samples (at the start {first:.1f}): "
        "the encoder tells views apart instead of samples. Try weaker augmentation or a lower learning rate."
    )
    return Verdict(step, "warning", "views apart", sentence)


def loss_stuck(history: History) -> Verdict | None:
    """The loss is where it was at the first steps, and nothing else says that the encoder learns.

    Where samples are compared with a queue the task itself gets harder while that fills: the loss rises, then falls
    (MoCo), or stays high while targets sharpen (ReSSL), and two views of a sample come closer all the same.
    """
    seen = [(peek.step, peek.loss) for peek in history.peeks if peek.loss is not None]
    if len(seen) < 6 or seen[-1][0] < SETTLED:
        return None
    smooth = [sum(loss for _, loss in seen[end - 3 : end]) / 3 for end in range(3, len(seen) + 1)]
    first, last = seen[0][1], smooth[-1]
    if last < first - NO_BETTER * abs(first) or last < max(smooth) - COMES_DOWN * abs(max(smooth)):
        return None
    views = [check["closeness"] for check in history.checks if "closeness" in check]
    if len(views) > 1 and views[-1] < CLOSER * views[0]:
        return None
    sentence = (
        f"the loss is {last:.3g}, no better than {first:.3g} at the start. Try a lower learning rate or a larger batch."
    )
    return Verdict(seen[-1][0], "warning", "loss stuck", sentence)


RULES: tuple[Callable[[History], Verdict | None], ...] = (
    outputs_collapse,
    one_prototype,
    rank_lost,
    rate_too_high,
    views_apart,
    loss_stuck,
)


def _healthy(history: History) -> Verdict:
    first, now = history.checks[0], history.checks[-1]
    words = (
        f"effective rank {now['rank']:.0f} of {min(history.dim, history.samples)} (at the start {first['rank']:.0f})"
    )
    if "closeness" in now:
        words += f"; two views of a sample are {now['closeness']:.2f} times as far apart as two samples"
        words += f" (at the start {first['closeness']:.2f})"
    return Verdict(int(now["step"]), "ok", "healthy", f"healthy: {words}.")


def _lasting(peeks: Sequence[Peek], wrong: Callable[[Peek], bool], *, least: int = 2) -> int | None:
    """First step of an unbroken stretch of at least ``least`` peeks that ends now."""
    steps = []
    for peek in reversed(peeks):
        if not wrong(peek):
            break
        steps.append(peek.step)
    return steps[-1] if len(steps) >= least else None


def _lasting_check(checks: Sequence[dict[str, float]], wrong: Callable[[dict[str, float]], bool]) -> int | None:
    """First step of the unbroken stretch of checks that ends now; None where the last one is fine."""
    steps = []
    for check in reversed(checks):
        if not wrong(check):
            break
        steps.append(int(check["step"]))
    return steps[-1] if steps else None
