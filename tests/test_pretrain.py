"""The road from a folder of pictures to a run: what is written, and that it goes on where it stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from safetensors.torch import load_file

import selftaught as st
from selftaught.commands.samples import hold_out, infer
from selftaught.errors import EncoderError, ModalityError, RunError
from selftaught.train.checkpoint import lock

ENCODER = {"name": "small", "width": 4}
SETTINGS = {"encoder": ENCODER, "modality": {"size": 16}, "batch_size": 8, "workers": 0, "quiet": True}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("SELFTAUGHT_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """64 pictures in two folders: discs and stripes."""
    from selftaught.modalities.image import Image

    root = tmp_path_factory.mktemp("data")
    for number, sample in enumerate(Image().toy(64)):
        folder = root / ("disc" if sample.target == 0 else "stripes")
        folder.mkdir(exist_ok=True)
        cv2.imwrite(str(folder / f"{number:03}.png"), np.asarray(sample.data))
    return root


@pytest.fixture(scope="module")
def run(pictures, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "whole"
    return st.pretrain(pictures, out=out, steps=10, labels="folders", **SETTINGS)


def weights(folder: Path) -> dict:
    return load_file(folder / "encoder" / "model.safetensors")


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all((a[name] == b[name]).all() for name in a)


def test_everything_that_a_run_holds_is_there(run):
    for name in (
        "run.yaml", "environment.json", "metrics.csv", "health.json", "index.arrow", "pictures/samples.png",
        "pictures/views.png", "encoder/config.json", "encoder/model.safetensors", "encoder/preprocessing.json",
    ):  # fmt: skip
        assert (run.folder / name).stat().st_size > 0, name
    assert len(list((run.folder / "checkpoints").glob("*.safetensors"))) <= 2
    assert run.finished and run.metrics[-1]["step"] == 10


def test_run_yaml_says_what_was_asked_derived_and_why(run):
    saved = run.config
    assert saved["schema"] == 1 and saved["request"]["steps"] == 10
    assert saved["derived"]["method"] == "simclr" and saved["derived"]["encoder"] == "small"
    assert "the usual one" in saved["reasons"]["method"]
    assert saved["derived"]["batch_size"] == 8 and saved["derived"]["shape"] == [3, 16, 16]
    assert saved["reasons"]["modality"] == "by content"
    assert "precision" in saved["reasons"] and "batch_size" not in saved["reasons"]  # asked for: no reason needed


def test_environment_says_on_what(run):
    found = run.environment
    assert found["packages"]["torch"] and found["threads"] >= 1 and found["fingerprint"] == run.config["fingerprint"]


def test_health_is_measured_and_labels_are_watched(run):
    assert [one["step"] for one in run.health["measures"]][-1] == 10
    assert run.health["held_out"] is False  # 64 pictures are too few to hold some out
    assert 0 <= run.health["measures"][-1]["knn"] <= 1
    assert st.diagnose(run, quiet=True) == run.health


def test_the_same_command_again_says_that_it_is_finished(run, pictures, capsys):
    before = (run.folder / "run.yaml").stat().st_mtime_ns
    again = st.pretrain(pictures, out=run.folder, steps=10, labels="folders", **{**SETTINGS, "quiet": False})
    assert "is finished" in capsys.readouterr().out
    assert again == run and (run.folder / "run.yaml").stat().st_mtime_ns == before


def test_workers_change_nothing(run, pictures, tmp_path):
    other = st.pretrain(pictures, out=tmp_path / "run", steps=10, labels="folders", **{**SETTINGS, "workers": 2})
    assert same(weights(run.folder), weights(other.folder))


def test_another_seed_is_another_run(run, pictures, tmp_path):
    other = st.pretrain(pictures, out=tmp_path / "run", steps=10, labels="folders", seed=1, **SETTINGS)
    assert not same(weights(run.folder), weights(other.folder))


def test_preview_shows_exactly_the_views_of_training(run, pictures, tmp_path):
    st.pretrain(pictures, out=tmp_path / "run", steps=10, labels="folders", preview=True, **SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["run-preview.png"]
    assert (tmp_path / "run-preview.png").read_bytes() == (run.folder / "pictures" / "views.png").read_bytes()


def test_views_are_changed_as_asked(pictures, tmp_path):
    st.pretrain(pictures, out=tmp_path / "a", preview=True, views={"gray": 1.0}, **SETTINGS)
    shown = cv2.imread(str(tmp_path / "a-preview.png"))
    assert shown is not None and (shown.max(axis=2) - shown.min(axis=2)).max() <= 1  # no colour left


def test_a_run_in_use_is_refused(pictures, tmp_path):
    out = tmp_path / "run"
    with lock(out), pytest.raises(RunError, match="in use"):
        st.pretrain(pictures, out=out, steps=2, **SETTINGS)


def test_changed_data_are_noticed_and_can_be_accepted(pictures, tmp_path):
    import shutil

    data, out = tmp_path / "data", tmp_path / "run"
    shutil.copytree(pictures, data)
    st.pretrain(data, out=out, steps=4, **SETTINGS)
    shutil.rmtree(out / "encoder")  # as if it had been killed just before the end
    next((data / "disc").glob("*.png")).unlink()
    with pytest.raises(RunError, match="data changed"):
        st.pretrain(data, out=out, steps=4, **SETTINGS)
    assert st.pretrain(data, out=out, steps=4, changed_data=True, accept_unreadable=True, **SETTINGS).finished


def test_held_out_samples_are_not_trained_on():
    train, held = hold_out(2000, seed=3)
    assert len(held) == 128 and not set(train) & set(held) and len(train) + len(held) == 2000
    assert np.array_equal(held, hold_out(2000, seed=3)[1]) and not np.array_equal(held, hold_out(2000, seed=4)[1])
    assert len(hold_out(1000, seed=0)[1]) == 100  # a tenth at most
    assert len(hold_out(500, seed=0)[1]) == 0  # too few to be worth it
    assert len(hold_out(10**6, seed=0)[1]) == 2048


def test_the_kind_of_data_is_told_by_content(pictures, tmp_path):
    assert infer(pictures) == "image"
    rng = np.random.default_rng(0)
    for name, array, kind in (
        ("digits", rng.integers(0, 255, (5, 8, 8), np.uint8), "image"),
        ("colour", rng.random((5, 12, 12, 3), np.float32), "image"),
        ("sensors", rng.random((5, 3, 100), np.float32), "series"),
        ("one", rng.random((5, 50), np.float32), "series"),
    ):
        np.save(tmp_path / f"{name}.npy", array)
        assert infer(tmp_path / f"{name}.npy") == kind, name
    np.save(tmp_path / "odd.npy", rng.random((5, 2, 2, 2, 2), np.float32))
    with pytest.raises(ModalityError, match=r"Arrays of shape \(5, 2, 2, 2, 2\) may be image or series"):
        infer(tmp_path / "odd.npy")


def test_series_go_the_same_road(tmp_path):
    rng = np.random.default_rng(0)
    x = np.sin(np.linspace(0, 20, 64) * rng.uniform(1, 3, (48, 1)))[:, None].astype(np.float32)
    run = st.pretrain(x, out=tmp_path / "run", steps=3, batch_size=8, workers=0, encoder=ENCODER, quiet=True)
    assert run.config["derived"]["modality"] == "series"
    assert st.load(run).embed(x).shape == (48, 32)


def test_whole_pictures_are_embedded_at_their_own_size(pictures, tmp_path):
    settings = {**SETTINGS, "modality": {"size": 16, "whole_size": 24}}
    run = st.pretrain(pictures, out=tmp_path / "run", steps=2, **settings)
    assert run.config["derived"]["whole_shape"] == [3, 24, 24]
    model = st.load(run)
    assert model.modality.plain_shape() == (3, 24, 24) and model.embed(pictures).shape == (64, 32)
    model.modality.whole_size = 0
    assert not np.allclose(model.embed(pictures), st.load(run).embed(pictures))


def test_a_whole_size_that_the_encoder_cannot_take_is_refused(pictures, tmp_path):
    settings = {**SETTINGS, "modality": {"size": 32, "whole_size": 40}, "encoder": "vit_tiny_patch16_224"}
    with pytest.raises(EncoderError, match="multiple of"):
        st.pretrain(pictures, out=tmp_path / "run", steps=2, **settings)
    assert not (tmp_path / "run").exists()


def test_small_views_that_the_encoder_cannot_take_are_refused(pictures, tmp_path):
    settings = {**SETTINGS, "modality": {"size": 32}, "encoder": "vit_tiny_patch16_224", "method": "dino"}
    with pytest.raises(EncoderError, match=r"multiple of .* Got \(14, 14\)"):
        st.pretrain(pictures, out=tmp_path / "run", steps=2, **settings)
    assert not (tmp_path / "run").exists()


def test_a_size_that_the_encoder_cannot_take_is_refused_before_pixels_are_read(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr("selftaught.formats.pictures.Picture.decode", lambda *_: pytest.fail("pixels were decoded"))
    settings = {**SETTINGS, "modality": {"size": 40}, "encoder": "vit_tiny_patch16_224"}
    with pytest.raises(EncoderError, match="nearest below is .32, 32.|multiple of"):
        st.pretrain(pictures, out=tmp_path / "run", steps=2, **settings)
    assert not (tmp_path / "run").exists()


def test_auto_says_why(pictures, tmp_path, capsys):
    settings = {"modality": {"size": 16}, "workers": 0, "batch_size": 8}
    run = st.pretrain(pictures, out=tmp_path / "run", steps=1, **settings)
    assert run.config["reasons"]["encoder"] in capsys.readouterr().out


def test_a_run_that_accumulates_says_what_batch_norm_sees(pictures, tmp_path, capsys):
    settings = {**SETTINGS, "quiet": False}
    st.pretrain(pictures, out=tmp_path / "run", steps=2, accumulate=2, **settings)
    assert "the loss sees all 8 samples, batch norm 4 at a time" in capsys.readouterr().out


def test_killed_and_started_again_it_ends_with_the_same_weights(run, pictures, tmp_path):
    out = tmp_path / "run"
    words = [sys.executable, "-m", "selftaught", "pretrain", str(pictures), "--out", str(out), "--labels", "folders"]
    words += ["--encoder", "small", "--encoder.width", "4", "--modality.size", "16", "--batch-size", "8"]
    words += ["--workers", "0", "--steps", "10", "--quiet"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(words, env=environment) as process:
        while not _steps(out) and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    killed_at = max(_steps(out))
    again = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    whole = subprocess.run(
        [*words[:5], "--out", str(tmp_path / "whole"), *words[7:]], env=environment, capture_output=True, text=True
    )
    assert whole.returncode == 0, whole.stderr
    assert killed_at < 10 and same(weights(out), weights(tmp_path / "whole"))
    assert json.loads((out / "health.json").read_text())["measures"][-1]["step"] == 10


def _steps(out: Path) -> list[int]:
    return [int(path.stem) for path in out.glob("checkpoints/*.json")]
