"""MoCo v3: its algorithm, and that it learns."""

from __future__ import annotations

import math

import pytest
import torch

from selftaught.methods.moco_v3 import MoCoV3
from tests.methods.check import cosine, drawn, found_again, gradients_are_right, outputs_of, total, trained
from tests.small import build


def test_loss_is_algorithm_1() -> None:
    q, key, t = drawn(5, 2, 4), drawn(5, 2, 4, seed=1), 0.3

    def ctr(one: int, other: int) -> float:
        rows = []
        for i in range(5):
            shares = [math.exp(cosine(q[i, one], key[k, other]) / t) for k in range(5)]
            rows.append(-math.log(shares[i] / sum(shares)))
        return 2 * t * sum(rows) / 5

    assert float(total(MoCoV3(temperature=t), {"q": q, "key": key})) == pytest.approx(ctr(0, 1) + ctr(1, 0))
    gradients_are_right(lambda x: total(MoCoV3(temperature=t), {"q": x, "key": key}), 5, 2, 4)


def test_a_collapsed_encoder_is_at_chance() -> None:
    ones = torch.ones(8, 2, 4)
    assert float(total(MoCoV3(temperature=0.5), {"q": ones, "key": ones})) == pytest.approx(2 * math.log(8), rel=1e-5)


def test_gradient_stops_at_the_keys() -> None:
    outputs = {name: drawn(4, 2, 3).requires_grad_() for name in ("q", "key")}
    total(MoCoV3(), outputs).backward()
    assert outputs["q"].grad is not None and outputs["key"].grad is None


def test_outputs() -> None:
    outputs = outputs_of(build(MoCoV3(hidden=8, out_dim=5)))
    assert {name: value.shape for name, value in outputs.items()} == dict.fromkeys(("z", "q", "key"), (6, 2, 5))


def test_it_learns() -> None:
    assert found_again(trained(MoCoV3(hidden=64, out_dim=32))) > found_again(build(MoCoV3()).eval())
