"""New samples, by methods that can make them, and how far their features are from those of true ones."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from selftaught import catalog
from selftaught.commands import pictures
from selftaught.diagnostics.measures import frechet
from selftaught.downstream.features import extract
from selftaught.encoders.whole import quiet_eval
from selftaught.train.checkpoint import write_text
from selftaught.train.clocks import clock_of
from selftaught.train.task import Task
from selftaught.types import Batch, Method, Stream

SHOWN = 64  # samples in the picture
COLUMNS = 16
AT_ONCE = 64
AT_THE_END = 256  # new samples, at most, that a training ends with
FEWEST = 16  # samples that a distance is taken of


def can_paint(method: Method | type[Method]) -> bool:
    made_of = method if isinstance(method, type) else type(method)
    return made_of.generate is not Method.generate


def painters() -> list[str]:
    """Names of the methods that can make new samples."""
    return [name for name in catalog.names("method") if can_paint(catalog.load("method", name))]


def new_samples(task: Task, modality: Any, n: int, seed: int) -> np.ndarray:
    """(n, *stored) samples as the data are stored."""
    clock, pieces = clock_of(0, steps=1, steps_per_epoch=1, seed=seed), []
    with quiet_eval(task):
        for first in range(0, n, AT_ONCE):
            p = torch.arange(first, min(n, first + AT_ONCE))
            made = task.method.generate(task.encoders, p, clock)  # type: ignore[arg-type]
            pieces.append(modality.denormalise(made.float()).cpu().numpy())
    return np.concatenate(pieces)


def apart(new: np.ndarray, true: np.ndarray) -> tuple[float, float, int] | None:
    """Frechet distance of new samples from true ones, of as many other true ones from the same, and how many.

    Both are too large where there are few samples, and alike: the second is what new samples could reach at best.
    Rows that are not finite are left out: what diverged is no sample. None where there are too few.
    """
    new, true = (rows[np.isfinite(rows).all(axis=1)] for rows in (new, true))
    count = min(len(new), len(true) // 2)
    if count < FEWEST:
        return None
    mixed = torch.from_numpy(np.random.default_rng(0).permutation(true))
    kept, others = mixed[:count], mixed[count : 2 * count]
    return frechet(torch.from_numpy(new[:count]), kept), frechet(others, kept), count


def write(out: Path, task: Task, modality: Any, plain: Iterable[Batch]) -> None:
    """RUN/pictures/generated.png and what its distance is, at the end of a training, where the method can paint.

    ``plain``: untouched samples, best held out.
    """
    if not can_paint(task.method):
        return
    features = partial(extract, task.encoders["encoder"], normalise=modality.normalise, device=task.place()[0])
    true = features(plain)
    made = new_samples(task, modality, max(SHOWN, min(AT_THE_END, len(true) // 2)), seed=0)
    write_picture(out / "pictures" / "generated.png", made, modality)
    note(out, apart(features(_batches(made)), true))


def write_picture(path: Path, made: np.ndarray, modality: Any) -> None:
    """The first of them, in rows."""
    pictures.write_cells(path, made[:SHOWN], modality, columns=COLUMNS)


def note(out: Path, found: tuple[float, float, int] | None) -> None:
    """RUN/pictures/generated.json: what the report says of the picture."""
    if found is not None:
        facts = dict(zip(("frechet", "usual", "samples"), found, strict=True))
        write_text(out / "pictures" / "generated.json", json.dumps(facts, indent=1))


def _batches(samples: np.ndarray) -> Iterator[Batch]:
    """Untouched samples, as stored."""
    for rows in torch.arange(len(samples)).split(AT_ONCE):
        yield Batch({"plain": Stream(torch.from_numpy(samples[rows.numpy()])[:, None])}, rows, rows)
