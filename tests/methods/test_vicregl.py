"""VICRegL: its terms, where cells lie, which places match, and that it learns."""

from __future__ import annotations

import pytest
import torch

from selftaught.methods.vicregl import VICRegL, best_pairs, centres, matched_terms
from tests.methods.check import drawn, found_again, gradients_are_right, total, trained
from tests.small import build


def reference(a: torch.Tensor, b: torch.Tensor) -> dict[str, float]:
    """The three terms of pairs (B, K, D), in loops."""
    batch, pairs, dim = a.shape
    variance = covariance = 0.0
    for x in (a, b):
        for k in range(pairs):
            mean = sum(x[i, k] for i in range(batch)) / batch
            moments = sum((torch.outer(x[i, k] - mean, x[i, k] - mean) for i in range(batch)), torch.zeros(dim, dim))
            moments = moments / (batch - 1)
            for d in range(dim):
                variance += max(0.0, 1 - float(moments[d, d] + 1e-4) ** 0.5) / (2 * pairs * dim)
                covariance += sum(float(moments[d, e]) ** 2 for e in range(dim) if e != d) / (2 * pairs * dim)
    invariance = sum(float((a[i, k] - b[i, k]).square().sum()) for i in range(batch) for k in range(pairs))
    return {"invariance": invariance / (batch * pairs * dim), "variance": variance, "covariance": covariance}


def test_terms_are_the_equations() -> None:
    a, b = drawn(6, 3, 4) / 2, drawn(6, 3, 4, seed=1) / 2
    found, expected = matched_terms(a, b), reference(a, b)
    assert {name: float(value) for name, value in found.items()} == pytest.approx(expected)


def test_centres_of_cells() -> None:
    box = torch.tensor([[[0.0, 0.5, 0.5, 1.0], [0.0, 0.0, 1.0, 1.0]]])  # (1, 2, 4): y0, x0, y1, x1
    found = centres(box, torch.tensor([[False, True]]), (2, 2))
    quarter = [[0.125, 0.625], [0.125, 0.875], [0.375, 0.625], [0.375, 0.875]]
    mirrored = [[0.25, 0.75], [0.25, 0.25], [0.75, 0.75], [0.75, 0.25]]
    torch.testing.assert_close(found, torch.tensor([[quarter, mirrored]]))
    line = centres(torch.tensor([[[0.2, 0.6]]]), torch.tensor([[False]]), (2,))
    torch.testing.assert_close(line, torch.tensor([[[[0.3], [0.5]]]]))


def test_best_pairs_are_the_nearest() -> None:
    a, b, distance = drawn(2, 4, 3), drawn(2, 5, 3, seed=1), drawn(2, 4, 5, seed=2).abs()
    one, other = best_pairs(a, b, distance, keep=2)
    for i in range(2):
        ranked = sorted(range(4), key=lambda n: float(distance[i, n].min()))[:2]
        for place, n in enumerate(ranked):
            assert torch.equal(one[i, place], a[i, n]) and torch.equal(other[i, place], b[i, distance[i, n].argmin()])


def test_loss_weighs_whole_views_and_places() -> None:
    method = VICRegL(matches=2)
    z, dense, where = drawn(6, 2, 4), drawn(6, 2, 5, 3, seed=1), drawn(6, 2, 5, 2, seed=2)
    weights = {"invariance": 25.0, "variance": 25.0, "covariance": 1.0}

    def weighed(a: torch.Tensor, b: torch.Tensor) -> float:
        return sum(weights[name] * value for name, value in reference(a, b).items())

    expected = 0.75 * weighed(z[:, :1], z[:, 1:])
    for a, b in ((0, 1), (1, 0)):
        for distance in (torch.cdist(where[:, a], where[:, b]), torch.cdist(dense[:, a], dense[:, b])):
            expected += 0.25 * weighed(*best_pairs(dense[:, a], dense[:, b], distance, keep=2)) / 2
    assert float(total(method, {"z": z, "dense": dense, "where": where})) == pytest.approx(expected)
    gradients_are_right(lambda x: total(method, {"z": z, "dense": x, "where": where}), 6, 2, 5, 3)


def test_it_learns() -> None:
    method = VICRegL(hidden=64, out_dim=64, dense_dim=32)
    assert found_again(trained(method, lr=3e-3)) > found_again(build(VICRegL()).eval())
