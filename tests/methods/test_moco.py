"""MoCo v1 and v2: the equation, the queue, the teacher, and that it learns."""

from __future__ import annotations

import math

import pytest
import torch

from selftaught.methods.moco import MoCo
from tests.methods.check import CLOCK, cosine, drawn, found_again, gradients_are_right, outputs_of, total, trained
from tests.small import build


def ready(**options: float) -> MoCo:
    return build(MoCo(queue=12, hidden=8, out_dim=4, **options), dtype=torch.float64).method  # type: ignore[arg-type,return-value]


def test_loss_is_equation_1() -> None:
    method = ready(temperature=0.3)
    z, key, queue = drawn(5, 1, 4), drawn(5, 4, seed=1), method.queue.vectors

    def row(i: int) -> float:
        own = math.exp(cosine(z[i, 0], key[i]) / 0.3)
        return -math.log(own / (own + sum(math.exp(cosine(z[i, 0], other) / 0.3) for other in queue)))

    assert float(total(method, {"z": z, "key": key})) == pytest.approx(sum(map(row, range(5))) / 5)
    gradients_are_right(lambda x: total(method, {"z": x, "key": key}), 5, 1, 4)


def test_a_collapsed_encoder_is_at_chance() -> None:
    method = ready()
    method.queue.vectors.copy_(torch.full((12, 4), 0.5))
    ones = torch.ones(5, 4, dtype=torch.float64)
    assert float(total(method, {"z": ones[:, None], "key": ones})) == pytest.approx(math.log(13))


def test_the_queue_drops_the_oldest() -> None:
    queue = ready().queue
    first = queue.vectors.clone()
    keys = torch.eye(4, dtype=torch.float64)
    for number in range(4):  # 5 keys a time into 12 places: the fourth wraps around
        queue.push(2 * keys[number].expand(5, 4))
        if number == 0:
            assert torch.equal(queue.vectors[5:], first[5:])
    owner = queue.vectors.argmax(1).tolist()
    assert owner == [2] * 3 + [3] * 5 + [1] * 2 + [2] * 2
    assert int(queue.place) == 20 % 12
    torch.testing.assert_close(queue.vectors.norm(dim=1), torch.ones(12, dtype=torch.float64))


def test_after_a_step_keys_are_queued_and_the_teacher_followed() -> None:
    task = build(MoCo(queue=12, hidden=8, out_dim=4, momentum=0.5))
    outputs = outputs_of(task)
    assert outputs["z"].shape == (6, 1, 4) and outputs["key"].shape == (6, 4) and not outputs["key"].requires_grad
    with torch.no_grad():
        task.method.head[0].weight.zero_()  # type: ignore[index,union-attr]
    before = task.method.teacher["head"][0].weight.clone()  # type: ignore[index]
    task.method.after_step(outputs, CLOCK)
    torch.testing.assert_close(task.method.teacher["head"][0].weight, before / 2)  # type: ignore[index]
    keys = torch.nn.functional.normalize(outputs["key"], dim=1)
    torch.testing.assert_close(task.method.queue.vectors[:6], keys)  # type: ignore[union-attr]


def test_version_1_has_a_linear_head() -> None:
    assert len(build(MoCo(hidden=0)).method.head) == 1  # type: ignore[arg-type]


def test_it_learns() -> None:
    assert found_again(trained(MoCo(queue=64))) > found_again(build(MoCo(queue=64)).eval())
