"""``selftaught energy RUN DATA --out energies.csv``: how badly a run's model explains each sample."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from selftaught.commands.files import writable, write_array, write_table
from selftaught.commands.run import Run, Speaker
from selftaught.config import command
from selftaught.errors import MethodError

if TYPE_CHECKING:
    import numpy as np

    from selftaught.types import Plan


@command
def energy(
    run: Annotated[str | os.PathLike[str], "", "folder of a finished run"],
    data: Annotated[Any, "", "what to look at, of the kind the run was trained on"],
    *,
    out: Annotated[str, "", "file to write: .csv or .parquet (path, part, energy), or .npy (energies alone)"],
    draws: Annotated[int, "in [1, inf)", "masks, noises or views of each sample that are averaged"] = 8,
    batch_size: Annotated[int, "in [1, inf)", "samples at a time"] = 64,
    workers: Annotated[int | None, "in [0, 4096]", "processes that read data"] = None,
    accept_unreadable: Annotated[bool, "", "go on although more than 5 % cannot be read"] = False,
    quiet: Annotated[bool, "", "print nothing but errors"] = False,
) -> Path:
    """Writes how badly each sample is explained: high = unlike what the model learned from.

    By a method that gives samples back how far off it is, by one that bounds their likelihood the bound, by one that
    compares views how far they are apart. Energies of one run compare with each other, not with another run's.
    Returns the path written. Raises RunError, DataError, ConfigError, MethodError, QuarantineError.
    """
    opened = Run.open(run)
    path = writable(out, "energy", (".csv", ".parquet", ".npy"))
    import numpy as np

    from selftaught.commands.choices import workers as choose_workers
    from selftaught.commands.model import load
    from selftaught.commands.parts import load_task, plan_of
    from selftaught.commands.samples import read_again

    model = load(run)
    task = load_task(run, model)
    samples = read_again(data, model.modality, accept_unreadable=accept_unreadable)
    bad = list(samples.index.quarantine)
    count, _ = choose_workers(workers, "cpu", 1)
    found = energies(
        task, model.modality, samples.index, plan_of(opened, task.method), draws=draws, batch_size=batch_size,
        workers=count, unreadable=bad,
    )  # fmt: skip
    kept = np.flatnonzero(np.isfinite(found))
    index = samples.index.select(kept)
    _write(path, found[kept], index)
    say = Speaker(quiet)
    say(f"{len(kept):,} energies are in {path}; the highest are the least expected:")
    for row in np.argsort(-found[kept])[:5]:
        say(f"  {found[kept][row]:10.4g}  {index.name(int(row))}")
    for name, reason in dict(bad).items():
        say(f"left out: {name}: {reason}")
    return path


def energies(
    task: Any,
    modality: Any,
    index: Any,
    plan: Plan,
    *,
    draws: int = 8,
    batch_size: int = 64,
    workers: int = 0,
    unreadable: list[tuple[str, str]] | None = None,
) -> np.ndarray:
    """(N,) float64, the mean over ``draws``; nan where a sample turned out unreadable, which is named.

    ``plan``: the run's views. A method that does not compare views is asked about whole samples, as they stand.
    """
    import numpy as np

    from selftaught.commands.views import change_plan
    from selftaught.types import Method

    if type(task.method).energy is not Method.energy:
        plan = change_plan(plan, scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0)
    sums, counts = np.zeros(len(index)), np.zeros(len(index))
    for draw in range(draws):
        for rows, values in _once(task, modality, index, plan, draw, batch_size, workers, unreadable):
            sums[rows] += values
            counts[rows] += 1
    return np.where(counts == draws, sums / draws, np.nan)


def _once(
    task: Any,
    modality: Any,
    index: Any,
    plan: Plan,
    draw: int,
    batch_size: int,
    workers: int,
    bad: list[tuple[str, str]] | None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(rows of the index, energies) batch by batch, under one draw of all that is random."""
    import torch

    from selftaught.data.loader import once
    from selftaught.train.clocks import clock_of

    clock, device = clock_of(0, steps=1, steps_per_epoch=1, seed=draw), next(task.parameters()).device
    batches = once(
        index, modality, plan=plan, seed=draw, batch_size=batch_size, workers=workers, unreadable=bad,
        accept_unreadable=True,
    )  # fmt: skip
    for batch in batches:
        with torch.no_grad():
            outputs = task.method(task.encoders, task.prepare(batch.to(device)), clock)
            try:
                values = task.method.energy(outputs, clock)
            except NotImplementedError:
                name = type(task.method).__name__
                hint = (
                    "Methods that give samples back, bound their likelihood or compare views can; or: selftaught embed."
                )
                raise MethodError(f"{name} does not say how well it explains a sample.", hint=hint) from None
        yield batch.index.cpu().numpy(), values.double().cpu().numpy()


def _write(path: Path, values: np.ndarray, index: Any) -> None:
    if path.suffix == ".npy":
        return write_array(path, values)
    write_table(path, {name: index.column(name).tolist() for name in ("path", "part")} | {"energy": values})
