"""TimeContrast: its equation, and that the second view is the neighbour's."""

from __future__ import annotations

import numpy as np
import torch

from selftaught.commands.samples import open_samples
from selftaught.data.fetch import Samples, neighbours
from selftaught.data.keys import generator
from selftaught.methods.time_contrast import BESIDE, TimeContrast
from selftaught.ops.losses import nt_xent
from tests.methods.check import drawn, total


def recording(rows: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Windows (N, T) whose readings are their own number, and the session each is of."""
    return np.repeat(np.arange(rows, dtype=np.float32)[:, None], 32, axis=1), np.array(["a", "a", "a", "b", "b", "c"])


def opened() -> Samples:
    x, session = recording()
    data = {"x": x, "y": np.zeros(len(x), int), "group": session}
    found = open_samples(data, {"name": "series"})
    found.modality.fit([found.modality.read(found.index.item(i)) for i in range(6)])
    plan = TimeContrast(noise=0.0).needs().plan
    return Samples(found.index, found.modality, plan)


def test_neighbours_are_of_the_same_group() -> None:
    index = opened().index
    assert [neighbours(index, i) for i in range(6)] == [[1], [0, 2], [1], [4], [3], []]


def test_second_view_is_a_neighbours() -> None:
    samples = opened()
    beside = set()
    for p in range(40):
        views = samples.views(1, generator(0, "", p))
        np.testing.assert_allclose(views.streams["views"], 1.0, atol=1e-4)
        beside.add(round(float(views.streams[BESIDE].mean())))
        assert "box" in views.drawn[BESIDE]
    assert beside == {0, 2}  # the one before and the one after, drawn
    alone = samples.views(5, generator(0, "", 0))
    np.testing.assert_allclose(alone.streams[BESIDE], 5.0, atol=1e-4)


def test_same_key_same_neighbour() -> None:
    samples = opened()
    first, again = (samples.views(1, generator(0, "", 3)).streams[BESIDE] for _ in range(2))
    assert np.array_equal(first, again)


def test_loss_is_nt_xent_between_neighbours() -> None:
    z = drawn(5, 2, 4)
    torch.testing.assert_close(
        total(TimeContrast(temperature=0.3), {"z": z}), nt_xent(z, z, start=0, temperature=0.3).mean()
    )
