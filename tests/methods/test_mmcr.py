"""MMCR: its equation, bounds, any number of views, and that it learns."""

from __future__ import annotations

import math

import pytest
import torch

from selftaught.methods.mmcr import MMCR, capacity_terms
from tests.methods.check import drawn, found_again, gradients_are_right, total, trained
from tests.small import build


@pytest.mark.parametrize("views", [2, 4])
def test_terms_are_equations_5_and_6(views: int) -> None:
    """The nuclear norm is the trace of the root of the Gram matrix: taken here by its eigenvalues."""
    z = drawn(5, views, 3)

    def nuclear(matrix: torch.Tensor) -> torch.Tensor:
        return torch.linalg.eigvalsh(matrix.T @ matrix).clamp_min(0).sqrt().sum()

    parts = [torch.stack([z[i, v] / z[i, v].norm() for v in range(views)]) for i in range(5)]
    between = nuclear(torch.stack([part.mean(0) for part in parts])) / 5
    within = sum(nuclear(part) for part in parts) / 5
    loss = total(MMCR(within=0.1), {"z": z})
    torch.testing.assert_close(loss, -between + 0.1 * within)
    torch.testing.assert_close(total(MMCR(), {"z": z}), -between)
    gradients_are_right(lambda x: total(MMCR(within=0.1), {"z": x}), 5, views, 3)


def test_bounds() -> None:
    alike = torch.ones(6, 2, 3, dtype=torch.float64)  # collapsed: one direction
    between, within = capacity_terms(alike)
    assert float(between) == pytest.approx(math.sqrt(6) / 6) and float(within) == pytest.approx(math.sqrt(2))
    spread = torch.eye(3, dtype=torch.float64).repeat(2, 1)[:, None].expand(6, 2, 3)  # every direction alike often
    assert float(capacity_terms(spread)[0]) == pytest.approx(math.sqrt(3 / 6))


def test_it_asks_for_its_views() -> None:
    assert MMCR(views=5).needs().plan[0].count == 5


def test_it_learns() -> None:
    assert found_again(trained(MMCR(hidden=64, out_dim=32))) > found_again(build(MMCR()).eval())
