"""A wrong request gets one sentence, the right exit code, and leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from selftaught import cli

SMALL = ("--encoder", "small", "--encoder.width", "4", "--modality.size", "16", "--workers", "0", "--quiet")


def write_pictures(folder: Path, count: int, side: int = 20) -> Path:
    """Noise of different brightness, as PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        picture = rng.integers(0, 60 + number % 190, (side, side, 3), np.uint8)
        cv2.imwrite(str(folder / f"{number:03}.png"), picture)
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("pictures"), 24)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("SELFTAUGHT_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def refused(capsys, *words: object, code: int = 2) -> str:
    """What the command line says to a request that it must refuse."""
    found = cli.main([str(word) for word in words])
    streams = capsys.readouterr()
    assert found == code, streams.err
    assert streams.out == "" and "Traceback" not in streams.err
    assert streams.err.count("\n") == 1
    return streams.err


def everything(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--method", "simclrr"), "Did you mean 'simclr'?"),
        (("--encoder", "resnt18"), "Did you mean 'resnet18'?"),
        (("--modality", "imgae"), "Did you mean 'image'?"),
        (("--method.temprature", "1"), "Did you mean 'temperature'?"),
        (("--batchsize", "8"), "Did you mean --batch-size?"),
        (
            ("--method", "simclr", "--method.temperature", "0"),
            "The 'temperature' parameter of SimCLR must be a float in (0, inf). Got 0 instead.",
        ),
        (("--lr", "nan"), "The 'lr' parameter of pretrain must be a float in (0, inf) or None. Got nan instead."),
        (("--steps", "0"), "Got 0 instead."),
        (("--method", "simclr", "--batch-size", "1"), "'batch_size' parameter of SimCLR must be an int in [2, inf)"),
        (("--batch-size", "1"), "'batch_size' parameter of SimCLR must be an int in [2, inf)"),
        (("--batch-size", "64"), "must be an int in [2, 24], the number of training samples. Got 64 instead."),
        (("--devices", "64"), "The 'devices' parameter of pretrain must be an int in [1, "),
        (("--resume", "must"), "There is no run to resume at"),
        (("--config", "nowhere.yaml"), "must be a YAML file or a recipe"),
        (("--labels", "species"), "Got 'species' instead."),
        (("--modality.length", "9"), "Image has no parameter 'length'"),
        (("--encoder.wdth", "4"), "Did you mean 'width'?"),
        (("--views.scale", "0,1"), "must be 2 floats in (0, 1]"),
    ],
)
def test_a_refused_request_leaves_nothing_behind(capsys, tmp_path, pictures, flags, sentence):
    base = () if "--encoder" in flags or "--modality" in flags else SMALL
    said = refused(capsys, "pretrain", pictures, "--out", tmp_path / "run", *base, *flags)
    assert sentence in said
    assert not everything(tmp_path)


def test_data_that_are_not_there_or_nothing(capsys, tmp_path):
    out = tmp_path / "run"
    assert "no file or folder" in refused(capsys, "pretrain", tmp_path / "nowhere", "--out", out, *SMALL)
    (tmp_path / "photos").mkdir()
    assert "Did you mean 'photos'" in refused(capsys, "pretrain", tmp_path / "potos", "--out", out, *SMALL)
    (tmp_path / "empty").mkdir()
    assert "is empty" in refused(capsys, "pretrain", tmp_path / "empty", "--out", out, *SMALL)
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "notes.txt").write_text("no picture")
    assert "1 .txt file" in refused(capsys, "pretrain", tmp_path / "texts", "--out", out, *SMALL)
    one = write_pictures(tmp_path / "one", 1)
    assert "There is 1 sample" in refused(capsys, "pretrain", one, "--out", out, *SMALL)
    assert not out.exists()


def test_a_run_with_another_configuration_is_refused_by_key(capsys, tmp_path, pictures):
    out = tmp_path / "run"
    assert cli.main(["pretrain", str(pictures), "--out", str(out), *SMALL, "--steps", "2"]) == 0
    before = {path: path.stat().st_mtime_ns for path in everything(out)}
    said = refused(capsys, "pretrain", pictures, "--out", out, *SMALL, "--steps", 3, "--method.temperature", 0.3)
    assert "another configuration: method.temperature is None there and 0.3 here; steps is 2 there and 3 here" in said
    said = refused(capsys, "pretrain", pictures, "--out", out, *SMALL, "--steps", 2, "--resume", "never")
    assert "holds a run already" in said
    assert {path: path.stat().st_mtime_ns for path in everything(out)} == before
    assert cli.main(["pretrain", str(pictures), "--out", str(out), *SMALL, "--steps", "2"]) == 0  # finished: says so


