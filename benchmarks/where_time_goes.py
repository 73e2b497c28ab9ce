"""Where a step's time goes, and what the loop adds to the bare model step.

    python benchmarks/where_time_goes.py FOLDER [--size 96] [--encoder resnet18] [--rounds 5]

Decode and views: milliseconds a sample in one worker. Normalise, forward, backward, optimiser: milliseconds a step of
a batch of 64 held in memory. Then the same steps bare and through ``train.fit`` (metrics and progress on, no
checkpoints), alternating: the loop should add less than 3 %. Use folders of JPEG files; figures are for the machine's
own threads and precision.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch

from selftaught import encoders
from selftaught.data.index import build_index
from selftaught.data.keys import generator
from selftaught.data.loader import Loader, Order
from selftaught.data.source import open_source
from selftaught.methods.simclr import SimCLR
from selftaught.modalities.image import Image
from selftaught.train.clocks import clock_of
from selftaught.train.fabric import make_fabric
from selftaught.train.loop import Settings, Task, fit
from selftaught.train.memory import kept_memory
from selftaught.train.optim import Recipe, build_optimiser
from selftaught.train.progress import Lines, MetricsFile
from selftaught.train.step import Stepper
from selftaught.train.task import Share
from selftaught.types import Batch

BATCH = 64


def milliseconds(action: Callable[[], object], *, repeat: int = 5) -> float:
    """Median over ``repeat`` calls, after one that is not counted."""
    action()
    taken = []
    for _ in range(repeat):
        began = time.perf_counter()
        action()
        taken.append(1000 * (time.perf_counter() - began))
    return statistics.median(taken)


def in_a_worker(index: object, modality: Image, method: SimCLR) -> dict[str, float]:
    """Milliseconds a sample for reading and decoding it, and for decoding and making its two views."""
    rows = range(min(100, len(index)))  # type: ignore[arg-type]
    items = [index.item(i) for i in rows]  # type: ignore[attr-defined]
    plan = method.needs().plan
    torch.set_num_threads(1)
    decode = milliseconds(lambda: [np.asarray(modality.read(item).data) for item in items])
    both = milliseconds(
        lambda: [modality.views(modality.read(i), generator(0, "", n), plan) for n, i in enumerate(items)]
    )
    return {"decode (full scale)": decode / len(items), "decode + two views": both / len(items)}


def of_a_step(task: Task, batch: Batch, fabric: object) -> dict[str, float]:
    """Milliseconds a step, part by part."""
    clock = clock_of(0, steps=100, steps_per_epoch=10, seed=0)
    autocast = fabric.autocast  # type: ignore[attr-defined]

    def forward() -> torch.Tensor:
        with autocast():
            outputs = task(Share(batch, clock))
        return torch.stack([value / count for value, count in task.method.loss(outputs, clock).values()]).sum()

    def prepare() -> Batch:
        with autocast():
            return task.prepare(batch)

    optimiser = build_optimiser(task, Recipe(), batch_size=BATCH)
    shares = {"normalise": milliseconds(prepare), "forward": milliseconds(forward)}
    whole = milliseconds(lambda: forward().backward())
    shares["forward"] -= shares["normalise"]
    return shares | {
        "backward": whole - shares["forward"] - shares["normalise"],
        "optimiser": milliseconds(optimiser.step),
    }


class Again:
    """The same batch, as often as asked for."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __call__(self, start: int, stop: int) -> Iterable[Batch]:
        return (self.batch for _ in range(start, stop))


def bare(task: Task, batch: Batch, fabric: object, steps: int) -> float:
    """Seconds a step of forward, loss, backward and optimiser alone."""
    optimiser = build_optimiser(task, Recipe(), batch_size=BATCH)
    model = fabric.setup_module(task)  # type: ignore[attr-defined]
    stepper = Stepper(task, model, optimiser, fabric=fabric, recipe=Recipe(), seed=0, accumulate=1)  # type: ignore[arg-type]
    clock, began = clock_of(0, steps=steps, steps_per_epoch=10, seed=0), time.perf_counter()
    with kept_memory():  # as the loop has it: what is compared is the loop's own work
        for _ in range(steps):
            optimiser.zero_grad(set_to_none=True)
            terms = task.method.loss(stepper.model(Share(batch, clock)), clock)
            fabric.backward(torch.stack([value / count for value, count in terms.values()]).sum())  # type: ignore[attr-defined]
            optimiser.step()
    return (time.perf_counter() - began) / steps


def looped(task: Task, batch: Batch, fabric: object, steps: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(batch_size=BATCH, steps=steps, steps_per_epoch=10, optimiser=Recipe())
        result = fit(
            task, Again(batch), settings, fabric=fabric, metrics=MetricsFile(Path(folder) / "metrics.csv"),  # type: ignore[arg-type]
            progress=Lines(stream=io.StringIO()),
        )  # fmt: skip
    return result.seconds / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--encoder", default="resnet18")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()

    threads = torch.get_num_threads()
    modality, method = Image(size=options.size), SimCLR()
    source = open_source(options.folder, modality.extensions)
    index = build_index(source, modality)
    modality.fit(modality.read(index.item(i)) for i in range(min(200, len(index))))
    for name, value in in_a_worker(index, modality, method).items():
        print(f"{name:22} {value:8.2f} ms a sample, one thread")
    torch.set_num_threads(threads)

    extra = {} if options.encoder in encoders.OWN else {"stem": "standard"}
    encoder = encoders.make(options.encoder, modality.shape(), **extra)
    method.build({"encoder": encoder})
    task, fabric = Task({"encoder": encoder}, method, modality.normalise), make_fabric()
    task.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    with Loader(index, modality, method.needs().plan, Order(len(index), BATCH, 0), stop=1) as loader:
        batch = next(iter(loader))
    shares = of_a_step(task, batch, fabric)
    for name, value in shares.items():
        print(f"{name:22} {value:8.1f} ms a step of {BATCH}, {value / sum(shares.values()):6.1%}")

    ratios = []
    for number in range(options.rounds):
        alone, within = bare(task, batch, fabric, options.steps), looped(task, batch, fabric, options.steps)
        ratios.append(within / alone)
        print(f"round {number}: bare {1000 * alone:.0f} ms, through the loop {1000 * within:.0f} ms", flush=True)
    print(f"the loop takes {statistics.median(ratios):.3f} of the bare step (median of {options.rounds})")


if __name__ == "__main__":
    main()
