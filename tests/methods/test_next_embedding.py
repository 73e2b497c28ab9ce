"""Next-embedding prediction: its equation, where gradients stop, and that it learns."""

from __future__ import annotations

import math

import pytest
import torch

from selftaught.methods.next_embedding import NextEmbedding
from selftaught.types import Batch, Stream
from tests.methods.check import CLOCK, cosine, drawn, gradients_are_right, total
from tests.pretexts import discs, outputs_on, task_on, train
from tests.small import build


def test_loss_is_equation_1() -> None:
    back, target = drawn(2, 4, 5), drawn(2, 4, 5, seed=1)
    told = torch.tensor([[0, 1, 1, 0], [1, 1, 1, 0]], dtype=torch.bool)
    rows = []
    for b in range(2):
        found = [1 - float(cosine(back[b, n], target[b, n])) for n in range(4) if told[b, n]]
        rows.append(sum(found) / len(found))
    outputs = {"back": back, "target": target, "told": told}
    assert float(total(NextEmbedding(), outputs)) == pytest.approx(sum(rows) / 2)
    gradients_are_right(lambda x: total(NextEmbedding(), {**outputs, "back": x}), 2, 4, 5)


def test_the_target_is_the_next_patchs_embedding_without_gradient() -> None:
    task = build(NextEmbedding()).eval()
    x = torch.randn(2, 1, 1, 8, 8)
    outputs = task.method(task.encoders, Batch({"views": Stream(x)}, torch.arange(2), torch.arange(2)), CLOCK)
    embedded = task.encoders["encoder"].embed(x[:, 0]).values  # type: ignore[operator]
    torch.testing.assert_close(outputs["target"][:, :-1], embedded[:, 1:])
    assert not outputs["target"].requires_grad and outputs["back"].requires_grad


def test_it_learns() -> None:
    samples, method = discs(32), NextEmbedding()
    task = task_on(method, samples)
    before = float(total(method, outputs_on(task, samples)))
    train(task, samples, steps=100, lr=3e-3)
    after = float(total(method, outputs_on(task, samples)))
    assert after < 0.5 * before and math.isfinite(after)
