"""CAPI: its equations, balance, what the student sees, where gradients go, and that it learns."""

from __future__ import annotations

import math

import pytest
import torch

from selftaught.methods.capi import CAPI
from selftaught.ops.assignment import sinkhorn
from selftaught.types import Batch, Stream
from tests.methods.check import CLOCK, drawn, gradients_are_right, outputs_of, total
from tests.pretexts import discs, outputs_on, task_on, train
from tests.small import build

SMALL = {"clusters": 6, "depth": 1, "width": 16}


def capi(**options: object) -> CAPI:
    return CAPI(**{**SMALL, **options})  # type: ignore[arg-type]


def test_loss_is_two_cross_entropies_with_balanced_clusters() -> None:
    place, told = drawn(3, 4, 6) / 3, drawn(3, 4, 6, seed=1) / 3
    hidden = torch.tensor([[1, 0, 1, 0], [0, 1, 1, 0], [1, 1, 0, 0]], dtype=torch.bool)
    target = sinkhorn(place.flatten(0, 1), epsilon=0.1).unflatten(0, (3, 4))
    sorting, guesses = [], []
    for b in range(3):
        for n in range(4):
            for rows, scores in ((sorting, place), (guesses, told)):
                logs = [float(one) / 0.3 for one in scores[b, n]]
                norm = math.log(sum(map(math.exp, logs)))
                if rows is sorting or hidden[b, n]:
                    rows.append(-sum(float(t) * (one - norm) for t, one in zip(target[b, n], logs, strict=True)))
    outputs = {"place": place, "told": told, "hidden": hidden}
    method = capi(temperature=0.3, epsilon=0.1)
    expected = sum(sorting) / 12 + sum(guesses) / 6
    assert float(total(method, outputs)) == pytest.approx(expected, rel=1e-6)
    gradients_are_right(lambda x: total(method, {**outputs, "told": x}), 3, 4, 6)


def test_clusters_are_balanced() -> None:
    shares = capi(epsilon=0.05).balanced(drawn(16, 9, 6) / 6)
    torch.testing.assert_close(shares.sum(-1), torch.ones(16, 9, dtype=torch.float64))
    torch.testing.assert_close(shares.mean((0, 1)), torch.full((6,), 1 / 6, dtype=torch.float64), rtol=0.5, atol=0)


def test_the_student_does_not_see_what_is_hidden() -> None:
    task = build(capi()).eval()
    x = torch.randn(4, 1, 1, 8, 8)
    batch = Batch({"views": Stream(x)}, torch.arange(4), torch.arange(4))
    first = task.method(task.encoders, batch, CLOCK)
    pixels = first["hidden"].view(4, 1, 1, 4, 4).repeat_interleave(2, 3).repeat_interleave(2, 4)
    again = task.method(task.encoders, batch.replace(streams={"views": Stream(torch.where(pixels, 9.0, x))}), CLOCK)
    torch.testing.assert_close(first["told"], again["told"])
    assert not torch.equal(first["place"], again["place"])


def test_sorting_moves_the_clusters_alone() -> None:
    task = build(capi())
    terms = task.method.loss(outputs_of(task), CLOCK)
    parameters = {name: p for name, p in task.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(terms["clusters"][0], list(parameters.values()), allow_unused=True)
    moved = [name for name, gradient in zip(parameters, found, strict=True) if gradient is not None]
    assert moved == ["method.sorted_by.weight"]


def test_it_learns() -> None:
    """The clusters of hidden places are told, more often than the commonest of them is right."""
    samples, method = discs(32), capi(clusters=8, width=32, masked=0.5)
    task = task_on(method, samples)
    train(task, samples, steps=200)
    outputs = outputs_on(task, samples)
    hidden, target = outputs["hidden"], method.balanced(outputs["place"]).argmax(-1)
    right = (outputs["told"].argmax(-1) == target)[hidden].float().mean()
    assert right > target[hidden].bincount().max() / hidden.sum() + 0.05
