"""Distill: its two terms, a teacher that stays as it is, and a student that comes to see what the teacher sees."""

from __future__ import annotations

import math

import pytest
import torch

from selftaught.methods.distill import Distill
from tests.methods.check import CLOCK, cosine, drawn, gradients_are_right, outputs_of, total, trained
from tests.small import build


def ready(**options: object) -> Distill:
    return build(Distill(queue=7, hidden=8, **options), dtype=torch.float64).method  # type: ignore[arg-type,return-value]


def test_terms_are_the_cosine_and_the_relations() -> None:
    method = ready(features=2.0, relations=0.5, temperature=0.3, teacher_temperature=0.2)
    z, target = drawn(5, 1, 8), drawn(5, 1, 8, seed=1)
    features, relations = [], []
    for i in range(5):
        features.append(1 - cosine(z[i, 0], target[i, 0]))
        p = [math.exp(cosine(target[i, 0], q) / 0.2) for q in method.queue.vectors]
        s = [math.exp(cosine(z[i, 0], q) / 0.3) for q in method.queue.vectors]
        relations.append(-sum(a / sum(p) * math.log(b / sum(s)) for a, b in zip(p, s, strict=True)))
    expected = 2 * sum(features) / 5 + 0.5 * sum(relations) / 5
    assert float(total(method, {"z": z, "target": target})) == pytest.approx(float(expected))
    gradients_are_right(lambda x: total(method, {"z": x, "target": target}), 5, 1, 8)


def test_the_queue_holds_what_the_teacher_saw() -> None:
    task = build(Distill(queue=7))
    outputs = outputs_of(task)
    task.method.after_step(outputs, CLOCK)
    seen = torch.nn.functional.normalize(outputs["target"][:, 0], dim=1)
    torch.testing.assert_close(task.method.queue.vectors[:6], seen)  # type: ignore[union-attr]
    assert not outputs["target"].requires_grad


def test_the_student_comes_to_see_what_the_teacher_sees() -> None:
    before = build(Distill(queue=64, hidden=64))
    weights = [p.clone() for p in before.encoders["teacher"].parameters()]
    start = float(total(before.method, outputs_of(before, 32)).detach())
    task = trained(Distill(queue=64, hidden=64))
    assert float(total(task.method, outputs_of(task, 32)).detach()) < start - 0.3
    assert all(torch.equal(p, w) for p, w in zip(task.encoders["teacher"].parameters(), weights, strict=True))
