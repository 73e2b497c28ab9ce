"""What the tests of several methods do: run the loss on given outputs, train for a few steps, compare gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from selftaught.train.clocks import clock_of
from selftaught.train.fabric import make_fabric
from selftaught.train.loop import Settings, Share, fit
from selftaught.train.optim import Recipe
from selftaught.train.task import Task
from selftaught.types import Clock, Method
from tests.small import Pictures, build

CLOCK = clock_of(0, steps=10, steps_per_epoch=10, seed=0)


def clock_at(step: int, steps: int = 10) -> Clock:
    return clock_of(step, steps=steps, steps_per_epoch=steps, seed=0)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers in float64."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def total(method: Method, outputs: Mapping[str, Tensor], clock: Clock = CLOCK) -> Tensor:
    """The loss as the loop takes it: the sum over terms of sum / count."""
    return torch.stack([value / count for value, count in method.loss(dict(outputs), clock).values()]).sum()


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum() / a.square().sum().sqrt() / b.square().sum().sqrt()


def gradients_are_right(loss: Callable[[Tensor], Tensor], *shape: int) -> None:
    """Against finite differences, in float64."""
    torch.autograd.gradcheck(loss, drawn(*shape, seed=5).requires_grad_(), atol=1e-6)


def trained(method: Method, *, steps: int = 80, batch_size: int = 32, lr: float = 1e-2) -> Task:
    """A small encoder after some steps on 64 noisy patterns."""
    task = build(method)
    settings = Settings(batch_size, steps=steps, optimiser=Recipe(lr=lr))
    fit(task, Pictures(batch_size), settings, fabric=make_fabric("cpu", precision="32-true"))
    return task.eval()


@torch.no_grad()
def found_again(task: Task) -> float:
    """How many of 64 patterns are found by another noisy picture of theirs; an untrained encoder finds 39 %."""
    (batch,) = Pictures(64, seed=0)(500, 501)
    views = task.prepare(batch)["views"].data
    a, b = (torch.nn.functional.normalize(task.encoders["encoder"](views[:, v]).pooled, dim=1) for v in (0, 1))
    return float((a @ b.T).argmax(1).eq(torch.arange(64)).float().mean())


def outputs_of(task: Task, count: int = 6) -> dict[str, Tensor]:
    (batch,) = Pictures(count)(0, 1)
    return task(Share(batch, CLOCK))
