"""The loop from the outside: kills, signals, deadlines, divergence, metrics, callbacks."""

from __future__ import annotations

import csv
import io
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from selftaught.errors import ConfigError, DivergedError, Interrupted, RunError
from selftaught.methods.simclr import SimCLR
from selftaught.train import fabric as fabrics
from selftaught.train.checkpoint import Store
from selftaught.train.clocks import clock_of
from selftaught.train.fabric import choose_precision, make_fabric
from selftaught.train.loop import Callback, Settings, State, fit
from selftaught.train.optim import Recipe
from selftaught.train.plan import Costs, steps_within
from selftaught.train.progress import Bar, Lines, MetricsFile, make_progress
from selftaught.train.saving import Saving
from selftaught.types import Batch
from tests import sigkill_script
from tests.small import Masked, Pictures, build

STEPS = 24


def command(run: Path, steps: int = STEPS) -> list[str]:
    return [sys.executable, "-m", "tests.sigkill_script", str(run), str(steps)]


def environment(**extra: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", **extra}


def last_checkpoint(run: Path):
    found = Store(run / "checkpoints").load_latest()
    assert found is not None
    return found


def start_and_end(run: Path, wanted: str, number: int, *, after: float = 0.0, **extra: str) -> int:
    """Starts the script, sends signal ``number`` once it prints ``wanted``, gives the exit code."""
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen(command(run), env=environment(**extra), **pipe) as process:  # type: ignore[call-overload]
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(wanted):
                time.sleep(after)
                process.send_signal(number)
                break
        process.stdout.read()
        return process.wait()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("whole") / "run"
    assert sigkill_script.main(str(run), str(STEPS)) == 0
    return run


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text())))


def assert_bit_identical(run: Path, other: Path) -> None:
    ours, theirs = last_checkpoint(run), last_checkpoint(other)
    assert ours.step == theirs.step == STEPS
    assert ours.tensors.keys() == theirs.tensors.keys() and len(ours.tensors) > 30
    for name, value in theirs.tensors.items():
        assert torch.equal(ours.tensors[name], value), name
    for row, expected in zip(table(run / "metrics.csv"), table(other / "metrics.csv"), strict=True):
        for column in ("step", "epoch", "samples", "loss", "lr", "gradient_norm"):
            assert row[column] == expected[column], (row["step"], column)


