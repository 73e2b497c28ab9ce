"""Products in pieces: the same sums and the same gradients as all at once, and memory that stays small."""

from __future__ import annotations

import pytest
import torch

from selftaught.ops import similarity
from selftaught.ops.losses import nt_xent, told_apart
from selftaught.ops.similarity import log_sum_exp


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("skip", [None, torch.tensor([[0, 1], [5, 8], [8, 2], [3, 4], [6, 0]])])
def test_it_is_the_logarithm_of_the_sum(skip: torch.Tensor | None) -> None:
    a, k = drawn(5, 3), drawn(9, 3, seed=1)
    for i in range(5):
        left_out = [] if skip is None else skip[i].tolist()
        expected = torch.stack([(2 * a[i] @ k[j]).exp() for j in range(9) if j not in left_out]).sum().log()
        torch.testing.assert_close(log_sum_exp(a, k, scale=2.0, skip=skip)[i], expected)


@pytest.mark.parametrize("pieces", [9, 18, 30])
def test_pieces_are_the_whole(monkeypatch: pytest.MonkeyPatch, pieces: int) -> None:
    a, k, skip = drawn(5, 3).requires_grad_(), drawn(9, 3, seed=1).requires_grad_(), torch.arange(5)[:, None]
    weight = drawn(5, seed=2)
    whole = log_sum_exp(a, k, scale=2.0, skip=skip)
    wanted = torch.autograd.grad((whole * weight).sum(), (a, k))
    monkeypatch.setattr(similarity, "AT_ONCE", pieces)
    found = log_sum_exp(a, k, scale=2.0, skip=skip)
    torch.testing.assert_close(found, whole)
    for one, other in zip(torch.autograd.grad((found * weight).sum(), (a, k)), wanted, strict=True):
        torch.testing.assert_close(one, other)
    assert torch.autograd.gradcheck(lambda x, y: log_sum_exp(x, y, scale=2.0, skip=skip), (a, k))


def test_losses_do_not_change_with_the_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    z = drawn(6, 2, 4).requires_grad_()

    def both() -> tuple[torch.Tensor, torch.Tensor]:
        loss = nt_xent(z, z, start=0, temperature=0.3).sum()
        loss = loss + told_apart(z[:, 0], z[:, 1], torch.arange(6), temperature=0.3).sum()
        return loss, torch.autograd.grad(loss, z)[0]

    whole = both()
    monkeypatch.setattr(similarity, "AT_ONCE", 24)
    for one, other in zip(both(), whole, strict=True):
        torch.testing.assert_close(one, other)
