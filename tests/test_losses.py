"""Losses against float64 references written from the papers' equations, closed forms, gradients and peers."""

from __future__ import annotations

import importlib
import math

import pytest
import torch
from torch import Tensor

from selftaught.ops.losses import absolute_error, nt_xent, squared_error, vicreg_terms
from tests.methods.check import drawn


def random_views(batch: int, views: int, dim: int, *, seed: int = 0) -> Tensor:
    return torch.randn(batch, views, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def nt_xent_by_the_book(z: Tensor, temperature: float) -> float:
    """Chen et al. 2020, algorithm 1: loops over 2 N views, of which 2k - 1 and 2k belong together."""
    flat = z.flatten(0, 1).tolist()

    def s(i: int, j: int) -> float:
        dot = sum(a * b for a, b in zip(flat[i], flat[j], strict=True))
        return dot / math.hypot(*flat[i]) / math.hypot(*flat[j])

    def loss(i: int, j: int) -> float:
        below = sum(math.exp(s(i, k) / temperature) for k in range(len(flat)) if k != i)
        return -math.log(math.exp(s(i, j) / temperature) / below)

    n = len(flat) // 2
    return sum(loss(2 * k, 2 * k + 1) + loss(2 * k + 1, 2 * k) for k in range(n)) / (2 * n)


def vicreg_by_the_book(a: Tensor, b: Tensor, eps: float = 1e-4) -> dict[str, float]:
    """Bardes et al. 2022, eq. 1 to 4, with the constants of the paper's pseudo-code (mse, halves)."""
    n, d = a.shape
    invariance = sum(
        (x - y) ** 2 for r, s in zip(a.tolist(), b.tolist(), strict=True) for x, y in zip(r, s, strict=True)
    )

    def column(z: Tensor, j: int) -> list[float]:
        values = z[:, j].tolist()
        return [v - sum(values) / n for v in values]

    def c(z: Tensor, i: int, j: int) -> float:
        return sum(x * y for x, y in zip(column(z, i), column(z, j), strict=True)) / (n - 1)

    variance = [sum(max(0.0, 1 - math.sqrt(c(z, j, j) + eps)) for j in range(d)) / d for z in (a, b)]
    covariance = [sum(c(z, i, j) ** 2 for i in range(d) for j in range(d) if i != j) / d for z in (a, b)]
    return {"invariance": invariance / n / d, "variance": sum(variance) / 2, "covariance": sum(covariance)}


@pytest.mark.parametrize("temperature", [0.07, 0.5, 2.0])
def test_nt_xent_is_the_papers(temperature: float) -> None:
    z = random_views(5, 2, 3)
    ours = nt_xent(z, z, start=0, temperature=temperature).mean()
    assert ours.item() == pytest.approx(nt_xent_by_the_book(z, temperature), abs=1e-12)


def test_identical_embeddings_are_told_apart_by_chance() -> None:
    z = torch.ones(6, 2, 4)
    assert nt_xent(z, z, start=0, temperature=0.2).mean().item() == pytest.approx(math.log(2 * 6 - 1), abs=1e-6)


def test_one_positive_against_orthogonal_negatives() -> None:
    z = torch.eye(4, dtype=torch.float64)[:, None].expand(4, 2, 4)  # s = 1 with the positive, 0 with the other 6
    expected = -math.log(math.exp(2.0) / (math.exp(2.0) + 6))
    assert nt_xent(z, z, start=0, temperature=0.5).mean().item() == pytest.approx(expected, abs=1e-12)


def test_more_views_average_over_positives() -> None:
    z = random_views(4, 3, 5)
    flat = torch.nn.functional.normalize(z, dim=-1).flatten(0, 1)
    logits = (flat @ flat.T / 0.3).fill_diagonal_(-torch.inf)
    same = torch.arange(12).div(3, rounding_mode="floor")
    positive = (same[:, None] == same[None, :]) & ~torch.eye(12, dtype=torch.bool)
    expected = -(logits.log_softmax(1)[positive]).mean()
    torch.testing.assert_close(nt_xent(z, z, start=0, temperature=0.3).mean(), expected)


def test_shares_of_the_anchors_add_up() -> None:
    z = random_views(6, 2, 4)
    whole = nt_xent(z, z, start=0, temperature=0.2)
    parts = [nt_xent(z[a:b], z, start=a, temperature=0.2) for a, b in ((0, 1), (1, 4), (4, 6))]
    torch.testing.assert_close(torch.cat(parts), whole)


def test_bf16_is_compared_in_float32() -> None:
    z = random_views(32, 2, 16).bfloat16()
    ours = nt_xent(z, z, start=0, temperature=0.1)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, nt_xent(z.float(), z.float(), start=0, temperature=0.1))


