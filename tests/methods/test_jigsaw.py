"""Jigsaw: its equation, orders far from each other, the guards, and that it learns."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from selftaught.encoders import make
from selftaught.methods.jigsaw import Jigsaw
from selftaught.ops.patches import far_permutations, levelled
from tests.methods.check import drawn, gradients_are_right, total
from tests.pretexts import learned


def test_loss_is_the_cross_entropy_of_orders() -> None:
    scores, order = drawn(4, 10), torch.tensor([0, 3, 9, 3])
    rows = [math.log(float(scores[b].exp().sum())) - float(scores[b, order[b]]) for b in range(4)]
    outputs = {"scores": scores, "order": order}
    assert float(total(Jigsaw(), outputs)) == pytest.approx(sum(rows) / 4, rel=1e-6)
    gradients_are_right(lambda x: total(Jigsaw(), {**outputs, "scores": x}), 4, 10)


@pytest.mark.parametrize(("items", "count", "apart"), [(9, 64, 7), (8, 64, 6), (5, 20, 3), (3, 6, 2)])
def test_orders_are_far_from_each_other(items: int, count: int, apart: int) -> None:
    orders = far_permutations(items, count)
    assert orders.shape == (count, items) and orders[0].tolist() == list(range(items))
    assert (orders.sort(1).values == torch.arange(items)).all()
    assert min(int((a != b).sum()) for a, b in itertools.combinations(orders, 2)) >= apart


def test_a_few_things_have_few_orders() -> None:
    assert len(far_permutations(3, 100)) == 6


def test_levelled_tiles_have_no_mean_and_no_spread() -> None:
    found = levelled(5 + 3 * drawn(2, 9, 3, 4, 4)).flatten(3)
    torch.testing.assert_close(found.mean(-1), torch.zeros(2, 9, 3, dtype=torch.float64), rtol=0, atol=1e-9)
    torch.testing.assert_close(found.std(-1, correction=0), torch.ones(2, 9, 3, dtype=torch.float64), rtol=2e-3, atol=0)


def test_tiles_of_pictures_series_and_volumes() -> None:
    for shape, tiles in (((3, 32, 32), 9), ((2, 64), 5), ((1, 16, 16, 16), 8)):
        method = Jigsaw(hidden=8, out_dim=4)
        method.build({"encoder": make("small", shape, width=8)})
        assert method.orders.shape[1] == tiles


def test_it_learns_the_order() -> None:
    """Pictures bright above: four orders that are told by where the bright tiles went."""
    before, after = learned(Jigsaw(permutations=4, hidden=64, level=False), steps=60)
    assert after > 0.8 and before < 0.6
