"""Dropping tokens and putting them back, and masks between grids, against loops that say the same in plain words."""

from __future__ import annotations

import math

import pytest
import torch

from selftaught.ops.tokens import (
    all_positions,
    at_positions,
    cells,
    enlarge,
    from_cells,
    keep,
    put_back,
    shrink,
    wave_positions,
)
from selftaught.types import Tokens


def tokens_of(values: torch.Tensor, grid: tuple[int, ...], valid: torch.Tensor | None = None) -> Tokens:
    return Tokens(values, all_positions(len(values), grid), grid, valid)


def test_keep_drops_the_hidden_ones_and_keeps_positions():
    values = torch.randn(2, 6, 3)
    hidden = torch.tensor([[1, 0, 0, 1, 0, 1], [0, 1, 1, 0, 1, 0]], dtype=torch.bool)
    kept = keep(tokens_of(values, (2, 3)), hidden)
    assert kept.position.tolist() == [[1, 2, 4], [0, 3, 5]]
    assert kept.valid is None
    assert kept.grid == (2, 3)
    torch.testing.assert_close(kept.values, torch.stack([values[0, [1, 2, 4]], values[1, [0, 3, 5]]]))


def test_keep_pads_where_samples_hide_different_numbers():
    values = torch.randn(2, 4, 3)
    hidden = torch.tensor([[1, 1, 1, 0], [0, 0, 0, 1]], dtype=torch.bool)
    kept = keep(tokens_of(values, (4,)), hidden)
    assert kept.valid is not None and kept.valid.tolist() == [[True, False, False], [True, True, True]]
    assert kept.position[0, 0] == 3


def test_keep_never_shows_padding():
    valid = torch.tensor([[True, True, False, False]])
    kept = keep(tokens_of(torch.randn(1, 4, 2), (4,), valid), torch.tensor([[False, True, False, True]]))
    assert kept.position.tolist() == [[0]]


def test_keep_refuses_to_drop_everything():
    with pytest.raises(ValueError, match="every token"):
        keep(tokens_of(torch.randn(2, 3, 2), (3,)), torch.ones(2, 3, dtype=torch.bool))


@pytest.mark.parametrize("even", [True, False])
def test_put_back_undoes_keep(even: bool):
    values = torch.randn(3, 8, 4)
    hidden = torch.zeros(3, 8, dtype=torch.bool)
    for row, places in enumerate([(0, 3), (1, 2), (5, 7)] if even else [(0,), (1, 2, 4), ()]):
        hidden[row, list(places)] = True
    fill = torch.randn(4, requires_grad=True)
    whole = put_back(keep(tokens_of(values, (2, 4)), hidden), fill)
    torch.testing.assert_close(whole, torch.where(hidden[..., None], fill, values))
    whole.sum().backward()
    assert fill.grad is not None
    torch.testing.assert_close(fill.grad, torch.full((4,), float(hidden.sum())))


def test_put_back_into_a_whole_grid():
    values, grid = torch.randn(1, 4, 2), torch.randn(1, 4, 2)
    hidden = torch.tensor([[False, True, True, False]])
    whole = put_back(keep(tokens_of(values, (4,)), hidden), grid)
    torch.testing.assert_close(whole, torch.where(hidden[..., None], grid, values))


def test_at_positions_looks_rows_up():
    table = torch.randn(5, 2)
    position = torch.tensor([[4, 0], [2, 2]])
    torch.testing.assert_close(at_positions(table, position), table[position])


@pytest.mark.parametrize(("few", "many", "stride"), [((2, 3), (4, 6), 2), ((3, 4), (5, 7), 2), ((4,), (13,), 4)])
def test_enlarge_follows_the_strides(few, many, stride):
    cells = torch.rand(2, *few) < 0.5
    large = enlarge(cells.flatten(1), few, many).unflatten(1, many)
    for place in torch.cartesian_prod(*[torch.arange(size) for size in many]).reshape(-1, len(many)).tolist():
        under = tuple(axis // stride for axis in place)
        assert torch.equal(large[(slice(None), *place)], cells[(slice(None), *under)])


def test_enlarge_shares_out_evenly_where_no_stride_fits():
    cells = torch.tensor([[True, False, True, False]])
    assert enlarge(cells, (4,), (5,)).tolist() == [[True, True, False, True, False]]


@pytest.mark.parametrize(
    ("space", "grid", "stride"), [((13,), (4,), 4), ((5, 8), (3, 4), 2), ((4, 6, 6), (2, 3, 3), 2)]
)
def test_shrink_keeps_cells_that_hold_anything(space, grid, stride):
    valid = torch.rand(3, *space) < 0.2
    small = shrink(valid, grid).unflatten(1, grid)
    for place in torch.cartesian_prod(*[torch.arange(size) for size in grid]).reshape(-1, len(grid)).tolist():
        block = valid[(slice(None), *(slice(at * stride, (at + 1) * stride) for at in place))]
        assert torch.equal(small[(slice(None), *place)], block.flatten(1).any(1))


def test_cells_are_what_lies_under_the_tokens():
    x = torch.arange(2 * 2 * 4 * 6, dtype=torch.float32).view(2, 2, 4, 6)
    found = cells(x, (2, 3))
    assert found.shape == (2, 6, 8)
    for b in range(2):
        for n, (row, column) in enumerate((r, c) for r in range(2) for c in range(3)):
            patch = x[b, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]  # (C, 2, 2)
            assert torch.equal(found[b, n], patch.permute(1, 2, 0).flatten())


@pytest.mark.parametrize(
    ("shape", "grid"), [((3, 12), (4,)), ((1, 13), (4,)), ((3, 7, 9), (2, 3)), ((2, 4, 5, 6), (2, 2, 3))]
)
def test_cells_come_back(shape: tuple[int, ...], grid: tuple[int, ...]):
    x = torch.randn(2, *shape)
    assert torch.equal(from_cells(cells(x, grid), grid, shape), x)


def test_cells_past_the_end_are_zero():
    assert cells(torch.ones(1, 1, 5), (2,)).tolist() == [[[1, 1, 1], [1, 1, 0]]]


def test_positions_are_sines_and_cosines_of_each_axis():
    table = wave_positions((3, 4), 10)
    assert table.shape == (12, 10)
    for n, (row, column) in enumerate((r, c) for r in range(3) for c in range(4)):
        waves = [1.0, 10_000**-0.5]
        expected = [f(place * w) for place in (row, column) for f in (math.sin, math.cos) for w in waves]
        assert table[n].tolist() == pytest.approx([*expected, 0, 0], abs=1e-6)
