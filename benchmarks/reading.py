"""Three ways to the same pictures: files, files with what was decoded kept, shards that are streamed.

    python benchmarks/reading.py FOLDER [--size 96] [--epochs 3] [--workers 2] [--cache-gb 4]

SimCLR's two views of every picture, batches of 64, nothing trained. Prints for each way and epoch the views a second;
with ``--cache-gb`` also the share of pictures that were kept, and how many bytes. Shards: the same files in tar files
of 200, read from this disk, and from a web server that runs beside, on the same cores. A stream holds out what it
looked at first, so its epochs are a tenth shorter. Run it beside nothing else.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import multiprocessing
import tarfile
import tempfile
import time
from pathlib import Path

from selftaught import catalog
from selftaught.data.index import Index, build_index
from selftaught.data.kept import Decoded
from selftaught.data.lanes import Lanes, choose
from selftaught.data.loader import Loader, Order
from selftaught.data.source import open_source
from selftaught.data.stream import open_stream
from selftaught.data.streaming import StreamLoader
from selftaught.modalities.image import Image

BATCH, SHARD = 64, 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--cache-gb", type=float, default=4.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        image = Image(size=options.size)
        index = build_index(open_source(str(options.folder), image.extensions), image, place)
        image.fit(image.read(index.item(row)) for row in range(0, len(index), max(1, len(index) // 200)))
        plan = catalog.load("method", "simclr")().needs().plan
        order, more = Order(len(index), BATCH, 0), {"workers": options.workers, "stop": 10**6}
        per_epoch = order.steps_per_epoch
        print(f"{len(index):,} pictures, two views of {options.size} pixels, {options.workers} workers", flush=True)
        with Loader(index, image, plan, order, **more) as loader:
            tell("files", loader, per_epoch, options.epochs)
        kept = Decoded(len(index), options.cache_gb, Path(place) / "kept")
        with Loader(index, image, plan, order, kept=kept, **more) as loader:
            tell("kept", loader, per_epoch, options.epochs)
        print(f"kept: {kept.size / 1e6:,.0f} MB", flush=True)
        shards = write_shards(index, Path(place) / "shards")
        address, server = served(Path(place) / "shards")
        for name, where in (("tar files", f"file://{place}/shards"), ("web server", address)):
            stream = open_stream(f"{where}/s-{{000..{shards - 1:03d}}}.tar", image.extensions, Path(place) / name)
            lanes = choose(shards, BATCH, 1)
            dealt = Lanes(shards, lanes, BATCH, 0, stream.block(lanes))
            with StreamLoader(stream, dealt, image, plan, **more) as loader:
                tell(name, loader, stream.samples // BATCH, options.epochs)
        server.terminate()


def tell(name: str, loader: Loader | StreamLoader, steps: int, epochs: int) -> None:
    said, asked, found = [], 0, 0
    for _ in range(epochs):
        began = time.perf_counter()
        for _ in range(steps):
            next(loader)
        rate = 2 * BATCH * steps / (time.perf_counter() - began)
        share = (loader.found - found) / (loader.asked - asked) if loader.asked > asked else None
        asked, found = loader.asked, loader.found
        said.append(f"{rate:,.0f}" + (f" ({share:.0%} kept)" if share is not None else ""))
    print(f"{name}: views a second, epoch by epoch: {', '.join(said)}", flush=True)


def write_shards(index: Index, folder: Path) -> int:
    folder.mkdir()
    numbers = range(0, len(index), SHARD)
    for number, first in enumerate(numbers):
        with tarfile.open(folder / f"s-{number:03d}.tar", "w") as archive:
            for row in range(first, min(first + SHARD, len(index))):
                path = index.item(row).path
                archive.add(path, f"{row:06d}{Path(path).suffix}")
    return len(numbers)


def served(folder: Path) -> tuple[str, multiprocessing.Process]:
    """A web server in a process of its own, and its address."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    process = multiprocessing.Process(target=server.serve_forever, daemon=True)
    process.start()
    return f"http://127.0.0.1:{server.server_port}", process


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


if __name__ == "__main__":
    main()
