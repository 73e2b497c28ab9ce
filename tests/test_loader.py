"""Batch t is a pure function of (seed, t); what cannot be read is replaced and named; no worker outlives its parent."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from selftaught.data.index import Index, build_index
from selftaught.data.keys import generator
from selftaught.data.loader import Loader, Order, once
from selftaught.data.source import open_source
from selftaught.errors import ConfigError, QuarantineError, WorkerError
from selftaught.types import Batch
from tests.pictures_stand_in import PLAN, Tiny, write_pictures

TINY: Any = Tiny()


@pytest.fixture(scope="module")
def index(tmp_path_factory) -> Index:
    folder = tmp_path_factory.mktemp("pictures")
    write_pictures(folder, 53)
    return build_index(open_source(folder, Tiny.extensions), TINY, tmp_path_factory.mktemp("cache"))


def index_of(folder: Path, cache: Path, **options: Any) -> Index:
    return build_index(open_source(folder, Tiny.extensions), TINY, cache, **options)


def load(index: Index, *, stop: int = 7, batch_size: int = 8, seed: int = 3, **options: Any) -> list[Batch]:
    """Seven batches of eight over 53 samples cross into the second epoch."""
    with Loader(index, TINY, PLAN, Order(len(index), batch_size, seed), stop=stop, **options) as loader:
        return list(loader)


def digest(batches: list[Batch]) -> str:
    together = hashlib.sha256()
    for batch in batches:
        for tensor in (batch.index, batch.p, batch["views"].data, batch["views"].drawn["corner"]):
            together.update(tensor.numpy().tobytes())
    return together.hexdigest()


# --- Order --------------------------------------------------------------------------------------------------------


def test_an_epoch_is_whole_batches_without_repeats():
    order = Order(53, 8, 0)
    assert order.steps_per_epoch == 6 and [order.epoch(t) for t in (0, 5, 6, 12)] == [0, 0, 1, 2]
    epochs = [np.concatenate([order.indices(t) for t in range(6 * e, 6 * e + 6)]) for e in range(3)]
    assert all(len(np.unique(one)) == 48 and one.min() >= 0 and one.max() < 53 for one in epochs)
    assert len({tuple(one) for one in epochs}) == 3
    assert order.positions(7).tolist() == list(range(56, 64))
    assert not np.array_equal(order.indices(0), Order(53, 8, 1).indices(0))
    assert not np.array_equal(order.indices(0), Order(53, 8, 0, "health").indices(0))


def test_order_does_not_depend_on_what_was_asked_before():
    order = Order(20_011, 16, 5)
    forward = [order.indices(t).tolist() for t in (0, 1, 1250, 1251, 3000)]
    fresh = [Order(20_011, 16, 5).indices(t).tolist() for t in (0, 1, 1250, 1251, 3000)]
    assert forward == fresh == [order.indices(t).tolist() for t in (0, 1, 1250, 1251, 3000)]


@pytest.mark.parametrize("world", [1, 2, 3, 4, 8])
def test_ranks_hold_consecutive_shares_of_one_batch(world):
    order = Order(53, 8, 2)
    for t in (0, 6):
        shares = [order.share(t, rank, world) for rank in range(world)]
        assert np.concatenate([rows for rows, _ in shares]).tolist() == order.indices(t).tolist()
        assert np.concatenate([positions for _, positions in shares]).tolist() == order.positions(t).tolist()


def test_pinned_order():
    assert Order(53, 8, 3).indices(0).tolist() == [17, 3, 28, 31, 0, 21, 37, 9]


@pytest.mark.parametrize(("count", "batch_size"), [(7, 8), (7, 0)])
def test_impossible_batches_are_refused(count, batch_size):
    with pytest.raises(ConfigError, match="'batch_size' parameter"):
        Order(count, batch_size, 0)


# --- The same batches ---------------------------------------------------------------------------------------------


def test_pinned_digest(index):
    """Everything drawn for seven batches. The pixels come from our own arrays, so no JPEG library decides it."""
    x = np.arange(53 * 12 * 12 * 3, dtype=np.uint32).reshape(53, 12, 12, 3).astype(np.uint8)
    arrays = build_index(open_source(x, Tiny.extensions, cache=index.path + ".cache"), TINY, index.path + ".cache")
    assert digest(load(arrays)) == "9281cb1809b4c78034a58ad1c82ebcabcf26029840ce04395c862a3f3de208f4"


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_do_not_matter(index, workers):
    assert digest(load(index, workers=workers)) == digest(load(index))


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_do_not_matter(index, world):
    whole, shares = load(index), [load(index, rank=rank, world=world) for rank in range(world)]
    for t, batch in enumerate(whole):
        parts = [share[t] for share in shares]
        for pick in (lambda b: b.index, lambda b: b.p, lambda b: b["views"].data, lambda b: b["views"].drawn["corner"]):
            assert torch.equal(torch.cat([pick(part) for part in parts]), pick(batch))


@pytest.mark.parametrize("start", [1, 5, 6])
def test_restarts_do_not_matter(index, start):
    assert digest(load(index, start=start)) == digest(load(index)[start:])
    assert digest(load(index, start=start, workers=2, prefetch=4)) == digest(load(index)[start:])


def test_seed_and_stream_do_matter(index):
    assert digest(load(index, seed=4)) != digest(load(index))
    other = Loader(index, TINY, PLAN, Order(len(index), 8, 3, "health"), stop=1)
    assert not torch.equal(next(other).index, load(index, stop=1)[0].index)


def test_each_sample_has_the_generator_of_its_position(index):
    batch = load(index)[6]
    corners, lights = batch["views"].drawn["corner"], []
    for row, p in enumerate(batch.p.tolist()):
        rng, shape = generator(3, "train", p), TINY.read(index.item(int(batch.index[row]))).data.shape
        assert np.array_equal(np.stack([rng.integers(0, side - 7, 2) for side in shape[:2]], 1), corners[row].numpy())
        lights.append(rng.integers(0, 20, 2, dtype=np.uint8))
    assert len({tuple(light) for light in lights}) > 4


@pytest.mark.parametrize("workers", [0, 2])
def test_loading_leaves_the_global_generators_alone(index, workers):
    def drawn() -> list[str]:
        return [torch.get_rng_state().numpy().tobytes().hex(), repr(np.random.get_state()), repr(random.getstate())]

    before = drawn()
    handlers = {name: signal.getsignal(name) for name in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT)}
    load(index, workers=workers)
    assert drawn() == before
    assert {name: signal.getsignal(name) for name in handlers} == handlers


def test_data_wait_is_measured(index):
    loader = Loader(index, TINY, PLAN, Order(len(index), 8, 0), stop=3)
    started = time.perf_counter()
    waits = [loader.last_wait for _ in loader]
    assert len(waits) == 3 and 0 < sum(waits) <= loader.waited <= time.perf_counter() - started


def test_targets_and_plain_views(index):
    targets = np.arange(len(index)) % 5
    (batch,) = Loader(index, TINY, None, Order(len(index), 8, 0), stop=1, targets=targets)
    assert batch["plain"].data.shape == (8, 1, 8, 8, 3) and batch.target is not None
    assert torch.equal(batch.target, batch.index % 5)


def test_more_ranks_than_samples_in_a_batch_is_refused(index):
    with pytest.raises(ConfigError, match="at least the number of processes, 4"):
        Loader(index, TINY, PLAN, Order(len(index), 2, 0), world=4)


# --- Once, for evaluation -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_once_gives_every_sample_in_order(index, workers):
    batches = list(once(index, TINY, batch_size=20, workers=workers))
    assert [len(batch) for batch in batches] == [20, 20, 13]
    assert torch.cat([batch.index for batch in batches]).tolist() == list(range(53))
    (chosen,) = once(index, TINY, indices=[5, 2, 9], targets=np.arange(53) * 2)
    assert chosen.index.tolist() == [5, 2, 9] and chosen.p.tolist() == [0, 1, 2]
    assert chosen.target is not None and chosen.target.tolist() == [10, 4, 18]
    assert torch.equal(chosen["plain"].data[1], batches[0]["plain"].data[2])


# --- What cannot be read ------------------------------------------------------------------------------------------


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def test_unreadable_samples_are_replaced_by_key_and_named_once(tmp_path):
    paths = write_pictures(tmp_path / "data", 60)
    _truncate(paths[7])
    paths[9].write_bytes(b"\xff\xd8\xff but no picture")
    index = index_of(tmp_path / "data", tmp_path)
    paths[11].unlink()  # after the scan
    reports = []
    for workers in (0, 2):
        named: list[tuple[str, str]] = []
        batches = load(index, stop=21, workers=workers, unreadable=named)  # three epochs
        assert sorted(path for path, _ in named) == ["0007.jpg", "0009.jpg", "0011.jpg"]
        assert all(reason and "\n" not in reason for _, reason in named)
        assert not set(torch.cat([batch.index for batch in batches]).tolist()) & {7, 9, 11}
        assert all(len(batch) == 8 for batch in batches)
        reports.append(digest(batches))
    assert reports[0] == reports[1]
    again: list[tuple[str, str]] = list(named)
    load(index, stop=21, unreadable=again)
    assert again == named  # known before: not named twice


def test_replacement_changes_nothing_else(tmp_path):
    paths = write_pictures(tmp_path / "data", 60)
    index = index_of(tmp_path / "data", tmp_path)
    whole = load(index)
    _truncate(paths[int(whole[0].index[2])])
    broken = load(index)
    keep = torch.arange(8) != 2
    assert torch.equal(whole[0]["views"].data[keep], broken[0]["views"].data[keep])
    assert whole[0].index[2] != broken[0].index[2] and torch.equal(whole[0].p, broken[0].p)


@pytest.mark.parametrize("workers", [0, 1])
def test_too_many_unreadable_samples_stop_the_run(tmp_path, workers):
    paths = write_pictures(tmp_path / "data", 40)
    for path in paths[::8]:
        _truncate(path)
    index = index_of(tmp_path / "data", tmp_path)
    with pytest.raises(QuarantineError, match="cannot be read. The first: 00") as caught:
        load(index, stop=5, workers=workers)
    assert "--accept-unreadable" in caught.value.hint
    assert len(load(index, stop=5, workers=workers, accept_unreadable=True)) == 5


def test_one_in_twenty_is_accepted_from_the_first_batch_on(tmp_path):
    paths = write_pictures(tmp_path / "data", 100)
    index = index_of(tmp_path / "data", tmp_path)
    first, last = (Order(100, 10, 3).indices(t) for t in (0, 9))
    for row in (*first[:3], *last[:2]):  # bad luck: three of the first twenty are 15 %
        _truncate(paths[int(row)])
    assert len(load(index, batch_size=10, stop=20)) == 20


def test_nothing_readable_ends(tmp_path):
    for path in write_pictures(tmp_path / "data", 10):
        _truncate(path)
    index = index_of(tmp_path / "data", tmp_path)
    for workers in (0, 1):
        with pytest.raises(QuarantineError, match="in a row cannot be read"):
            load(index, batch_size=4, workers=workers)


def test_once_leaves_out_and_names(tmp_path):
    paths = write_pictures(tmp_path / "data", 30)
    _truncate(paths[4])
    named: list[tuple[str, str]] = []
    batches = list(once(index_of(tmp_path / "data", tmp_path), TINY, batch_size=10, unreadable=named))
    assert [len(batch) for batch in batches] == [9, 10, 10] and [path for path, _ in named] == ["0004.jpg"]
    assert batches[0].index.tolist() == batches[0].p.tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 9]


# --- Processes ----------------------------------------------------------------------------------------------------


def _children() -> set[int]:
    import psutil

    return {child.pid for child in psutil.Process().children()}


def _alive(pid: int) -> bool:
    import psutil

    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_workers_end_with_the_loader(index):
    before = _children()
    loader = Loader(index, TINY, PLAN, Order(len(index), 8, 0), workers=2)
    next(loader)
    mine = _children() - before
    assert len(mine) == 2
    loader.close()
    loader.close()
    assert not any(map(_alive, mine))
    with pytest.raises(StopIteration):
        next(loader)


@pytest.mark.parametrize(("give_way", "niceness"), [(True, 19), (False, os.getpriority(os.PRIO_PROCESS, 0))])
def test_workers_give_way_where_asked(index, give_way, niceness):
    before = _children()
    with Loader(index, TINY, PLAN, Order(len(index), 8, 0), workers=1, stop=3, give_way=give_way) as loader:
        next(loader)
        (worker,) = _children() - before
        assert os.getpriority(os.PRIO_PROCESS, worker) == niceness


def test_workers_ignore_what_is_meant_for_the_parent(index):
    before = _children()
    with Loader(index, TINY, PLAN, Order(len(index), 8, 0), workers=1, stop=30) as loader:
        batches = [next(loader)]
        (worker,) = _children() - before
        for name in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            os.kill(worker, name)
        batches += list(loader)
    assert len(batches) == 30 and not _alive(worker)


def test_a_killed_worker_is_one_sentence(index):
    before = _children()
    loader = Loader(index, TINY, PLAN, Order(len(index), 8, 0), workers=1)
    next(loader)
    (worker,) = _children() - before
    os.kill(worker, signal.SIGKILL)
    with pytest.raises(WorkerError, match=rf"A loader process died \(pid {worker}, killed by SIGKILL\)\.") as caught:
        for _ in range(10):
            next(loader)
    assert "--workers" in caught.value.hint and caught.value.__cause__ is None


SCRIPT = """
import sys, time
from selftaught.data.index import Index
from selftaught.data.loader import Loader, Order
from tests.pictures_stand_in import PLAN, Tiny
import psutil
index = Index.open(sys.argv[1])
loader = Loader(index, Tiny(), PLAN, Order(len(index), 8, 0), workers=2)
next(loader)
print(*[child.pid for child in psutil.Process().children()], flush=True)
if sys.argv[2] == "wait":
    time.sleep(60)
