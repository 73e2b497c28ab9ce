"""DCL and DCLW: their equations, that the weights carry gradient, and that it learns."""

from __future__ import annotations

import math

import pytest
import torch

from selftaught.methods.dcl import DCL, decoupled
from tests.methods.check import cosine, drawn, found_again, gradients_are_right, total, trained
from tests.small import build


def by_the_book(z: torch.Tensor, t: float, sigma: float) -> float:
    n = len(z)
    affinity = [math.exp(cosine(z[i, 0], z[i, 1]) / sigma) if sigma else 1.0 for i in range(n)]
    mean, rows = sum(affinity) / n, []
    for i in range(n):
        weight = 2 - affinity[i] / mean if sigma else 1.0
        for v in (0, 1):
            others = [math.exp(cosine(z[i, v], z[k, w]) / t) for k in range(n) if k != i for w in (0, 1)]
            rows.append(-weight * float(cosine(z[i, 0], z[i, 1])) / t + math.log(sum(others)))
    return sum(rows) / len(rows)


@pytest.mark.parametrize("sigma", [0.0, 0.5])
def test_loss_is_equations_4_and_6(sigma: float) -> None:
    z = drawn(5, 2, 4)
    assert float(total(DCL(temperature=0.3, sigma=sigma), {"z": z})) == pytest.approx(by_the_book(z, 0.3, sigma))
    gradients_are_right(lambda x: total(DCL(temperature=0.3, sigma=sigma), {"z": x}), 4, 2, 3)


def test_shares_add_up_to_the_whole() -> None:
    z = drawn(6, 2, 4)
    whole = decoupled(z, z, start=0, temperature=0.2, sigma=0.5)
    parts = [decoupled(z[a : a + 2], z, start=a, temperature=0.2, sigma=0.5) for a in (0, 2, 4)]
    torch.testing.assert_close(torch.cat(parts), whole)


def test_a_collapsed_encoder() -> None:
    """Alike all around: -1 / t + log of 2 (B - 1) times exp(1 / t) leaves the logarithm of their number."""
    ones = torch.ones(8, 2, 4)
    for sigma in (0.0, 0.5):
        assert float(total(DCL(sigma=sigma), {"z": ones})) == pytest.approx(math.log(14), abs=1e-5)


def test_it_learns() -> None:
    assert found_again(trained(DCL())) > found_again(build(DCL()).eval())
