"""Groups, rates and optimisers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from selftaught.errors import ConfigError, MethodError
from selftaught.train.lars import LARS
from selftaught.train.optim import Recipe, Schedule, build_optimiser, set_rates


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleDict({"encoders": nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)), "method": nn.Linear(4, 2)})


def test_biases_and_norms_do_not_decay() -> None:
    optimiser = build_optimiser(network(), Recipe(weight_decay=0.1), batch_size=256)
    decay = {name: group["weight_decay"] for group in optimiser.param_groups for name in group["names"]}
    assert {name for name, value in decay.items() if value == 0.1} == {"encoders.0.weight", "method.weight"}
    assert {value for name, value in decay.items() if name not in ("encoders.0.weight", "method.weight")} == {0.0}


@pytest.mark.parametrize(("name", "expected"), [("sgd", 4.0), ("lars", 4.0), ("adamw", 2.0)])
def test_rates_scale_with_the_batch(name: str, expected: float) -> None:
    assert Recipe(name, lr=0.5).peak(1024) == pytest.approx(0.5 * expected)
    assert Recipe(name, lr=0.5, scale=False).peak(1024) == 0.5


def test_schedule_rises_then_falls() -> None:
    schedule = Schedule(100, warmup=0.1)
    factors = [schedule.factor(step) for step in range(100)]
    assert factors[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert factors[10] == 1.0
    assert factors[55] == pytest.approx(0.5)
    assert all(a > b > 0 for a, b in zip(factors[10:], factors[11:], strict=False))
    assert Schedule(1).factor(0) == 1.0


def test_groups_of_the_method() -> None:
    wanted = {"method": {"rate": 10.0, "weight_decay": 0.3}, "0.weight": {"frozen_until": 0.5}}
    optimiser = build_optimiser(network(), Recipe(lr=1e-2), batch_size=256, groups=wanted)
    groups = {name: group for group in optimiser.param_groups for name in group["names"]}
    assert groups["method.weight"]["weight_decay"] == 0.3
    assert groups["method.bias"]["weight_decay"] == 0.0
    set_rates(optimiser, factor=0.5, fraction=0.0)
    assert groups["method.weight"]["lr"] == pytest.approx(10 * 0.5 * 1e-2)
    assert groups["encoders.0.bias"]["lr"] == pytest.approx(0.5 * 1e-2)
    with pytest.raises(MethodError, match="'decoder'"):
        build_optimiser(network(), Recipe(), batch_size=256, groups={"decoder": {}})


def test_frozen_until_leaves_weights_exactly_alone() -> None:
    net = network()
    optimiser = build_optimiser(net, Recipe(), batch_size=256, groups={"encoders": {"frozen_until": 0.5}})
    before = {name: value.clone() for name, value in net.state_dict().items()}
    for fraction in (0.0, 0.49, 0.5):
        for parameter in net.parameters():
            parameter.grad = torch.ones_like(parameter)
        set_rates(optimiser, factor=1.0, fraction=fraction)
        optimiser.step()
        frozen = all(torch.equal(before[n], v) for n, v in net.state_dict().items() if n.startswith("encoders"))
        assert frozen == (fraction < 0.5)
        assert not torch.equal(before["method.bias"], net.state_dict()["method.bias"])


def test_lars_takes_the_papers_step() -> None:
    """You et al. 2017, algorithm 1, by hand, for two steps on one matrix and one bias."""
    w, b = nn.Parameter(torch.tensor([[3.0, 4.0]], dtype=torch.float64)), nn.Parameter(torch.ones(1).double())
    optimiser = LARS([w, b], lr=0.5, momentum=0.9, weight_decay=0.1, trust=0.02)
    weight, velocity, bias, speed = [3.0, 4.0], [0.0, 0.0], 1.0, 0.0
    for gradient in ([1.0, -2.0], [0.5, 0.25]):
        w.grad, b.grad = torch.tensor([gradient]).double(), torch.tensor([2.0]).double()
        optimiser.step()
        change = [g + 0.1 * x for g, x in zip(gradient, weight, strict=True)]
        ratio = 0.02 * math.hypot(*weight) / math.hypot(*change)
        velocity = [0.9 * v + ratio * c for v, c in zip(velocity, change, strict=True)]
        weight = [x - 0.5 * v for x, v in zip(weight, velocity, strict=True)]
        speed = 0.9 * speed + 2.0 + 0.1 * bias
        bias -= 0.5 * speed
    assert w.flatten().tolist() == pytest.approx(weight, abs=1e-14)
    assert b.item() == pytest.approx(bias, abs=1e-14)


@pytest.mark.parametrize("name", ["adamw", "sgd", "lars"])
def test_every_optimiser_lowers_a_loss(name: str) -> None:
    net, x = network(), torch.randn(64, 3, generator=torch.Generator().manual_seed(1))
    optimiser = build_optimiser(net, Recipe(name, lr=0.05), batch_size=256)
    losses = []
    for _ in range(300):
        optimiser.zero_grad()
        loss = (net["method"](net["encoders"](x)) - x[:, :2]).square().mean()  # type: ignore[index]
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    "wrong", [{"lr": 0.0}, {"lr": math.inf}, {"weight_decay": -1.0}, {"momentum": 1.0}, {"warmup": 1.0}, {"clip": -1.0}]
)
def test_wrong_values_get_one_sentence(wrong: dict[str, float]) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(ConfigError, match=rf"The '{name}' parameter of .* must be .* Got {value!r} instead\."):
        Recipe(**wrong)  # type: ignore[arg-type]


def test_unknown_optimiser_offers_the_nearest() -> None:
    with pytest.raises(ConfigError) as caught:
        Recipe("adam")
    assert caught.value.hint == "Did you mean 'adamw'?"
