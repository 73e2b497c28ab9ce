"""A small training for the tests of the loop: an encoder, samples in memory, batches keyed by (seed, t)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from selftaught.data.keys import generator
from selftaught.encoders import make
from selftaught.train.loop import Callback, Settings, State, Task, fit
from selftaught.train.optim import Recipe
from selftaught.types import Batch, Clock, Encoders, Features, Method, Outputs, Stream, Terms, Tokens

SAMPLES = 64  # as many patterns as ``Pictures`` shows


class ConvEncoder(nn.Module):
    """(B, 1, 8, 8) -> (B, 8): two convolutions with batch norm, and dropout if asked."""

    shape, dim, token_dim, depth = (1, 8, 8), 8, 8, 0
    hides: frozenset[str] = frozenset()
    gives_tokens = False

    def __init__(self, *, dropout: float = 0.0) -> None:
        super().__init__()
        first = (nn.Conv2d(1, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU())
        self.body = nn.Sequential(*first, nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(dropout))

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Features:
        return Features(self.body(x).mean((2, 3)))

    def grid(self, shape: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        raise NotImplementedError

    def embed(self, x: Tensor, valid: Tensor | None = None) -> Tokens:
        raise NotImplementedError

    def context(self, tokens: Tokens, *, hidden=None, attend=None, layers=()) -> tuple[Tokens, list[Tensor]]:
        raise NotImplementedError

    def pool(self, tokens: Tokens) -> Tensor:
        raise NotImplementedError

    def learn_mask(self) -> None:
        raise NotImplementedError


class Pictures:
    """``batches(start, stop)`` of noisy 8 x 8 pictures as uint8, two views; this rank's share of every global batch."""

    def __init__(self, batch_size: int, *, rank: int = 0, world: int = 1, seed: int = 0) -> None:
        self.batch_size, self.rank, self.world, self.seed = batch_size, rank, world, seed

    def __call__(self, start: int, stop: int) -> Iterator[Batch]:
        share = self.batch_size // self.world
        for t in range(start, stop):
            first = t * self.batch_size + self.rank * share
            p = np.arange(first, first + share)
            data = np.stack([self._sample(int(one)) for one in p])
            whole = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(share, 2, 4)
            views = Stream(
                torch.from_numpy(data), drawn={"box": whole, "flip": torch.zeros(share, 2, dtype=torch.bool)}
            )
            yield Batch({"views": views}, torch.from_numpy(p % SAMPLES), torch.from_numpy(p))

    def _sample(self, p: int) -> np.ndarray:
        """(V, 8, 8, 1): one of SAMPLES patterns, shown twice with noise."""
        pattern = generator(self.seed, "pattern", p % SAMPLES).integers(0, 200, (8, 8, 1))
        noise = generator(self.seed, "views", p).integers(0, 55, (2, 8, 8, 1))
        return (pattern + noise).astype(np.uint8)


def normalise(data: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """(B, V, 8, 8, 1) uint8 -> (B, V, 1, 8, 8)."""
    return (data.to(dtype) / 64 - 2).movedim(-1, 2)


def build(method: Method, *, dropout: float = 0.0, dtype: torch.dtype = torch.float32, norms: bool = True) -> Task:
    """A Task of a small encoder and ``method``, from one seed; without batch norms if asked.

    The encoder is ConvEncoder, or a vision transformer of 16 tokens where the method needs tokens.
    """
    torch.manual_seed(7)
    needs = method.needs()
    tokens: dict[str, Any] = {"patch": 2, "dim": 32, "depth": 2, "heads": 2}
    encoders: dict[str, Any] = {}
    for name in needs.encoders:
        encoders[name] = make("vit_tiny", (1, 8, 8), **tokens) if needs.tokens else ConvEncoder(dropout=dropout)
    for teacher in list(encoders.values())[1:]:
        teacher.eval().requires_grad_(False)
    method.samples = SAMPLES
    method.build(encoders)
    task = Task(encoders, method, normalise).to(dtype)
    for name, module in list(task.named_modules()):
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and not norms:
            parent, _, child = name.rpartition(".")
            setattr(task.get_submodule(parent), child, nn.Identity())
    return task


class Masked(Method):
    """Fills in hidden pixels. How many are hidden differs from sample to sample; one term, or one for each kind."""

    def __init__(self, *, terms: int = 1) -> None:
        super().__init__()
        self.terms = terms

    def build(self, encoders: Encoders) -> None:
        self.decoder = nn.Linear(encoders["encoder"].dim, 64)

    def forward(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        x = batch["views"].data[:, 0]
        share = (batch.p % 5 + 1)[:, None] / 6  # of the pixels, in about (0.16, 0.84)
        hidden = clock.noise("mask", batch.p, (64,)).to(x) > 2 - 4 * share.to(x)
        seen = torch.where(hidden.view(-1, 1, 8, 8), 0, x)
        error = (self.decoder(encoders["encoder"](seen).pooled) - x.flatten(1)).square()
        return {"error": error, "hidden": hidden}

    def loss(self, outputs: Outputs, clock: Clock) -> Terms:
        error, hidden = outputs["error"], outputs["hidden"]
        both = {"hidden": ((error * hidden).sum(), hidden.sum()), "seen": ((error * ~hidden).sum(), (~hidden).sum())}
        return dict(list(both.items())[: self.terms])


def collected(task: Task, fabric: Fabric, *, batch_size: int = 8, accumulate: int = 1, steps: int = 3) -> Collect:
    """Trains for a few steps on this rank's share, and what came of each."""
    batches = Pictures(batch_size, rank=fabric.global_rank, world=fabric.world_size)
    watch = Collect()
    settings = Settings(batch_size, steps=steps, accumulate=accumulate, optimiser=Recipe("sgd", lr=0.01, scale=False))
    fit(task, batches, settings, fabric=fabric, callbacks=[watch])
    return watch


class Collect(Callback):
    """Losses, gradients and buffers of every step."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.gradients: list[dict[str, Tensor]] = []
        self.buffers: list[dict[str, Tensor]] = []

    def on_step(self, state: State, row: dict[str, Any]) -> None:
        self.losses.append(row["loss"])
        named = state.task.named_parameters()
        self.gradients.append({name: p.grad.clone() for name, p in named if p.grad is not None})
        self.buffers.append({name: value.clone() for name, value in state.task.named_buffers()})


def assert_same(one: Collect, other: Collect, *, tolerance: float) -> None:
    """Losses, gradients (relative to the largest of the step) and buffers agree at every step."""
    assert one.losses == pytest.approx(other.losses, rel=tolerance)
    for name in ("gradients", "buffers"):
        for step, (a, b) in enumerate(zip(getattr(one, name), getattr(other, name), strict=True)):
            assert a.keys() == b.keys()
            scale = max(float(value.abs().max()) for value in a.values()) if a else 1.0
            for key, value in a.items():
                message = f"{name} of {key} at step {step}"
                torch.testing.assert_close(b[key], value, atol=tolerance * scale, rtol=0, msg=message)
