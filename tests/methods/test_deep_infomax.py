"""Deep InfoMax: the estimator and the prior, who learns from which term, and that it learns."""

from __future__ import annotations

import math

import pytest
import torch

from selftaught.methods.deep_infomax import DeepInfoMax, jensen_shannon
from tests.methods.check import drawn, found_again, gradients_are_right, outputs_of, total, trained
from tests.small import build


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_estimator_is_equation_4() -> None:
    vectors, places, rows = drawn(4, 3), drawn(4, 5, 3, seed=1), []
    for i in range(4):
        scores = {(j, n): float(vectors[i] @ places[j, n]) / math.sqrt(3) for j in range(4) for n in range(5)}
        own = sum(softplus(-scores[i, n]) for n in range(5)) / 5
        others = sum(softplus(s) for (j, _), s in scores.items() if j != i) / 15
        rows.append(own + others)
    assert jensen_shannon(vectors, places, start=0).tolist() == pytest.approx(rows)
    zero = jensen_shannon(torch.zeros(3, 2), torch.zeros(3, 4, 2), start=0)
    torch.testing.assert_close(zero, torch.full((3,), 2 * math.log(2)))
    gradients_are_right(lambda x: jensen_shannon(x, places, start=0).sum(), 4, 3)


@pytest.mark.parametrize("views", [1, 2])
def test_terms_and_their_weights(views: int) -> None:
    """Each view's vector against the other view's places; with one view, its own."""
    method = DeepInfoMax(views=views, whole=0.5, places=1.0, prior=0.1)
    shapes = {"vector": (3,), "whole": (3,), "place_vector": (3,), "places": (5, 3), "z": (2,)}
    shapes |= {"drawn": (), "taken": (), "fooled": ()}
    outputs = {name: drawn(4, views, *shape, seed=n) for n, (name, shape) in enumerate(shapes.items())}
    pairs = [(0, 1), (1, 0)] if views == 2 else [(0, 0)]

    def term(vector: str, places: str) -> float:
        each = [(outputs[vector][:, a], outputs[places][:, b].reshape(4, -1, 3)) for a, b in pairs]
        return sum(float(jensen_shannon(v, p, start=0).mean()) for v, p in each) / len(each)

    fooled = [softplus(-float(x)) for x in outputs["fooled"].flatten()]
    judged = [
        softplus(-float(a)) + softplus(float(b))
        for a, b in zip(outputs["drawn"].flatten(), outputs["taken"].flatten(), strict=True)
    ]
    expected = 0.5 * term("vector", "whole") + term("place_vector", "places")
    expected += 0.1 * sum(fooled) / len(fooled) + sum(judged) / len(judged)
    assert float(total(method, outputs)) == pytest.approx(expected)


def test_the_adversary_and_the_encoder_learn_from_their_own_terms() -> None:
    task = build(DeepInfoMax(hidden=16, out_dim=8))
    terms = task.method.loss(outputs_of(task), None)  # type: ignore[arg-type]
    terms["prior"][0].backward(retain_graph=True)
    adversary = list(task.method.adversary.parameters())  # type: ignore[union-attr]
    assert all(p.grad is None for p in adversary)
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in task.encoders.parameters())
    task.zero_grad()
    terms["adversary"][0].backward(retain_graph=True)
    assert all(p.grad is not None for p in adversary) and all(p.grad is None for p in task.encoders.parameters())


def test_it_learns() -> None:
    assert found_again(trained(DeepInfoMax(hidden=64, out_dim=32, prior=0.0))) > found_again(
        build(DeepInfoMax()).eval()
    )
