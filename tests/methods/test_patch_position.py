"""Patch position: its equation, where patches are cut, and that the guards against shortcuts matter."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from selftaught.methods.patch_position import PatchPosition
from selftaught.ops.patches import cut_at, one_channel, tiles
from selftaught.types import Sample
from tests.methods.check import drawn, gradients_are_right, total
from tests.pretexts import learned


def test_loss_is_the_cross_entropy_of_places() -> None:
    scores = drawn(2, 8, 8)
    rows = [math.log(float(scores[b, n].exp().sum())) - float(scores[b, n, n]) for b in range(2) for n in range(8)]
    assert float(total(PatchPosition(), {"scores": scores})) == pytest.approx(sum(rows) / 16, rel=1e-6)
    gradients_are_right(lambda x: total(PatchPosition(), {"scores": x}), 2, 3, 3)


def test_patches_are_cut_where_they_should_be() -> None:
    x = torch.arange(2 * 5 * 7.0).view(2, 1, 5, 7)
    found = cut_at(x, torch.tensor([[0, 2], [3, 4]]), (2, 3))
    assert torch.equal(found[0, 0], x[0, 0, 0:2, 2:5]) and torch.equal(found[1, 0], x[1, 0, 3:5, 4:7])


@pytest.mark.parametrize("space", [(30,), (24, 30), (12, 15, 18)])
def test_tiles_lie_in_their_cells(space: tuple[int, ...]) -> None:
    """The value at each place is its flat index: the first of a tile says where it was cut."""
    x = torch.arange(math.prod(space), dtype=torch.float64).view(1, 1, *space).expand(3, 1, *space)
    count = 3 ** len(space)
    jitter = torch.rand(3, count, len(space), generator=torch.Generator().manual_seed(0))
    found = tiles(x, jitter, 3, gap=0.25)
    assert found.shape == (3, count, 1, *(round(0.75 * (size // 3)) for size in space))
    for b in range(3):
        for n, place in enumerate(np.ndindex(*[3] * len(space))):
            start = np.unravel_index(int(found[b, n].flatten()[0]), space)
            end = np.unravel_index(int(found[b, n].flatten()[-1]), space)
            for axis, step in enumerate(place):
                cell = space[axis] // 3
                assert step * cell <= start[axis] and end[axis] < (step + 1) * cell


def test_one_channel_is_left() -> None:
    patches, noise = torch.ones(4, 6, 3, 5, 5), torch.rand(4, 6, generator=torch.Generator().manual_seed(0))
    found = one_channel(patches, noise, torch.zeros(4, 6, 3, 5, 5))
    assert (found.flatten(3).amax(3).sum(2) == 1).all()
    assert len(found.flatten(3).amax(3).argmax(2).unique()) == 3


def through_a_lens(count: int) -> list[Sample]:
    """Pictures without any content, gray noise, of which a lens shows red smaller and blue larger than green."""
    rng, samples = np.random.default_rng(0), []
    away = np.arange(64) - 31.5
    for _ in range(count):
        fine = rng.integers(0, 256, (72, 72)).astype(np.uint8)
        places = [np.rint(35.5 + by * away).astype(int) for by in (0.9, 1.0, 1.1)]
        samples.append(Sample({"image": np.stack([fine[place][:, place] for place in places], axis=-1)}))
    return samples


def test_the_guard_against_lenses_matters() -> None:
    """Nothing can be learned but the fringes of colours: eight places are told with them, and guessed without."""
    samples = through_a_lens(48)
    options = {"zoom": 3.0, "smallest": 1.0, "hidden": 64, "gap": 0.2}
    _, cheated = learned(PatchPosition(**options, drop=False), samples, steps=110, lr=5e-3)  # type: ignore[arg-type]
    _, honest = learned(PatchPosition(**options, drop=True), samples, steps=110, lr=5e-3)  # type: ignore[arg-type]
    assert cheated > 0.3 and honest < 0.2, (cheated, honest)


def test_it_learns_where_patches_lie() -> None:
    """Pictures bright above: rows are told, columns cannot be."""
    before, after = learned(PatchPosition(zoom=2.0, hidden=32), steps=60)
    assert after > 0.3 and before < 0.25
