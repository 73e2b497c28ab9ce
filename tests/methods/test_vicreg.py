"""VICReg: what it asks for, what it gives, and that its variance term is what prevents the collapse."""

from __future__ import annotations

import math

import pytest
import torch

from selftaught.methods.vicreg import VICReg
from selftaught.train.clocks import clock_of
from selftaught.train.fabric import make_fabric
from selftaught.train.loop import Settings, Share, fit
from selftaught.train.optim import Recipe
from tests.small import Pictures, build

CLOCK = clock_of(0, steps=10, steps_per_epoch=10, seed=0)


def test_expander_has_three_layers_of_one_width() -> None:
    task = build(VICReg(width=24))
    (batch,) = Pictures(6)(0, 1)
    assert task(Share(batch, CLOCK))["z"].shape == (6, 2, 24)
    linear = [m for m in task.method.modules() if isinstance(m, torch.nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linear] == [(8, 24), (24, 24), (24, 24)]


def test_weights_multiply_the_terms() -> None:
    z = torch.randn(8, 2, 4, generator=torch.Generator().manual_seed(0))
    plain = VICReg(invariance=1, variance=1, covariance=1).loss({"z": z}, CLOCK)
    weighted = VICReg(invariance=3, variance=5, covariance=7).loss({"z": z}, CLOCK)
    for name, weight in (("invariance", 3), ("variance", 5), ("covariance", 7)):
        torch.testing.assert_close(weighted[name][0], weight * plain[name][0])
        assert weighted[name][1] == 1


def test_loss_of_a_collapsed_encoder() -> None:
    terms = VICReg().loss({"z": torch.ones(8, 2, 4)}, CLOCK)
    assert sum(float(value) for value, _ in terms.values()) == pytest.approx(25 * (1 - math.sqrt(1e-4)))


@pytest.mark.parametrize(("variance", "collapses"), [(25.0, False), (0.0, True)])
def test_without_its_variance_term_it_collapses(variance: float, collapses: bool) -> None:
    task = build(VICReg(width=16, variance=variance))
    settings = Settings(32, steps=120, optimiser=Recipe(lr=1e-2))
    fit(task, Pictures(32), settings, fabric=make_fabric("cpu", precision="32-true"))
    (batch,) = Pictures(32)(500, 501)
    with torch.no_grad():
        spread = task.train()(Share(batch, CLOCK))["z"].std(0).mean().item()
    assert (spread < 0.2) == collapses
