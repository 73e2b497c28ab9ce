"""LeJEPA: the statistic against numerical integration, its behaviour, keyed directions, and that it learns."""

from __future__ import annotations

import cmath
import math

import pytest
import torch

from selftaught.methods.lejepa import LeJEPA, sigreg
from tests.methods.check import clock_at, drawn, found_again, gradients_are_right, total, trained
from tests.small import build


def test_statistic_is_epps_pulley_by_the_trapezoid_rule() -> None:
    z, directions = drawn(7, 3), drawn(3, 4, seed=1)
    step, values = 3 / 16, []
    for m in range(4):
        line = (z @ (directions[:, m] / directions[:, m].norm())).tolist()

        def distance(t: float, line: list[float] = line) -> float:
            ecf = sum(cmath.exp(1j * t * x) for x in line) / 7
            return abs(ecf - math.exp(-t * t / 2)) ** 2 * math.exp(-t * t / 2)

        knots = [distance(k * step) for k in range(-16, 17)]  # the whole line: -3 to 3
        values.append(7 * step * (sum(knots) - (knots[0] + knots[-1]) / 2))
    assert float(sigreg(z, directions)) == pytest.approx(sum(values) / 4)
    gradients_are_right(lambda x: sigreg(x, directions), 6, 3)


def test_normal_clouds_are_liked_and_collapsed_or_stretched_ones_are_not() -> None:
    directions = drawn(8, 64, seed=1)
    cloud = drawn(512, 8)
    normal, collapsed, stretched = (float(sigreg(x, directions)) for x in (cloud, 0 * cloud, 3 * cloud))
    assert normal < 2 and collapsed > 20 and stretched > 20


def test_loss_mixes_agreement_and_normality() -> None:
    z, clock = drawn(6, 2, 3), clock_at(2)
    middle = z.mean(1, keepdim=True)
    agreement = (z - middle).square().mean()
    directions = clock.noise("directions", torch.tensor([2]), (3, 16))[0].double()
    normality = (sigreg(z[:, 0], directions) + sigreg(z[:, 1], directions)) / 2
    found = total(LeJEPA(weight=0.3, directions=16), {"z": z}, clock)
    torch.testing.assert_close(found, 0.7 * agreement + 0.3 * normality)


def test_directions_change_with_the_step_alone() -> None:
    z, method = drawn(6, 2, 3), LeJEPA(weight=1.0, directions=4)
    first, again, later = (float(total(method, {"z": z}, clock_at(step))) for step in (1, 1, 2))
    assert first == again != later


def test_it_learns() -> None:
    assert found_again(trained(LeJEPA(hidden=64, out_dim=16))) > found_again(build(LeJEPA()).eval())
