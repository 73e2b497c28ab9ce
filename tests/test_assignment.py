"""Sinkhorn's iterations against the matrix form of the paper, and what they promise."""

from __future__ import annotations

import pytest
import torch

from selftaught.ops.assignment import sinkhorn, spherical_kmeans
from tests.methods.check import drawn


def test_as_the_paper_has_it() -> None:
    """Caron et al. 2020, appendix A.1: Q is K x B, rows and columns are divided by their sums in turn."""
    scores, epsilon = drawn(7, 3) / 4, 0.1
    q = torch.exp(scores / epsilon).T
    q = q / q.sum()
    for _ in range(3):
        q = q / q.sum(1, keepdim=True) / 3
        q = q / q.sum(0, keepdim=True) / 7
    torch.testing.assert_close(sinkhorn(scores, epsilon=epsilon), (q * 7).T)


def test_rows_sum_to_one_and_columns_are_alike() -> None:
    shares = sinkhorn(drawn(64, 8), epsilon=0.5, iterations=50)
    torch.testing.assert_close(shares.sum(1), torch.ones(64, dtype=torch.float64))
    torch.testing.assert_close(shares.sum(0), torch.full((8,), 8.0, dtype=torch.float64), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nothing_overflows(dtype: torch.dtype) -> None:
    scores = torch.zeros(6, 4, dtype=dtype)
    scores[:, 0] = 1.0  # all want the same one
    shares = sinkhorn(scores * 50, epsilon=0.05, iterations=10)
    assert shares.dtype == torch.float32 and shares.isfinite().all()
    torch.testing.assert_close(shares.sum(1), torch.ones(6))
    torch.testing.assert_close(shares, torch.full((6, 4), 0.25))


def test_kmeans_finds_directions_and_fills_empty_clusters() -> None:
    directions = torch.eye(4, 6, dtype=torch.float64)
    label = torch.arange(40) % 4
    noise = torch.randn(40, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) / 20
    x = torch.nn.functional.normalize(directions[label] + noise, dim=1)
    centroids, nearest = spherical_kmeans(x, torch.tensor([0, 4, 8, 12]))  # all of one direction
    assert all(len(nearest[label == k].unique()) == 1 for k in range(4)) and len(nearest.unique()) == 4
    for k in nearest.unique():
        mean = torch.nn.functional.normalize(x[nearest == k].mean(0), dim=0)
        torch.testing.assert_close(centroids[k], mean)
