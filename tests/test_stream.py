"""Shards elsewhere: the same batches whatever reads them, a position that follows from facts, and sentences."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import cv2
import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import selftaught as st
from selftaught import cli
from selftaught.data import lanes, remote, shards
from selftaught.data.lanes import Counts, Lanes
from selftaught.data.source import open_source
from selftaught.data.stream import Stream, is_stream, open_stream
from selftaught.data.streaming import NUMBERED, StreamLoader
from selftaught.errors import ConfigError, DataError, WorkerError
from selftaught.formats import arrays
from selftaught.modalities.image import Image
from selftaught.types import Geometry, ViewGroup

PLAN = (ViewGroup("views", 2, geometry=Geometry(scale=(0.3, 1.0))),)
WANTED = Image.extensions - arrays.EXTENSIONS
SMALL = ("--encoder", "small", "--encoder.width", "4", "--modality.size", "16", "--batch-size", "16", "--quiet")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SELFTAUGHT_CACHE", str(tmp_path / "cache"))


def png(number: int) -> bytes:
    rng = np.random.default_rng(number)
    picture = rng.integers(0, 60 + number % 190, (20, 24, 3), np.uint8)
    return cv2.imencode(".png", picture)[1].tobytes()


def write_tar(path: Path, numbers: range, *, packed: bool = False) -> Path:
    """WebDataset: a picture, its class and what else is known, under one key."""
    with tarfile.open(path, "w:gz" if packed else "w") as archive:
        for number in numbers:
            said = {"side": 20 + number}
            for ending, content in (
                ("cls", str(number % 2).encode()),
                ("json", json.dumps(said).encode()),
                ("png", png(number)),
            ):
                info = tarfile.TarInfo(f"{number:06d}.{ending}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path


def write_parquet(path: Path, numbers: range) -> Path:
    rows = [{"bytes": png(number), "path": None} for number in numbers]
    pq.write_table(pa.table({"image": rows, "label": [number % 2 for number in numbers]}), path, row_group_size=20)
    return path


SIZES = (70, 55, 90, 64, 81)  # samples of the shards


def write_shards(root: Path) -> Path:
    """The same samples twice: in tar files and in Parquet."""
    first = 0
    for number, size in enumerate(SIZES):
        write_tar(root / f"s-{number:03d}.tar", range(first, first + size))
        write_parquet(root / f"s-{number:03d}.parquet", range(first, first + size))
        first += size
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_shards(tmp_path_factory.mktemp("shards"))


def url(folder: Path, ending: str = "tar") -> str:
    return f"file://{folder}/s-{{000..004}}.{ending}"


def make_stream(folder: Path, ending: str = "tar") -> Stream:
    return open_stream(url(folder, ending), WANTED)


def dealt(stream: Stream, *, count: int = 4, block: int = 32, batch_size: int = 16) -> Lanes:
    return Lanes(len(stream.shards), count, batch_size, 7, block)


@pytest.fixture(scope="module")
def image(folder) -> Image:
    image = Image(size=16)
    decoded = [cv2.imdecode(np.frombuffer(png(number), np.uint8), cv2.IMREAD_COLOR) for number in range(8)]
    image.fit([image.from_array(np.asarray(pixels)) for pixels in decoded])
    return image


def load(stream: Stream, order: Lanes, image: Image, start: int = 0, stop: int = 40, **options: Any) -> list[Any]:
    with StreamLoader(stream, order, image, PLAN, start=start, stop=stop, **options) as loader:
        return list(loader)


def digest(batches: list[Any]) -> list[str]:
    return [
        hashlib.sha256(
            b"".join(tensor.numpy().tobytes() for tensor in (one.index, one.p, one["views"].data))
        ).hexdigest()
        for one in batches
    ]


# --- Order ------------------------------------------------------------------------------------------------------------


def test_every_shard_is_read_once_an_epoch_whichever_lane_gets_it():
    order = Lanes(shards=7, count=3, batch_size=6, seed=0)
    slots = sorted((lane + 3 * k, *order.shard(lane, k)) for lane in range(3) for k in range(7))
    for epoch in range(3):
        assert sorted(shard for _, e, shard in slots if e == epoch) == list(range(7))
    assert [shard for _, e, shard in slots if e == 0] != [shard for _, e, shard in slots if e == 1]
    assert [list(order.of(rank, 3)) for rank in range(3)] == [[0], [1], [2]]


def test_a_position_follows_from_the_sizes_of_the_shards():
    order, sizes = Lanes(shards=3, count=1, batch_size=4, seed=1), {0: 5, 1: 0, 2: 9}
    seen = [(k, place) for k in range(9) for place in range(sizes[order.shard(0, k)[1]])]
    for taken in range(len(seen)):
        k, within = order.locate(0, taken, lambda shard: sizes[shard])
        while sizes[order.shard(0, k)[1]] == within:  # at the end of one is at the start of the next
            k, within = k + 1, 0
        assert (k, within) == seen[taken]


@pytest.mark.parametrize(
    ("number", "batch_size", "world", "count"), [(100, 64, 1, 16), (5, 64, 1, 4), (100, 48, 3, 12), (1, 64, 1, 1)]
)
def test_lanes_divide_the_batch_and_are_whole_on_every_rank(number, batch_size, world, count):
    assert lanes.choose(number, batch_size, world) == count


def test_too_few_shards_for_the_processes_are_refused():
    with pytest.raises(ConfigError, match="at least, 4"):
        lanes.choose(3, 64, 4)


def test_counts_are_shared_and_survive_a_torn_line(tmp_path):
    one, other = Counts(tmp_path / "counts"), Counts(tmp_path / "counts")
    one.note(3, 70)
    assert other.get(3) == 70 and other.get(4) is None
    with (tmp_path / "counts").open("a") as file:
        file.write('[4, 1\n"torn"\n')
    other.note(5, 9)
    assert one.get(5) == 9 and one.get(4) is None and one.total == 79


# --- Batches ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["tar", "parquet"])
def test_batches_are_the_same_whatever_the_workers(folder, image, ending):
    stream = make_stream(folder, ending)
    alone = digest(load(stream, dealt(stream), image))
    assert digest(load(stream, dealt(stream), image, workers=1)) == alone
    assert digest(load(stream, dealt(stream), image, workers=3)) == alone, "four lanes in three workers"


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_hold_parts_of_the_same_batches(folder, image, world):
    stream = make_stream(folder)
    whole = load(stream, dealt(stream), image, stop=12)
    parts = [load(stream, dealt(stream), image, stop=12, rank=rank, world=world) for rank in range(world)]
    for t, batch in enumerate(whole):
        assert [p for part in parts for p in part[t].p.tolist()] == batch.p.tolist()
        assert [i for part in parts for i in part[t].index.tolist()] == batch.index.tolist()


@pytest.mark.parametrize("start", [1, 5, 13, 27])
@pytest.mark.parametrize("forgotten", [False, True])
def test_it_goes_on_anywhere_even_where_the_counts_were_lost(folder, image, tmp_path, monkeypatch, start, forgotten):
    stream = make_stream(folder)
    whole = digest(load(stream, dealt(stream), image))
    if forgotten:
        stream.counts.path.unlink()
    stream = make_stream(folder)  # as another process finds it
    assert digest(load(stream, dealt(stream), image, start=start, workers=2)) == whole[start:]


def test_an_epoch_gives_every_sample_that_was_not_held_out_once(folder, image):
    stream = make_stream(folder)
    order = dealt(stream, count=1, batch_size=1)
    count = sum(SIZES) - sum(stream.skipped)
    rows = [int(batch.index) for batch in load(stream, order, image, stop=2 * count)]
    for epoch in (rows[:count], rows[count:]):
        assert len(set(epoch)) == count
        held = {shard: max(row % NUMBERED for row in epoch if row // NUMBERED == shard) + 1 for shard in range(5)}
        assert [held[shard] + stream.skipped[shard] for shard in range(5)] == list(SIZES)
    assert rows[:count] != rows[count:] and rows[:count] != sorted(rows[:count])
    assert sum(stream.counts.get(shard) or 0 for shard in range(5)) == count


def test_the_look_holds_a_tenth_at_most_and_says_how_many_there_are(folder):
    stream, exact = make_stream(folder), make_stream(folder, "parquet")
    assert exact.exact and exact.samples == sum(SIZES) - sum(exact.skipped)
    assert not stream.exact or stream.samples == exact.samples
    assert all(0 < skipped <= size / 10 for skipped, size in zip(stream.skipped, SIZES, strict=True))
    source = open_source(stream.look, Image.extensions)
    assert len(source.paths) == sum(stream.skipped) and set(source.columns) >= {"cls", "side"}


def test_the_look_comes_from_shards_spread_over_all(folder, image, monkeypatch):
    monkeypatch.setattr("selftaught.data.stream.LOOKED_INTO", 3)
    stream = make_stream(folder, "parquet")
    assert [skipped > 0 for skipped in stream.skipped] == [True, False, True, False, True]
    count = sum(SIZES) - sum(stream.skipped)
    assert stream.exact and stream.samples == count
    rows = [int(batch.index) for batch in load(stream, dealt(stream, count=1, batch_size=1), image, stop=count)]
    assert len(set(rows)) == count


def test_packed_shards_and_rows_say_the_same(folder, tmp_path):
    write_tar(tmp_path / "p.tar.gz", range(9), packed=True)
    plain = list(shards.records(f"file://{folder}/s-000.tar", WANTED))
    packed = list(shards.records(f"file://{tmp_path}/p.tar.gz", WANTED))
    rows = list(shards.records(f"file://{folder}/s-000.parquet", WANTED, 30))
    assert packed == plain[:9]
    assert [row.content for row in rows] == [one.content for one in plain[30:]]
    assert plain[3].columns == {"cls": "1", "side": "23"} and rows[0].columns == {"label": "0"}


def test_a_broken_sample_is_replaced_and_a_broken_shard_ends_where_it_breaks(tmp_path, image):
    write_tar(tmp_path / "s-000.tar", range(60))
    whole = write_tar(tmp_path / "s-001.tar", range(60, 120)).read_bytes()
    (tmp_path / "s-001.tar").write_bytes(whole[: len(whole) // 2 + 700])
    with tarfile.open(tmp_path / "s-000.tar", "a") as archive:
        info = tarfile.TarInfo("999999.png")
        info.size = 5
        archive.addfile(info, io.BytesIO(b"hello"))
    stream = open_stream(f"file://{tmp_path}/s-{{000..001}}.tar", WANTED)
    bad: list[tuple[str, str]] = []
    made = load(stream, dealt(stream, count=2, batch_size=8), image, stop=40, unreadable=bad, workers=2)
    assert digest(made) == digest(load(stream, dealt(stream, count=2, batch_size=8), image, stop=40))
    said = dict(bad)
    assert said["s-000.tar/999999.png"] == "not a picture that can be read: it holds text ('hello' …)"
    assert "s-001.tar" in said and ("breaks off" in said["s-001.tar"] or "broken tar" in said["s-001.tar"])


def test_a_connection_that_breaks_changes_nothing(folder, image, monkeypatch):
    stream, order = make_stream(folder), dealt(make_stream(folder))
    whole = digest(load(stream, order, image, stop=20))
    stream.counts.path.unlink()
    monkeypatch.setattr(remote, "PAUSE", 0.0)
    real, reads = remote.opened, iter(range(10**9))

    class Flaky:
        """Breaks now and then, in the middle of a file."""

        def __init__(self, file: Any) -> None:
            self.file = file

        def read(self, *size: int) -> bytes:
            if next(reads) % 67 == 66:
                raise ConnectionResetError("Connection reset by peer")
            return self.file.read(*size)

    class Opened:
        def __init__(self, url: str) -> None:
            self.inner = real(url)

        def __enter__(self) -> Any:
            return Flaky(self.inner.__enter__())

        def __exit__(self, *error: Any) -> Any:
            return self.inner.__exit__(*error)

    monkeypatch.setattr(remote, "opened", Opened)
    assert digest(load(stream, order, image, stop=20)) == whole
    monkeypatch.setattr(remote, "opened", lambda url: (_ for _ in ()).throw(ConnectionRefusedError("refused")))
    with pytest.raises(WorkerError, match=r"s-00\d.tar cannot be read any more: refused") as caught:
        load(stream, order, image, stop=2)
    assert "gone on with once it can be reached" in caught.value.hint


# --- As a user --------------------------------------------------------------------------------------------------------


def test_a_run_learns_from_shards_elsewhere_and_goes_on_after_a_kill(folder, tmp_path):
    words = [sys.executable, "-m", "selftaught", "pretrain", url(folder), *SMALL, "--workers", "2", "--steps", "60"]
    surroundings = {**os.environ, "OMP_NUM_THREADS": "1", "SELFTAUGHT_CACHE": str(tmp_path / "cache")}
    whole = subprocess.run([*words, "--out", str(tmp_path / "whole")], capture_output=True, text=True, env=surroundings)
    assert whole.returncode == 0, whole.stderr
    out = tmp_path / "killed"
    with subprocess.Popen([*words, "--out", str(out)], env=surroundings, stderr=subprocess.DEVNULL) as process:
        while not any(int(path.stem) for path in out.glob("checkpoints/*.json")) and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert subprocess.run([*words, "--out", str(out)], env=surroundings, capture_output=True).returncode == 0
    one, other = ((run / "encoder" / "model.safetensors").read_bytes() for run in (tmp_path / "whole", out))
    assert one == other
    run = st.Run(out)
    assert run.config["derived"]["lanes"] == 4 and run.health["held_out"] is False, "36 samples are too few to hold out"
    assert st.load(out).embed(f"file://{folder}/s-000.tar").shape == (70, 32)


def test_what_a_stream_cannot_do_is_refused(folder, tmp_path, capsys):
    for more, sentence in (
        (["--method", "npid"], "NPID keeps something for every sample, and a stream has no list of them"),
        (["--method", "supcon", "--labels", "cls"], "SupCon learns from labels, which a stream does not give"),
        (["--balance", "cls"], "The 'balance' parameter is for data on this machine, and these are streamed"),
        (["--cache-gb", "1"], "The 'cache_gb' parameter is for data on this machine"),
    ):
        assert cli.main(["pretrain", url(folder), "--out", str(tmp_path / "run"), *SMALL, "--steps", "2", *more]) == 2
        said = capsys.readouterr().err
        assert sentence in said and said.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("memory://nowhere/a.tar", "There is nothing at memory://nowhere/a.tar"),
        ("memory://nowhere/*.tar", "There is nothing at memory://nowhere/*.tar that can be used"),
        ("s4://bucket/a.tar", "s4:// is no place that can be read"),
        ("http://127.0.0.1:9/a.tar", "There is nothing at http://127.0.0.1:9/a.tar, or it cannot be reached"),
    ],
)
def test_places_that_cannot_be_read(address, sentence):
    with pytest.raises(DataError) as refused:
        open_stream(address, WANTED)
    assert sentence in str(refused.value) and "\n" not in str(refused.value)


def test_other_files_elsewhere_are_copied_once(tmp_path):
    system: Any = fsspec.filesystem("memory")
    held = io.BytesIO()
    np.savez(held, x=np.arange(4 * 64, dtype=np.uint8).reshape(4, 8, 8), y=np.arange(4) % 2)
    system.pipe("/sets/a.npz", held.getvalue())
    assert not is_stream("memory://sets/a.npz") and is_stream("memory://sets/a-{0..3}.tar")
    source = open_source("memory://sets/a.npz", Image.extensions)
    assert np.array_equal(arrays.open_array(source.full(0)), np.load(io.BytesIO(held.getvalue()))["x"])
    place = Path(source.full(0))
    stamp = place.stat().st_mtime_ns
    open_source("memory://sets/a.npz", Image.extensions)
    assert place.stat().st_mtime_ns == stamp and place.name == "a.npz"


def test_changed_shards_are_noticed(folder, tmp_path, capsys):
    for number in range(2):
        write_tar(tmp_path / f"t-{number}.tar", range(number * 60, number * 60 + 60))
    words = ["pretrain", f"file://{tmp_path}/t-{{0..1}}.tar", "--out", str(tmp_path / "run"), *SMALL, "--workers", "0"]
    assert cli.main([*words, "--steps", "2"]) == 0
    write_tar(tmp_path / "t-1.tar", range(80))
    (tmp_path / "run" / "encoder" / "config.json").unlink()
    assert cli.main([*words, "--steps", "2"]) == 2
    assert "The shards changed since the run" in capsys.readouterr().err
    del folder


def test_a_data_set_of_the_hub_is_its_parquet_files(folder, monkeypatch):
    """``hf://owner/name``, on a stand-in for the hub's file system, which cannot be reached from here."""
    from fsspec.implementations.memory import MemoryFileSystem

    class Hub(MemoryFileSystem):
        protocol = "hf"
        store: dict = {}
        pseudo_dirs = [""]

        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            return super()._strip_protocol(path.replace("hf://", "memory://"))

    fsspec.register_implementation("hf", Hub, clobber=True)
    hub = Hub()
    for number, part in enumerate(("train", "train", "test")):
        content = (folder / f"s-{number:03d}.parquet").read_bytes()
        hub.pipe(f"/datasets/me/cells/data/{part}-0000{number}.parquet", content)
    stream = open_stream("hf://me/cells", WANTED)
    assert [each.name for each in stream.shards] == ["train-00000.parquet", "train-00001.parquet"]
    assert stream.samples + sum(stream.skipped) == SIZES[0] + SIZES[1] and stream.exact
