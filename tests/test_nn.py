"""Small parts with weights or state: a bank, a centre, a module that is frozen while it learns, views through parts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from selftaught.nn.blocks import frozen
from selftaught.nn.centre import Centre
from selftaught.nn.heads import each_view
from selftaught.nn.memory import Bank
from selftaught.types import Features


def test_a_bank_needs_the_number_of_samples() -> None:
    with pytest.raises(ValueError, match=r"method\.samples"):
        Bank(0, 4)


def test_a_bank_moves_only_what_is_named() -> None:
    bank, fresh = Bank(5, 3), torch.randn(2, 3)
    before = bank.vectors.clone()
    bank.put(torch.tensor([4, 1]), fresh)
    torch.testing.assert_close(bank.vectors[[4, 1]], nn.functional.normalize(fresh, dim=1))
    assert torch.equal(bank.vectors[[0, 2, 3]], before[[0, 2, 3]])
    assert "vectors" in bank.state_dict()


def test_a_centre_is_taken_away_and_follows_what_counts() -> None:
    centre, scores = Centre(3), torch.tensor([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]])
    centre.follow(scores, momentum=0.5, weight=torch.tensor([True, False]))
    torch.testing.assert_close(centre.mean, torch.tensor([0.5, 1.0, 1.5]))
    torch.testing.assert_close(centre.sharpen(scores[0], temperature=0.5), (torch.tensor([1.0, 2.0, 3.0])).softmax(0))
    centre.follow(scores, momentum=0.5, weight=torch.zeros(2))
    torch.testing.assert_close(centre.mean, torch.tensor([0.5, 1.0, 1.5]))  # nothing counted


def test_frozen_passes_the_gradient_on_and_keeps_none() -> None:
    module, x = nn.Linear(3, 2), torch.randn(4, 3, requires_grad=True)
    frozen(module)(x).sum().backward()
    assert module.weight.grad is None
    torch.testing.assert_close(x.grad, module.weight.sum(0).detach().expand(4, 3))
    torch.testing.assert_close(frozen(module)(x), module(x))


def test_each_view_goes_through_all_parts() -> None:
    views = torch.randn(3, 2, 5)
    found = each_view(views, lambda x: Features(x * 2), nn.Identity(), lambda x: x + 1)
    torch.testing.assert_close(found, views * 2 + 1)