def test_vicreg_is_the_papers() -> None:
    z = random_views(6, 2, 4) * 0.7
    ours = {name: value.item() for name, value in vicreg_terms(z).items()}
    assert ours == pytest.approx(vicreg_by_the_book(z[:, 0], z[:, 1]), abs=1e-12)


def test_vicreg_of_a_collapsed_batch() -> None:
    terms = vicreg_terms(torch.full((8, 2, 5), 3.0, dtype=torch.float64))
    expected = {"invariance": 0.0, "variance": 1 - math.sqrt(1e-4), "covariance": 0.0}
    assert {name: value.item() for name, value in terms.items()} == pytest.approx(expected, abs=1e-12)


def test_vicreg_of_more_views_is_the_mean_over_pairs() -> None:
    z = random_views(5, 3, 4)
    pairs = [vicreg_terms(z[:, [i, j]]) for i, j in ((0, 1), (0, 2), (1, 2))]
    terms = vicreg_terms(z)
    for name in ("invariance", "variance"):
        torch.testing.assert_close(terms[name], torch.stack([pair[name] for pair in pairs]).mean())
    torch.testing.assert_close(terms["covariance"] * 2, torch.stack([pair["covariance"] for pair in pairs]).sum())


def test_gradients() -> None:
    z = random_views(4, 2, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: nt_xent(z, z, start=0, temperature=0.4), z)
    assert torch.autograd.gradcheck(lambda z: tuple(vicreg_terms(z * 0.5).values()), z)


def peer(module: str, name: str):
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError:
        pytest.skip("lightly is not installed; it is a peer to compare with, not a dependency")


def test_nt_xent_agrees_with_lightly() -> None:
    z = random_views(16, 2, 8).float()
    theirs = peer("lightly.loss", "NTXentLoss")(temperature=0.2)(z[:, 0], z[:, 1])
    assert nt_xent(z, z, start=0, temperature=0.2).mean().item() == pytest.approx(theirs.item(), abs=1e-5)


def test_vicreg_agrees_with_lightly() -> None:
    z = random_views(16, 2, 8).float()
    theirs = peer("lightly.loss", "VICRegLoss")()(z[:, 0], z[:, 1])
    terms = vicreg_terms(z)
    ours = 25 * terms["invariance"] + 25 * terms["variance"] + terms["covariance"]
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-5)


def test_errors_are_means_of_what_was_asked_for() -> None:
    back, target = drawn(3, 2, 5), drawn(3, 2, 5, seed=1)
    asked = torch.rand(3, 1, 5, generator=torch.Generator().manual_seed(0)) < 0.5
    asked[2] = False
    for error, power in ((squared_error, 2), (absolute_error, 1)):
        far = (back - target).abs() ** power
        torch.testing.assert_close(error(back, target), far.flatten(1).mean(1))
        rows = error(back, target, asked)
        for b in range(2):
            torch.testing.assert_close(rows[b], far[b][asked[b].expand(2, 5)].mean())
        assert rows[2] == 0  # nothing was measured there