def test_resume_by_sigkill(
    uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Killed at two random moments and once in the middle of writing a checkpoint, it ends with the same bits."""
    chance, run = random.Random(os.getpid()), tmp_path / "run"
    moments = sorted(chance.sample(range(2, STEPS - 3), 2))
    for moment in moments:
        code = start_and_end(run, f"step {moment}\n", signal.SIGKILL, after=chance.uniform(0, 0.05), SLOW_STEP="0.01")
        assert code == -signal.SIGKILL
    assert start_and_end(run, "saving", signal.SIGKILL, SLOW_SAVE="30") == -signal.SIGKILL
    assert list((run / "checkpoints").glob("*.partial")), "the kill was meant to hit a write"
    before = last_checkpoint(run).step
    monkeypatch.setenv("THREADS", "2")  # the run was started with one and keeps it
    assert sigkill_script.main(str(run), str(STEPS)) == 0
    assert f"resumed from {before}\n" in capsys.readouterr().out and moments[0] - 1 <= before < STEPS
    assert torch.get_num_threads() == 1
    assert_bit_identical(run, uninterrupted)


def alone():
    return make_fabric("cpu", devices=1, precision="32-true")


class Signal(Callback):
    def __init__(self, number: int, at: int, *, times: int = 1) -> None:
        self.number, self.at, self.times, self.steps = number, at, times, 0

    def on_step(self, state: State, row: dict[str, Any]) -> None:
        self.steps += 1
        if state.clock.step + 1 == self.at:
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)


def test_sigusr1_saves_and_goes_on(tmp_path: Path) -> None:
    watch = Signal(signal.SIGUSR1, 4)
    settings = Settings(8, steps=10, save_every=1e6)
    fit(build(SimCLR()), Pictures(8), settings, fabric=alone(), store=Store(tmp_path), callbacks=[watch])
    assert watch.steps == 10 and Store(tmp_path).steps() == [4, 10]
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_it_saves_and_goes_on_later(tmp_path: Path, number: int) -> None:
    settings, store = Settings(8, steps=10, save_every=1e6), Store(tmp_path)
    with pytest.raises(Interrupted, match=rf"Stopped by {signal.Signals(number).name} at step 4 of 10, after a check"):
        fit(build(SimCLR()), Pictures(8), settings, fabric=alone(), store=store, callbacks=[Signal(number, 4)])
    assert Interrupted.exit_code == 130 and store.steps() == [0, 4]
    whole, resumed = build(SimCLR()), build(SimCLR())
    fit(whole, Pictures(8), settings, fabric=alone())
    assert fit(resumed, Pictures(8), settings, fabric=alone(), store=store).resumed_from == 4
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in whole.state_dict().items())


def test_a_second_sigint_ends_at_once() -> None:
    before = signal.getsignal(signal.SIGINT)  # a shell's background jobs start with it ignored
    watch = Signal(signal.SIGINT, 4, times=2)
    with pytest.raises(KeyboardInterrupt):
        fit(build(SimCLR()), Pictures(8), Settings(8, steps=10), fabric=alone(), callbacks=[watch])
    assert signal.getsignal(signal.SIGINT) is before


def test_other_settings_do_not_go_on_with_a_run(tmp_path: Path) -> None:
    fit(build(SimCLR()), Pictures(8), Settings(8, steps=3), fabric=alone(), store=Store(tmp_path))
    for changed, name in ((Settings(16, steps=3), "batch_size"), (Settings(8, steps=3, seed=1), "seed")):
        with pytest.raises(
            RunError, match=rf"The '{name}' parameter of pretrain must be .* as in the run's checkpoint"
        ):
            fit(build(SimCLR()), Pictures(8), changed, fabric=alone(), store=Store(tmp_path))
    again = fit(build(SimCLR()), Pictures(8), Settings(8, steps=3), fabric=alone(), store=Store(tmp_path))
    assert (again.step, again.resumed_from) == (3, 3)


@pytest.mark.parametrize("at", [0, 5])
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path, at: int) -> None:
    def poisoned(start: int, stop: int) -> Iterator[Batch]:
        for t, batch in enumerate(Pictures(8)(start, stop), start):
            value = torch.full((8, 2, 8, 8, 1), torch.inf) if t == at else batch["views"].data
            batch.streams["views"].data = value
            yield batch

    settings = Settings(8, steps=10, save_every=0.0, seed=3)
    with pytest.raises(DivergedError, match=rf"nan at step {at}, .* \(seed, step\) = \(3, {at}\)"):
        fit(build(SimCLR()), poisoned, settings, fabric=alone(), store=Store(tmp_path))
    found = Store(tmp_path).load_latest()
    assert found is not None and found.step == at
    assert all(value.isfinite().all() for value in found.tensors.values())


class SlowPictures(Pictures):
    """Each batch takes 20 ms to come, which is what decides the pace."""

    def __call__(self, start: int, stop: int) -> Iterator[Batch]:
        for batch in super().__call__(start, stop):
            time.sleep(0.02)
            yield batch


class Dear(Callback):
    """Half a second at the end of every epoch."""

    def on_epoch(self, state: State, row: dict[str, Any]) -> None:
        time.sleep(0.5)

    def rehearse(self, state: State) -> float:
        return 0.5 * state.steps / state.steps_per_epoch


def test_minutes_become_steps_before_step_0(tmp_path: Path) -> None:
    settings = Settings(8, minutes=0.1, steps_per_epoch=40)
    began = time.perf_counter()
    result = fit(build(SimCLR()), SlowPictures(8), settings, fabric=alone(), store=Store(tmp_path), callbacks=[Dear()])
    spent = time.perf_counter() - began
    assert 0.75 * 6 < spent < 1.25 * 6  # 10 % on a quiet machine; tests share theirs
    assert result.step == result.steps
    found = Store(tmp_path).load_latest()
    assert found is not None and found.facts["steps"] == result.steps  # and a restart makes no new plan
    again = fit(build(SimCLR()), Pictures(8), settings, fabric=alone(), store=Store(tmp_path), callbacks=[Dear()])
    assert again.steps == again.resumed_from == result.steps


@pytest.mark.parametrize(("spent", "said"), [(0.0, False), (5.4, True)])
def test_it_is_said_where_the_minutes_went(spent: float, said: bool) -> None:
    """Where most of the time is gone before the first step, a run of few steps does not pass for a whole one."""
    settings = Settings(8, minutes=0.1, spent=spent, steps_per_epoch=40)
    result = fit(build(SimCLR()), SlowPictures(8), settings, fabric=alone())
    (note,) = [note for note in result.notes if "minutes are" in note]
    assert ("give more minutes" in note) == said


def test_the_rehearsal_leaves_no_trace(tmp_path: Path) -> None:
    planned = build(SimCLR(), dropout=0.2)
    result = fit(planned, SlowPictures(8), Settings(8, minutes=0.03), fabric=alone(), store=Store(tmp_path))
    given = build(SimCLR(), dropout=0.2)
    fit(given, Pictures(8), Settings(8, steps=result.steps), fabric=alone())
    for name, value in given.state_dict().items():
        assert torch.equal(planned.state_dict()[name], value), name


def test_plans_count_what_recurs() -> None:
    assert steps_within(100, Costs(0.1), steps_per_epoch=10) == 1000
    assert steps_within(100, Costs(0.1, epoch=1.0), steps_per_epoch=10) == 500
    assert steps_within(100, Costs(0.1, end=50), steps_per_epoch=10) == 500
    assert steps_within(100, Costs(0.1, save=10), steps_per_epoch=10) == 850  # 5 % on the way, one at the end
    assert steps_within(1, Costs(10), steps_per_epoch=1) == 1


def test_checkpoints_are_due_by_time() -> None:
    saving = Saving()
    assert saving.interval == 30
    saving.job = 60.0
    assert saving.interval == 3  # a twentieth of a short job
    saving.saved(1.0)
    assert saving.interval == 20  # never more than a twentieth of the time
    saving.job = 1e6
    assert saving.interval == 30 and not saving.due()
    assert Saving(0.0).due()


def test_metrics_are_cut_at_the_checkpoint_and_the_header_grows(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    metrics = MetricsFile(path, tensorboard=tmp_path / "board")
    metrics.start(0)
    for step in range(1, 6):
        metrics.write({"step": step, "loss": step / 3, **({"rankme": 7.5} if step == 3 else {})})
    metrics.close()
    with path.open("a") as file:
        file.write("6,torn")
    metrics = MetricsFile(path)
    metrics.start(4)
    metrics.write({"step": 5, "loss": 0.25})
    rows = table(path)
    assert [row["step"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert [row["rankme"] for row in rows] == ["", "", "7.5", "", ""] and rows[4]["loss"] == "0.25"
    assert list((tmp_path / "board").iterdir())


def test_progress_is_a_bar_on_a_terminal_and_lines_elsewhere() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    assert isinstance(make_progress(stream=io.StringIO()), Lines)
    assert isinstance(make_progress(stream=Terminal(), quiet=True), Lines)
    assert isinstance(make_progress(stream=Terminal()), Bar)
    for stream in (io.StringIO(), Terminal()):
        progress = make_progress(stream=stream)
        fit(build(SimCLR()), Pictures(8), Settings(8, steps=20), fabric=alone(), progress=progress)
        text = stream.getvalue()
        assert "samples/s" in text and "loss" in text and "wait" in text
    assert text.count("\n") < 20


class Nosy(Callback):
    """Uses random numbers, runs the model, remembers what it was told."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def on_start(self, state: State) -> None:
        self.calls.append("start")

    def on_step(self, state: State, row: dict[str, Any]) -> None:
        torch.randn(1000)
        self.calls.append("step")
        assert not any(value.requires_grad for value in state.outputs.values())
        assert row["step"] == state.clock.step + 1

    def on_epoch(self, state: State, row: dict[str, Any]) -> None:
        self.calls.append("epoch")
        row["rankme"] = 12.5
        state.words["rankme"] = "12.5"

    def on_end(self, state: State) -> None:
        self.calls.append("end")

    def state(self) -> dict[str, Any]:
        return {"calls": len(self.calls)}


def test_callbacks_watch_without_a_trace(tmp_path: Path) -> None:
    watched, plain, watch = build(SimCLR(), dropout=0.3), build(SimCLR(), dropout=0.3), Nosy()
    metrics = MetricsFile(tmp_path / "metrics.csv")
    settings = Settings(8, steps=5, steps_per_epoch=2)
    store = Store(tmp_path / "checkpoints")
    fit(watched, Pictures(8), settings, fabric=alone(), callbacks=[watch], metrics=metrics, store=store)
    fit(plain, Pictures(8), settings, fabric=alone())
    assert watch.calls == ["start", "step", "step", "epoch", "step", "step", "epoch", "step", "epoch", "end"]
    rows = table(tmp_path / "metrics.csv")
    assert [row["rankme"] for row in rows] == ["", "12.5", "", "12.5", "12.5"]
    assert all(torch.equal(value, watched.state_dict()[name]) for name, value in plain.state_dict().items())
    found = store.load_latest()
    assert found is not None and found.facts["callbacks"] == {"Nosy": {"calls": 10}}


def test_a_callback_may_end_the_run(tmp_path: Path) -> None:
    class Enough(Callback):
        def on_step(self, state: State, row: dict[str, Any]) -> None:
            state.stop = "enough" if state.clock.step == 3 else ""

    settings = Settings(8, steps=50, save_every=1e6)
    result = fit(build(SimCLR()), Pictures(8), settings, fabric=alone(), store=Store(tmp_path), callbacks=[Enough()])
    assert (result.step, result.stopped) == (4, "enough") and Store(tmp_path).steps() == [0, 4]


def test_noise_depends_on_the_sample_alone() -> None:
    clock, later = (clock_of(t, steps=9, steps_per_epoch=3, seed=5) for t in (0, 7))
    p = torch.tensor([3, 10**12, 4])
    noise = clock.noise("vae", p, (2, 500))
    assert noise.shape == (3, 2, 500) and abs(noise.mean()) < 0.1 and abs(noise.std() - 1) < 0.1
    assert torch.equal(noise[[2, 0]], later.noise("vae", p[[2, 0]], (2, 500)))
    assert not torch.equal(noise, clock.noise("other", p, (2, 500)))


def test_before_epoch_sweeps_in_eval_mode() -> None:
    class Clusters(Masked):
        swept: list[Any] = []

        def before_epoch(self, sweep, clock) -> None:
            for index, outputs in sweep():
                self.swept.append((clock.epoch, len(index), outputs["error"].requires_grad, self.training))

    task = build(Clusters())
    settings = Settings(8, steps=4, steps_per_epoch=2)
    fit(task, Pictures(8), settings, fabric=alone(), sweep=lambda: Pictures(8)(0, 2))
    assert Clusters.swept == [(0, 8, False, False)] * 2 + [(1, 8, False, False)] * 2


def test_more_devices_than_there_are_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"The 'devices' parameter of pretrain must be .* Got 6400 instead\."
    ) as caught:
        make_fabric("cpu", devices=6400)
    assert caught.value.hint.startswith("Try --devices ")
    with pytest.raises(ConfigError, match="accelerator"):
        make_fabric("tpu")


