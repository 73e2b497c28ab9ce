"""BYOL: its equation, its teacher, and that it learns."""

from __future__ import annotations

import pytest
import torch

from selftaught.methods.byol import BYOL
from selftaught.nn.teacher import Teacher, rising
from selftaught.train.task import Task
from tests.methods.check import CLOCK, clock_at, cosine, drawn, found_again, gradients_are_right, outputs_of, total
from tests.methods.check import trained as train
from tests.small import build


def teacher_of(task: Task) -> Teacher:
    assert isinstance(task.method, BYOL)
    return task.method.teacher


def test_loss_is_equation_2_both_ways() -> None:
    p, target = drawn(5, 2, 4), drawn(5, 2, 4, seed=1)
    each = [(2 - 2 * cosine(p[i, 0], target[i, 1])) + (2 - 2 * cosine(p[i, 1], target[i, 0])) for i in range(5)]
    torch.testing.assert_close(total(BYOL(), {"p": p, "target": target}), torch.stack(each).mean())
    gradients_are_right(lambda x: total(BYOL(), {"p": x, "target": target}), 5, 2, 4)


@pytest.mark.parametrize(("sign", "expected"), [(1, 0.0), (-1, 8.0)])
def test_bounds(sign: int, expected: float) -> None:
    p = drawn(1, 1, 4).expand(5, 2, 4)
    assert float(total(BYOL(), {"p": p, "target": sign * p})) == pytest.approx(expected)


def test_gradient_stops_at_the_target() -> None:
    outputs = {name: drawn(4, 2, 3).requires_grad_() for name in ("p", "target")}
    total(BYOL(), outputs).backward()
    assert outputs["p"].grad is not None and outputs["target"].grad is None


def test_teacher_starts_as_the_student_and_follows() -> None:
    task = build(BYOL(momentum=0.9, hidden=8, out_dim=4))
    student, teacher = task.encoders["encoder"], teacher_of(task)["encoder"]
    before = [p.clone() for p in teacher.parameters()]
    for mine, theirs in zip(before, student.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(1.0)
    task.method.after_step({}, CLOCK)
    for mine, old in zip(teacher.parameters(), before, strict=True):
        torch.testing.assert_close(mine, old + 0.1)
    assert not any(p.requires_grad for p in teacher_of(task).parameters())


def test_momentum_rises_to_one() -> None:
    assert rising(0.9, 0) == pytest.approx(0.9) and rising(0.9, 0.5) == pytest.approx(0.95) and rising(0.9, 1) == 1
    assert rising(0.9, clock_at(3).fraction) > rising(0.9, clock_at(2).fraction)


def test_outputs_and_views() -> None:
    outputs = outputs_of(build(BYOL(hidden=8, out_dim=5)))
    assert {name: value.shape for name, value in outputs.items()} == dict.fromkeys(("z", "p", "target"), (6, 2, 5))
    assert not outputs["target"].requires_grad
    first, second = BYOL().needs().plan[0].photometry
    assert (first.blur, first.solarise, second.blur, second.solarise) == (1.0, 0.0, 0.1, 0.2)


def test_it_learns() -> None:
    assert found_again(train(BYOL(hidden=64, out_dim=32))) > found_again(build(BYOL()).eval())
