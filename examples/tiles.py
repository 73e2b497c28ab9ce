"""Large pictures cut into tiles: one picture a tile, in the folders that the pictures were in.

    python examples/tiles.py PICTURES OUT [--size 224] [--overlap 0] [--plain 2.0]

For microscope slides, aerial photographs, scans: what is small there is lost where whole pictures are shown at 224
pixels. Tiles keep the type and the channels of their picture (16 bits stay 16 bits). The last tile of a row or a column
is moved back so that it is whole. Tiles without content are left out and counted: those whose values spread by less
than ``--plain`` (in units of the stored values, 0 to 255 for 8 bits). ``OUT/tiles.csv`` (path, group, y, x) says which
picture each is from; splits keep a group together. Then, for instance::

    selftaught pretrain OUT --out runs/tiles --minutes 10
    selftaught embed runs/tiles OUT --out tiles.parquet
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

PICTURES = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", type=int, default=224, help="side of a tile, pixels")
    parser.add_argument("--overlap", type=int, default=0, help="pixels that neighbours share, at least")
    parser.add_argument("--plain", type=float, default=2.0, help="spread of values below which a tile has no content")
    options = parser.parse_args()
    if not 0 <= options.overlap < options.size:
        parser.error(f"--overlap must be in [0, {options.size}). Got {options.overlap} instead.")
    rows, unreadable, plain = [], [], 0
    for path in sorted(path for path in options.pictures.rglob("*") if path.suffix.lower() in PICTURES):
        picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if picture is None:
            unreadable.append(path)
            continue
        name = path.relative_to(options.pictures).with_suffix("")
        for y, x, tile in tiles(picture, options.size, options.overlap):
            if tile.std() < options.plain:
                plain += 1
                continue
            place = options.out / name.parent / f"{name.name}_{y:05}_{x:05}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(place), tile)
            rows.append([place.relative_to(options.out).as_posix(), name.as_posix(), y, x])
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.out / "tiles.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["path", "group", "y", "x"], *rows])
    print(f"{len(rows):,} tiles of {len({row[1] for row in rows}):,} pictures; left out, without content: {plain:,}")
    for path in unreadable:
        print(f"left out, cannot be read: {path}")


def tiles(picture: np.ndarray, size: int, overlap: int) -> Iterator[tuple[int, int, np.ndarray]]:
    """(y, x, (size, size[, C])) row by row; smaller where the picture is."""
    for y in starts(picture.shape[0], size, overlap):
        for x in starts(picture.shape[1], size, overlap):
            yield y, x, picture[y : y + size, x : x + size]


def starts(length: int, size: int, overlap: int) -> list[int]:
    """Where tiles begin along an axis: every ``size - overlap`` pixels, the last one at the end."""
    if length <= size:
        return [0]
    return [*range(0, length - size, size - overlap), length - size]


if __name__ == "__main__":
    main()
