"""Transformation: its equation, every task of every modality, and that it learns."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from selftaught.data.keys import generator
from selftaught.errors import MethodError
from selftaught.methods.transformation import Transformation
from selftaught.modalities.series import ORDERS, Series
from selftaught.types import Sample
from tests.methods.check import drawn, gradients_are_right, total
from tests.pretexts import learned


def rising(count: int) -> list[Sample]:
    """Two channels of 48 readings, high at first and low at the end, with noise."""
    rng = np.random.default_rng(0)
    line = np.linspace(2, -1, 48) + 0.3 * np.sin(np.arange(48) / 4)
    return [
        Sample(
            {"series": (line + rng.normal(0, 0.2, (2, 48))).astype(np.float32)},
            observed={"series": np.ones((2, 48), bool)},
        )
        for _ in range(count)
    ]


def test_loss_is_the_cross_entropy() -> None:
    scores, value = drawn(3, 2, 6), torch.tensor([[0, 5], [3, 2], [1, 4]])
    rows = [
        math.log(float(scores[b, v].exp().sum())) - float(scores[b, v, value[b, v]]) for b in range(3) for v in (0, 1)
    ]
    outputs = {"scores": scores, "value": value}
    assert float(total(Transformation(), outputs)) == pytest.approx(sum(rows) / 6, rel=1e-6)
    gradients_are_right(lambda x: total(Transformation(), {**outputs, "scores": x}), 3, 2, 6)


@pytest.mark.parametrize("task", ["direction", "order", "sign", "auto"])
def test_it_learns_what_was_done_to_a_series(task: str) -> None:
    before, after = learned(Transformation(task=task), rising(32), steps=60)
    assert after > 0.85 and before < 0.75


def test_it_learns_how_a_picture_was_turned() -> None:
    before, after = learned(Transformation(task="auto"), steps=40)
    assert after > 0.85 and before < 0.6


@pytest.mark.parametrize("task", ["direction", "order", "sign"])
def test_labels_say_what_was_done(task: str) -> None:
    series, (sample,) = Series(), rising(1)
    series.fit([sample])
    (group,) = Transformation(task=task, views=6).needs().plan
    (plain,) = Transformation(task="", views=6).needs().plan
    made, before = (series.views(sample, generator(0, "", 3), (one,)) for one in (group, plain))
    values = made.drawn["views"][task]
    assert len(set(values.tolist())) == series.pretext[task]
    mean = np.array(series.mean, np.float32)[:, None]
    for x, y, value in zip(before.streams["views"], made.streams["views"], values.tolist(), strict=True):
        thirds = np.array_split(x, 3, axis=1)
        ordered = np.concatenate([thirds[part] for part in ORDERS[value % 6]], axis=1)
        expected: dict[str, Any] = {"direction": x[:, ::-1] if value else x, "order": ordered}
        expected["sign"] = 2 * mean - x if value else x
        np.testing.assert_array_equal(y, expected[task])


def test_what_a_kind_of_data_lacks_is_refused() -> None:
    series, (sample,) = Series(), rising(1)
    series.fit([sample])
    with pytest.raises(MethodError, match="direction, order, sign"):
        series.views(sample, generator(0, "", 0), Transformation(task="rotation").needs().plan)
