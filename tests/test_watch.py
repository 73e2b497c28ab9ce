"""Health: what is broken is named within 200 steps, what is healthy raises no alarm; the real loop on real digits."""

from __future__ import annotations

import json
import math
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from selftaught.data.index import build_index
from selftaught.data.loader import Loader, Order, once
from selftaught.data.source import open_source
from selftaught.diagnostics.held_out import AT_ONCE, embed, sorted_by
from selftaught.diagnostics.schedule import EARLY, plan_checks
from selftaught.diagnostics.verdicts import History, Peek, judge
from selftaught.diagnostics.watch import Watch
from selftaught.encoders.small import Small
from selftaught.methods.cpc import CPC
from selftaught.methods.dino import DINO
from selftaught.methods.simclr import SimCLR
from selftaught.methods.swav import SwAV
from selftaught.methods.vicreg import VICReg
from selftaught.modalities.image import Image
from selftaught.ops.losses import unit
from selftaught.train.fabric import make_fabric
from selftaught.train.loop import Settings, Task, fit
from selftaught.train.optim import DEFAULT_LR, Recipe

HELD = np.arange(1500, 1797)


class Digits:
    """Everything a run on digits needs, read once."""

    def __init__(self, cache, size: int = 8) -> None:
        x, self.y = load_digits(return_X_y=True)
        pictures = (x.reshape(-1, 8, 8) * 15.9).astype(np.uint8)
        self.modality = Image(size=size)
        extensions = self.modality.extensions
        self.index = build_index(open_source((pictures, self.y), extensions, cache=cache), self.modality, cache=cache)
        self.modality.fit([self.modality.read(self.index.item(i)) for i in range(300)])
        self.train = self.index.select(np.arange(1500))
        self.fabric = make_fabric("cpu", precision="32-true")

    def watch(self, plan, **options) -> Watch:
        order = Order(len(HELD), 128, 0, stream="health")
        pairs = list(Loader(self.index.select(HELD), self.modality, plan, order, stop=1))
        return Watch(list(once(self.index, self.modality, indices=HELD)), pairs, labels=self.y[HELD], **options)

    def run(self, method, *, seed: int, faster: float = 1.0, steps: int = 200, until_alarm=False, width=8, **options):
        torch.manual_seed(seed)
        encoder = Small(self.modality.shape(), width=width)
        method.samples = 1500
        method.build({"encoder": encoder})
        plan, order = method.needs().plan, Order(1500, 64, seed)
        watch = self.watch(plan, **options)
        callbacks: list[Any] = [watch, *([_UntilAlarm(watch)] if until_alarm else [])]  # callbacks by shape
        fit(
            Task({"encoder": encoder}, method, self.modality.normalise),
            lambda start, stop: Loader(self.train, self.modality, plan, order, start=start, stop=stop),
            Settings(
                batch_size=64,
                steps=steps,
                steps_per_epoch=order.steps_per_epoch,
                seed=seed,
                optimiser=Recipe(lr=DEFAULT_LR["adamw"] * faster),
            ),
            fabric=self.fabric,
            callbacks=callbacks,
        )
        return watch


class _UntilAlarm:
    def __init__(self, watch: Watch) -> None:
        self.watch = watch

    def on_step(self, state, row) -> None:
        state.stop = "alarm" if alarms(self.watch) else ""

    def __getattr__(self, name):
        return {"state": dict, "rehearse": lambda state: 0.0}.get(name, lambda *_: None)


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Digits:
    return Digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def larger_digits(tmp_path_factory) -> Digits:
    return Digits(tmp_path_factory.mktemp("digits"), size=16)


def alarms(watch: Watch) -> list[str]:
    return [verdict.name for verdict in watch.verdicts if verdict.level == "alarm"]


def broken_vicreg() -> VICReg:
    return VICReg(variance=0.0, width=128)


def test_vicreg_without_its_variance_term_is_named(digits):
    watch = digits.run(broken_vicreg(), seed=0, until_alarm=True)
    assert alarms(watch) == ["collapsing"]
    assert "becoming one since step" in watch.verdicts[-1].sentence


