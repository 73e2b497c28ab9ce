"""SMoG: groups that move with their gradient, its loss, re-grouping, and that it learns."""

from __future__ import annotations

import math

import pytest
import torch

from selftaught.methods.smog import SMoG, moved_groups
from tests.methods.check import clock_at, cosine, drawn, found_again, gradients_are_right, outputs_of, total, trained
from tests.small import build


def ready(**options: object) -> SMoG:
    options = {"count": 5, "queue": 9, "hidden": 8, "out_dim": 4, **options}
    return build(SMoG(**options), dtype=torch.float64).method  # type: ignore[arg-type,return-value]


def normal(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(x, dim=-1)


def moved(groups: torch.Tensor, z: torch.Tensor, beta: float) -> torch.Tensor:
    nearest = [max(range(len(groups)), key=lambda k: float(x @ groups[k])) for x in z]
    rows = []
    for k, group in enumerate(groups):
        own = [x for x, n in zip(z, nearest, strict=True) if n == k]
        rows.append(beta * group + (1 - beta) * torch.stack(own).mean(0) if own else group)
    return normal(torch.stack(rows))


def test_groups_move_towards_their_own() -> None:
    groups, z = normal(drawn(5, 4)), normal(drawn(12, 4, seed=1))
    torch.testing.assert_close(moved_groups(groups, z, beta=0.7), moved(groups, z, 0.7))
    gradients_are_right(lambda x: moved_groups(groups, normal(x), beta=0.7).square().sum(0).sum(), 12, 4)


def test_loss_is_equation_6_both_ways() -> None:
    method = ready(temperature=0.3, beta=0.7)
    z, p, key = drawn(4, 2, 4), drawn(4, 2, 4, seed=1), drawn(4, 2, 4, seed=2)
    groups, rows = moved(method.groups_now, normal(z).flatten(0, 1), 0.7), []
    for i in range(4):
        for v in (0, 1):
            own = max(range(5), key=lambda k: cosine(key[i, 1 - v], method.groups_now[k]))
            shares = [math.exp(cosine(p[i, v], group) / 0.3) for group in groups]
            rows.append(-math.log(shares[own] / sum(shares)))
    outputs = {"z": z, "p": p, "key": key}
    assert float(total(method, outputs)) == pytest.approx(sum(rows) / 8)
    gradients_are_right(lambda x: total(method, {**outputs, "p": x}), 4, 2, 4)


def test_the_gradient_goes_through_the_groups() -> None:
    outputs = {name: drawn(4, 2, 4, seed=n).requires_grad_() for n, name in enumerate(("z", "p", "key"))}
    total(ready(), outputs).backward()
    assert outputs["z"].grad is not None and outputs["z"].grad.abs().sum() > 0 and outputs["key"].grad is None


def test_groups_are_found_anew_from_the_queue() -> None:
    task = build(SMoG(count=3, queue=9, every=2, hidden=8, out_dim=4))
    method, outputs = task.method, outputs_of(task)
    method.after_step(outputs, clock_at(0))
    start = build(SMoG(count=3, queue=9, hidden=8, out_dim=4)).method.groups_now
    near = moved(start, normal(outputs["z"].detach()).flatten(0, 1), 0.99)  # type: ignore[arg-type]
    torch.testing.assert_close(method.groups_now, near)  # type: ignore[arg-type]
    method.after_step(outputs, clock_at(1))
    vectors = method.queue.vectors  # type: ignore[union-attr]
    nearest = (vectors @ method.groups_now.T).argmax(1)  # type: ignore[operator,union-attr]
    for k in nearest.unique():
        torch.testing.assert_close(method.groups_now[k], normal(vectors[nearest == k].mean(0)), rtol=0, atol=0.2)  # type: ignore[index]


def test_it_learns() -> None:
    method = SMoG(count=32, hidden=64, out_dim=32, momentum=0.9)
    assert found_again(trained(method)) > found_again(build(SMoG()).eval())
