"""AIM: its equation, who looks at whom, and that it learns."""

from __future__ import annotations

import pytest
import torch

from selftaught.methods.aim import AIM
from selftaught.ops.mask import after_a_start
from selftaught.ops.tokens import cells, from_cells
from selftaught.types import Batch, Stream
from tests.methods.check import CLOCK, drawn, gradients_are_right, total
from tests.pretexts import discs, outputs_on, task_on, train
from tests.small import build


@pytest.mark.parametrize("normalise", [True, False])
def test_loss_is_equation_2(normalise: bool) -> None:
    back, target = drawn(2, 4, 9), 3 + drawn(2, 4, 9, seed=1)
    told = torch.tensor([[0, 1, 1, 0], [1, 1, 1, 0]], dtype=torch.bool)
    method, rows = AIM(), []
    method.normalise = normalise
    for b in range(2):
        errors = []
        for n in range(4):
            t = target[b, n]
            if normalise:
                t = (t - t.mean()) / (t.var() + 1e-6).sqrt()
            if told[b, n]:
                errors.append(float((back[b, n] - t).square().mean()))
        rows.append(sum(errors) / len(errors))
    outputs = {"back": back, "target": target, "told": told}
    assert float(total(method, outputs)) == pytest.approx(sum(rows) / 2)
    gradients_are_right(lambda x: total(method, {**outputs, "back": x}), 2, 4, 9)


def test_who_looks_at_whom() -> None:
    """Those before, oneself, and the start; what is to be told is not in the start."""
    noise = torch.randn(60, generator=torch.Generator().manual_seed(0))
    may, told = after_a_start(noise, 7)
    for b in range(60):
        start = int(may[b, 0].sum())
        assert 1 <= start <= 6
        for i in range(7):
            assert may[b, i].tolist() == [j <= i or j < start for j in range(7)]
            assert bool(told[b, i]) == (i < 6 and i + 1 >= start)
    assert len({int(may[b, 0].sum()) for b in range(60)}) == 6


def test_a_patch_is_told_without_being_seen() -> None:
    """Changing it and all after it changes nothing of what is told for it."""
    task = build(AIM()).eval()
    x = torch.randn(6, 1, 1, 8, 8)
    batch = Batch({"views": Stream(x)}, torch.arange(6), torch.arange(6))
    first = task.method(task.encoders, batch, CLOCK)
    for asked in (9, 12):  # of 16 patches in raster order
        changed = cells(x[:, 0], (4, 4)).clone()
        changed[:, asked + 1 :] = 9.0
        other = batch.replace(streams={"views": Stream(from_cells(changed, (4, 4), (1, 8, 8))[:, None])})
        again = task.method(task.encoders, other, CLOCK)
        rows = first["told"][:, asked]
        assert rows.any()
        torch.testing.assert_close(first["back"][rows, asked], again["back"][rows, asked])


def test_the_next_patch_is_the_target() -> None:
    task = build(AIM()).eval()
    x = torch.randn(2, 1, 1, 8, 8)
    outputs = task.method(task.encoders, Batch({"views": Stream(x)}, torch.arange(2), torch.arange(2)), CLOCK)
    assert torch.equal(outputs["target"][:, :-1], cells(x[:, 0], (4, 4))[:, 1:]) and not outputs["told"][:, -1].any()


def test_it_learns() -> None:
    samples, method = discs(32), AIM(normalise=False)
    task = task_on(method, samples)
    train(task, samples, steps=150)
    outputs = outputs_on(task, samples)
    assert total(method, outputs) < 0.8 * total(method, {**outputs, "back": torch.zeros_like(outputs["back"])})
