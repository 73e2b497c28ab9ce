"""Measures of representations: closed forms, float64 references written from the equations, and invariances."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from selftaught.diagnostics import measures

DTYPES = (torch.float32, torch.float64)


def normal(n: int, d: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def with_spectrum(values: torch.Tensor, n: int, seed: int = 0) -> torch.Tensor:
    """(n, D) centred, whose covariance has exactly these eigenvalues."""
    d = len(values)
    x = normal(n, d, seed)
    q, _ = torch.linalg.qr(x - x.mean(dim=0))  # orthonormal columns in the space of centred samples
    turn, _ = torch.linalg.qr(normal(d, d, seed + 1))
    return q * values.sqrt() @ turn.T


@pytest.mark.parametrize("dtype", DTYPES)
def test_rankme_of_one_direction_is_one(dtype):
    z = torch.outer(normal(40, 1)[:, 0], normal(12, 1)[:, 0]).to(dtype)
    assert measures.rankme(z) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rankme_of_orthonormal_columns_is_their_number(dtype):
    q, _ = torch.linalg.qr(normal(64, 16))
    assert measures.rankme(q.to(dtype)) == pytest.approx(16.0, rel=1e-4)


def test_rankme_is_the_entropy_of_singular_values():
    """Garrido et al. 2023, equation 1, written out."""
    z = normal(30, 8) * torch.arange(1, 9)
    sigma = torch.linalg.svdvals(z)
    p = sigma / sigma.abs().sum()
    assert measures.rankme(z) == pytest.approx(math.exp(-float((p * p.log()).sum())), rel=1e-9)


def test_rankme_of_nothing_is_zero_and_centring_removes_what_is_shared():
    assert measures.rankme(torch.zeros(10, 4)) == 0.0
    assert measures.rankme(torch.ones(10, 4), centre=True) == 0.0
    z = normal(200, 10) * 0.01 + 5.0
    assert measures.rankme(z) < 1.5
    assert measures.rankme(z, centre=True) > 9.0


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_alpha_req_recovers_a_power_law(alpha):
    z = with_spectrum(torch.arange(1, 33, dtype=torch.float64) ** -alpha, 200)
    assert measures.alpha_req(z) == pytest.approx(alpha, rel=1e-6)
    assert measures.alpha_req(z.float() * 100 + 3) == pytest.approx(alpha, rel=2e-2)


def test_alpha_req_of_white_features_is_zero_and_of_constants_nan():
    assert measures.alpha_req(with_spectrum(torch.ones(16, dtype=torch.float64), 100)) == pytest.approx(0, abs=1e-6)
    assert math.isnan(measures.alpha_req(torch.ones(20, 5)))


def test_alignment_is_mean_squared_distance_on_the_sphere():
    a, b = normal(50, 6), normal(50, 6, seed=1)
    expected = sum(float(((x / x.norm()) - (y / y.norm())).square().sum()) for x, y in zip(a, b, strict=True)) / 50
    assert measures.alignment(a, b) == pytest.approx(expected, rel=1e-9)
    assert measures.alignment(a, 3 * a) == pytest.approx(0.0, abs=1e-12)
    assert measures.alignment(a, -a) == pytest.approx(4.0, rel=1e-9)


def test_uniformity_closed_forms():
    """Wang & Isola 2020, equation 2: 0 where all are the same; two opposite points give -t |2|^2."""
    assert measures.uniformity(torch.ones(10, 4)) == pytest.approx(0.0, abs=1e-6)
    assert measures.uniformity(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])) == pytest.approx(-8.0, rel=1e-5)
    assert measures.uniformity(normal(300, 256)) == pytest.approx(-4.0, abs=0.05)  # |u - v|^2 concentrates at 2
    unit = F.normalize(normal(40, 3), dim=1)
    pairs = [float((-2 * (unit[i] - unit[j]).square().sum()).exp()) for i in range(40) for j in range(i)]
    assert measures.uniformity(unit) == pytest.approx(math.log(sum(pairs) / len(pairs)), rel=1e-9)


def test_both_ways_of_pairing_agree():
    unit = F.normalize(normal(25, 7), dim=1)
    torch.testing.assert_close(measures._pairs(unit), torch.pdist(unit).square())


def test_spread_of_even_and_dead_dimensions():
    spread = measures.spread(normal(4000, 32))
    assert spread.mean == pytest.approx(1.0, abs=0.03)
    assert spread.dead_share == 0.0
    half = normal(500, 32) * (torch.arange(32) < 16)
    assert measures.spread(half).dead_share == 0.5
    assert measures.spread(half).smallest == 0.0
    assert measures.spread(torch.ones(10, 4)).dead_share == 1.0


def test_variation_runs_from_the_same_to_all_around():
    assert measures.variation(torch.ones(10, 4)) == pytest.approx(0.0, abs=1e-6)
    assert measures.variation(torch.eye(4).repeat(2, 1) - torch.eye(4).roll(1, 0).repeat(2, 1)) == pytest.approx(1.0)


def test_half_precision_is_measured_in_single():
    z = normal(64, 16).to(torch.bfloat16)
    for measure in (measures.rankme, measures.alpha_req, measures.uniformity, measures.variation):
        assert measure(z) == pytest.approx(measure(z.float()))


def test_rotation_and_scale_change_nothing():
    z = normal(60, 12) @ torch.diag(torch.arange(1.0, 13, dtype=torch.float64))
    turn, _ = torch.linalg.qr(normal(12, 12, seed=3))
    for measure in (measures.rankme, measures.alpha_req, measures.uniformity, measures.variation):
        assert measure(7 * z @ turn) == pytest.approx(measure(z), rel=1e-6)


def test_knn_leaves_the_sample_itself_out():
    z = torch.tensor([[1.0, 0.0], [1.0, 0.01], [0.0, 1.0], [0.01, 1.0]])
    assert measures.knn_accuracy(z, torch.tensor([0, 0, 1, 1]), k=1) == 1.0
    assert measures.knn_accuracy(z, torch.tensor([0, 1, 0, 1]), k=1) == 0.0  # its own label would make it 1
    assert measures.knn_accuracy(z, torch.tensor([0, 0, 1, -1]), k=1) == pytest.approx(2 / 3)
    assert math.isnan(measures.knn_accuracy(z, torch.tensor([-1, -1, 1, -1])))


def test_drift_is_one_minus_cka() -> None:
    z = torch.randn(200, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rotation = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))[0]
    assert measures.drift(z, z) == pytest.approx(0, abs=1e-12)
    assert measures.drift(3 * z @ rotation + 5, z) == pytest.approx(0, abs=1e-12)
    other = torch.randn(200, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    assert measures.drift(other, z) > 0.9
    gram = [(x - x.mean(0)) @ (x - x.mean(0)).T for x in (z, other)]  # the same from the samples' similarities
    cka = (gram[0] * gram[1]).sum() / gram[0].norm() / gram[1].norm()
    assert measures.drift(z, other) == pytest.approx(1 - float(cka))


def test_lidar_is_rankme_after_views_were_made_alike() -> None:
    """Against the definition by scipy: generalised eigenvalues of between and within."""
    from scipy.linalg import eigh

    generator = torch.Generator().manual_seed(0)
    samples = torch.randn(300, 1, 5, dtype=torch.float64, generator=generator) * torch.tensor([3.0, 2.0, 1.0, 0.5, 0.1])
    z = samples + torch.randn(300, 2, 5, dtype=torch.float64, generator=generator) * torch.tensor([1, 1, 1, 1, 0.05])
    mean = z.mean((0, 1))
    centres = z.mean(1)
    between = ((centres - mean).T @ (centres - mean) / 299).numpy()
    within = ((z - centres[:, None]).flatten(0, 1).T @ (z - centres[:, None]).flatten(0, 1) / 300).numpy()
    values = torch.from_numpy(eigh(between, within + 1e-4 * np.trace(within) / 5 * np.eye(5), eigvals_only=True))
    share = values / values.sum()
    assert measures.lidar(z) == pytest.approx(float((-(share * share.log()).sum()).exp()))
    assert measures.lidar(7 * z) == pytest.approx(measures.lidar(z))


def test_lidar_of_what_cannot_be_told() -> None:
    z = torch.randn(50, 1, 8)
    assert math.isnan(measures.lidar(z.expand(-1, 2, -1)))  # both views the same
    assert not measures.lidar(torch.zeros(50, 2, 8)) > 0


def test_lidar_does_not_count_what_only_tells_views_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    one = torch.randn(200, 1, 1, generator=generator).expand(-1, 2, -1) + 0.01 * torch.randn(
        200, 2, 1, generator=generator
    )
    noise = torch.randn(200, 2, 20, generator=generator)
    z = torch.cat([one, noise], dim=2)
    assert measures.lidar(z) < 2 < 15 < measures.rankme(z.flatten(0, 1))


def test_winners_counts_prototypes_in_use():
    rows = torch.eye(6)
    assert measures.winners(rows[[2] * 8]) == pytest.approx(1.0)
    assert measures.winners(rows) == pytest.approx(6.0)
    assert measures.winners(rows[[0, 0, 0, 0, 1, 1, 4, 4]]) == pytest.approx(2**1.5)  # 1/2, 1/4, 1/4: 1.5 bits
    assert measures.winners(100 * rows[[0, 1]] - 7) == pytest.approx(2.0), "neither scale nor offset matters"
