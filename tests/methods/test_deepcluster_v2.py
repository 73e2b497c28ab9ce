"""DeepClusterV2: its loss, clusters found before the epoch, what is remembered, and that it learns."""

from __future__ import annotations

import math

import pytest
import torch

from selftaught.methods.deepcluster_v2 import DeepClusterV2
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


def ready(**options: object) -> DeepClusterV2:
    options = {"clusters": 5, "clusterings": 2, "hidden": 8, "out_dim": 4, "small": 0, **options}
    return build(DeepClusterV2(**options), dtype=torch.float64).method  # type: ignore[arg-type,return-value]


def test_loss_is_the_cross_entropy_of_the_assigned_cluster() -> None:
    method, z, rows = ready(temperature=0.3), drawn(4, 3, 4), []
    for i, sample in enumerate(INDEX.tolist()):
        for h in range(2):
            for v in range(3):
                shares = [math.exp(cosine(z[i, v], c) / 0.3) for c in method.centroids[h]]
                rows.append(-math.log(shares[method.assigned[h, sample]] / sum(shares)))
    assert float(total(method, {"z": z, "index": INDEX})) == pytest.approx(sum(rows) / 24)
    gradients_are_right(lambda x: total(method, {"z": x, "index": INDEX}), 4, 3, 4)


def blobs() -> tuple[torch.Tensor, torch.Tensor]:
    """64 vectors around five directions, and which each is of."""
    label = torch.arange(SAMPLES) % 5
    directions = torch.cat([torch.eye(4, dtype=torch.float64), -torch.ones(1, 4, dtype=torch.float64)])
    return 3 * directions[label] + drawn(SAMPLES, 4) / 10, label


def purity(assigned: torch.Tensor, label: torch.Tensor) -> float:
    """Share of the samples that are of their cluster's most frequent kind; .2 to .3 by chance."""
    return sum(int(torch.bincount(label[assigned == k]).max()) for k in assigned.unique()) / len(label)


def test_clusters_are_found_before_the_first_epoch() -> None:
    method, (z, label) = ready(), blobs()
    method.before_epoch(lambda: [(torch.arange(SAMPLES), {"z": z[:, None]})], clock_at(0))
    assert all(purity(assigned, label) > 0.7 for assigned in method.assigned)
    torch.testing.assert_close(method.centroids.norm(dim=-1), torch.ones(2, 5, dtype=torch.float64))


def test_later_epochs_cluster_what_is_remembered() -> None:
    method, (z, label) = ready(), blobs()
    half = torch.arange(0, SAMPLES, 2), torch.arange(1, SAMPLES, 2)
    for rows in half:
        method.after_step({"z": z[rows][:, None].expand(-1, 3, -1), "index": rows}, CLOCK)
    method.before_epoch(lambda: pytest.fail("a pass over the data"), clock_at(5))
    assert all(purity(assigned, label) > 0.7 for assigned in method.assigned)


def test_what_is_remembered_is_the_mean_of_the_large_views() -> None:
    task = build(DeepClusterV2(clusters=5, out_dim=4, small=0))
    outputs = outputs_of(task)
    task.method.after_step(outputs, CLOCK)
    mean = torch.nn.functional.normalize(torch.nn.functional.normalize(outputs["z"], dim=2).mean(1), dim=1)
    torch.testing.assert_close(task.method.bank.vectors[outputs["index"]], mean)  # type: ignore[union-attr,index]


def test_no_more_clusters_than_half_the_samples() -> None:
    assert ready(clusters=1000).centroids.shape == (2, SAMPLES // 2, 4)


def test_it_learns() -> None:
    method = DeepClusterV2(clusters=32, hidden=64, out_dim=32, small=0)
    assert found_again(trained(method)) > found_again(build(DeepClusterV2()).eval())
