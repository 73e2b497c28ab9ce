"""W-MSE: whitening, its equation, and that it learns."""

from __future__ import annotations

import pytest
import torch

from selftaught.methods.w_mse import WMSE, whitened
from tests.methods.check import cosine, drawn, found_again, gradients_are_right, total, trained
from tests.small import build


def test_whitened_batches_are_white() -> None:
    mixed = drawn(50, 4) @ drawn(4, 4, seed=1) + 3
    white = whitened(mixed)
    torch.testing.assert_close(white.mean(0), torch.zeros(4, dtype=torch.float64))
    torch.testing.assert_close(white.T @ white / 49, torch.eye(4, dtype=torch.float64))


def test_whitening_is_linear_and_lower_triangular() -> None:
    """Equation 6: W_V (v - mu) with W^T W the inverse covariance, W triangular: the first column is only scaled."""
    z = drawn(20, 3)
    white = whitened(z)
    torch.testing.assert_close(white[:, 0], (z[:, 0] - z[:, 0].mean()) / z[:, 0].std())


def test_loss_is_equation_4_after_whitening() -> None:
    z, method = drawn(12, 2, 3), WMSE(shrink=0.0)
    views = []
    for v in (0, 1):
        centred = z[:, v] - z[:, v].mean(0)
        factor = torch.linalg.inv(torch.linalg.cholesky(centred.T @ centred / 11))
        views.append([factor @ row for row in centred])
    expected = sum(2 - 2 * cosine(views[0][i], views[1][i]) for i in range(12)) / 12
    torch.testing.assert_close(total(method, {"z": z}), torch.as_tensor(expected))
    gradients_are_right(lambda x: total(method, {"z": x}), 6, 2, 3)


def test_agreeing_on_one_point_does_not_help() -> None:
    nearly = torch.ones(16, 1, 3, dtype=torch.float64) + 1e-3 * drawn(16, 2, 3)
    assert float(total(WMSE(shrink=0.0), {"z": nearly})) > 1
    assert total(WMSE(), {"z": torch.ones(4, 2, 8)}).isfinite()  # collapsed, and fewer samples than dimensions


def test_shrinking_keeps_small_batches_finite() -> None:
    with pytest.raises(RuntimeError, match="positive-definite"):
        whitened(drawn(3, 8))
    assert whitened(drawn(3, 8), shrink=1e-3).isfinite().all()


def test_it_learns() -> None:
    assert found_again(trained(WMSE(hidden=64, out_dim=8))) > found_again(build(WMSE()).eval())
