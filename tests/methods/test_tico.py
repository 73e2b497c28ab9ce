"""TiCo: its equation, the running covariance, and that it learns."""

from __future__ import annotations

import pytest
import torch

from selftaught.methods.tico import TiCo, covariance_contrast
from tests.methods.check import CLOCK, cosine, drawn, found_again, outputs_of, total, trained
from tests.small import build


def ready(**options: float) -> TiCo:
    method = build(TiCo(hidden=8, out_dim=4, **options), dtype=torch.float64).method  # type: ignore[arg-type]
    method.covariance.copy_(drawn(4, 4, seed=3) / 10)  # type: ignore[operator,union-attr]
    return method  # type: ignore[return-value]


def test_loss_is_equation_6() -> None:
    method, z, target = ready(rho=3.0, beta=0.8), drawn(5, 2, 4), drawn(5, 2, 4, seed=1)
    invariance = sum(2 - cosine(z[i, 0], target[i, 1]) - cosine(z[i, 1], target[i, 0]) for i in range(5)) / 10
    flat = [z[i, v] / z[i, v].norm() for i in range(5) for v in (0, 1)]
    covariance = 0.8 * method.covariance + 0.2 * sum(torch.outer(one, one) for one in flat) / 10
    contrast = sum(one @ covariance @ one for one in flat) / 10
    assert float(total(method, {"z": z, "target": target})) == pytest.approx(float(invariance + 3 * contrast))


def test_gradient_takes_the_covariance_as_it_is() -> None:
    z, running = drawn(5, 4).requires_grad_(), drawn(4, 4, seed=1)
    covariance_contrast(z, running, beta=0.8).backward()
    now = 0.8 * running + 0.2 * (z.T @ z).detach() / 5
    torch.testing.assert_close(z.grad, z.detach() @ (now + now.T) / 5)


def test_a_collapsed_encoder_pays_for_its_one_direction() -> None:
    method, ones = ready(rho=3.0, beta=0.8), torch.ones(8, 2, 4, dtype=torch.float64)
    method.covariance.copy_(torch.full((4, 4), 0.25))  # of that direction
    assert float(total(method, {"z": ones, "target": ones})) == pytest.approx(3.0)


def test_the_covariance_follows() -> None:
    task = build(TiCo(hidden=8, out_dim=4, beta=0.75))
    outputs = outputs_of(task)
    task.method.after_step(outputs, CLOCK)
    z = torch.nn.functional.normalize(outputs["z"].detach(), dim=-1).flatten(0, 1)
    torch.testing.assert_close(task.method.covariance, z.T @ z / 12 / 4)  # type: ignore[arg-type]


def test_it_learns() -> None:
    assert found_again(trained(TiCo(hidden=64, out_dim=32))) > found_again(build(TiCo()).eval())
