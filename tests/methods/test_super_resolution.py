"""Super-resolution: its equation, what is taken away, and that it learns."""

from __future__ import annotations

import pytest
import torch

from selftaught.methods.super_resolution import SuperResolution, coarser
from tests.methods.check import drawn, gradients_are_right, total
from tests.pretexts import discs, outputs_on, task_on, train


def test_loss_is_the_mean_absolute_error() -> None:
    back, target = drawn(3, 2, 4, 4), drawn(3, 2, 4, 4, seed=1)
    outputs = {"back": back, "target": target}
    assert float(total(SuperResolution(), outputs)) == pytest.approx(float((back - target).abs().sum() / 96))
    gradients_are_right(lambda x: total(SuperResolution(), {**outputs, "back": x}), 3, 2, 4, 4)


@pytest.mark.parametrize("space", [(16,), (12, 16), (8, 8, 8)])
def test_details_are_averaged_away(space: tuple[int, ...]) -> None:
    x = drawn(2, 3, *space)
    coarse = coarser(x, 4)
    assert coarse.shape == x.shape and coarse.std() < 0.6 * x.std()
    flat = torch.ones(1, 1, *space)
    torch.testing.assert_close(coarser(flat, 4), flat)


def test_it_puts_details_back() -> None:
    """Better than the coarse view as it is."""
    samples, method = discs(32), SuperResolution(width=32)
    task = task_on(method, samples)
    train(task, samples, steps=250)
    outputs = outputs_on(task, samples)
    assert total(method, outputs) < 0.87 * total(method, {**outputs, "back": outputs["coarse"]})
