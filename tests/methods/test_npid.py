"""NPID: its equation, what is remembered of each sample, drawn negatives, and that it learns."""

from __future__ import annotations

import math

import pytest
import torch

from selftaught.methods.npid import NPID
from tests.methods.check import (
    CLOCK,
    clock_at,
    cosine,
    drawn,
    found_again,
    gradients_are_right,
    outputs_of,
    total,
    trained,
)
from tests.small import SAMPLES, build

INDEX = torch.tensor([3, 11, 40, 5])


def ready(**options: object) -> NPID:
    return build(NPID(out_dim=4, **options), dtype=torch.float64).method  # type: ignore[arg-type,return-value]


def row(method: NPID, z: torch.Tensor, own: int, others: list[int], scale: float) -> float:
    """-log P(own | z), eq. 2, the sum over the others scaled up."""
    share = [math.exp(cosine(z, method.bank.vectors[j]) / method.temperature) for j in [own, *others]]
    return -math.log(share[0] / (share[0] + scale * sum(share[1:])))


def test_loss_is_equation_2() -> None:
    method, z = ready(temperature=0.3), drawn(4, 1, 4)
    rows = [
        row(method, z[i, 0], own, [j for j in range(SAMPLES) if j != own], 1) for i, own in enumerate(INDEX.tolist())
    ]
    assert float(total(method, {"z": z, "index": INDEX})) == pytest.approx(sum(rows) / 4)
    gradients_are_right(lambda x: total(method, {"z": x, "index": INDEX}), 4, 1, 4)


def test_drawn_negatives_stand_for_all() -> None:
    method, z = ready(temperature=0.3, negatives=16), drawn(4, 1, 4)
    chosen = method._drawn(CLOCK, SAMPLES, z).tolist()
    assert len(chosen) == 16 and len(set(chosen)) > 8 and max(chosen) < SAMPLES
    assert chosen != method._drawn(clock_at(1), SAMPLES, z).tolist()
    rows = [row(method, z[i, 0], own, [j for j in chosen if j != own], 63 / 16) for i, own in enumerate(INDEX.tolist())]
    assert float(total(method, {"z": z, "index": INDEX})) == pytest.approx(sum(rows) / 4)
    many = [float(total(method, {"z": z, "index": INDEX}, clock_at(t))) for t in range(300)]
    whole = float(total(ready(temperature=0.3), {"z": z, "index": INDEX}))
    assert sum(many) / 300 == pytest.approx(whole, abs=0.1)


def test_proximal_term_is_the_squared_distance_from_what_is_remembered() -> None:
    z = drawn(4, 1, 4)
    plain, pulled = (float(total(ready(proximal=w), {"z": z, "index": INDEX})) for w in (0.0, 2.0))
    unit = z[:, 0] / z[:, 0].norm(dim=1, keepdim=True)
    distance = (unit - ready().bank.vectors[INDEX]).square().sum(1).mean()
    assert pulled - plain == pytest.approx(2 * float(distance))


def test_what_is_remembered_follows() -> None:
    task = build(NPID(out_dim=4, momentum=0.25))
    before, outputs = task.method.bank.vectors.clone(), outputs_of(task)  # type: ignore[union-attr]
    task.method.after_step(outputs, CLOCK)
    fresh = torch.nn.functional.normalize(outputs["z"][:, 0], dim=1)
    mixed = torch.nn.functional.normalize(0.25 * before[outputs["index"]] + 0.75 * fresh, dim=1)  # type: ignore[index]
    torch.testing.assert_close(task.method.bank.vectors[outputs["index"]], mixed)  # type: ignore[union-attr,index]
    untouched = torch.ones(SAMPLES, dtype=torch.bool).index_fill(0, outputs["index"], False)
    assert torch.equal(task.method.bank.vectors[untouched], before[untouched])  # type: ignore[union-attr,index]


def test_it_learns() -> None:
    method = NPID(out_dim=32, temperature=0.2)
    assert found_again(trained(method)) > found_again(build(NPID()).eval()) + 0.1
