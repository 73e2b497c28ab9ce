"""``selftaught generate RUN --n 64``: new samples, by a run whose method can paint."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from selftaught.commands.run import Run, Speaker
from selftaught.config import command
from selftaught.errors import ConfigError, MethodError, must_be

if TYPE_CHECKING:
    import numpy as np

SHOWN = 64  # samples in the picture
AT_ONCE = 64
COMPARED = 2048  # samples at most, new and true, that the distance is taken of


@command
def generate(
    run: Annotated[str | os.PathLike[str], "", "folder of a finished run"],
    *,
    n: Annotated[int, "in [1, inf)", "new samples"] = 64,
    out: Annotated[
        str | None, "", "picture (.png) or arrays as stored (.npy); none = RUN/pictures/generated.png"
    ] = None,
    seed: Annotated[int, "in [0, inf)", "another seed, other samples"] = 0,
    data: Annotated[Any, "", "true samples to compare with: adds a Frechet distance on the run's own features"] = None,
    quiet: Annotated[bool, "", "print nothing but errors"] = False,
) -> Path:
    """Writes new samples; with ``data`` says how far their features are from those of true ones.

    The distance is that of Heusel et al. 2017 (FID), on this run's encoder: it compares samples of one run, and is
    printed beside what two halves of the true samples are apart. Returns the path written.
    Raises RunError, ConfigError, MethodError, DataError.
    """
    opened = Run.open(run)
    path = opened.folder / "pictures" / "generated.png" if out is None else Path(out)
    if path.suffix not in (".png", ".npy"):
        raise ConfigError(must_be("out", "generate", "a file ending in .png or .npy", str(out)))
    if out is not None and not path.absolute().parent.is_dir():
        raise ConfigError(must_be("out", "generate", "a file in a folder that is there", out))
    from selftaught.commands.model import load
    from selftaught.commands.parts import load_task

    model = load(run)
    task = load_task(run, model)
    made = new_samples(task, model.modality, n, seed)
    path.parent.mkdir(exist_ok=True)
    _write(path, made, model.modality)
    say = Speaker(quiet)
    say(
        f"{n:,} new samples are in {path}" + (f", {SHOWN} of them shown" if path.suffix == ".png" and n > SHOWN else "")
    )
    if data is not None:
        far, usual = compared(model, made, data)
        say(f"Frechet distance to the data, on this run's features: {far:.4g} (two halves of the data: {usual:.4g})")
    return path


def new_samples(task: Any, modality: Any, n: int, seed: int) -> np.ndarray:
    """(n, *stored) samples as the data are stored. Raises MethodError where the method cannot make any."""
    import numpy as np
    import torch

    from selftaught.train.clocks import clock_of
    from selftaught.types import Method

    if type(task.method).generate is Method.generate:
        name = type(task.method).__name__
        raise MethodError(f"{name} cannot make new samples.", hint="These can: vae, bigan, diffusion.")
    clock, pieces = clock_of(0, steps=1, steps_per_epoch=1, seed=seed), []
    for first in range(0, n, AT_ONCE):
        p = torch.arange(first, min(n, first + AT_ONCE))
        with torch.no_grad():
            pieces.append(modality.denormalise(task.method.generate(task.encoders, p, clock).float()).cpu().numpy())
    return np.concatenate(pieces)


def compared(model: Any, made: np.ndarray, data: Any) -> tuple[float, float]:
    """(distance of new samples from true ones, distance of two halves of the true ones), on the model's features."""
    import numpy as np
    import torch

    from selftaught.commands.samples import read_again
    from selftaught.diagnostics.measures import frechet

    index = read_again(data, model.modality).index
    rows = np.random.default_rng(0).permutation(len(index))[:COMPARED]
    true = model.embed_index(index.select(np.sort(rows)))
    true = true[np.isfinite(true).all(1)]
    new = model.embed(made[:COMPARED])
    mixed = np.random.default_rng(1).permutation(true)
    half = len(true) // 2
    new, true, mixed = (torch.from_numpy(one) for one in (new, true, mixed))
    return frechet(new, true), frechet(mixed[:half], mixed[half:])


def _write(path: Path, made: np.ndarray, modality: Any) -> None:
    """Whole or not at all."""
    import numpy as np

    from selftaught.commands import pictures

    fresh = path.with_name(f".{os.getpid()}{path.name}")
    if path.suffix == ".npy":
        with fresh.open("wb") as file:
            np.save(file, made)
    else:
        pictures.write_cells(fresh, made[:SHOWN], modality)
    fresh.replace(path)
