"""A small training on pictures whose every part is known, through a modality's own views: for methods that read
pseudo-labels from the views, or that give a sample back.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selftaught.data.keys import generator
from selftaught.encoders import make
from selftaught.modalities.image import Image
from selftaught.modalities.series import Series
from selftaught.train.clocks import clock_of
from selftaught.train.fabric import make_fabric
from selftaught.train.loop import Settings, Share, fit
from selftaught.train.optim import Recipe
from selftaught.train.task import Task
from selftaught.types import Batch, Method, Sample
from tests.methods.check import total

SIZE = 16
CLOCK = clock_of(0, steps=1, steps_per_epoch=1, seed=0)


def shaded(count: int) -> list[Sample]:
    """Pictures of 20 x 20 in three colours, bright above and dark below, with noise."""
    rng = np.random.default_rng(0)
    shade = np.linspace(200, 50, 20)[:, None, None] + np.zeros((20, 20, 3))
    return [picture(shade + rng.normal(0, 20, shade.shape)) for _ in range(count)]


def discs(count: int) -> list[Sample]:
    """Red discs on green ground: bright things are red, and a part of a disc tells the rest."""
    rng, samples = np.random.default_rng(0), []
    for _ in range(count):
        centre = rng.uniform(5, 15, 2)[:, None, None]
        inside = np.hypot(*np.mgrid[:20, :20] - centre) < 5
        samples.append(picture(np.where(inside[..., None], [250, 60, 60], [10, 70, 10])))
    return samples


def picture(pixels: np.ndarray) -> Sample:
    return Sample({"image": pixels.clip(0, 255).astype(np.uint8)})


def modality_of(samples: list[Sample]) -> Any:
    modality = Image(size=SIZE) if "image" in samples[0].streams else Series()
    modality.fit(samples)
    return modality


def batches_of(method: Method, size: int, samples: list[Sample], *, start: int = 0, steps: int = 1) -> Iterator[Batch]:
    """Batches start, …, steps - 1 with the views that the method asks for, as a worker makes them."""
    modality, plan = modality_of(samples), method.needs().plan
    for t in range(start, steps):
        p = np.arange(t * size, (t + 1) * size)
        made = [modality.views(samples[i % len(samples)], generator(0, "", int(i)), plan) for i in p]
        yield modality.collate(made, p % len(samples), p)


def task_on(method: Method, samples: list[Sample]) -> Task:
    """The method with a small encoder, a vision transformer where it is to drop tokens."""
    modality = modality_of(samples)
    torch.manual_seed(0)
    if method.needs().hides == "drop":
        encoder: Any = make("vit_tiny", modality.shape(), patch=4, dim=32, depth=2, heads=2)
    else:
        encoder = make("small", modality.shape(), width=8)
    method.samples, method.pretext = len(samples), modality.pretext
    method.build({"encoder": encoder})
    return Task({"encoder": encoder}, method, modality.normalise)


def train(task: Task, samples: list[Sample], *, steps: int, size: int = 16, lr: float = 1e-2) -> None:
    batches = lambda start, stop: batches_of(task.method, size, samples, start=start, steps=stop)  # noqa: E731
    settings = Settings(size, steps=steps, optimiser=Recipe(lr=lr))
    fit(task, batches, settings, fabric=make_fabric("cpu", precision="32-true"))


@torch.no_grad()
def outputs_on(task: Task, samples: list[Sample], *, size: int = 64) -> dict[str, Tensor]:
    """Of views not trained on, in train mode: a few steps are too few for batch norm's running statistics."""
    (batch,) = batches_of(task.method, size, samples, start=999, steps=1000)
    return task.train()(Share(batch, CLOCK))


def learned(
    method: Method, samples: list[Sample] | None = None, *, steps: int, lr: float = 1e-2
) -> tuple[float, float]:
    """Which share of the pseudo-labels is told before and after a training."""
    samples = shaded(32) if samples is None else samples
    task = task_on(method, samples)
    before = told(task, samples)
    train(task, samples, steps=steps, lr=lr)
    return before, told(task, samples)


def told(task: Task, samples: list[Sample]) -> float:
    outputs = outputs_on(task, samples)
    names = [name for name in ("turned", "value", "order") if name in outputs]
    scores = outputs["scores"]
    truth = outputs[names[0]] if names else torch.arange(scores.shape[1]).expand(len(scores), -1)
    return float(scores.argmax(-1).eq(truth).float().mean())


def left(method: Method, samples: list[Sample] | None = None, *, steps: int, lr: float = 1e-2) -> float:
    """The loss after a training, as a share of what guessing the mean (0) everywhere costs."""
    samples = discs(32) if samples is None else samples
    task = task_on(method, samples)
    train(task, samples, steps=steps, lr=lr)
    outputs = outputs_on(task, samples)
    return float(total(method, outputs) / total(method, {**outputs, "back": torch.zeros_like(outputs["back"])}))


def unexplained(method: Method, *, steps: int, lr: float = 3e-3) -> tuple[float, float]:
    """(error, spread) after a training on discs, for targets that are a teacher's: the squared error of what was to be
    told, as a share of the targets' variance between samples; and that variance, which a collapse makes 0.
    """
    samples = discs(32)
    task = task_on(method, samples)
    train(task, samples, steps=steps, lr=lr)
    outputs = outputs_on(task, samples)
    target = outputs["target"]
    weight = outputs["weight"] if "weight" in outputs else outputs["hidden"].float()
    around = (target - target.mean(0)).square().mean(-1)
    error = (outputs["back"] - target).square().mean(-1)
    return float((error * weight).sum() / (around * weight).sum()), float(around.mean())