"""


def _started(index: Index, what: str) -> tuple[subprocess.Popen, list[int]]:
    root = str(Path(__file__).parents[1])
    command = [sys.executable, "-W", "error", "-c", SCRIPT, index.path, what]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root)
    assert process.stdout is not None
    pids = [int(pid) for pid in process.stdout.readline().split()]
    assert len(pids) == 2, process.stderr and process.stderr.read()
    return process, pids


def _gone(pids: list[int], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end and any(map(_alive, pids)):
        time.sleep(0.05)
    return not any(map(_alive, pids))


def test_no_worker_outlives_a_killed_parent(index):
    process, pids = _started(index, "wait")
    with process:
        assert all(map(_alive, pids))
        process.kill()
        assert _gone(pids, 5)


def test_a_script_that_just_ends_leaves_no_worker_and_does_not_hang(index):
    process, pids = _started(index, "end")
    with process:
        assert process.wait(20) == 0 and _gone(pids, 1)
        assert process.stderr is not None and process.stderr.read() == ""


# --- The image modality -------------------------------------------------------------------------------------------


def test_real_pictures_with_real_views_are_the_same_for_workers_and_ranks(shared_data, tmp_path):
    from selftaught.modalities.image import Image

    image: Any = Image(size=32)
    index = build_index(open_source(shared_data / "clothing112" / "test", image.extensions), image, tmp_path)
    image.fit([image.read(index.item(i)) for i in range(0, 200, 5)])

    def views(**options: Any) -> torch.Tensor:
        with Loader(index, image, PLAN, Order(len(index), 16, 0), stop=4, **options) as loader:
            return torch.stack([batch["views"].data for batch in loader])

    alone = views()
    assert alone.shape == (4, 16, 2, 32, 32, 3) and alone.dtype == torch.uint8
    assert torch.equal(alone, views(workers=2))
    assert torch.equal(alone, torch.cat([views(rank=0, world=2), views(rank=1, world=2)], 1))
