"""Diffusion autoencoder: its equations, the way back from noise, and that the encoder is what tells samples apart."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from selftaught.methods.diffusion import Diffusion, shares, turned
from selftaught.nn.unet import UNet
from selftaught.train.loop import Share
from tests.methods.check import clock_at, drawn, gradients_are_right, total
from tests.pretexts import CLOCK, batches_of, discs, outputs_on, task_on, train


def test_loss_is_the_squared_error() -> None:
    back, target = drawn(3, 2, 4, 4), drawn(3, 2, 4, 4, seed=1)
    outputs = {"back": back, "target": target}
    assert float(total(Diffusion(), outputs)) == pytest.approx(float((back - target).square().mean()))
    gradients_are_right(lambda x: total(Diffusion(), {**outputs, "back": x}), 3, 2, 4, 4)


def test_noise_is_laid_over_along_a_cosine() -> None:
    x, noise = torch.ones(3, 1, 2, 2), torch.full((3, 1, 2, 2), 2.0)
    seen, v = (one[:, 0, 0, 0] for one in turned(x, noise, torch.tensor([0.0, 0.5, 1.0])))
    assert v.tolist() == pytest.approx([2.0, 0.5 * math.sqrt(2), -1.0], abs=0.01)
    assert seen.tolist() == pytest.approx([1.0, 1.5 * math.sqrt(2), 2.0], abs=0.01)
    signal, spoilt = shares(torch.linspace(0, 1, 11))
    torch.testing.assert_close(signal**2 + spoilt**2, torch.ones(11))


def test_a_perfect_denoiser_gives_the_sample_back() -> None:
    """DDIM with the true noise ends at the true sample, in any number of steps."""
    method: Any = Diffusion(steps=5, latent=4, width=4)
    clean = drawn(2, 3, 8, 8).float()

    class Knows(torch.nn.Module):
        def forward(self, x: torch.Tensor, level: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
            signal, spoilt = (one[0] for one in shares(level))
            noise = (x - signal * clean) / spoilt
            return signal * noise - spoilt * clean

    method.denoiser = Knows()
    found = method.made(torch.zeros(2, 4), torch.randn(2, 3, 8, 8))
    torch.testing.assert_close(found, clean, rtol=0, atol=0.02)


@pytest.mark.parametrize("shape", [(2, 40), (3, 17, 9), (1, 8, 8, 12), (1, 5, 5), (3, 33, 48)])
def test_any_size(shape: tuple[int, ...]) -> None:
    net = UNet(shape, 6, width=4)
    assert net(torch.randn(2, *shape), torch.rand(2), torch.randn(2, 6)).shape == (2, *shape)


def test_mean_and_spread_of_the_vectors_are_kept() -> None:
    task = task_on(Diffusion(latent=3, width=4), discs(8))
    method: Any = task.method
    z = drawn(400, 3).float() * torch.tensor([1.0, 2.0, 0.5]) + 3
    for step in range(3):
        method.after_step({"z": z}, clock_at(step))
    torch.testing.assert_close(method.mean, z.mean(0))
    torch.testing.assert_close(method.square, z.T @ z / 400, rtol=1e-4, atol=1e-4)


def test_the_encoder_sees_another_view() -> None:
    """What is spoilt is the last view, what the encoder sees the first."""
    for other_view in (True, False):
        method = Diffusion(width=4, latent=4, other_view=other_view)
        task = task_on(method, discs(8))
        (batch,) = batches_of(method, 8, discs(8))
        views = batch["views"].data
        assert views.shape[1] == 1 + other_view
        outputs = task(Share(batch, CLOCK))
        views[:, 0] = 255 - views[:, 0]
        changed = task(Share(batch, CLOCK))
        assert not torch.equal(outputs["z"], changed["z"])
        assert torch.equal(outputs["target"], changed["target"]) is other_view


def test_it_learns_to_paint() -> None:
    """Noise is told better than by nothing, and samples that are told the same are alike."""
    samples = discs(32)
    method = Diffusion(width=8, latent=16, steps=8, smallest=1.0, other_view=False)
    task = task_on(method, samples)
    train(task, samples, steps=600)
    outputs = outputs_on(task, samples)
    assert (outputs["back"] - outputs["target"]).square().mean() < 0.35 * outputs["target"].square().mean()
    (batch,) = batches_of(method, 16, samples)
    with torch.no_grad():
        shown = method.show(task.encoders, task.prepare(batch), CLOCK)  # type: ignore[arg-type]
    assert list(shown) == ["input", "back", "again", "1/2 to next", "new"]
    off = [(shown["back"] - shown[name]).square().mean() for name in ("again", "new")]
    assert off[0] < 0.7 * off[1]
    assert 0.6 < shown["new"].std() / shown["input"].std() < 1.5  # not only apart: of the data's own spread
