"""``selftaught outliers RUN DATA --out outliers.csv``: which samples are unlike the rest, by several scores."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from selftaught.commands.files import writable, write_table
from selftaught.commands.run import Run, Speaker
from selftaught.config import command
from selftaught.errors import ConfigError, DataError, MethodError, RunError, must_be, nearest

if TYPE_CHECKING:
    import numpy as np

FEWEST = 10  # usual samples
SHOWN = 5


@command
def outliers(
    run: Annotated[str | os.PathLike[str], "", "folder of a finished run"],
    data: Annotated[Any, "", "what to look at, of the kind the run was trained on"],
    *,
    out: Annotated[str, "", "file to write: .csv or .parquet (path, part, one column a score)"],
    usual: Annotated[
        Any, "", "data that are known to be usual; none = those looked at, as if outliers were few"
    ] = None,
    scores: Annotated[tuple[str, ...], "one of energy, knn, mahalanobis, forest", "how unlikeness is measured"] = (
        "energy",
        "knn",
        "mahalanobis",
        "forest",
    ),
    labels: Annotated[Any, "", "the truth, to say how well each score finds it: as for evaluate"] = None,
    unusual: Annotated[tuple[str, ...], "", "the labels of outliers"] = (),
    k: Annotated[int, "in [1, inf)", "neighbours, for knn"] = 5,
    draws: Annotated[int, "in [1, inf)", "masks, noises or views of each sample, for energy"] = 8,
    batch_size: Annotated[int, "in [1, inf)", "samples at a time"] = 64,
    workers: Annotated[int | None, "in [0, 4096]", "processes that read data"] = None,
    accept_unreadable: Annotated[bool, "", "go on although more than 5 % cannot be read"] = False,
    quiet: Annotated[bool, "", "print nothing but errors"] = False,
) -> Path:
    """Writes how unlike the usual each sample is, by the encoder's vectors and by the run's own method.

    ``knn``: cosine distance to the nearest; ``mahalanobis``: from the mean in units of the spread; ``forest``: an
    isolation forest; ``energy``: how badly the method explains the sample, where it can say. Higher = more unusual;
    scores do not compare with each other. With ``labels`` and ``unusual`` the area under the ROC curve of each is said.
    Returns the path written. Raises RunError, DataError, ConfigError, MethodError, QuarantineError.
    """
    opened = Run.open(run)
    path = writable(out, "outliers", (".csv", ".parquet"))
    if (labels is None) != (not unusual):
        raise ConfigError("Labels and unusual go together: the truth, and which of its labels are outliers.")
    import numpy as np

    from selftaught.commands.choices import workers as choose_workers
    from selftaught.commands.model import load
    from selftaught.commands.samples import read_again

    model = load(run)
    count, _ = choose_workers(workers, "cpu", 1)
    reading: dict[str, Any] = {"batch_size": batch_size, "workers": count}
    samples = read_again(data, model.modality, accept_unreadable=accept_unreadable)
    truth = None if labels is None else _truth(samples, labels, unusual)  # before the work: it may not fit
    bad = list(samples.index.quarantine)
    asked = model.embed_index(samples.index, unreadable=bad, **reading)
    kept = np.flatnonzero(np.isfinite(asked).all(axis=1))
    index, asked = samples.index.select(kept), asked[kept]
    if usual is None:
        known = asked
    else:
        other = read_again(usual, model.modality, accept_unreadable=accept_unreadable)
        known = model.embed_index(other.index, unreadable=bad, **reading)
        known = known[np.isfinite(known).all(axis=1)]
    if len(known) < FEWEST:
        raise DataError(f"There are {len(known)} usual samples; at least {FEWEST} are needed to tell what is not.")
    found, note = _scores(opened, model, index, known, asked, scores, same=usual is None, k=k, draws=draws, **reading)
    write_table(path, {name: index.column(name).tolist() for name in ("path", "part")} | found)
    say = Speaker(quiet)
    say(f"{len(kept):,} samples and their scores are in {path}", *([note] if note else []))
    for name, values in found.items():
        least = ", ".join(index.name(int(row)) for row in np.argsort(-values, kind="stable")[:SHOWN])
        say(f"  {name:12} {_area(values, truth, kept)}least usual: {least}")
    for name, reason in dict(bad).items():
        say(f"left out: {name}: {reason}")
    return path


def _scores(
    run: Run,
    model: Any,
    index: Any,
    known: np.ndarray,
    asked: np.ndarray,
    names: Sequence[str],
    *,
    same: bool,
    k: int,
    draws: int,
    batch_size: int,
    workers: int,
) -> tuple[dict[str, np.ndarray], str]:
    """Each score by name, and what has to be said where the method has none of its own."""
    from selftaught.commands.energy import energies
    from selftaught.commands.parts import load_task, plan_of
    from selftaught.downstream.outliers import forest, knn, mahalanobis

    found, note = {}, ""
    for name in names:
        if name == "energy":
            try:
                task = load_task(run, model)
                plan = plan_of(run, task.method)
                found[name] = energies(
                    task, model.modality, index, plan, draws=draws, batch_size=batch_size, workers=workers
                )
            except (MethodError, RunError) as error:  # no energy, or no weights of its own
                if len(names) == 1:
                    raise
                note = f"no energy: {error}"
        elif name == "knn":
            found[name] = knn(known, asked, k=k, same=same)
        else:
            found[name] = {"mahalanobis": mahalanobis, "forest": forest}[name](known, asked)
    return found, note


def _truth(samples: Any, labels: Any, unusual: Sequence[str]) -> np.ndarray:
    """(N,) 1 = an outlier, 0 = none, -1 = not known."""
    import numpy as np

    from selftaught.data.labels import read_labels

    known = read_labels(samples.index, labels, samples.source)
    for name in unusual:
        if name not in known.classes:
            wanted = f"a label of the data ({', '.join(known.classes[:10])})"
            raise ConfigError(must_be("unusual", "outliers", wanted, name), hint=nearest(name, known.classes))
    numbers = [known.classes.index(name) for name in unusual]
    return np.where(known.values < 0, -1, np.isin(known.values, numbers))


def _area(values: np.ndarray, truth: np.ndarray | None, kept: np.ndarray) -> str:
    """The area under the ROC curve, as the beginning of a line."""
    from sklearn.metrics import roc_auc_score

    if truth is None:
        return ""
    known = truth[kept] >= 0
    there = truth[kept][known]
    if there.all() or not there.any():
        return "AUROC –      "
    return f"AUROC {roc_auc_score(there, values[known]):.3f}  "
