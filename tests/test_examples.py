"""The scripts in examples/, on small files made here."""

from __future__ import annotations

import csv
import runpy
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(script: str, *words: object) -> str:
    command = [sys.executable, str(EXAMPLES / script), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_tiles_cover_large_pictures(tmp_path: Path) -> None:
    """Every pixel is in a tile, values and types stay, and what is empty or broken is counted."""
    folder = tmp_path / "pictures" / "slides"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    large = rng.integers(0, 65536, (100, 150), dtype=np.uint16)
    cv2.imwrite(str(folder / "large.png"), large)
    cv2.imwrite(str(folder / "empty.png"), np.full((64, 64), 200, np.uint8))
    (folder / "broken.png").write_bytes(b"no picture")
    told = run("tiles.py", tmp_path / "pictures", tmp_path / "tiles", "--size", 64)
    assert "6 tiles of 1 pictures; left out, without content: 1" in told and "broken.png" in told
    seen = np.zeros_like(large)
    with (tmp_path / "tiles" / "tiles.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            tile = np.asarray(cv2.imread(str(tmp_path / "tiles" / row["path"]), cv2.IMREAD_UNCHANGED))
            assert tile.dtype == np.uint16 and row["group"] == "slides/large"
            seen[int(row["y"]) : int(row["y"]) + 64, int(row["x"]) : int(row["x"]) + 64] = tile
    assert np.array_equal(seen, large)


BOX = "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"


def test_crops_from_boxes(tmp_path: Path) -> None:
    voc, out = tmp_path / "voc", tmp_path / "cells"
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (voc / name).mkdir(parents=True)
    for number, split in enumerate(("train", "val", "test")):
        picture = np.zeros((100, 120, 3), np.uint8)
        picture[20:60, 30:50] = (0, 0, 255)  # red, in OpenCV's order
        cv2.imwrite(str(voc / "JPEGImages" / f"{number}.jpg"), picture)
        boxes = BOX.format("RBC", 30, 20, 50, 60) + BOX.format("WBC", 90, 80, 119, 99) + BOX.format("RBC", 5, 5, 7, 9)
        (voc / "Annotations" / f"{number}.xml").write_text(f"<annotation>{boxes}</annotation>", encoding="utf-8")
        (voc / "ImageSets" / "Main" / f"{split}.txt").write_text(f"{number}\n", encoding="utf-8")
    assert "left out, smaller than 8 pixels: 3" in run("crops_from_boxes.py", voc, out)
    crop = np.asarray(cv2.imread(str(out / "train" / "RBC" / "0_00.png")))
    assert crop.shape == (48, 48, 3) and crop[24, 24, 2] > 200 and crop[24, 2].max() < 60  # square, with a margin
    with (out / "groups.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6 and {row["group"] for row in rows} == {"0", "1", "2"}


@pytest.mark.parametrize("overlap", [0, 10, 63])
def test_starts_reach_the_end(overlap: int) -> None:
    starts = runpy.run_path(str(EXAMPLES / "tiles.py"))["starts"]
    for length in (10, 64, 65, 100, 128, 129):
        found = starts(length, 64, overlap)
        assert found[0] == 0 and found[-1] == max(0, length - 64)
        assert all(b - a <= 64 - overlap for a, b in zip(found, found[1:], strict=False))
