"""Image GPT: its equation, whose colours are told, who looks at whom, and that it learns."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from selftaught.methods.image_gpt import ImageGPT
from selftaught.ops.tokens import cells, from_cells
from selftaught.types import Batch, Stream
from tests.methods.check import CLOCK, drawn, gradients_are_right, total
from tests.pretexts import batches_of, discs, outputs_on, task_on, train
from tests.small import build


def test_loss_is_the_cross_entropy_of_the_next_patchs_colours() -> None:
    scores = drawn(2, 4, 3, 5)
    colour = torch.from_numpy(np.random.default_rng(0).integers(0, 5, (2, 4, 3)))
    told = torch.tensor([[0, 1, 1, 0], [1, 1, 1, 0]], dtype=torch.bool)
    rows = []
    for b in range(2):
        losses = [
            math.log(float(scores[b, n, m].exp().sum())) - float(scores[b, n, m, colour[b, n + 1, m]])
            for n in range(3)
            for m in range(3)
            if told[b, n]
        ]
        rows.append(sum(losses) / len(losses))
    outputs = {"scores": scores, "colour": colour, "told": told}
    assert float(total(ImageGPT(), outputs)) == pytest.approx(sum(rows) / 2, rel=1e-6)
    gradients_are_right(lambda x: total(ImageGPT(), {**outputs, "scores": x}), 2, 4, 3, 5)


def batch_of(x: torch.Tensor) -> Batch:
    return Batch({"views": Stream(x)}, torch.arange(len(x)), torch.arange(len(x)))


def test_cells_are_the_means_of_what_they_cover() -> None:
    """Patches of 2 x 2 told as they are, and as one cell; their colour is the nearest of the palette."""
    x = torch.randn(2, 1, 1, 8, 8)
    for side, truth in ((4, lambda patch: patch), (1, lambda patch: patch.mean(2, keepdim=True))):
        task = build(ImageGPT(side=side, colours=3)).eval()
        method: Any = task.method
        outputs = method(task.encoders, batch_of(x), CLOCK)
        patches = cells(x[:, 0], (4, 4))
        torch.testing.assert_close(outputs["place"][..., 0], truth(patches))
        far = (outputs["place"] - method.palette.words[:, 0]).abs()  # one channel: (B, N, M, K)
        assert torch.equal(outputs["colour"], far.argmin(-1))


def test_a_patch_is_told_without_being_seen() -> None:
    """Changing it and all after it changes nothing of what is told for it."""
    task = build(ImageGPT()).eval()
    x = torch.randn(6, 1, 1, 8, 8)
    first = task.method(task.encoders, batch_of(x), CLOCK)
    changed = cells(x[:, 0], (4, 4)).clone()
    changed[:, 10:] = 9.0
    again = task.method(task.encoders, batch_of(from_cells(changed, (4, 4), (1, 8, 8))[:, None]), CLOCK)
    rows = first["told"][:, 9]
    assert rows.any()
    torch.testing.assert_close(first["scores"][rows, 9], again["scores"][rows, 9])


def test_it_learns_colours_and_what_follows() -> None:
    """Discs have two colours: the palette finds them, and the next patch is told better than by their frequency."""
    samples, method = discs(32), ImageGPT(colours=2, decay=0.9)
    task = task_on(method, samples)
    train(task, samples, steps=150)
    (batch,) = batches_of(method, 16, samples)
    pixels = task.prepare(batch)["views"].data[:, 0].movedim(1, -1).flatten(0, -2)
    far = torch.cdist(method.palette.words, pixels)
    assert far.amin(1).max() < 0.35 and torch.cdist(method.palette.words, method.palette.words).max() > 3
    outputs = outputs_on(task, samples)
    share = outputs["colour"].double().mean()
    usual = -(share * share.log() + (1 - share) * (1 - share).log())
    assert total(method, outputs) < 0.6 * usual
    with torch.no_grad():
        shown = method.show(task.encoders, task.prepare(batch), CLOCK)  # type: ignore[arg-type]
    assert list(shown) == ["input", "palette", "start", "told"]
    assert (shown["palette"] - shown["input"]).square().mean() < 0.2 * shown["input"].square().mean()
