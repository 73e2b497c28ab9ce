"""What the pre-training was worth, with the labels there are: against raw input, an untrained encoder, and scratch."""

from __future__ import annotations

import os
from typing import Annotated, Any

from selftaught.commands.run import Run, Speaker
from selftaught.config import command
from selftaught.errors import ConfigError, must_be


@command
def evaluate(
    run: Annotated[str | os.PathLike[str], "", "folder of a finished run"],
    data: Annotated[Any, "", "labelled data, of the kind the run was trained on"],
    *,
    labels: Annotated[Any, "", "folders, a column, a CSV of path,label[,split][,group], or y of arrays"],
    protocols: Annotated[tuple[str, ...], "one of knn, linear, finetune", "how the labels are used"] = (
        "knn",
        "linear",
        "finetune",
    ),
    budgets: Annotated[tuple[str, ...], "", "labels used: 10/class, 10%, 100 (in all), all"] = (
        "1/class",
        "10/class",
        "all",
    ),
    seeds: Annotated[int, "in [1, 1000]", "draws of the labels, and of the split where it is random"] = 3,
    test: Annotated[Any, "", "share held out for the test, or other data to test on"] = 0.2,
    controls: Annotated[tuple[str, ...], "one of raw, random, scratch, public", "compared with"] = (
        "raw",
        "random",
        "scratch",
    ),
    epochs: Annotated[int, "in [1, 10000]", "passes over the labels in fine-tuning and from scratch"] = 30,
    least: Annotated[int, "in [1, inf)", "optimiser steps of fine-tuning at least, for few labels"] = 200,
    transductive: Annotated[bool, "", "also test on samples that were in the pre-training"] = False,
    workers: Annotated[int | None, "in [0, 4096]", "processes that read data"] = None,
    accept_unreadable: Annotated[bool, "", "go on although more than 5 % cannot be read"] = False,
    quiet: Annotated[bool, "", "print nothing but errors"] = False,
) -> dict[str, Any]:
    """Measures what the pre-training was worth, at several label budgets, over several seeds, with 95 % intervals.

    Returns ``{"rows", "summary", "gains", "sentence", "notes"}`` and writes RUN/evaluation.json and RUN/tables.
    Raises RunError, DataError, ConfigError and, with the control "public", EncoderError.
    """
    place = Run.open(run)
    share = _share(test)
    from selftaught.commands import measuring  # torch and scikit-learn, only once all that is cheap was checked

    say = Speaker(quiet)
    found = measuring.Measuring(
        place,
        data,
        test=test if share is None else None,
        labels=labels,
        workers=workers,
        accept_unreadable=accept_unreadable,
    )
    result = found.evaluate(
        protocols=protocols,
        budgets=budgets,
        seeds=seeds,
        test=share or 0.2,
        controls=controls,
        epochs=epochs,
        least=least,
        transductive=transductive,
        say=say,
    )
    return result.to_json()


def _share(test: Any) -> float | None:
    """The share, or None where ``test`` is data. Raises ConfigError for a share that leaves nothing on one side."""
    try:
        share = float(test)
    except (TypeError, ValueError):
        return None
    if not 0 < share < 1:
        raise ConfigError(must_be("test", "evaluate", "a float in (0, 1), or data", test))
    return share
