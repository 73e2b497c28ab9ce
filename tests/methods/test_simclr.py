"""SimCLR: what it asks for, what it gives, and that it learns."""

from __future__ import annotations

import math

import pytest
import torch

from selftaught.methods.simclr import SimCLR
from selftaught.train.clocks import clock_of
from selftaught.train.fabric import make_fabric
from selftaught.train.loop import Settings, Share, fit
from selftaught.train.optim import Recipe
from tests.small import Pictures, build

CLOCK = clock_of(0, steps=10, steps_per_epoch=10, seed=0)


def test_needs_two_views_of_the_encoder() -> None:
    needs = SimCLR(smallest=0.3, colour=0.5).needs()
    (group,) = needs.plan
    assert (group.count, group.geometry.scale, group.photometry[0].colour) == (2, (0.3, 1.0), 0.5)
    assert needs.encoders == ("encoder",) and SimCLR.couples


def test_outputs_are_samples_first_and_one_forward_serves_both_views() -> None:
    task = build(SimCLR(out_dim=5))
    sizes = []
    task.encoders["encoder"].register_forward_hook(lambda m, inputs, out: sizes.append(len(inputs[0])))
    (batch,) = Pictures(6)(0, 1)
    outputs = task(Share(batch, CLOCK))
    assert outputs["z"].shape == (6, 2, 5) and sizes == [12]
    torch.manual_seed(0)
    again = build(SimCLR(out_dim=5)).eval()
    z = again(Share(batch, CLOCK))["z"]  # in eval mode, views of one sample are where the input has them
    views = again.prepare(batch)["views"].data
    one = again.method.head(again.encoders["encoder"](views[2:3, 1]).pooled)  # type: ignore[operator]
    torch.testing.assert_close(z[2, 1], one[0])


def test_loss_of_a_collapsed_encoder_is_chance() -> None:
    method = SimCLR()
    ((value, count),) = method.loss({"z": torch.ones(8, 2, 4)}, CLOCK).values()
    assert count == 16 and float(value) / 16 == pytest.approx(math.log(15), abs=1e-5)


def test_order_of_the_samples_does_not_matter() -> None:
    z, order = torch.randn(8, 2, 4), torch.randperm(8)
    ((a, _),), ((b, _),) = (SimCLR().loss({"z": one}, CLOCK).values() for one in (z, z[order]))
    torch.testing.assert_close(a, b)


def test_it_learns_to_tell_samples_apart() -> None:
    task = build(SimCLR())
    with torch.no_grad():
        first = task.method.loss(task(Share(next(iter(Pictures(32)(0, 1))), CLOCK)), CLOCK)["contrast"]
    result = fit(
        task,
        Pictures(32),
        Settings(32, steps=60, optimiser=Recipe(lr=1e-2)),
        fabric=make_fabric("cpu", precision="32-true"),
    )
    assert result.row["loss"] < 0.75 * float(first[0]) / first[1]
