"""The input pipeline alone: files -> decoded -> two SimCLR views of 224 pixels -> a batch, one thread, no model.

    python benchmarks/views.py PHOTOS [--files 64] [--rounds 5]

PHOTOS is any folder of photographs. Two sets of JPEGs are made of them, 256 x 256 (the centre) and 1600 x 1200 (mosaics
of 4 x 4, so that they hold as much detail as large photographs do). Each pipeline turns the same files into batches
of 16, in turns, ``--rounds`` times; the ratio is the median over rounds of the ratio within a round.

lightly and lightly-train take part if they can be imported: LightlyDataset with SimCLRTransform, and ImageDataset with
lightly-train's SimCLR transform, each with its defaults and torch's collate (they hand on normalised float32; ours
hands on uint8, and "ours + normalise" includes what the device would do, here on the same thread, to bf16).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

from selftaught.modalities.image import Image
from selftaught.types import ViewGroup

SIZE, BATCH = 224, 16
Pipeline = Callable[[], None]  # one pass over all the files


def main() -> None:
    parser = argparse.ArgumentParser(description="The input pipeline alone.")
    parser.add_argument("photos", type=Path)
    parser.add_argument("--files", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        for name, make in (("256x256", square), ("1600x1200", mosaic)):
            files = make(sorted(options.photos.rglob("*.jpg")), Path(folder) / name, options.files)
            report(name, files, options.rounds)


def report(name: str, files: list[Path], rounds: int) -> None:
    pipelines = {"ours": ours(files), "ours + normalise": ours(files, normalise=True), **peers(files)}
    seconds: dict[str, list[float]] = {key: [] for key in pipelines}
    for each in pipelines.values():
        each()  # warm: file cache, lazy imports
    for _ in range(rounds):
        for key, each in pipelines.items():
            start = time.perf_counter()
            each()
            seconds[key].append(time.perf_counter() - start)
    print(f"{name}: {len(files)} files of {statistics.mean(file.stat().st_size for file in files) / 1024:.0f} KiB")
    for key, taken in seconds.items():
        ratio = statistics.median(other / one for other, one in zip(taken, seconds["ours"], strict=True))
        print(f"  {key:18} {len(files) / statistics.median(taken):7.0f} images/s   ours is {ratio:.2f}x", flush=True)


def ours(files: list[Path], normalise: bool = False) -> Pipeline:
    image, plan = Image(size=SIZE), (ViewGroup(),)
    items = [item for file in files for item in image.items(str(file))]
    image.fit([image.read(item) for item in items[:16]])

    def run() -> None:
        for start in range(0, len(items), BATCH):
            p = np.arange(start, min(start + BATCH, len(items)))
            views = [image.views(image.read(items[one]), np.random.default_rng(one), plan) for one in p]
            batch = image.collate(views, p, p)
            if normalise:
                image.normalise(batch["views"].data, torch.bfloat16)

    return run


def peers(files: list[Path]) -> dict[str, Pipeline]:
    found = {}
    for name, build in (("lightly", lightly), ("lightly-train", lightly_train)):
        try:
            found[name] = over(build(files), len(files))
        except ImportError as error:
            print(f"{name} takes no part: {error}")
    return found


def lightly(files: list[Path]):
    from lightly.data import LightlyDataset  # pyright: ignore[reportMissingImports]
    from lightly.transforms import SimCLRTransform  # pyright: ignore[reportMissingImports]

    return LightlyDataset(str(files[0].parent), transform=SimCLRTransform(input_size=SIZE))


def lightly_train(files: list[Path]):
    from lightly_train._data.image_dataset import ImageDataset  # pyright: ignore[reportMissingImports]
    from lightly_train._methods.simclr.simclr_transform import (  # pyright: ignore[reportMissingImports]
        SimCLRTransform,
        SimCLRTransformArgs,
    )

    arguments = SimCLRTransformArgs(image_size=(SIZE, SIZE), num_channels=3)
    return ImageDataset(files[0].parent, [file.name for file in files], SimCLRTransform(arguments), num_channels=3)


def over(dataset, count: int) -> Pipeline:
    """One pass over a peer's dataset, with torch's own collate."""

    def run() -> None:
        for start in range(0, count, BATCH):
            torch.utils.data.default_collate([dataset[one] for one in range(start, min(start + BATCH, count))])

    return run


def square(photos: list[Path], folder: Path, count: int) -> list[Path]:
    def one(n: int) -> np.ndarray:
        photo = read(photos[n % len(photos)])
        side = min(photo.shape[:2])
        y, x = (photo.shape[0] - side) // 2, (photo.shape[1] - side) // 2
        return cv2.resize(photo[y : y + side, x : x + side], (256, 256), interpolation=cv2.INTER_AREA)

    return write(folder, [one(n) for n in range(count)])


def mosaic(photos: list[Path], folder: Path, count: int) -> list[Path]:
    def one(n: int) -> np.ndarray:
        tiles = [cv2.resize(read(photos[(16 * n + k) % len(photos)]), (400, 300)) for k in range(16)]
        return np.vstack([np.hstack(tiles[4 * row : 4 * row + 4]) for row in range(4)])

    return write(folder, [one(n) for n in range(count)])


def read(path: Path) -> np.ndarray:
    photo = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if photo is None:
        raise SystemExit(f"{path} is not a picture.")
    return photo


def write(folder: Path, pictures: list[np.ndarray]) -> list[Path]:
    folder.mkdir()
    files = [folder / f"{n:05d}.jpg" for n in range(len(pictures))]
    for file, picture in zip(files, pictures, strict=True):
        cv2.imwrite(str(file), picture, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return files


if __name__ == "__main__":
    main()
