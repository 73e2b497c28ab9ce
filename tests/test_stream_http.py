"""Streaming from a real server on this machine, one that answers ranges, and breaks connections off."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from selftaught.data import remote
from selftaught.data.index import build_index
from selftaught.data.labels import read_labels
from selftaught.data.source import open_source
from selftaught.data.stream import Stream, open_stream
from selftaught.errors import DataError
from selftaught.modalities.image import Image
from tests.test_stream import WANTED, dealt, digest, load, png, write_shards

pytest.importorskip("aiohttp", reason="fsspec reads http with it")


class Server(ThreadingHTTPServer):
    """``breaks``: every so many answers end in the middle, 0 = none; ``asked`` counts them."""

    daemon_threads = True

    def __init__(self, folder: Path, breaks: int = 0) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.breaks, self.asked = folder, breaks, 0

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that has heard enough is none."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self) -> None:
        self._answer(whole=False)

    def do_GET(self) -> None:
        self._answer(whole=True)

    def _answer(self, whole: bool) -> None:
        path = self.server.folder / self.path.lstrip("/")
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start, end = (int(found[1]), int(found[2] or len(content) - 1)) if found else (0, len(content) - 1)
        part = content[start : end + 1]
        self.send_response(206 if found else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(part)))
        if found:
            self.send_header("Content-Range", f"bytes {start}-{end}/{len(content)}")
        self.end_headers()
        if whole:
            self.server.asked += 1
            broken = self.server.breaks and self.server.asked % self.server.breaks == 0
            self.wfile.write(part[: len(part) // 2] if broken else part)

    def log_message(self, format: str, *args: object) -> None:
        """Not on the terminal."""


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SELFTAUGHT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "PAUSE", 0.01)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_shards(tmp_path_factory.mktemp("served"))


@pytest.fixture(params=[0, 4], ids=["steady", "breaking off"])
def server(request, folder) -> Iterator[Server]:
    with Server(folder, request.param) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def opened(place: str, ending: str) -> Stream:
    return open_stream(f"{place}/s-{{000..004}}.{ending}", WANTED)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("ending", ["tar", "parquet"])
def test_a_server_gives_what_the_files_hold(server, folder, ending, workers):
    far, near = opened(f"http://127.0.0.1:{server.server_port}", ending), opened(f"file://{folder}", ending)
    assert hashlib.sha256(Path(far.look).read_bytes()).digest() == hashlib.sha256(Path(near.look).read_bytes()).digest()
    assert far.skipped == near.skipped and far.mean == near.mean
    index, image = build_index(open_source(near.look, Image.extensions), Image()), Image(size=16)
    image.fit([image.read(index.item(row)) for row in range(8)])
    asked = server.asked
    far_batches = digest(load(far, dealt(far), image, stop=24, workers=workers))
    assert far_batches == digest(load(near, dealt(near), image, stop=24))
    assert server.asked > asked
    assert far_batches[9:] == digest(load(far, dealt(far), image, start=9, stop=24))


def test_other_files_are_copied_whole(server, folder):
    """With connections that break in the middle, and not again once they are there."""
    rng = np.random.default_rng(0)
    np.save(folder / "x.npy", rng.integers(0, 256, (3, 1000, 1001, 3), dtype=np.uint8))
    for _ in range(3):
        found = remote.find(f"http://127.0.0.1:{server.server_port}/x.npy", [".npy"])
        (copy,) = remote.fetch(found)
        assert Path(copy).read_bytes() == (folder / "x.npy").read_bytes()
    with pytest.raises(DataError, match="There is nothing at http://127.0.0.1"):
        remote.find(f"http://127.0.0.1:{server.server_port}/y.npy", [".npy"])


def test_a_folder_elsewhere_keeps_its_folders(tmp_path):
    """Classes and splits are folders there as here; a name that leads out of the folder is refused."""
    for number in range(12):
        place = tmp_path / "far" / ("train", "test")[number % 2] / ("cats", "dogs")[number % 3 == 0] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(png(number))
    source = open_source(f"file://{tmp_path}/far/", Image.extensions)
    index = build_index(source, Image())
    labels = read_labels(index, "folders", source)
    assert labels.classes == ("cats", "dogs") and labels.split is not None and set(labels.split) == {"train", "test"}
    assert sorted(index.name(row) for row in range(12))[0] == "test/cats/1.png"
    again = open_source(f"file://{tmp_path}/far/", Image.extensions)
    assert again.root == source.root and again.paths == source.paths
    stray = remote.find(f"file://{tmp_path}/far/", [".png"])[:2]
    stray[1] = dataclasses.replace(stray[1], url=f"file://{tmp_path}/far/../away.png")
    with pytest.raises(DataError, match="leads out of its folder"):
        remote.fetch(stray)