def test_precision_is_the_hardwares(monkeypatch: pytest.MonkeyPatch) -> None:
    for found, expected in (("amx_bf16", "bf16-mixed"), ("", "32-true")):
        monkeypatch.setattr(fabrics, "_bf16_instructions", lambda found=found: found)
        precision, why = choose_precision("cpu")
        assert precision == expected and (found or "no bf16") in why
    assert choose_precision("cpu", "32-true") == ("32-true", "as asked for")
    with pytest.raises(ConfigError, match="precision"):
        choose_precision("cpu", "8")


def test_settings_say_what_is_wrong() -> None:
    with pytest.raises(ConfigError, match="one of 'steps' and 'minutes'"):
        Settings(8)
    with pytest.raises(ConfigError, match=r"multiple of devices x accumulate = 6. Got 8 instead") as caught:
        Settings(8, steps=1, accumulate=2).share(3)
    assert caught.value.hint == "Try --batch-size 6."
    with pytest.raises(ConfigError, match="accumulate"):
        Settings(8, steps=1, accumulate=9)


def test_bf16_trains_and_resumes_bit_for_bit(tmp_path: Path) -> None:
    """Data reach ``normalise`` as stored, and it is asked for bf16; weights stay float32."""
    fabric = make_fabric("cpu", devices=1, precision="bf16-mixed")
    settings = Settings(8, steps=8, optimiser=Recipe(lr=1e-2), save_every=0.0)
    whole, first = build(SimCLR()), build(SimCLR())
    seen = []
    inner = whole.normalise
    assert inner is not None
    whole.normalise = lambda data, dtype: (seen.append((data.dtype, dtype)), inner(data, dtype))[1]
    fit(whole, Pictures(8), settings, fabric=fabric)
    assert set(seen) == {(torch.uint8, torch.bfloat16)}

    class Enough(Callback):
        def on_step(self, state: State, row: dict[str, Any]) -> None:
            state.stop = "enough" if state.clock.step == 3 else ""

    fit(first, Pictures(8), settings, fabric=fabric, store=Store(tmp_path), callbacks=[Enough()])
    second = build(SimCLR())
    assert fit(second, Pictures(8), settings, fabric=fabric, store=Store(tmp_path)).resumed_from == 4
    for name, value in whole.state_dict().items():
        assert value.dtype != torch.bfloat16 and torch.equal(second.state_dict()[name], value), name
