"""``selftaught demo``: the main job on real handwritten digits that ship with scikit-learn, in under three minutes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Annotated, Any

from selftaught.commands.run import Run, Speaker
from selftaught.config import command

TEST = 0.3  # share of the digits that pre-training never sees and every number is measured on
BUDGETS = ("1/class", "5/class", "10/class", "all")


@command
def demo(
    modality: Annotated[str, "one of image", "kind of data"] = "image",
    *,
    out: Annotated[str, "", "folder of the run"] = "demo",
    seeds: Annotated[int, "in [1, 100]", "draws of the labels"] = 3,
    quiet: Annotated[bool, "", "print nothing but errors"] = False,
) -> Run:
    """Learns from unlabelled digits, then measures what that is worth with few labels and with all.

    Pre-training sees 70 % of the digits, without labels; the other 30 % are the test. Returns the run; its page is
    OUT/report.html. Raises RunError where OUT holds something else.
    """
    began = time.perf_counter()
    from selftaught.commands.evaluate import evaluate
    from selftaught.commands.pretrain import pretrain
    from selftaught.commands.report import report

    say = Speaker(quiet)
    x, y, test_x, test_y = digits()
    say(f"{len(x):,} handwritten digits to learn from, without their labels; {len(test_x)} others to test on")
    with one_thread():
        run = pretrain(x, out=out, config="digits", quiet=quiet)
        evaluate(
            run,
            (x, y),
            labels="y",
            test=(test_x, test_y),
            budgets=BUDGETS,
            seeds=seeds,
            epochs=6,
            least=80,
            workers=1,
            quiet=quiet,
        )
    report(run, quiet=quiet)
    say(f"All of it took {time.perf_counter() - began:.0f} s.")
    return run


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """At 16 pixels a layer is over before threads agree: on a busy machine two took ten times as long as one."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def digits() -> tuple[Any, Any, Any, Any]:
    """(x, y, test x, test y): 8 x 8 uint8 pictures and their digits; the split is stratified and always the same."""
    import numpy as np
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    found: Any = load_digits()
    x = np.round(found.images * (255 / 16)).astype(np.uint8)  # stored as 0 to 16
    train, test = train_test_split(np.arange(len(x)), test_size=TEST, stratify=found.target, random_state=0)
    return x[train], found.target[train], x[test], found.target[test]