def test_simclr_at_a_hundred_times_the_rate_is_named(digits):
    watch = digits.run(SimCLR(), seed=0, faster=100.0, until_alarm=True)
    assert alarms(watch) == ["rate too high"]
    (verdict,) = [verdict for verdict in watch.verdicts if verdict.level == "alarm"]
    assert verdict.sentence.startswith("learning rate too high: the encoder's weights grew to")


@pytest.mark.parametrize("method", [SimCLR, lambda: VICReg(width=128)], ids=["simclr", "vicreg"])
def test_healthy_runs_raise_no_alarm(digits, tmp_path, method):
    watch = digits.run(method(), seed=0, path=tmp_path / "health.json")
    assert alarms(watch) == []
    assert watch.verdicts[-1].level == "ok"
    written = json.loads((tmp_path / "health.json").read_text())
    assert [row["step"] for row in written["measures"]][:6] == [0, *EARLY[:4], 200]
    first, last = written["measures"][0], written["measures"][-1]
    assert last["closeness"] < first["closeness"]  # it learned to tell samples apart, not views
    assert last["knn"] > first["knn"]
    assert set(last) >= set(
        "step seconds rankme lidar dim alpha_req alignment uniformity spread_min dead_share knn".split()
    )
    assert written["samples"] == len(HELD) and written["held_out"] is True


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["vicreg", "simclr"])
def test_proof_broken_runs(digits, kind, seed):
    """The methods as they come, at their own width: three seeds each."""
    method = VICReg(variance=0.0) if kind == "vicreg" else SimCLR()
    watch = digits.run(method, seed=seed, faster=1.0 if kind == "vicreg" else 100.0, width=16, until_alarm=True)
    assert alarms(watch), f"not named within 200 steps: {watch.history.peeks[-1]} {watch.history.checks[-1]}"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("kind", [VICReg, SimCLR])
def test_proof_healthy_runs(digits, kind, seed):
    watch = digits.run(kind(), seed=seed, width=16)
    assert alarms(watch) == []


# --- one broken variant of a family ---------------------------------------------------------------------------


class OnlyAttraction(SimCLR):
    """SimCLR without its negatives."""

    def loss(self, outputs, clock):
        z = unit(outputs["z"])
        return {"contrast": ((z[:, 0] - z[:, 1]).square().sum(), len(z))}


class OnlyOwn(CPC):
    """CPC without its negatives."""

    def loss(self, outputs, clock):
        z, ahead = unit(outputs["z"]), unit(outputs["ahead"])
        columns = z.shape[1] // (self.across - self.patch + 1)
        far = (ahead[:, 0, 0, : z.shape[1] - columns] - z[:, columns:]).square().sum()  # downwards, one row
        return {"row_1": (far, len(z))}


class NoCentre(DINO):
    """DINO whose teacher's scores are sharpened as they are: one prototype may win everything."""

    def _sharpened(self, target):
        return (target / self.teacher_temperature).softmax(-1)


class NoBalance(SwAV):
    """SwAV whose codes are each sample's own, not balanced over the batch."""

    def _assign(self, scores, view, clock):
        return (scores / self.epsilon).softmax(-1)


def views_for_digits(method, **options):
    """Small views and hard crops leave nothing of a digit of 16 pixels: the losses stay at log K (docs/log.md)."""
    return method(small=0, smallest=0.5, colour=0.5, hidden=256, **options)


FAMILIES = {
    "contrastive": (OnlyAttraction, SimCLR),
    "non-contrastive": (broken_vicreg, lambda: VICReg(width=128)),
    "self-distillation": tuple(lambda kind=kind: views_for_digits(kind, prototypes=256) for kind in (NoCentre, DINO)),
    "clustering": tuple(
        lambda kind=kind: views_for_digits(kind, prototypes=64, queue=256) for kind in (NoBalance, SwAV)
    ),
    "mutual information": (lambda: OnlyOwn(across=3), lambda: CPC(across=3)),
}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_broken_one_of_the_family_is_named(larger_digits, family):
    digits, (broken, whole) = larger_digits, FAMILIES[family]
    watch = digits.run(broken(), seed=0, width=16, until_alarm=True)
    assert alarms(watch), f"not named within 200 steps: {watch.history.peeks[-1]} {watch.history.checks[-1]}"
    assert alarms(digits.run(whole(), seed=0, width=16)) == []


