"""NNCLR: its equation, whose neighbours it takes, and that it learns."""

from __future__ import annotations

import math

import pytest
import torch

from selftaught.methods.nnclr import NNCLR
from tests.methods.check import CLOCK, cosine, drawn, found_again, gradients_are_right, outputs_of, total, trained
from tests.small import build


def ready(temperature: float = 0.3) -> NNCLR:
    return build(NNCLR(temperature=temperature, queue=9, hidden=8, out_dim=4), dtype=torch.float64).method  # type: ignore[return-value]


def test_loss_is_equation_3_both_ways() -> None:
    method, z, p = ready(), drawn(5, 2, 4), drawn(5, 2, 4, seed=1)

    def neighbour(v: torch.Tensor) -> torch.Tensor:
        return max(method.queue.vectors, key=lambda q: float(cosine(v, q)))

    def row(i: int, one: int, other: int) -> float:
        nn = neighbour(z[i, one])
        shares = [math.exp(cosine(nn, p[k, other]) / 0.3) for k in range(5)]
        return -math.log(shares[i] / sum(shares))

    expected = sum(row(i, 0, 1) + row(i, 1, 0) for i in range(5)) / 10
    assert float(total(method, {"z": z, "p": p})) == pytest.approx(expected)
    gradients_are_right(lambda x: total(method, {"z": z, "p": x}), 5, 2, 4)


def test_gradient_stops_at_the_neighbour() -> None:
    outputs = {name: drawn(4, 2, 4).requires_grad_() for name in ("p", "z")}
    total(ready(), outputs).backward()
    assert outputs["p"].grad is not None and outputs["z"].grad is None


def test_first_views_are_remembered() -> None:
    task = build(NNCLR(queue=9, hidden=8, out_dim=4))
    outputs = outputs_of(task)
    task.method.after_step(outputs, CLOCK)
    first = torch.nn.functional.normalize(outputs["z"][:, 0], dim=1)
    torch.testing.assert_close(task.method.queue.vectors[:6], first)  # type: ignore[union-attr]
    torch.testing.assert_close(task.method.queue.nearest(first), first)  # type: ignore[union-attr]


def test_it_learns() -> None:
    assert found_again(trained(NNCLR(queue=256, hidden=64, out_dim=32))) > found_again(build(NNCLR()).eval())
