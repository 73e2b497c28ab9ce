"""One step is the same step on one process or several, in one piece or in micro-batches."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from selftaught.methods.simclr import SimCLR
from selftaught.methods.vicreg import VICReg
from selftaught.train.fabric import make_fabric
from selftaught.types import Batch, Clock, Encoders, Method, Outputs, Terms
from tests.ranks import Ranks, fabric_here
from tests.small import Collect, Masked, assert_same, build, collected

METHODS: dict[str, Callable[[], Method]] = {
    "simclr": SimCLR,
    "vicreg": lambda: VICReg(width=16),
    "one uneven term": Masked,
    "two uneven terms": lambda: Masked(terms=2),
}


def alone_here() -> Fabric:
    """One process; weights keep the type they have, float64 where the test wants it."""
    return make_fabric("cpu", devices=1, precision="32-true")


def trained(rank: int, world: int, name: str, double: bool, accumulate: int, norms: bool) -> Collect:
    """Three steps of a method on this rank; in one process with world = 1."""
    fabric = fabric_here() if world > 1 else alone_here()
    task = build(METHODS[name](), dtype=torch.float64 if double else torch.float32, norms=norms)
    return collected(task, fabric, accumulate=accumulate)


@pytest.mark.parametrize("name", METHODS)
def test_two_processes_are_one(ranks: Ranks, name: str) -> None:
    """With batch norm over both. float64 shows that the mathematics agree, float32 that nothing is lost on the way."""
    for double, tolerance in ((True, 1e-9), (False, 1e-5)):
        alone = trained(0, 1, name, double, 1, True)
        for other in ranks(trained, 2, name, double, 1, True):
            assert_same(alone, other, tolerance=tolerance)


@pytest.mark.parametrize("name", METHODS)
def test_micro_batches_are_one_batch(name: str) -> None:
    """Without batch norm, which sees the micro-batch by design."""
    alone = trained(0, 1, name, True, 1, False)
    for accumulate in (2, 8 if name != "simclr" else 4):
        assert_same(alone, trained(0, 1, name, True, accumulate, False), tolerance=1e-9)


@pytest.mark.parametrize("name", METHODS)
def test_micro_batches_on_two_processes_are_one_batch(ranks: Ranks, name: str) -> None:
    alone = trained(0, 1, name, True, 1, False)
    for other in ranks(trained, 2, name, True, 2, False):
        assert_same(alone, other, tolerance=1e-9)


class Still(Method):
    """A loss of samples that meet in no statistic but batch norm's."""

    couples = True

    def build(self, encoders: Encoders) -> None:
        self.head = nn.Linear(encoders["encoder"].dim, 1)

    def forward(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        return {"z": self.head(encoders["encoder"](batch["views"].data[:, 0]).pooled)}

    def loss(self, outputs: Outputs, clock: Clock) -> Terms:
        return {"square": (outputs["z"].square().sum(), len(outputs["z"]))}


@pytest.mark.parametrize("couples", [True, False])
def test_running_statistics_move_once(couples: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two micro-batches with means a then b move the mean m by momentum 1 - sqrt(0.9) each; the counter by one."""
    monkeypatch.setattr(Still, "couples", couples)
    seen: list[Tensor] = []
    task = build(Still(), dtype=torch.float64)
    convolution, norm = task.get_submodule("encoders.encoder.body.0"), task.get_submodule("encoders.encoder.body.1")
    convolution.register_forward_hook(lambda m, i, out: seen.append(out.detach().mean((0, 2, 3))))
    collected(task, alone_here(), accumulate=2, steps=1)
    a, b = seen[-2:]
    keep = 0.9**0.5
    torch.testing.assert_close(norm.running_mean, (1 - keep) * (keep * a + b))
    assert norm.num_batches_tracked == 1 and norm.momentum == 0.1 and norm.track_running_stats


def test_dropout_repeats_in_the_second_forward() -> None:
    """A wrong second forward would push the outputs' gradients through another network."""
    seen: list[Tensor] = []
    task = build(Still(), dropout=0.5, norms=False)
    task.get_submodule("encoders.encoder.body").register_forward_hook(lambda m, i, out: seen.append(out.detach()))
    collected(task, alone_here(), accumulate=2, steps=2)
    assert len(seen) == 8  # two steps, two forwards of two micro-batches each
    for step in (0, 4):
        assert torch.equal(seen[step], seen[step + 2]) and torch.equal(seen[step + 1], seen[step + 3])
    assert not torch.equal(seen[0] == 0, seen[4] == 0)


def test_a_batch_with_nothing_to_predict_gives_no_nan() -> None:
    class Nothing(Masked):
        def loss(self, outputs: Outputs, clock: Clock) -> Terms:
            return {"hidden": (outputs["error"].sum() * 0, 0)}

    for accumulate in (1, 2):
        watch = collected(build(Nothing()), alone_here(), accumulate=accumulate)
        assert watch.losses == [0.0] * 3
        assert all(g.isfinite().all() for step in watch.gradients for g in step.values())
