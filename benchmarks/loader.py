"""What the road to batch t costs besides decoding and views.

    python benchmarks/loader.py [--files 100000] [--folder EMPTY_FOLDER]

Prints JSON, in CPU time: microseconds a sample for order and keys, seconds to scan a folder of hard-linked pictures
the first and the second time, microseconds to look up a row, and the memory (private, PSS) of each of two workers.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import simplejpeg

from selftaught.data.index import Index, build_index
from selftaught.data.keys import Keyed
from selftaught.data.loader import Loader, Order
from selftaught.data.source import open_source
from selftaught.formats.pictures import EXTENSIONS
from selftaught.formats.stills import look
from selftaught.modalities.base import Modality
from selftaught.types import Item, Sample, Views


class Nothing(Modality):
    """Reads nothing, so that what is left is the loader's own cost."""

    name, extensions = "nothing", EXTENSIONS

    def items(self, path: str) -> list[Item]:
        look(path)
        return [Item(path)]

    def read(self, item: Item) -> Sample:
        return Sample({"image": np.zeros((8, 8, 3), np.uint8)})

    def plain(self, sample: Sample) -> Views:
        return Views({"plain": sample.data[None]})


def seconds(run: Callable[[], Any], clock: Callable[[], float] = time.process_time) -> float:
    """CPU seconds of this process: the machine may be shared, and a cold disk is not what is measured here."""
    started = clock()
    run()
    return clock() - started


def order_and_keys(batch_size: int = 256, steps: int = 200) -> dict[str, float]:
    """Microseconds a sample."""
    order, keyed = Order(10**9, batch_size, 0), Keyed(0, "train")
    samples = batch_size * steps
    return {
        "order_of_1e9_us": 1e6 * seconds(lambda: [order.indices(t) for t in range(steps)]) / samples,
        "rekey_us": 1e6 * seconds(lambda: [keyed(p) for p in range(samples)]) / samples,
    }


def write_links(folder: Path, files: int) -> None:
    """``files`` names for 100 pictures, a thousand a folder."""
    rng = np.random.default_rng(0)
    for number in range(files):
        here = folder / f"{number // 1000:04d}"
        if number % 1000 == 0:
            here.mkdir(parents=True)
        if number < 100:
            pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            (here / f"{number}.jpg").write_bytes(simplejpeg.encode_jpeg(pixels))
        else:
            os.link(folder / "0000" / f"{number % 100}.jpg", here / f"{number}.jpg")


def scans(folder: Path, cache: Path, clock: Callable[[], float] = time.process_time) -> tuple[Index, dict[str, float]]:
    modality: Any = Nothing()

    def start() -> Index:
        return build_index(open_source(folder, EXTENSIONS), modality, cache)

    first, second = seconds(start, clock), seconds(start, clock)
    index = start()
    rows = np.random.default_rng(0).integers(0, len(index), 20_000)
    lookup = seconds(lambda: [index.item(int(row)) for row in rows])
    return index, {"first_start_s": first, "second_start_s": second, "item_us": 1e6 * lookup / len(rows)}


def loading(index: Index, steps: int = 40) -> dict[str, float]:
    """Cost a batch of 256 without decoding and views; memory of two workers that have each touched the index."""
    modality: Any = Nothing()
    order = Order(len(index), 256, 0)
    alone = seconds(lambda: list(Loader(index, modality, None, order, stop=steps))) / steps
    with Loader(index, modality, None, order, workers=2) as loader:
        for _ in range(steps):
            next(loader)
        children = psutil.Process().children()
        memory = [child.memory_full_info() for child in children]
    private = sum(one.uss for one in memory) / len(memory)
    shared = sum(one.pss for one in memory) / len(memory)
    return {"batch_of_256_ms": 1e3 * alone, "worker_private_mb": private / 2**20, "worker_pss_mb": shared / 2**20}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, help="an empty folder to make the files in; default: a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        write_links(Path(folder) / "pictures", options.files)
        index, figures = scans(Path(folder) / "pictures", Path(folder) / "cache")
        figures |= order_and_keys() | loading(index)
        figures["index_mb"] = os.path.getsize(index.path) / 2**20
    print(json.dumps({"files": options.files} | {name: round(value, 3) for name, value in figures.items()}, indent=1))


if __name__ == "__main__":
    main()
