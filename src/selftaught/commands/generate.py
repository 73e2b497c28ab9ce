"""``selftaught generate RUN --n 64``: new samples, by a run whose method can paint."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from selftaught.commands.files import whole, writable, write_array
from selftaught.commands.run import Run, Speaker
from selftaught.config import command
from selftaught.errors import MethodError

if TYPE_CHECKING:
    import numpy as np

COMPARED = 2048  # samples, new and true, that are looked at at most


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
    printed beside what as many other true samples are apart. Returns the path written.
    Raises RunError, ConfigError, MethodError, DataError.
    """
    opened = Run.open(run)
    if out is None:
        (opened.folder / "pictures").mkdir(exist_ok=True)
    path = writable(out or opened.folder / "pictures" / "generated.png", "generate", (".png", ".npy"))
    from selftaught.commands import painted
    from selftaught.commands.model import load
    from selftaught.commands.parts import load_task

    model = load(run)
    task = load_task(run, model)
    if not painted.can_paint(task.method):
        name = type(task.method).__name__
        raise MethodError(f"{name} cannot make new samples.", hint=f"These can: {', '.join(painted.painters())}.")
    made = painted.new_samples(task, model.modality, n, seed)
    if path.suffix == ".npy":
        write_array(path, made)
    else:
        with whole(path) as fresh:
            painted.write_picture(fresh, made, model.modality)
    say = Speaker(quiet)
    fits = path.suffix == ".npy" or n <= painted.SHOWN
    say(f"{n:,} new samples are in {path}" + ("" if fits else f", {painted.SHOWN} of them shown"))
    if data is not None:
        found = compared(model, made, data)
        say(distance(found))
        if out is None:  # the picture that the report shows
            painted.note(opened.folder, found)
    return path


def distance(found: tuple[float, float, int] | None) -> str:
    """What ``painted.apart`` gave, as a sentence."""
    from selftaught.commands.painted import FEWEST

    if found is None:
        return f"Too few samples for a Frechet distance: it takes {FEWEST} new ones and {2 * FEWEST} true ones."
    far, usual, count = found
    return (
        f"Frechet distance of {count:,} new samples from as many true ones, on this run's features: {far:.4g} "
        f"(of as many other true ones: {usual:.4g})"
    )


def compared(model: Any, made: np.ndarray, data: Any) -> tuple[float, float, int] | None:
    """How far new samples are from true ones, on the model's features."""
    import numpy as np

    from selftaught.commands.painted import apart
    from selftaught.commands.samples import read_again

    index = read_again(data, model.modality).index
    rows = np.random.default_rng(0).permutation(len(index))[:COMPARED]
    true = model.embed_index(index.select(np.sort(rows)))
    return apart(model.embed(made[:COMPARED]), true)
