"""Inpainting: its equation, the box, what the encoder sees, and that it learns."""

from __future__ import annotations

import pytest
import torch

from selftaught.methods.inpainting import Inpainting
from tests.methods.check import CLOCK, clock_at, drawn, gradients_are_right, total
from tests.pretexts import batches_of, discs, left, task_on


def test_loss_is_equation_1() -> None:
    """The mean square inside the box: every channel counts, nothing outside does."""
    back, target = drawn(2, 3, 4, 4), drawn(2, 3, 4, 4, seed=1)
    hidden = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    hidden[0, :, :2, 1:3] = hidden[1, :, 1:3, 2:] = True
    both = hidden.expand_as(back)
    rows = [(float(p) - float(q)) ** 2 for p, q in zip(back[both], target[both], strict=True)]
    outputs = {"back": back, "target": target, "hidden": hidden}
    assert float(total(Inpainting(), outputs)) == pytest.approx(sum(rows) / len(rows))
    gradients_are_right(lambda x: total(Inpainting(), {**outputs, "back": x}), 2, 3, 4, 4)


@pytest.mark.parametrize("space", [(40,), (20, 24), (8, 8, 8)])
def test_the_box_has_its_share(space: tuple[int, ...]) -> None:
    shares, view = [], torch.zeros(6, 2, *space)
    for step in range(10):
        hidden = Inpainting(share=0.25).box(view, torch.arange(6), clock_at(step))
        assert len(set(hidden.flatten(1).sum(1).tolist())) == 1  # one size in a step
        shares.append(float(hidden.float().mean()))
    assert sum(shares) / 10 == pytest.approx(0.25, abs=0.04)
    assert len(space) == 1 or len(set(shares)) > 1  # and others in other steps


def test_the_box_is_not_seen() -> None:
    task = task_on(Inpainting(width=8), discs(8)).eval()
    (batch,) = batches_of(task.method, 4, discs(8))
    ready = task.prepare(batch)
    with torch.no_grad():
        first = task.method(task.encoders, ready, CLOCK)
        ready["views"].data = torch.where(first["hidden"][:, None], 9.0, ready["views"].data)
        again = task.method(task.encoders, ready, CLOCK)
    assert torch.equal(first["back"], again["back"]) and not torch.equal(first["target"], again["target"])


def test_it_learns() -> None:
    assert left(Inpainting(width=32), steps=150) < 0.6