def test_places_that_cannot_be_written_to(capsys, tmp_path, pictures):
    (tmp_path / "file").write_text("in the way")
    assert "is a file" in refused(capsys, "pretrain", pictures, "--out", tmp_path / "file" / "run", *SMALL)
    assert "is a file" in refused(capsys, "pretrain", pictures, "--out", tmp_path / "file", *SMALL)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    assert "holds no run" in refused(capsys, "pretrain", pictures, "--out", tmp_path / "mine", *SMALL)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"
    if Path("/proc/1").exists():
        assert "Cannot write to" in refused(capsys, "pretrain", pictures, "--out", "/proc/run", *SMALL)


def test_some_broken_files_are_named_and_the_run_goes_on(capsys, tmp_path):
    data = write_pictures(tmp_path / "data", 40)
    (data / "empty.png").write_bytes(b"")
    whole = (data / "000.png").read_bytes()
    (data / "truncated.png").write_bytes(whole[: len(whole) // 2])
    out = tmp_path / "run"
    words = [str(word) for word in ("pretrain", data, "--out", out, *SMALL[:-1], "--steps", 12, "--batch-size", 8)]
    assert cli.main(words) == 0
    assert "samples could not be read" in capsys.readouterr().out
    lines = (out / "quarantine.csv").read_text().splitlines()
    assert lines[0] == "path,reason"
    assert {line.split(",")[0] for line in lines[1:]} == {"empty.png", "truncated.png"}


def test_too_many_broken_files_stop_the_run_and_name_the_flag(capsys, tmp_path):
    data = write_pictures(tmp_path / "data", 20)
    for number in range(5):
        (data / f"bad{number}.png").write_bytes(b"not a picture")
    out = tmp_path / "run"
    said = refused(capsys, "pretrain", data, "--out", out, *SMALL, "--steps", 2, code=1)
    assert "5 of 25 files" in said and "--accept-unreadable" in said
    assert not out.exists()
    assert cli.main(["pretrain", str(data), "--out", str(out), *SMALL, "--steps", "2", "--accept-unreadable"]) == 0


def test_commands_on_what_is_no_run(capsys, tmp_path, pictures):
    for words in (
        ("evaluate", tmp_path, pictures, "--labels", "folders"),
        ("diagnose", tmp_path),
        ("report", tmp_path),
    ):
        assert "must be the folder of a run" in refused(capsys, *words)
    assert "must be a file ending in" in _embed_to(capsys, tmp_path, pictures, "vectors.txt")


def _embed_to(capsys, tmp_path: Path, pictures: Path, name: str) -> str:
    (tmp_path / "run").mkdir(exist_ok=True)
    (tmp_path / "run" / "run.yaml").write_text("schema: 1\n")
    said = refused(capsys, "embed", tmp_path / "run", pictures, "--out", tmp_path / name)
    shutil.rmtree(tmp_path / "run")
    return said


def test_devices_and_missing_data_are_refused_within_seconds(tmp_path, pictures):
    """4 s where torch must load; measured as processor time, for the machine may be busy with other tests."""
    start = time.perf_counter(), os.times()
    words = [sys.executable, "-m", "selftaught", "pretrain", str(pictures), "--out", str(tmp_path / "run")]
    done = subprocess.run([*words, "--devices", "64", *SMALL], capture_output=True, text=True, cwd=tmp_path)
    now = os.times()
    spent = now.children_user + now.children_system - start[1].children_user - start[1].children_system
    assert done.returncode == 2 and "'devices' parameter" in done.stderr
    assert min(spent, time.perf_counter() - start[0]) < 8
    assert not everything(tmp_path)


def test_a_colour_that_is_not_there_cannot_be_told(tmp_path, capsys):
    """Refused before anything is written, with what these data do have."""
    rng = np.random.default_rng(0)
    np.save(tmp_path / "gray.npy", rng.integers(0, 256, (40, 16, 16)).astype(np.uint8))
    words = ["pretrain", str(tmp_path / "gray.npy"), "--out", str(tmp_path / "run"), "--steps", "2"]
    assert cli.main([*words, "--method", "colourisation", "--encoder", "small"]) == 2
    told = capsys.readouterr().err
    assert "Colourisation needs data of which 'colour' can be asked" in told and "rotation" in told
    assert not (tmp_path / "run").exists()
