"""Crops of boxes as a classification set: one picture a box, in a folder named after its class.

    python examples/crops_from_boxes.py VOC_FOLDER OUT [--margin 0.1] [--smallest 8]

Reads the layout of Pascal VOC (``JPEGImages``, ``Annotations``, ``ImageSets/Main/{train,val,test}.txt``) and writes
``OUT/train``, ``OUT/val`` and ``OUT/test``, each with a folder per class, and ``OUT/groups.csv`` (path, label, group):
crops of one photograph are of one group, which splits keep together. Then, for instance::

    selftaught pretrain OUT/train --out runs/cells --minutes 5
    selftaught evaluate runs/cells OUT/train --test OUT/test --labels folders --budgets 10/class,50/class,all

Boxes are made square about their middle, with a margin, and cut where the photograph ends; those smaller than
``--smallest`` pixels are left out and counted.
"""

from __future__ import annotations

import argparse
import collections
import csv
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import cv2
import numpy as np

SPLITS = ("train", "val", "test")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("voc", type=Path, help="the folder that holds JPEGImages and Annotations")
    parser.add_argument("out", type=Path)
    parser.add_argument("--margin", type=float, default=0.1, help="added on every side, as a share of the box")
    parser.add_argument("--smallest", type=int, default=8, help="pixels; smaller boxes are left out")
    options = parser.parse_args()
    left_out, counts, rows = 0, collections.Counter(), []
    for split in SPLITS:
        for name in (options.voc / "ImageSets" / "Main" / f"{split}.txt").read_text(encoding="utf-8").split():
            picture = cv2.imread(str(options.voc / "JPEGImages" / f"{name}.jpg"))
            if picture is None:
                print(f"left out, cannot be read: {name}.jpg")
                continue
            for number, (label, box) in enumerate(boxes_of(options.voc / "Annotations" / f"{name}.xml")):
                crop = square_crop(picture, box, margin=options.margin)
                if min(box[2] - box[0], box[3] - box[1]) < options.smallest or min(crop.shape[:2]) < options.smallest:
                    left_out += 1
                    continue
                path = options.out / split / label / f"{name}_{number:02}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), crop)
                counts[split, label] += 1
                rows.append([path.relative_to(options.out).as_posix(), label, name])
    with (options.out / "groups.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["path", "label", "group"], *rows])
    for (split, label), count in sorted(counts.items()):
        print(f"{split:<6} {label:<12} {count:>6,}")
    print(f"left out, smaller than {options.smallest} pixels: {left_out}")


def boxes_of(path: Path) -> list[tuple[str, tuple[int, int, int, int]]]:
    """(class, (x0, y0, x1, y1)) of every box in an annotation."""
    found = []
    for thing in ElementTree.parse(path).iter("object"):
        box = thing.find("bndbox")
        assert box is not None
        x0, y0, x1, y1 = (int(box.findtext(side, "0")) for side in ("xmin", "ymin", "xmax", "ymax"))
        found.append((thing.findtext("name", ""), (x0, y0, x1, y1)))
    return found


def square_crop(picture: np.ndarray, box: tuple[int, int, int, int], *, margin: float) -> np.ndarray:
    """(Y, X, C) -> the square about a box's middle, as wide as its longer side and the margin; cut at the border."""
    x0, y0, x1, y1 = box
    half = max(x1 - x0, y1 - y0) * (0.5 + margin)
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    height, width = picture.shape[:2]
    rows = slice(max(0, round(y - half)), min(height, round(y + half)))
    columns = slice(max(0, round(x - half)), min(width, round(x + half)))
    return picture[rows, columns]


if __name__ == "__main__":
    main()
