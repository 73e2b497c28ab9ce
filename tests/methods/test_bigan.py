"""BiGAN: its equations, who learns from what, the spectral norm, and that it learns."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from selftaught.methods.bigan import BiGAN
from selftaught.nn.spectral import Spectral, refresh
from selftaught.train.loop import Share
from tests.methods.check import drawn, gradients_are_right, total
from tests.pretexts import CLOCK, batches_of, discs, outputs_on, task_on, train

NAMES = ("real", "painted", "real_fooled", "painted_fooled")


def test_loss_is_the_hinge_and_its_counterpart() -> None:
    outputs = {name: 2 * drawn(5, seed=n) for n, name in enumerate((*NAMES, "cycle"))}
    rows = []
    for b in range(5):
        real, painted, real_fooled, painted_fooled = (float(outputs[name][b]) for name in NAMES)
        rows.append(max(0, 1 - real) + max(0, 1 + painted) + real_fooled - painted_fooled)
    cycle = 3 * float(outputs["cycle"].mean())
    assert float(total(BiGAN(cycle=0), outputs)) == pytest.approx(sum(rows) / 5)
    assert float(total(BiGAN(cycle=3), outputs)) == pytest.approx(sum(rows) / 5 + cycle)
    gradients_are_right(lambda x: total(BiGAN(), {**outputs, "real": x}), 5)


def test_who_learns_from_what() -> None:
    """The adversary's loss reaches the adversary alone; being fooled, and painting the sample itself, reach encoder and
    painter, not the adversary.
    """
    task = task_on(BiGAN(width=8, judge=4, latent=4), discs(8))
    (batch,) = batches_of(task.method, 8, discs(8))
    outputs = task(Share(batch, CLOCK))
    terms = task.method.loss(outputs, CLOCK)
    own = {name: p for name, p in task.named_parameters() if "adversary" in name and p.requires_grad}
    others = {name: p for name, p in task.named_parameters() if "adversary" not in name and p.requires_grad}
    for term, reached, spared in (("adversary", own, others), ("fooled", others, own), ("cycle", others, own)):
        found = torch.autograd.grad(
            terms[term][0], [*reached.values(), *spared.values()], retain_graph=True, allow_unused=True
        )
        assert all(gradient is not None for gradient in found[: len(reached)])
        assert sum(float(gradient.abs().sum() > 0) for gradient in found[: len(reached)]) >= len(reached) - 1  # a bias
        assert all(gradient is None or gradient.abs().sum() == 0 for gradient in found[len(reached) :])


def test_layers_stretch_nothing() -> None:
    """After enough rounds the largest singular value is 1, and a forward pass moves nothing."""
    torch.manual_seed(0)
    for layer in (nn.Linear(12, 7), nn.Conv2d(3, 5, 3, padding=1)):
        one = Spectral(layer, rounds=200)
        weight = layer.weight.detach().flatten(1)
        stretch = one.u @ weight @ one.v
        assert float(stretch) == pytest.approx(float(torch.linalg.matrix_norm(weight, 2)), rel=1e-3)
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(one(x), one(x))
    before = one.u.clone()
    with torch.no_grad():
        layer.weight.add_(torch.randn_like(layer.weight))
    one(x)
    assert torch.equal(one.u, before)
    refresh(nn.Sequential(one))
    assert not torch.equal(one.u, before)


def test_it_learns_to_paint() -> None:
    """New samples get the data's mean colour, and the adversary has not won."""
    samples, method = discs(32), BiGAN(width=32, judge=16, latent=8, smallest=1.0)
    task = task_on(method, samples)
    train(task, samples, steps=150, lr=3e-3)
    outputs = outputs_on(task, samples)
    with torch.no_grad():
        new = method.generate(task.encoders, torch.arange(64), CLOCK)  # type: ignore[arg-type]
    assert new.mean((0, 2, 3)).abs().max() < 0.5 and 0.4 < new.std() < 1.6
    assert outputs["real"].mean() - outputs["painted"].mean() < 4
