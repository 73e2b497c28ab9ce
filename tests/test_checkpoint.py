"""Checkpoints against kills, full disks, flipped bits and second writers."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from selftaught.errors import CheckpointError, RunError
from selftaught.train import snapshot
from selftaught.train.checkpoint import Store, lock
from selftaught.train.optim import Recipe, build_optimiser


def tensors(step: int = 0, size: int = 1000) -> dict[str, Tensor]:
    return {"weight": torch.arange(size, dtype=torch.float32) + step, "step": torch.tensor(float(step))}


def saved(folder: Path, *steps: int) -> Store:
    store = Store(folder)
    for step in steps:
        store.save(tensors(step), {"seconds": step / 7}, step=step)
    return store


def test_round_trip(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.load_latest() is None
    last = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    given = {"a": torch.randn(3, 2).T, "b": torch.randint(9, (4,)), "c": last, "d": torch.ones(2).bfloat16()}
    store.save(given, {"betas": [0.9, 0.95], "nested": {"x": None}}, step=12)
    found = store.load_latest()
    assert found is not None and found.step == 12 and found.facts == {"betas": [0.9, 0.95], "nested": {"x": None}}
    assert found.tensors.keys() == given.keys()
    assert all(torch.equal(found.tensors[name], value) for name, value in given.items())


def test_tied_tensors_are_written_once(tmp_path: Path) -> None:
    memory = torch.randn(1000)
    store = Store(tmp_path)
    store.save({"a": memory, "b": memory, "head": memory[:10]}, {}, step=1)
    assert (tmp_path / "00000001.safetensors").stat().st_size < 1.2 * memory.nbytes
    found = store.load_latest()
    assert found is not None
    assert torch.equal(found.tensors["b"], memory) and torch.equal(found.tensors["head"], memory[:10])


def test_two_are_kept(tmp_path: Path) -> None:
    assert saved(tmp_path, 1, 20, 300).steps() == [20, 300]
    assert len(list(tmp_path.iterdir())) == 4


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def tear(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("harm", [flip, tear, Path.unlink])
@pytest.mark.parametrize("suffix", ["safetensors", "json"])
def test_a_harmed_checkpoint_costs_one_interval(tmp_path: Path, harm, suffix: str) -> None:
    store = saved(tmp_path, 1, 2)
    harm(tmp_path / f"00000002.{suffix}")
    found = store.load_latest()
    assert found is not None and found.step == 1 and torch.equal(found.tensors["weight"], tensors(1)["weight"])
    gone = suffix == "json" and harm is Path.unlink  # without its JSON it never was a checkpoint
    assert gone or "checkpoint of step 2 cannot be used" in found.notes[0]
    assert store.load_latest(discard=True) is not None and store.steps() == [1]
    store.save(tensors(2), {}, step=2)
    again = store.load_latest()
    assert again is not None and again.step == 2 and again.notes == ()


def test_nothing_usable_is_an_error(tmp_path: Path) -> None:
    store = saved(tmp_path, 1, 2)
    for step in (1, 2):
        flip(tmp_path / f"{step:08d}.safetensors")
    with pytest.raises(CheckpointError, match="None of the 2 checkpoints"):
        store.load_latest()


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    store = saved(tmp_path, 1)
    for name in ("00000002.safetensors", "00000002.safetensors.partial", "00000003.json.partial"):
        (tmp_path / name).write_bytes(b"half")
    found = store.load_latest()
    assert found is not None and found.step == 1 and found.notes == ()
    store.save(tensors(4), {}, step=4)
    assert sorted(path.name[:8] for path in tmp_path.iterdir()) == ["00000001"] * 2 + ["00000004"] * 2


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kB."""
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], capture_output=True)
    if done.returncode:
        pytest.skip(f"cannot mount a small file system here: {done.stderr.decode().strip()}")
    yield tmp_path
    # Lazily, because loaded tensors may still map the file.
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def assert_last_good_stands(store: Store) -> None:
    with pytest.raises(CheckpointError, match="step 2 cannot be written") as caught:
        store.save(tensors(2, size=100_000), {}, step=2)
    assert "last good checkpoint stands" in caught.value.hint
    found = store.load_latest()
    assert found is not None and found.step == 1 and not list(store.folder.glob("*.partial"))


