"""SimSiam: its equation, its stopped gradient, and that it learns."""

from __future__ import annotations

import pytest
import torch

from selftaught.methods.simsiam import SimSiam
from selftaught.train.optim import Recipe, build_optimiser, set_rates
from tests.methods.check import cosine, drawn, found_again, gradients_are_right, outputs_of, total, trained
from tests.small import build


def test_loss_is_equation_4() -> None:
    p, z = drawn(5, 2, 4), drawn(5, 2, 4, seed=1)
    each = [-cosine(p[i, 0], z[i, 1]) / 2 - cosine(p[i, 1], z[i, 0]) / 2 for i in range(5)]
    torch.testing.assert_close(total(SimSiam(), {"p": p, "z": z}), torch.stack(each).mean())
    gradients_are_right(lambda x: total(SimSiam(), {"p": x, "z": z}), 5, 2, 4)


@pytest.mark.parametrize("sign", [1, -1])
def test_bounds(sign: int) -> None:
    p = drawn(1, 1, 4).expand(5, 2, 4)
    assert float(total(SimSiam(), {"p": p, "z": sign * p})) == pytest.approx(-sign)


def test_gradient_stops_at_the_projection() -> None:
    outputs = {name: drawn(4, 2, 3).requires_grad_() for name in ("p", "z")}
    total(SimSiam(), outputs).backward()
    assert outputs["p"].grad is not None and outputs["z"].grad is None


def test_predictor_has_a_bottleneck() -> None:
    task = build(SimSiam(width=32))
    linear = [m for m in task.method.predictor.modules() if isinstance(m, torch.nn.Linear)]  # type: ignore[union-attr]
    assert [(m.in_features, m.out_features) for m in linear] == [(32, 8), (8, 32)]
    assert {name: value.shape for name, value in outputs_of(task).items()} == {"z": (6, 2, 32), "p": (6, 2, 32)}


def test_predictor_learns_faster() -> None:
    task = build(SimSiam(width=32, predictor_rate=10.0))
    groups = task.method.groups(task.encoders)  # type: ignore[arg-type]
    optimiser = build_optimiser(task, Recipe(lr=1e-3), batch_size=256, groups=groups)
    set_rates(optimiser, factor=1.0, fraction=0.5)
    rates = {name: group["lr"] for group in optimiser.param_groups for name in group["names"]}
    assert rates == {name: pytest.approx(1e-2 if "predictor" in name else 1e-3) for name in rates}


def test_it_learns() -> None:
    assert found_again(trained(SimSiam(width=64))) > found_again(build(SimSiam()).eval())
