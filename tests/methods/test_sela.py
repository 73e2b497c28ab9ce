"""SeLa: its loss, equal labels from the transport, what keeps its label, and that it learns."""

from __future__ import annotations

import math

import pytest
import torch

from selftaught.methods.sela import SeLa
from tests.methods.check import clock_at, drawn, found_again, gradients_are_right, total, trained
from tests.small import SAMPLES, build

INDEX = torch.tensor([3, 11, 40, 5])


def ready(**options: object) -> SeLa:
    options = {"classes": 4, "heads": 2, "hidden": 8, "out_dim": 4, **options}
    return build(SeLa(**options), dtype=torch.float64).method  # type: ignore[arg-type,return-value]


def test_loss_is_the_cross_entropy_of_the_label() -> None:
    method, scores, rows = ready(temperature=0.3), drawn(4, 2, 2, 4), []
    for i, sample in enumerate(INDEX.tolist()):
        for v in range(2):
            for h in range(2):
                shares = [math.exp(float(x) / 0.3) for x in scores[i, v, h]]
                rows.append(-math.log(shares[method.labels[h, sample]] / sum(shares)))
    assert float(total(method, {"scores": scores, "index": INDEX})) == pytest.approx(sum(rows) / 16)
    gradients_are_right(lambda x: total(method, {"scores": x, "index": INDEX}), 4, 2, 2, 4)


def test_labels_are_equally_many_and_follow_the_scores() -> None:
    method = ready(classes=4)
    wanted = torch.arange(SAMPLES) % 4
    scores = torch.eye(4, dtype=torch.float64)[wanted][:, None].expand(-1, 2, -1) + drawn(SAMPLES, 2, 4) / 20
    scores[:, :, 0] += 0.6  # everything likes the first label; the transport shares it out
    method.before_epoch(lambda: [(torch.arange(SAMPLES), {"scores": scores[:, None]})], clock_at(0))
    for labels in method.labels:
        assert torch.equal(labels, wanted)


def test_what_could_not_be_read_keeps_its_label() -> None:
    method = ready()
    before, some = method.labels.clone(), torch.arange(10, SAMPLES)
    method.before_epoch(lambda: [(some, {"scores": drawn(len(some), 1, 2, 4)})], clock_at(0))
    assert torch.equal(method.labels[:, :10], before[:, :10]) and not torch.equal(method.labels, before)


def test_it_learns() -> None:
    method = SeLa(classes=32, heads=2, hidden=64, out_dim=32)
    assert found_again(trained(method)) > found_again(build(SeLa()).eval())