# --- when it looks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "epoch", "cost"), [(200, 20, 1.0), (10_000, 78, 2.0), (10**6, 5_000, 0.5), (7, 2, 3)]
)
def test_checks_are_planned_by_the_step_and_bounded(steps, epoch, cost):
    planned = plan_checks(steps, epoch, cost)
    assert planned[0] == 0 and planned[-1] == steps
    assert set(planned) >= {step for step in EARLY if step < steps}
    later = [step for step in planned if step > max(EARLY)]
    assert len(later) * cost <= 0.02 * steps + cost
    assert len(later) <= 202


def test_a_resumed_watch_goes_on_as_if_nothing_had_happened(digits):
    """State goes through JSON, as in a checkpoint; what follows is what would have followed."""
    whole = digits.run(SimCLR(), seed=1, steps=30)
    kept = json.loads(json.dumps(whole.state()))
    again = digits.watch(SimCLR().needs().plan)
    again.load_state(kept)
    assert again.to_json() == whole.to_json()
    assert again.state() == whole.state()
    assert judge(again.history) == judge(whole.history)


def test_a_check_leaves_the_training_as_it_was(digits):
    torch.manual_seed(0)
    encoder = Small(digits.modality.shape(), width=8).train()
    method = SimCLR()
    method.build({"encoder": encoder})
    task = Task({"encoder": encoder}, method, digits.modality.normalise)
    before = {name: value.clone() for name, value in task.state_dict().items()}
    noise = torch.get_rng_state()
    watch = digits.watch(method.needs().plan)
    watch.measure(SimpleNamespace(task=task, fabric=digits.fabric))
    assert all(torch.equal(value, before[name]) for name, value in task.state_dict().items())
    assert all(module.training for module in task.modules())
    assert torch.equal(noise, torch.get_rng_state())


def test_a_look_takes_a_few_samples_at_a_time(digits):
    """So that it needs no more memory than a step, whatever batches the held-out samples came in."""
    torch.manual_seed(0)
    encoder = Small(digits.modality.shape(), width=8)
    task = Task({"encoder": encoder}, SimCLR(), digits.modality.normalise)
    seen: list[int] = []
    encoder.register_forward_pre_hook(lambda module, given: seen.append(len(given[0])))
    plain = list(once(digits.index, digits.modality, indices=HELD, batch_size=200))
    z, _ = embed(SimpleNamespace(task=task, fabric=digits.fabric), plain, ())
    assert max(seen) <= AT_ONCE
    with torch.no_grad():
        whole = task.prepare(plain[0])["plain"].data[:, 0]
        torch.testing.assert_close(z[:200], encoder.eval()(whole).pooled, atol=1e-5, rtol=1e-5)


def test_only_many_prototypes_tell():
    scores = torch.rand(16, 2, 3, 16)
    assert torch.equal(sorted_by({"scores": scores}), scores[:, 0, 0])  # type: ignore[arg-type]  first view, first head
    assert torch.equal(sorted_by({"scores": scores[:, :, 0]}), scores[:, 0, 0])  # type: ignore[arg-type]
    assert sorted_by({"scores": scores[..., :3]}) is None, "two or three may well be one batch's"
    assert sorted_by({"scores": scores[:8]}) is None, "so may a few samples"
    assert sorted_by({"z": scores}) is None


# --- the rules, from figures alone ---------------------------------------------------------------------------------


def check(step: int, rank: float, closeness: float = 0.5) -> dict[str, float]:
    return {"step": step, "rank": rank, "closeness": closeness}


def names(history: History) -> list[tuple[str, str]]:
    return [(verdict.level, verdict.name) for verdict in judge(history)]


def test_a_low_rank_from_the_start_is_not_a_collapse():
    assert names(History(512, 300, [check(0, 4), check(50, 5)])) == [("ok", "healthy")]


