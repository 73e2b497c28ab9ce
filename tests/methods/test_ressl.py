"""ReSSL: its equations, its weak and strong views, and that it learns."""

from __future__ import annotations

import math

import pytest
import torch

from selftaught.methods.ressl import ReSSL
from tests.methods.check import CLOCK, cosine, drawn, found_again, gradients_are_right, outputs_of, total, trained
from tests.small import build


def ready(**options: float) -> ReSSL:
    return build(ReSSL(queue=9, hidden=8, out_dim=4, **options), dtype=torch.float64).method  # type: ignore[arg-type,return-value]


def test_loss_is_equation_5() -> None:
    method = ready(temperature=0.3, teacher_temperature=0.2)
    z, key, queue = drawn(5, 1, 4), drawn(5, 4, seed=1), method.queue.vectors

    def shares(v: torch.Tensor, temperature: float) -> list[float]:
        raw = [math.exp(cosine(v, q) / temperature) for q in queue]
        return [one / sum(raw) for one in raw]

    rows = [
        -sum(p * math.log(q) for p, q in zip(shares(key[i], 0.2), shares(z[i, 0], 0.3), strict=True)) for i in range(5)
    ]
    assert float(total(method, {"z": z, "key": key})) == pytest.approx(sum(rows) / 5)
    gradients_are_right(lambda x: total(method, {"z": x, "key": key}), 5, 1, 4)


def test_a_collapsed_encoder_is_at_chance() -> None:
    method = ready()
    method.queue.vectors.copy_(torch.full((9, 4), 0.5))
    ones = torch.ones(5, 4, dtype=torch.float64)
    assert float(total(method, {"z": ones[:, None], "key": ones})) == pytest.approx(math.log(9))


def test_the_teacher_sees_the_weak_view() -> None:
    strong, weak = ReSSL().needs().plan[0].photometry
    assert (strong.colour, strong.blur) == (0.5, 0.5) and (weak.colour, weak.gray, weak.blur) == (0, 0, 0)
    task = build(ReSSL(queue=9, hidden=8, out_dim=4))
    seen = []
    task.method.teacher["encoder"].register_forward_hook(lambda m, inputs, out: seen.append(inputs[0]))  # type: ignore[index]
    outputs = outputs_of(task)
    assert outputs["z"].shape == (6, 1, 4) and not outputs["key"].requires_grad and seen[0].shape[0] == 6
    task.method.after_step(outputs, CLOCK)
    keys = torch.nn.functional.normalize(outputs["key"], dim=1)
    torch.testing.assert_close(task.method.queue.vectors[:6], keys)  # type: ignore[union-attr]


def test_it_learns() -> None:
    assert found_again(trained(ReSSL(queue=256))) > found_again(build(ReSSL(queue=9)).eval())
