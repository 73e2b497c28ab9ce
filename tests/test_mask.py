"""Masks: exact counts, patches rather than dust, and the share of samples that have any."""

from __future__ import annotations

import pytest
import torch

from selftaught.ops.mask import patches, patches_in_some, picked, scattered, uniform


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("grid", [(64,), (8, 8), (4, 4, 4), (1, 64), (2, 32)])
def test_counts_are_exact(grid: tuple[int, ...]) -> None:
    count = torch.tensor([0, 1, 20, 64])
    assert scattered(noise(4, 64), count).sum(1).tolist() == count.tolist()
    assert patches(noise(4, 64), count, grid).sum(1).tolist() == count.tolist()


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
