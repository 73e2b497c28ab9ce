"""Denoising: its equation, how much noise there is, and that it learns."""

from __future__ import annotations

import pytest
import torch

from selftaught.methods.denoising import Denoising
from tests.methods.check import CLOCK, drawn, gradients_are_right, total
from tests.pretexts import discs, left, outputs_on, task_on


def test_loss_is_the_mean_square() -> None:
    back, target = drawn(3, 2, 4, 4), drawn(3, 2, 4, 4, seed=1)
    outputs = {"back": back, "target": target}
    assert float(total(Denoising(), outputs)) == pytest.approx(float(((back - target) ** 2).sum() / back.numel()))
    gradients_are_right(lambda x: total(Denoising(), {**outputs, "back": x}), 3, 2, 4, 4)


def test_noise_levels_are_drawn_for_each_sample() -> None:
    clean, p = torch.zeros(400, 1, 32, 32), torch.arange(400)
    noise = Denoising(low=0.2, high=1.0).spoilt(clean, p, CLOCK)
    levels = noise.flatten(1).std(1)
    assert 0.17 < levels.min() < 0.25 and 0.95 < levels.max() < 1.08
    assert float(levels.mean()) == pytest.approx(0.6, abs=0.03)
    assert torch.equal(Denoising(low=0, high=0).spoilt(clean, p, CLOCK), clean)


def test_a_share_of_places_is_dropped_in_all_channels() -> None:
    made = Denoising(low=0, high=0, dropped=0.3).spoilt(torch.ones(50, 3, 16, 16), torch.arange(50), CLOCK)
    assert float((made == 0).float().mean()) == pytest.approx(0.3, abs=0.02)
    assert (made == made[:, :1]).all()


def test_what_is_asked_for_has_no_noise() -> None:
    task = task_on(Denoising(width=8), discs(8))
    outputs = outputs_on(task, discs(8), size=8)
    assert (outputs["noisy"] - outputs["target"]).std() > 0.3


def test_it_learns() -> None:
    assert left(Denoising(width=32), steps=150) < 0.5
