"""Autoencoder: its equation, the bottleneck, and that it learns."""

from __future__ import annotations

import pytest

from selftaught.methods.autoencoder import Autoencoder
from tests.methods.check import drawn, gradients_are_right, total
from tests.pretexts import discs, left, outputs_on, task_on


def test_loss_is_the_mean_square() -> None:
    back, target = drawn(3, 2, 4, 4), drawn(3, 2, 4, 4, seed=1)
    rows = [(float(p) - float(q)) ** 2 for p, q in zip(back.flatten(), target.flatten(), strict=True)]
    outputs = {"back": back, "target": target}
    assert float(total(Autoencoder(), outputs)) == pytest.approx(sum(rows) / len(rows))
    gradients_are_right(lambda x: total(Autoencoder(), {**outputs, "back": x}), 3, 2, 4, 4)


def test_everything_goes_through_the_code() -> None:
    outputs = outputs_on(task_on(Autoencoder(code=5, width=8), discs(8)), discs(8), size=4)
    assert outputs["z"].shape == (4, 5) and outputs["back"].shape == outputs["target"].shape == (4, 3, 16, 16)


def test_it_learns() -> None:
    assert left(Autoencoder(code=8, width=32), steps=150) < 0.5