def test_a_full_disk_leaves_the_last_good_one(full_disk: Path) -> None:
    assert_last_good_stands(saved(full_disk, 1))


def test_a_limit_on_file_size_leaves_the_last_good_one(tmp_path: Path) -> None:
    store = saved(tmp_path, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64_000, hard))
    try:
        assert_last_good_stands(store)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match="cannot be written"):
        saved(tmp_path / "file" / "checkpoints", 1)
    with pytest.raises(RunError, match="cannot be written"), lock(tmp_path / "file" / "run"):
        pass


def test_loading_runs_no_code(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    content = (tmp_path / "00000001.safetensors").read_bytes()
    header = int.from_bytes(content[:8], "little")
    assert set(json.loads(content[8 : 8 + header])) == {"weight", "step"}
    assert all(path.suffix in (".json", ".safetensors") for path in tmp_path.iterdir())


HOLD = (
    "import sys; from selftaught.train.checkpoint import lock\nwith lock(sys.argv[1]): print('held'); sys.stdin.read()"
)


def test_the_second_run_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(RunError, match=rf"in use by process {holder.pid}\."), lock(tmp_path / "run"):
            pass
        holder.kill()
    with lock(tmp_path / "run"):
        assert (tmp_path / "run" / "lock").read_text() == str(os.getpid())


@pytest.mark.parametrize("name", ["adamw", "sgd", "lars"])
def test_an_optimiser_goes_on_bit_for_bit(tmp_path: Path, name: str) -> None:
    """Channels-last weights too: fused optimisers walk memory, and the file keeps no strides."""

    def made() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3))
        net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return net, build_optimiser(net, Recipe(name, lr=0.01), batch_size=256)

    def steps(net: nn.Module, optimiser: torch.optim.Optimizer, first: int, last: int) -> None:
        for t in range(first, last):
            torch.manual_seed(t)
            optimiser.zero_grad()
            net(torch.randn(4, 3, 8, 8).to(memory_format=torch.channels_last)).square().mean().backward()
            optimiser.step()

    whole = made()
    steps(*whole, 0, 6)
    first = made()
    steps(*first, 0, 3)
    store = Store(tmp_path)
    store.save(snapshot.tensors_of(*first), {"groups": snapshot.groups_of(first[1])}, step=3)
    found, second = store.load_latest(), made()
    assert found is not None
    snapshot.restore(found.tensors, *second)
    snapshot.restore_groups(found.facts["groups"], second[1])
    steps(*second, 3, 6)
    for key, value in snapshot.tensors_of(*whole).items():
        assert torch.equal(value, snapshot.tensors_of(*second)[key]), key
    assert second[1].param_groups[0].get("betas", (0,)).__class__ is tuple


def test_another_model_is_refused(tmp_path: Path) -> None:
    net = nn.Linear(3, 2)
    optimiser = build_optimiser(net, Recipe(), batch_size=8)
    with pytest.raises(CheckpointError, match="another model"):
        snapshot.restore({"weight": torch.ones(5, 5), "bias": torch.ones(2)}, net, optimiser)
    with pytest.raises(CheckpointError, match="groups"):
        snapshot.restore_groups([], optimiser)


def test_other_surroundings_are_named() -> None:
    net = nn.Linear(3, 2)
    now = snapshot.surroundings(net, build_optimiser(net, Recipe(), batch_size=8))
    assert snapshot.adopt(now, now) == []
    (note,) = snapshot.adopt(now | {"torch": "1.0"}, now)
    assert note == f"The torch changed from 1.0 to {torch.__version__}: the run goes on, but not bit for bit."
    try:
        assert snapshot.adopt(now | {"threads": 1}, now | {"threads": 2}) == []
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(now["threads"])
