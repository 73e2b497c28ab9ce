"""Barlow Twins: its equations, closed forms, and that it learns."""

from __future__ import annotations

import pytest
import torch

from selftaught.methods.barlow_twins import BarlowTwins, barlow_terms
from tests.methods.check import drawn, found_again, gradients_are_right, total, trained
from tests.small import build


def test_terms_are_equations_1_and_2() -> None:
    a, b = drawn(7, 3), drawn(7, 3, seed=1)
    centred = [z - z.mean(0) for z in (a, b)]

    def correlation(i: int, j: int) -> float:
        x, y = centred[0][:, i], centred[1][:, j]
        return float((x * y).sum() / x.square().sum().sqrt() / y.square().sum().sqrt())

    same = sum((1 - correlation(i, i)) ** 2 for i in range(3))
    others = sum(correlation(i, j) ** 2 for i in range(3) for j in range(3) if i != j)
    found = barlow_terms(a, b, eps=0.0)
    assert [float(term) for term in found] == pytest.approx([same, others])
    whole = total(BarlowTwins(redundancy=0.1), {"z": torch.stack([a, b], 1)})
    assert float(whole) == pytest.approx(same + 0.1 * others, rel=1e-4)


def test_gradient() -> None:
    gradients_are_right(lambda z: total(BarlowTwins(redundancy=0.1), {"z": z}), 6, 2, 3)


def test_closed_forms() -> None:
    orthogonal = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64)
    assert [float(t) for t in barlow_terms(orthogonal, orthogonal, eps=0.0)] == pytest.approx([0, 0])
    assert [float(t) for t in barlow_terms(orthogonal, -orthogonal, eps=0.0)] == pytest.approx([12, 0])
    same = orthogonal[:, :1].expand(4, 3)  # every dimension says the same
    assert [float(t) for t in barlow_terms(same, same, eps=0.0)] == pytest.approx([0, 6])
    constant = torch.ones(4, 3, dtype=torch.float64)  # collapsed: finite, and as bad as can be
    assert [float(t) for t in barlow_terms(constant, constant)] == pytest.approx([3, 0])


def test_it_learns() -> None:
    assert found_again(trained(BarlowTwins(width=32, redundancy=0.05))) > found_again(build(BarlowTwins()).eval())
