"""A small modality and folders of pictures for the tests of ``data``, which check who draws what, not the views."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import simplejpeg

from selftaught.formats import arrays, pictures, stills
from selftaught.modalities.base import Modality
from selftaught.types import Item, Plan, Sample, ViewGroup, Views

PLAN: Plan = (ViewGroup(),)


class Tiny(Modality):
    """Pictures cut to 8 x 8 at a random place, with a random value added: everything that ``rng`` gives is seen."""

    name = "tiny"
    extensions = pictures.EXTENSIONS

    def __init__(self) -> None:
        self.asked: list[str] = []  # paths that ``items`` was asked for

    def items(self, path: str) -> Iterable[Item]:
        self.asked.append(path)
        if arrays.is_array(path):
            return [Item(path, part) for part in range(arrays.rows(path))]
        stills.look(path)
        return [Item(path)]

    def read(self, item: Item) -> Sample:
        if arrays.is_array(item.path):
            return Sample({"image": np.asarray(arrays.open_array(item.path)[item.part])})
        return Sample({"image": stills.open_still(item.path)})

    def views(self, sample: Sample, rng: np.random.Generator, plan: Plan) -> Views:
        pixels, streams, drawn = np.asarray(sample.data), {}, {}
        for group in plan:
            corners = np.stack([rng.integers(0, side - 7, group.count) for side in pixels.shape[:2]], 1)
            lights = rng.integers(0, 20, group.count, dtype=np.uint8)
            cut = [pixels[y : y + 8, x : x + 8] + light for (y, x), light in zip(corners, lights, strict=True)]
            streams[group.name], drawn[group.name] = np.stack(cut), {"corner": corners}
        return Views(streams, drawn=drawn, target=sample.target)

    def plain(self, sample: Sample) -> Views:
        return Views({"plain": np.asarray(sample.data)[None, :8, :8]}, target=sample.target)


def write_pictures(folder: Path, count: int, *, classes: int = 0, side: int = 12, seed: int = 0) -> list[Path]:
    """``count`` small JPEGs, in ``classes`` sub-folders where there are any; every one a different picture."""
    rng, paths = np.random.default_rng(seed), []
    for number in range(count):
        path = folder / (f"class{number % classes}" if classes else "") / f"{number:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = cv2.resize(rng.integers(0, 256, (3, 3, 3), dtype=np.uint8), (side, side + 2))
        path.write_bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=90))
        paths.append(path)
    return paths
