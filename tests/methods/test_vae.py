"""VAE: its equations, the bound against torch's distributions, and that it learns and paints."""

from __future__ import annotations

import math

import pytest
import torch

from selftaught.methods.vae import VAE, divergence
from tests.methods.check import drawn, gradients_are_right, total
from tests.pretexts import CLOCK, batches_of, discs, outputs_on, task_on, train


def test_loss_is_the_evidence_lower_bound() -> None:
    """Equation 10 by pixel, with one draw: -log N(x | back, spread) up to a constant, and KL from N(0, 1)."""
    mean, log_variance = drawn(3, 4), drawn(3, 4, seed=1)
    back, target = drawn(3, 2, 5, 5, seed=2), drawn(3, 2, 5, 5, seed=3)
    outputs = {"z": mean, "log_variance": log_variance, "back": back, "target": target}
    bound = 0.0
    for b in range(3):
        pixels = torch.distributions.Normal(back[b], 0.5).log_prob(target[b]).sum() + 50 * math.log(
            0.5 * (2 * math.pi) ** 0.5
        )
        posterior = torch.distributions.Normal(mean[b], (log_variance[b] / 2).exp())
        kl = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).sum()
        bound += float(pixels - 3.0 * kl)
    method = VAE(spread=0.5, beta=3.0)
    assert float(total(method, outputs)) == pytest.approx(-bound / 3 / 50)
    gradients_are_right(lambda x: total(method, {**outputs, "z": x}), 3, 4)
    gradients_are_right(lambda x: total(method, {**outputs, "log_variance": x}), 3, 4)


def test_divergence_is_zero_for_noise() -> None:
    assert divergence(torch.zeros(2, 3), torch.zeros(2, 3)).tolist() == [0, 0]
    assert float(divergence(torch.ones(1, 4), torch.zeros(1, 4))) == pytest.approx(2)


def test_energy_is_the_loss_of_each_sample() -> None:
    task = task_on(VAE(width=8, latent=4), discs(8))
    outputs = outputs_on(task, discs(8), size=8)
    assert float(task.method.energy(outputs, CLOCK).mean()) == pytest.approx(
        float(total(task.method, outputs)), rel=1e-5
    )  # type: ignore[arg-type]


def test_it_learns_to_paint() -> None:
    """What comes back is near, and new samples look like discs: mostly ground, and as spread as the data."""
    samples, method = discs(32), VAE(width=32, latent=8, smallest=1.0)
    task = task_on(method, samples)
    train(task, samples, steps=200)
    outputs = outputs_on(task, samples)
    off = (outputs["back"] - outputs["target"]).square().mean() / outputs["target"].square().mean()
    assert off < 0.35
    (batch,) = batches_of(method, 16, samples)
    with torch.no_grad():
        shown = method.show(task.encoders, task.prepare(batch), CLOCK)  # type: ignore[arg-type]
    assert list(shown) == ["input", "back", "1/3 to next", "2/3", "new"]
    assert 0.5 < shown["new"].std() / shown["input"].std() < 1.5
    assert torch.equal(shown["new"], method.generate(task.encoders, batch.p, CLOCK).detach())  # type: ignore[arg-type]
