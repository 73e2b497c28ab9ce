"""Which step gives the encoder: the last, unless the run ends in an alarm and with less than half of its best rank."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from safetensors.torch import load_file

import selftaught as st
from selftaught.commands import training
from selftaught.diagnostics.best import Best
from selftaught.diagnostics.verdicts import Verdict
from selftaught.diagnostics.watch import Watch
from selftaught.errors import CheckpointError
from selftaught.modalities.image import Image
from selftaught.train.checkpoint import Store

SMALL: dict[str, Any] = {"encoder": {"name": "small", "width": 4}, "modality": {"size": 16}, "workers": 0}


def watched(ranks: dict[int, float], **options: bool) -> tuple[Best, list[int]]:
    """A Best that saw these RankMe after these steps, and the steps that it kept."""
    watch, kept = Watch(()), []
    best = Best(watch, kept.append, **options)
    for step in range(max(ranks) + 1):
        if step in ranks:
            watch.history.checks.append({"step": step, "rankme": ranks[step]})
        if step:
            best.on_step(SimpleNamespace(clock=SimpleNamespace(step=step - 1)), {})
        else:
            best.on_start(None)
    return best, kept


@pytest.fixture
def alarmed(monkeypatch):
    monkeypatch.setattr("selftaught.diagnostics.best.judge", lambda history: [Verdict(0, "alarm", "collapsing", "")])


@pytest.mark.parametrize(
    ("ranks", "kept", "lost"),
    [
        ({0: 9, 25: 10, 50: 12}, [25, 50], False),
        ({0: 9, 25: 10, 50: 6}, [25], False),  # less, but not half
        ({0: 9, 25: 10, 50: 4.9}, [25], True),
        ({0: 90, 25: 10, 50: 11}, [25, 50], False),  # a new encoder is never the best
        ({0: 9}, [], False),
    ],
)
def test_only_a_fall_to_less_than_half_counts(alarmed, ranks, kept, lost):
    best, seen = watched(ranks)
    assert (seen, best.lost) == (kept, lost)


def test_without_an_alarm_the_end_is_taken(monkeypatch):
    best, _ = watched({0: 9, 25: 10, 50: 4.9})
    for level, lost in (("ok", False), ("warning", False), ("alarm", True)):
        monkeypatch.setattr("selftaught.diagnostics.best.judge", lambda _, level=level: [Verdict(0, level, "", "")])
        assert best.lost is lost


def test_an_encoder_that_was_trained_before_counts_from_step_0(alarmed):
    best, kept = watched({0: 50, 25: 3, 50: 5}, trained=True)
    assert kept == [0] and best.lost and "step 0," in best.verdict().sentence
    best.on_start(None)  # started again: what step 0 gave is known
    assert kept == [0]


def test_it_goes_on_as_if_nothing_had_happened(alarmed):
    best, _ = watched({0: 9, 25: 10, 50: 4})
    again = Best(best.watch, lambda step: None)
    again.load_state(json.loads(json.dumps(best.state())))
    assert again.lost and again.verdict() == best.verdict()
    assert "step 25" in again.verdict().sentence


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for number, sample in enumerate(Image().toy(32)):
        cv2.imwrite(str(root / f"{number:03}.png"), np.asarray(sample.data))
    return root


@pytest.mark.parametrize("last", [0.5, 9.0])
def test_a_run_that_lost_its_rank_keeps_the_encoder_from_before(pictures, tmp_path, monkeypatch, capsys, last):
    monkeypatch.setenv("SELFTAUGHT_CACHE", str(tmp_path / "cache"))
    measure, ranks = Watch.measure, iter([8.0, 10.0, last, last])  # at steps 0, 25, 50 and 58
    with monkeypatch.context() as patch:
        patch.setattr(
            Watch, "measure", lambda *given: {**measure(*given), **dict.fromkeys(("rank", "rankme"), next(ranks))}
        )
        run = st.pretrain(pictures, out=tmp_path / "run", steps=58, batch_size=8, **SMALL)
    folder = Path(run.folder)
    config = json.loads((folder / "encoder" / "config.json").read_text())
    end = Store(folder / "checkpoints").load_latest()
    assert end is not None and end.step == 58
    found = load_file(folder / "encoder" / "model.safetensors")
    is_the_last = all(np.array_equal(value, end.tensors[f"encoders.encoder.{name}"]) for name, value in found.items())
    said = "the encoder kept is that of step 25" in capsys.readouterr().out
    assert said == (run.health["verdicts"][-1]["name"] == "earlier encoder")
    assert (config["step"], is_the_last, said) == ((25, False, True) if last < 1 else (58, True, False))
    assert not (folder / "checkpoints" / "best").exists()
    assert st.load(run.folder).dim == 32
    again = st.pretrain(pictures, out=tmp_path / "more", from_=run.folder, steps=1, batch_size=8, workers=0, quiet=True)
    assert (again.config["derived"]["head_first"] > 0) == (last < 1)  # heads of the last step are for its encoder


def test_an_encoder_that_cannot_be_written_costs_no_more_than_the_time_since_the_checkpoint(
    pictures, tmp_path, monkeypatch
):
    monkeypatch.setenv("SELFTAUGHT_CACHE", str(tmp_path / "cache"))
    given = {"out": tmp_path / "run", "steps": 26, "batch_size": 8, "quiet": True, **SMALL}
    with monkeypatch.context() as patch:
        patch.setattr(training, "save_encoder", full)
        with pytest.raises(CheckpointError, match="encoder of step 25 cannot be written"):
            st.pretrain(pictures, **given)
    assert st.pretrain(pictures, **given).finished


def full(*given: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")
