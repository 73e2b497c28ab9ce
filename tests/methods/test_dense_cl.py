"""DenseCL: its equations, which places match, what the queues hold, and that it learns."""

from __future__ import annotations

import math

import pytest
import torch

from selftaught.methods.dense_cl import DenseCL, matched
from tests.methods.check import CLOCK, cosine, drawn, found_again, gradients_are_right, outputs_of, total, trained
from tests.small import build


def ready(**options: object) -> DenseCL:
    options = {"temperature": 0.3, "queue": 7, "hidden": 8, "out_dim": 4, **options}
    return build(DenseCL(**options), dtype=torch.float64).method  # type: ignore[arg-type,return-value]


def some(batch: int = 3, places: int = 5) -> dict[str, torch.Tensor]:
    shapes = {"z": (batch, 1, 4), "key": (batch, 4), "dense": (batch, places, 4), "match": (batch, places, 4)}
    return {name: drawn(*shape, seed=number) for number, (name, shape) in enumerate(shapes.items())}


def row(query: torch.Tensor, key: torch.Tensor, queue: torch.Tensor) -> float:
    own, others = math.exp(cosine(query, key) / 0.3), sum(math.exp(cosine(query, q) / 0.3) for q in queue)
    return -math.log(own / (own + others))


def test_loss_is_equations_1_to_3() -> None:
    method, outputs = ready(dense=0.25), some()
    whole = [row(outputs["z"][i, 0], outputs["key"][i], method.queue.vectors) for i in range(3)]
    places = [
        row(outputs["dense"][i, n], outputs["match"][i, n], method.dense_queue.vectors)
        for i in range(3)
        for n in range(5)
    ]
    assert float(total(method, outputs)) == pytest.approx(0.75 * sum(whole) / 3 + 0.25 * sum(places) / 15)
    gradients_are_right(lambda x: total(method, {**outputs, "dense": x}), 3, 5, 4)


def test_matches_are_the_most_similar_places() -> None:
    here, there, values = drawn(2, 4, 3), drawn(2, 5, 3, seed=1), drawn(2, 5, 6, seed=2)
    found = matched(here, there, values)
    for b in range(2):
        for n in range(4):
            best = max(range(5), key=lambda m: float(cosine(here[b, n], there[b, m])))
            assert torch.equal(found[b, n], values[b, best])


def test_queues_take_the_whole_and_the_mean_of_places() -> None:
    task = build(DenseCL(queue=7, hidden=8, out_dim=4))
    outputs = outputs_of(task)
    assert outputs["dense"].shape == (6, 16, 4) and not outputs["match"].requires_grad
    task.method.after_step(outputs, CLOCK)
    for name, queue in (("key", task.method.queue), ("places", task.method.dense_queue)):  # type: ignore[union-attr]
        torch.testing.assert_close(queue.vectors[:6], torch.nn.functional.normalize(outputs[name], dim=1))  # type: ignore[union-attr,index]


def test_it_learns() -> None:
    method = DenseCL(queue=256, hidden=64, out_dim=32, momentum=0.9)
    assert found_again(trained(method)) > found_again(build(DenseCL()).eval())