def test_a_lost_rank_is_named_with_since_when():
    history = History(512, 600, [check(0, 150), check(50, 140), check(100, 9), check(150, 3)])
    (verdict,) = judge(history)
    assert (verdict.level, verdict.name) == ("alarm", "collapsing")
    assert verdict.sentence.startswith("collapsing: effective rank 3 of 512 since step 100 (at the start 150).")


def test_half_the_rank_is_a_warning_only():
    assert names(History(512, 600, [check(0, 150), check(100, 60)])) == [("warning", "rank falling")]


def test_outputs_that_shrink_slowly_do_so_by_weight_decay():
    slow = [Peek(step, 1.0, 0.3 * math.exp(-step / 1000), 0.9) for step in range(0, 10_001, 50)]
    assert names(History(64, 300, [check(0, 30)], slow)) == [("ok", "healthy")]
    fast = [Peek(step, 1.0, 0.3 * math.exp(-step / 20), 0.9) for step in range(0, 101, 5)]
    assert ("alarm", "collapsing") in names(History(64, 300, [check(0, 30)], fast))


def test_weights_that_grow_slowly_are_healthy_and_a_jump_is_remembered():
    slow = [Peek(step, 1 + step / 2000, 0.3, 0.9) for step in range(0, 10_001, 50)]
    assert names(History(64, 300, [check(0, 30)], slow)) == [("ok", "healthy")]
    jump = [Peek(step, min(6.0, 1 + step / 10), 0.3, 0.9) for step in range(5, 3000, 50)]
    assert ("alarm", "rate too high") in names(History(64, 300, [check(0, 30)], jump))


def test_one_prototype_for_all_is_named_once_it_lasts():
    def peeks(numbers: list[float]) -> History:
        return History(peeks=[Peek(20 + 5 * i, winners=number) for i, number in enumerate(numbers)])

    assert names(peeks([30.0, 12.0, 1.6, 1.1, 1.0])) == []
    (found,) = judge(peeks([30.0, 12.0, 1.6, 1.1, 1.0, 1.0]))
    assert (found.level, found.name) == ("alarm", "collapsing")
    assert "since step 30 (1.0 are in use, at most 30 were)" in found.sentence
    assert names(peeks([1.0, 1.0, 1.0, 1.0, 9.0])) == []  # over


def test_views_apart_and_a_stuck_loss_are_warnings():
    apart = History(64, 300, [check(0, 30, 1.1), check(150, 30, 1.6)])
    assert names(apart) == [("warning", "views apart")]
    apart.compares = False  # a VAE's encoder may well tell where in the picture something is
    assert names(apart) == [("ok", "healthy")]
    stuck = [Peek(step, 1.0, 0.3, 0.9, 4.85) for step in range(5, 150, 5)]
    assert names(History(64, 300, [check(0, 30)], stuck)) == [("warning", "loss stuck")]


def test_a_loss_that_rose_while_a_queue_filled_and_then_falls_is_not_stuck():
    rising = [4.0 + 2.5 * min(1.0, step / 60) for step in range(5, 100, 5)]
    falling = [6.5 - 0.01 * (step - 100) for step in range(100, 200, 5)]

    def peeks(losses: list[float]) -> History:
        return History(64, 300, [check(0, 30)], [Peek(5 * i, 1.0, 0.3, 0.9, loss) for i, loss in enumerate(losses, 1)])

    assert names(peeks(rising + falling)) == [("ok", "healthy")]
    stays = peeks(rising + [6.5] * 20)
    assert names(stays) == [("warning", "loss stuck")]
    stays.checks = [check(0, 30, 1.2), check(150, 30, 0.5)]  # views come closer: it learns
    assert names(stays) == [("ok", "healthy")]
    stays.checks[-1] = check(150, 30, 1.1)
    assert names(stays) == [("warning", "loss stuck")]


def test_the_plan_of_minutes_counts_every_check(digits, monkeypatch):
    watch = Watch(list(once(digits.index, digits.modality, indices=HELD)), batch_size=64)
    monkeypatch.setattr(watch, "measure", lambda state: time.sleep(0.05))
    state = SimpleNamespace(steps=120, steps_per_epoch=10)  # at 0, 25, 50, 100 and the end
    assert 5 * 0.05 <= watch.rehearse(state) < 6 * 0.05
