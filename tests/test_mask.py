"""Masks: exact counts, patches rather than dust, and the share of samples that have any."""

from __future__ import annotations

import math

import pytest
import torch

from selftaught.ops.mask import (
    MASKS,
    block,
    block_size,
    hidden_cells,
    patches,
    patches_in_some,
    picked,
    regular,
    scattered,
    uniform,
)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("grid", [(64,), (8, 8), (4, 4, 4), (1, 64), (2, 32)])
def test_counts_are_exact(grid: tuple[int, ...]) -> None:
    count = torch.tensor([0, 1, 20, 64])
    assert scattered(noise(4, 64), count).sum(1).tolist() == count.tolist()
    assert patches(noise(4, 64), count, grid).sum(1).tolist() == count.tolist()
    assert regular(noise(4, len(grid)), count, grid).sum(1).tolist() == count.tolist()


def test_patches_hang_together() -> None:
    """Hidden cells have more hidden neighbours than scattered ones have."""
    count = torch.full((200,), 60)
    z = noise(200, 14 * 14)

    def neighbours(hidden: torch.Tensor) -> float:
        on = hidden.view(-1, 14, 14).float()
        return float((on[:, 1:] * on[:, :-1]).sum() + (on[:, :, 1:] * on[:, :, :-1]).sum()) / float(on.sum())

    assert neighbours(patches(z, count, (14, 14))) > 1.8 * neighbours(scattered(z, count))


def test_some_samples_have_patches() -> None:
    hidden = patches_in_some(noise(4000, 66), (8, 8), some=0.3, low=0.25, high=0.5)
    counts = hidden.sum(1)
    assert (counts > 0).float().mean() == pytest.approx(0.3, abs=0.03)
    assert counts[counts > 0].min() >= 16 and counts.max() <= 32
    assert counts[counts > 0].float().mean() == pytest.approx(24, abs=0.5)


def test_uniform_is_uniform() -> None:
    u = uniform(noise(100_000)).sort().values
    torch.testing.assert_close(u, torch.linspace(0, 1, 100_000), rtol=0, atol=0.01)
    assert u.min() >= 0 and float(uniform(torch.tensor(50.0))) < 1


def test_picked() -> None:
    values = noise(2, 5, 3)
    found = picked(values, torch.tensor([[4, 0], [1, 1]]))
    assert torch.equal(found[0], values[0, [4, 0]]) and torch.equal(found[1], values[1, [1, 1]])


def test_a_regular_mask_keeps_one_of_four() -> None:
    """Three quarters hidden: one cell of every two by two stays, the same one everywhere in a sample."""
    hidden = regular(noise(50, 2), torch.full((50,), 48), (8, 8)).view(50, 4, 2, 4, 2)
    assert ((~hidden).sum((2, 4)) == 1).all()
    first = hidden[:, :1, :, :1].expand_as(hidden)
    assert torch.equal(hidden, first) and len(hidden[:, 0, :, 0].flatten(1).unique(dim=0)) == 4


def test_a_regular_mask_of_half_is_a_chequerboard() -> None:
    hidden = regular(noise(20, 2), torch.full((20,), 32), (8, 8)).view(20, 8, 8)
    assert (hidden[:, 1:] != hidden[:, :-1]).all() and (hidden[:, :, 1:] != hidden[:, :, :-1]).all()
    line = regular(noise(20, 1), torch.full((20,), 8), (16,))
    assert (line[:, 1:] != line[:, :-1]).all()


@pytest.mark.parametrize("grid", [(8, 8), (3, 3), (16,), (4, 4, 4), (1, 5)])
@pytest.mark.parametrize("kind", MASKS)
def test_shares_of_hidden_cells(kind: str, grid: tuple[int, ...]) -> None:
    total = math.prod(grid)
    for share in (0.01, 0.5, 0.75, 0.99):
        counts = hidden_cells(kind, noise(6, total), share, grid).sum(1)
        assert counts.tolist() == [min(total - 1, max(1, round(share * total)))] * 6


def test_blocks_are_boxes_inside() -> None:
    hidden = block(noise(300, 2), (2, 3), (5, 7)).view(300, 5, 7)
    for one in hidden:
        rows, columns = one.any(1).nonzero().flatten(), one.any(0).nonzero().flatten()
        assert one.sum() == 6 and rows[-1] - rows[0] == 1 and columns[-1] - columns[0] == 2
    assert hidden.any(0).all()  # every cell is in one of them
    assert block(noise(4, 1), (3,), (3,)).all()


def test_sizes_of_blocks() -> None:
    assert block_size(0.25, 1.0, (8, 8)) == (4, 4)
    assert block_size(0.25, 4.0, (8, 8)) == (8, 2)
    assert block_size(0.5, 1.0, (16,)) == (8,)
    assert block_size(0.125, 1.0, (4, 4, 4)) == (2, 2, 2)
    assert block_size(0.001, 1.0, (4, 4)) == (1, 1) and block_size(1.0, 3.0, (4, 4)) == (4, 2)
