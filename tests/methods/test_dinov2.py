"""DINOv2: its three terms, untied heads, KoLeo in closed form, and that it learns."""

from __future__ import annotations

import math

import pytest
import torch

from selftaught.methods.dinov2 import DINOv2, koleo
from selftaught.ops.assignment import sinkhorn
from tests.methods.check import drawn, found_again, gradients_are_right, outputs_of, total, trained
from tests.methods.test_ibot import HIDDEN, some
from tests.small import build

SMALL = {"prototypes": 6, "hidden": 8, "bottleneck": 4, "small": 0}


def ready(**options: object) -> DINOv2:
    return build(DINOv2(**{**SMALL, **options}), dtype=torch.float64).method  # type: ignore[arg-type,return-value]


def crossed(code: torch.Tensor, student: torch.Tensor) -> float:
    q = [math.exp(float(x) / 0.3) for x in student]
    return -sum(float(a) * math.log(b / sum(q)) for a, b in zip(code, q, strict=True))


def test_loss_is_the_sum_of_its_terms() -> None:
    method = ready(temperature=0.3, teacher_temperature=0.2, places=0.5, koleo=0.1)
    outputs = {**some(), "pooled": drawn(2, 2, 5, seed=9)}
    codes = [sinkhorn(outputs["target"][:, v], epsilon=0.2) for v in (0, 1)]
    views = [
        crossed(codes[v][i], outputs["scores"][i, w]) for i in range(2) for v in (0, 1) for w in range(3) if v != w
    ]
    balanced = torch.zeros(2, 2, 3, 6, dtype=torch.float64)
    balanced[HIDDEN] = sinkhorn(outputs["place_target"][HIDDEN], epsilon=0.2)
    places = []
    for i in range(2):
        for v in (0, 1):
            rows = [crossed(balanced[i, v, m], outputs["place"][i, v, m]) for m in range(3) if HIDDEN[i, v, m]]
            places += [sum(rows) / len(rows)] if rows else []
    spread = sum(float(koleo(outputs["pooled"][:, v]).mean()) for v in (0, 1))
    expected = sum(views) / len(views) + 0.5 * sum(places) / len(places) + 0.1 * spread
    assert float(total(method, outputs)) == pytest.approx(expected)
    gradients_are_right(lambda x: total(method, {**outputs, "place": x}), 2, 2, 3, 6)


def test_koleo_is_the_distance_to_the_nearest() -> None:
    x = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]], dtype=torch.float64)
    expected = torch.full((3,), -math.log(math.sqrt(2)), dtype=torch.float64)
    torch.testing.assert_close(koleo(x), expected)
    same = koleo(torch.ones(2, 3, dtype=torch.float64))
    assert same.isfinite().all() and (same > 10).all()
    gradients_are_right(lambda x: koleo(x).sum(), 6, 4)


def test_heads_are_untied() -> None:
    task = build(DINOv2(**SMALL))  # type: ignore[arg-type]
    outputs = outputs_of(task)
    outputs["place"].sum().backward()
    heads = task.method.heads  # type: ignore[union-attr]
    assert heads["place"][0].layers[0].weight.grad is not None and heads["view"][0].layers[0].weight.grad is None  # type: ignore[index]


def test_it_learns() -> None:
    method = DINOv2(prototypes=64, hidden=64, bottleneck=32, small=0, momentum=0.9)
    assert found_again(trained(method, steps=200)) > found_again(build(DINOv2()).eval()) + 0.1
