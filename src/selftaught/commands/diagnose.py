"""``selftaught diagnose RUN``: is it learning? From the run's own measures, without labels."""

from __future__ import annotations

import os
from typing import Annotated, Any

from selftaught.commands.run import Run, Speaker
from selftaught.config import command
from selftaught.errors import RunError

SHOWN = ("rankme", "dim", "alpha_req", "alignment", "uniformity", "spread_min", "dead_share", "knn", "unexplained")


@command
def diagnose(
    run: Annotated[str | os.PathLike[str], "", "folder of a run, finished or going on"],
    *,
    quiet: Annotated[bool, "", "print nothing but errors"] = False,
) -> dict[str, Any]:
    """Says whether the pre-training works, without labels: measures on held-out samples, and verdicts in sentences.

    Returns ``{"measures", "verdicts", "samples", "held_out"}`` as in RUN/health.json. Raises RunError.
    """
    found = Run.open(run)
    health = found.health
    if not health.get("measures"):
        raise RunError(f"The run {run} has no measures of health yet.", hint="The first comes with its first step.")
    say = Speaker(quiet)
    first, last = health["measures"][0], health["measures"][-1]
    where = "held-out samples" if health["held_out"] else "training samples, as the data are too few to hold some out"
    say(f"{health['samples']:,} {where}; step {last['step']:,}, {'finished' if found.finished else 'not finished'}")
    for name in SHOWN:
        if last.get(name) is not None:
            say(f"  {name:<12}{last[name]:>10.4g}   (at the start {first.get(name) or 0:.4g})")
    for verdict in health["verdicts"]:
        say(f"step {verdict['step']:,}, {verdict['level']}: {verdict['sentence']}")
    return health
