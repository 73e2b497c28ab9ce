"""Does going on from a run ruin its encoder in the first epochs? kNN after every epoch, on pictures held out from both.

    python benchmarks/going_on.py DATA [--base-minutes 2.5] [--minutes 1] [--methods simclr,byol]

DATA is a folder of pictures with one sub-folder per class, which are used for kNN alone. A SimCLR run first (the small
encoder at 48 pixels), then one run from it with each of the methods: the same method goes on with its heads, another
one starts with new ones. A quarter of the pictures is held out, kNN (leave one out) is measured before the first step
and after every epoch; a user's run holds out less and looks less often, which is what this script changes of it.
Prints one line a run: the start, the lowest, the end, and the largest fall in points. The target is at most 2 points.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import selftaught as st
from selftaught.commands import samples
from selftaught.diagnostics import watch

SMALL: dict[str, Any] = {
    "encoder": {"name": "small", "width": 32},
    "modality": {"name": "image", "size": 48, "whole_size": 64},
}


def every_epoch(steps: int, steps_per_epoch: int, cost: float) -> list[int]:
    """In the place of ``plan_checks``, which looks as often as 2 % of the time allow."""
    return [0, *range(steps_per_epoch, steps, steps_per_epoch), steps]


def knn(run: st.Run) -> list[float]:
    return [check["knn"] for check in json.loads((Path(run.folder) / "health.json").read_text())["measures"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--base-minutes", type=float, default=2.5)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--methods", default="simclr,byol")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    samples.HELD_OUT = samples.AT_MOST = 0.25
    watch.plan_checks = every_epoch
    usual: dict[str, Any] = {"labels": "folders", "quiet": True, "seed": options.seed}
    with tempfile.TemporaryDirectory() as folder:
        base = st.pretrain(options.data, out=f"{folder}/base", minutes=options.base_minutes, **usual, **SMALL)
        print(f"base: {knn(base)[0]:.3f} untrained, {knn(base)[-1]:.3f} at its end", flush=True)
        for method in options.methods.split(","):
            out = f"{folder}/{method}"
            run = st.pretrain(options.data, out=out, from_=base.folder, method=method, minutes=options.minutes, **usual)
            seen = knn(run)
            fall = 100 * (seen[0] - min(seen))
            print(
                f"{method}: start {seen[0]:.3f}, lowest {min(seen):.3f} after epoch {seen.index(min(seen))} of", end=" "
            )
            print(f"{len(seen) - 1}, end {seen[-1]:.3f}: falls by {fall:.1f} points at most", flush=True)


if __name__ == "__main__":
    main()
