"""I-JEPA: its equation, the boxes, what the context sees, and that it learns."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from selftaught.methods.i_jepa import IJEPA
from selftaught.types import Batch, Stream
from tests.methods.check import CLOCK, clock_at, drawn, gradients_are_right, outputs_of, total
from tests.pretexts import unexplained
from tests.small import build

SMALL = {"depth": 1, "width": 16}


def jepa(**options: object) -> IJEPA:
    return IJEPA(**{**SMALL, **options})  # type: ignore[arg-type]


def test_loss_is_equation_1() -> None:
    """The mean over boxes, over a box's places and over features; boxes may share places."""
    back, target = drawn(2, 4, 3), drawn(2, 4, 3, seed=1)
    boxes = [[[0, 1], [1, 2]], [[3, 2], [0, 1]]]
    weight, rows = torch.zeros(2, 4, dtype=torch.float64), []
    for b, both in enumerate(boxes):
        for box in both:
            far = [((back[b, n] - target[b, n]) ** 2).mean() for n in box]
            rows.append(float(sum(far)) / len(box))
            for n in box:
                weight[b, n] += 1 / len(box) / 2
    outputs = {"back": back, "target": target, "weight": weight}
    assert float(total(jepa(), outputs)) == pytest.approx(sum(rows) / 4)
    gradients_are_right(lambda x: total(jepa(), {**outputs, "back": x}), 2, 4, 3)


@pytest.mark.parametrize("grid", [(14, 14), (8, 8), (3, 3), (32,), (4, 4, 4), (2, 2)])
def test_boxes_and_what_the_context_sees(grid: tuple[int, ...]) -> None:
    cells = torch.Size(grid).numel()
    for step in range(5):
        boxes, hidden = jepa().boxes(torch.arange(40), grid, clock_at(step))
        assert boxes.shape == (40, 4, cells) and hidden.shape == (40, cells)
        assert len(set(boxes.sum(2).flatten().tolist())) == 1  # one size in a step
        assert ((~hidden).sum(1) >= 1).all()  # something is seen
        if cells >= 64:
            assert 0.12 < float(boxes.float().mean()) < 0.3  # a volume's sides are coarse
            assert not (boxes.any(1) & ~hidden).any()  # and no target


def test_the_context_does_not_see_the_targets() -> None:
    task = build(jepa()).eval()
    x = torch.randn(4, 1, 1, 8, 8)
    batch = Batch({"views": Stream(x)}, torch.arange(4), torch.arange(4))
    first = task.method(task.encoders, batch, CLOCK)
    _, hidden = task.method.boxes(batch.p, (4, 4), CLOCK)  # type: ignore[operator]
    pixels = hidden.view(4, 1, 1, 4, 4).repeat_interleave(2, 3).repeat_interleave(2, 4)
    again = task.method(task.encoders, batch.replace(streams={"views": Stream(torch.where(pixels, 9.0, x))}), CLOCK)
    torch.testing.assert_close(first["back"], again["back"])
    assert not torch.equal(first["target"], again["target"])


def test_the_teacher_sees_everything_and_gets_no_gradient() -> None:
    task = build(jepa())
    outputs = outputs_of(task)
    assert not outputs["target"].requires_grad
    normal = F.layer_norm(outputs["target"], (32,))
    torch.testing.assert_close(outputs["target"], normal, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(outputs["weight"].sum(1), torch.ones(6))


def test_it_learns_what_a_teacher_makes_of_the_boxes() -> None:
    error, spread = unexplained(jepa(width=32, momentum=0.95, targets=1, least=0.3, most=0.4), steps=200, lr=1e-2)
    assert error < 0.87 and spread > 0.05
