"""DINO: its equations, centring by mean and by Sinkhorn, the teacher, and that it learns."""

from __future__ import annotations

import math

import pytest
import torch

from selftaught.methods.dino import DINO
from selftaught.ops.assignment import sinkhorn
from tests.methods.check import CLOCK, drawn, found_again, gradients_are_right, outputs_of, total, trained
from tests.small import build

SMALL = {"prototypes": 6, "hidden": 8, "bottleneck": 4, "small": 0}


def ready(**options: object) -> DINO:
    method = build(DINO(**{**SMALL, **options}), dtype=torch.float64).method  # type: ignore[arg-type]
    method.centre.mean.copy_(drawn(6, seed=3) / 10)  # type: ignore[operator,union-attr]
    return method  # type: ignore[return-value]


def softmax(values: list[float]) -> list[float]:
    shares = [math.exp(one) for one in values]
    return [one / sum(shares) for one in shares]


@pytest.mark.parametrize("centring", ["mean", "sinkhorn"])
def test_loss_is_equation_3(centring: str) -> None:
    method = ready(temperature=0.3, teacher_temperature=0.2, centring=centring)
    scores, target = drawn(5, 4, 6) / 3, drawn(5, 2, 6, seed=1) / 3
    balanced = [sinkhorn(target[:, v], epsilon=0.2) for v in (0, 1)]
    rows = []
    for i in range(5):
        for v in (0, 1):
            sharp = softmax(((target[i, v] - method.centre.mean) / 0.2).tolist())
            code = sharp if centring == "mean" else balanced[v][i].tolist()
            for w in range(4):
                if w != v:
                    student = softmax((scores[i, w] / 0.3).tolist())
                    rows.append(-sum(p * math.log(q) for p, q in zip(code, student, strict=True)))
    assert float(total(method, {"scores": scores, "target": target})) == pytest.approx(sum(rows) / len(rows))
    gradients_are_right(lambda x: total(method, {"scores": x, "target": target}), 5, 3, 6)


def test_gradient_stops_at_the_teacher() -> None:
    outputs = {"scores": drawn(4, 2, 6).requires_grad_(), "target": drawn(4, 2, 6).requires_grad_()}
    total(ready(), outputs).backward()
    assert outputs["scores"].grad is not None and outputs["target"].grad is None


def test_centre_and_teacher_follow() -> None:
    task = build(DINO(**{**SMALL, "centre_momentum": 0.75, "momentum": 0.5}))  # type: ignore[arg-type]
    outputs = outputs_of(task)
    assert outputs["target"].shape == (6, 2, 6) and not outputs["target"].requires_grad
    with torch.no_grad():
        task.method.head.layers[0].weight.zero_()  # type: ignore[index,union-attr]
    before = task.method.teacher["head"].layers[0].weight.clone()  # type: ignore[index]
    task.method.after_step(outputs, CLOCK)
    torch.testing.assert_close(task.method.centre.mean, outputs["target"].flatten(0, 1).mean(0) / 4)  # type: ignore[arg-type]
    torch.testing.assert_close(task.method.teacher["head"].layers[0].weight, before / 2)  # type: ignore[index]


def test_scores_are_cosines_with_the_prototypes() -> None:
    task = build(DINO(**SMALL))  # type: ignore[arg-type]
    z, weight = drawn(3, 2, 4).float(), task.method.prototypes.weight  # type: ignore[union-attr]
    expected = torch.cosine_similarity(z[:, :, None], weight[None, None], dim=-1)  # type: ignore[index]
    torch.testing.assert_close(task.method.prototypes(z), expected)  # type: ignore[operator]


def test_it_learns() -> None:
    method = DINO(prototypes=64, hidden=64, bottleneck=32, small=0, momentum=0.9)
    assert found_again(trained(method)) > found_again(build(DINO()).eval())
