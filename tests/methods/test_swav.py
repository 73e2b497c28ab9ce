"""SwAV: its equations, the queue, multi-crop, and that it learns."""

from __future__ import annotations

import math

import pytest
import torch

from selftaught.methods.swav import SwAV
from selftaught.ops.assignment import sinkhorn
from tests.methods.check import CLOCK, clock_at, drawn, found_again, gradients_are_right, outputs_of, total, trained
from tests.small import build

SMALL = {"prototypes": 6, "hidden": 8, "out_dim": 4, "small": 0}


def ready(**options: float) -> SwAV:
    return build(SwAV(**{**SMALL, "queue": 0, **options}), dtype=torch.float64).method  # type: ignore[arg-type,return-value]


def test_loss_is_equations_1_and_2_over_all_pairs() -> None:
    """Codes of the two large views; every other view predicts them."""
    scores, method = drawn(5, 4, 6), ready(temperature=0.3, epsilon=0.2)
    codes = [sinkhorn(scores[:, v], epsilon=0.2) for v in (0, 1)]
    rows = []
    for i in range(5):
        for v in (0, 1):
            for w in range(4):
                if w != v:
                    shares = [math.exp(s / 0.3) for s in scores[i, w].tolist()]
                    logs = [math.log(one / sum(shares)) for one in shares]
                    rows.append(-sum(q * log for q, log in zip(codes[v][i].tolist(), logs, strict=True)))
    assert float(total(method, {"scores": scores})) == pytest.approx(sum(rows) / len(rows))
    constant = [torch.ones(5, 6, dtype=torch.float64) / 6 for _ in (0, 1)]
    method._assign = lambda scores, view, clock: constant[view]  # type: ignore[method-assign]  # codes take no gradient
    gradients_are_right(lambda x: total(method, {"scores": x}), 5, 3, 6)


def test_a_collapsed_encoder_is_at_chance() -> None:
    assert float(total(ready(), {"scores": torch.ones(5, 2, 6)})) == pytest.approx(math.log(6))


def test_the_queue_is_assigned_along_from_its_time_on() -> None:
    method, scores = ready(queue=16, queue_from=0.5), drawn(5, 2, 6) / 4
    queue = method.prototypes(method.queues[0].vectors)
    alone, along = (method._assign(scores[:, 0], 0, clock_at(step)) for step in (4, 5))
    torch.testing.assert_close(alone, sinkhorn(scores[:, 0], epsilon=0.05))
    torch.testing.assert_close(along, sinkhorn(torch.cat([scores[:, 0], queue]), epsilon=0.05)[:5])
    assert not torch.allclose(alone, along)


def test_large_views_are_queued() -> None:
    task = build(SwAV(**{**SMALL, "queue": 16}))  # type: ignore[arg-type]
    outputs = outputs_of(task)
    task.method.after_step(outputs, CLOCK)
    for view in (0, 1):
        expected = torch.nn.functional.normalize(outputs["z"][:, view], dim=1)
        torch.testing.assert_close(task.method.queues[view].vectors[:6], expected)  # type: ignore[index]


def test_plan_is_multi_crop() -> None:
    large, small = SwAV(small=4, smallest=0.25).needs().plan
    assert (large.count, large.size, large.geometry.scale) == (2, 1.0, (0.25, 1.0))
    assert (small.count, small.geometry.scale) == (4, (0.05, 0.25)) and small.size == pytest.approx(96 / 224)
    assert len(SwAV(small=0).needs().plan) == 1


def test_it_learns() -> None:
    method = SwAV(prototypes=32, hidden=64, out_dim=32, small=0, queue=128)
    assert found_again(trained(method)) > found_again(build(SwAV()).eval())
