"""What machines do to a run: full disks, places that may only be read, threads, clocks that jump."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import selftaught as st
from selftaught import cli
from selftaught.data.index import build_index
from selftaught.data.source import open_source
from selftaught.errors import WriteError
from selftaught.modalities.image import Image
from tests.test_bad_input import SMALL, write_pictures

REQUEST = (*SMALL, "--method", "vae", "--steps", "4", "--batch-size", "8")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"), 24)


@pytest.fixture(scope="module")
def whole(pictures, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "whole"
    assert cli.main(["pretrain", str(pictures), "--out", str(run), *REQUEST]) == 0
    return run


class Disk:
    """A file system of its own, of a size that can be changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def mount(self, *options: str) -> None:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(self.folder)], capture_output=True
        )
        if done.returncode:
            pytest.skip(f"cannot mount a small file system here: {done.stderr.decode().strip()}")

    def change(self, *options: str) -> None:
        subprocess.run(["mount", "-o", ",".join(("remount", *options)), str(self.folder)], check=True)

    def fill(self) -> None:
        with contextlib.suppress(OSError), (self.folder / "filler").open("ab", buffering=0) as file:
            while True:
                file.write(bytes(4096))


@pytest.fixture
def disk(tmp_path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    disk = Disk(folder)
    yield disk
    subprocess.run(["umount", "--lazy", str(folder)], capture_output=True)


def said(capsys, code: int = 1) -> str:
    """One sentence on stderr."""
    text = capsys.readouterr().err
    assert text.count("\n") == 1 and "Traceback" not in text and "Unexpected" not in text
    return text


# --- Full disks -------------------------------------------------------------------------------------------------------

# From the first file of a run to its last: run.yaml, index, environment, pictures, the first checkpoint, a later one.
SIZES = (4, 8, 16, 32, 100, 240, 400, 1700, 3000)  # kB


@pytest.mark.parametrize("size", SIZES)
def test_a_disk_that_is_full_at_any_moment_costs_nothing_but_the_wait(disk, whole, pictures, capsys, size):
    disk.mount(f"size={size}k")
    run = disk.folder / "run"
    words = ["pretrain", str(pictures), "--out", str(run), *REQUEST]
    code = cli.main(words)
    assert code in (1, 2)
    assert "No space left on device" in said(capsys)
    assert not [path for path in disk.folder.rglob("*") if "partial" in path.name or path.suffix == ".tmp"]
    disk.change("size=100m")
    assert cli.main(words) == 0, capsys.readouterr().err
    for name in ("encoder/model.safetensors", "parts/method/model.safetensors", "pictures/views.png"):
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.mark.parametrize(
    "words",
    [
        ("embed", "RUN", "DATA", "--out", "DISK/vectors.npy"),
        ("embed", "RUN", "DATA", "--out", "DISK/vectors.parquet"),
        ("energy", "RUN", "DATA", "--out", "DISK/energy.csv"),
        ("outliers", "RUN", "DATA", "--out", "DISK/outliers.parquet"),
        ("generate", "RUN", "--n", "4", "--out", "DISK/generated.png"),
        ("inspect", "DATA", "--out", "DISK/page.html", "--quiet"),
        ("report", "DISK/run"),
    ],
    ids=lambda words: " ".join(words[:1]),
)
def test_other_commands_say_so_too_and_leave_nothing_half_written(disk, whole, pictures, capsys, words):
    disk.mount("size=100m")
    if "DISK/run" in words:
        shutil.copytree(whole, disk.folder / "run")
    used = sum(-(-path.stat().st_size // 4096) * 4 for path in disk.folder.rglob("*") if path.is_file())
    disk.change(f"size={used + 8}k")
    disk.fill()
    before = sorted(disk.folder.rglob("*"))
    places = {"RUN": str(whole), "DATA": str(pictures)}
    typed = [places[word] if word in places else word.replace("DISK", str(disk.folder)) for word in words]
    assert cli.main(typed) in (1, 2)
    assert "No space left on device" in said(capsys)
    assert sorted(disk.folder.rglob("*")) == before


def test_a_cache_on_a_full_disk_is_said_with_the_variable_that_moves_it(disk, pictures, monkeypatch):
    disk.mount("size=4k")
    monkeypatch.setenv("SELFTAUGHT_CACHE", str(disk.folder / "cache"))
    with pytest.raises(WriteError, match="The index cannot be written to .*: No space left on device") as refused:
        build_index(open_source(pictures, Image.extensions), Image())
    assert "Set SELFTAUGHT_CACHE to a folder with room" in refused.value.hint
    with pytest.raises(WriteError, match="The arrays cannot be written"):
        open_source(np.zeros((9, 40, 40), np.uint8), Image.extensions)


def test_a_place_that_may_only_be_read(disk, whole, pictures, capsys):
    disk.mount("size=100m")
    shutil.copytree(whole, disk.folder / "run")
    disk.change("ro")
    for out in (disk.folder / "new", disk.folder / "run"):
        assert cli.main(["pretrain", str(pictures), "--out", str(out), *REQUEST]) == 2
        assert "Cannot write to" in (text := said(capsys)) and "Read-only file system" in text
    assert cli.main(["embed", str(disk.folder / "run"), str(pictures), "--out", str(disk.folder / "v.npy")]) == 2
    assert "a file in a folder that can be written to" in said(capsys)
    assert len(st.load(disk.folder / "run").embed(pictures)) == 24, "a run can be used where it may only be read"


# --- Threads and clocks -----------------------------------------------------------------------------------------------


def test_a_training_in_a_thread_starts_its_workers_and_ends_alike(whole, pictures, tmp_path):
    """Python's signals belong to the main thread, and workers are forked from whichever thread asks for a batch."""
    failed: list[BaseException] = []

    def train() -> None:
        settings = {"encoder": {"name": "small", "width": 4}, "modality": {"size": 16}, "method": "vae"}
        try:
            st.pretrain(pictures, out=tmp_path / "run", steps=4, batch_size=8, workers=2, quiet=True, **settings)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=train)
    thread.start()
    thread.join(120)
    assert not thread.is_alive() and not failed
    for name in ("encoder/model.safetensors", "parts/method/model.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (whole / name).read_bytes()


def test_a_clock_that_jumps_changes_nothing(whole, pictures, tmp_path, monkeypatch):
    """Summer time, a correction by the network, a battery that ran out: only the clock that never jumps is asked."""
    jumps, real = iter(range(10**9)), time.time
    monkeypatch.setattr(time, "time", lambda: real() + (-1) ** next(jumps) * 86_400 * 365)
    run = tmp_path / "run"
    assert cli.main(["pretrain", str(pictures), "--out", str(run), *REQUEST]) == 0
    for name in ("encoder/model.safetensors", "metrics.csv"):
        one, other = ((folder / name).read_bytes() for folder in (run, whole))
        if name == "metrics.csv":
            assert all(0 <= row["seconds"] < 60 for row in st.Run(run).metrics)
        else:
            assert one == other
