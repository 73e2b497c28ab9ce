"""SupCon: its equation with and without labels, the refusal where there are none, and that it learns."""

from __future__ import annotations

import math

import pytest
import torch

from selftaught.errors import MethodError
from selftaught.methods.supcon import SupCon
from selftaught.ops.losses import nt_xent
from tests.methods.check import CLOCK, cosine, drawn, found_again, gradients_are_right, total, trained
from tests.small import Pictures, build

LABEL = torch.tensor([0, 1, 0, -1, -1])


def test_loss_is_equation_2() -> None:
    z, rows = drawn(5, 2, 4), []
    anchors = [(i, v) for i in range(5) for v in range(2)]
    for i, v in anchors:
        others = [a for a in anchors if a != (i, v)]
        shares = {a: math.exp(cosine(z[i, v], z[a]) / 0.3) for a in others}
        alike = [a for a in others if a[0] == i or (LABEL[a[0]] == LABEL[i] and LABEL[i] >= 0)]
        assert len(alike) == (3 if i in (0, 2) else 1)
        rows.append(-sum(math.log(shares[a] / sum(shares.values())) for a in alike) / len(alike))
    found = total(SupCon(temperature=0.3), {"z": z, "label": LABEL})
    assert float(found) == pytest.approx(sum(rows) / 10)
    gradients_are_right(lambda x: total(SupCon(temperature=0.3), {"z": x, "label": LABEL}), 5, 2, 4)


def test_without_labels_it_is_simclr() -> None:
    z, none = drawn(5, 2, 4), torch.full((5,), -1)
    expected = nt_xent(z, z, start=0, temperature=0.3).mean()
    torch.testing.assert_close(total(SupCon(temperature=0.3), {"z": z, "label": none}), expected)


def test_it_needs_labels() -> None:
    assert SupCon().needs().labels
    (batch,) = Pictures(4)(0, 1)
    task = build(SupCon())
    with pytest.raises(MethodError, match="labels"):
        task.method(task.encoders, task.prepare(batch), CLOCK)


class Labelled(Pictures):
    """Patterns whose label is their own number: each sample is a class."""

    def __call__(self, start: int, stop: int):
        for batch in super().__call__(start, stop):
            yield batch.replace(target=batch.index)


def test_it_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.methods.check.Pictures", Labelled)
    assert found_again(trained(SupCon(out_dim=32))) > found_again(build(SupCon()).eval()) + 0.1
