"""Rotation: its equation, that the labels are true, and that it learns."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from selftaught.data.keys import generator
from selftaught.methods.rotation import Rotation
from selftaught.modalities.image import Image
from selftaught.types import Batch
from tests.methods.check import CLOCK, drawn, gradients_are_right, total
from tests.pretexts import batches_of, learned, shaded


def test_loss_is_equation_2() -> None:
    scores, turned = drawn(3, 4, 4), torch.tensor([[0, 1, 2, 3], [3, 2, 1, 0], [1, 0, 3, 2]])
    rows = []
    for b in range(3):
        for v in range(4):
            logs = [float(one) for one in scores[b, v]]
            rows.append(math.log(sum(map(math.exp, logs))) - logs[turned[b, v]])
    outputs = {"scores": scores, "turned": turned}
    assert float(total(Rotation(), outputs)) == pytest.approx(sum(rows) / 12, rel=1e-6)
    gradients_are_right(lambda x: total(Rotation(), {**outputs, "scores": x}), 3, 4, 4)


def test_guessing_costs_log_4() -> None:
    outputs = {"scores": torch.zeros(5, 4, 4), "turned": torch.zeros(5, 4, dtype=torch.long)}
    assert float(total(Rotation(), outputs)) == pytest.approx(math.log(4))


def test_labels_say_how_views_are_turned() -> None:
    """The crop that a plan without a pretext gives, turned back."""
    image = Image(size=32)
    samples = image.toy(8)
    image.fit(samples)
    (group,) = Rotation().needs().plan
    plain = (type(group)(group.name, group.count, group.size, group.geometry, group.photometry),)
    for p, sample in enumerate(samples):
        made = image.views(sample, generator(0, "", p), (group,))
        upright = image.views(sample, generator(0, "", p), plain)
        turns = made.drawn["views"]["rotation"]
        assert sorted(turns.tolist()) == [0, 1, 2, 3]
        for view, k, before in zip(made.streams["views"], turns, upright.streams["views"], strict=True):
            assert np.array_equal(np.rot90(view, -int(k)), before)


@pytest.mark.parametrize("views", [1, 4, 6])
def test_it_learns_which_way_is_up(views: int) -> None:
    """Pictures that are bright above: told apart after a few steps, at chance before."""
    before, after = learned(Rotation(views=views), steps=40)
    assert after > 0.9 > 0.6 > before


def test_each_turn_once() -> None:
    batch: Batch = next(batches_of(Rotation(), 8, shaded(8)))
    outputs = {"scores": torch.zeros(8, 4, 4), "turned": batch["views"].drawn["rotation"]}
    assert outputs["turned"].sort(1).values.tolist() == [[0, 1, 2, 3]] * 8
    assert float(total(Rotation(), outputs, CLOCK)) == pytest.approx(math.log(4))
