"""Grids of samples and views for a person to look at."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from selftaught.types import Batch, Modality

CELL = 96  # pixels, at most, of one picture in a grid
GAP = 4


def write_samples(path: Path, batch: Batch, modality: Modality, *, columns: int = 8) -> Path:
    """Untouched samples, as the encoder sees them after training."""
    cells = [cell_of(modality, view) for view in batch["plain"].data[:, 0].numpy()]
    return _write(path, [cells[start : start + columns] for start in range(0, len(cells), columns)])


def write_views(path: Path, batches: Iterable[Batch], modality: Modality, *, rows: int = 8) -> Path:
    """A row for each sample of the first batches, a column for each of its views, group by group."""
    lines: list[list[np.ndarray]] = []
    for batch in batches:
        for sample in range(min(len(batch), rows - len(lines))):
            groups = batch.streams.values()
            lines.append([cell_of(modality, view) for group in groups for view in group.data[sample].numpy()])
    return _write(path, _side_by_side(lines))


def _side_by_side(lines: list[list[np.ndarray]], most: int = 4) -> list[list[np.ndarray]]:
    """Several samples in one line of the grid, so that the picture is not a ribbon."""
    return [[cell for line in lines[start : start + most] for cell in line] for start in range(0, len(lines), most)]


def cell_of(modality: Any, view: np.ndarray) -> np.ndarray:
    """(Y, X, 3) uint8, small ones enlarged without blur so that pixels stay pixels."""
    picture = modality.picture(view)
    height, width = picture.shape[:2]
    scale = CELL / max(height, width)
    scale = max(1, int(scale)) if scale >= 1 else scale
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(picture, size, interpolation=cv2.INTER_NEAREST if scale >= 1 else cv2.INTER_AREA)


def _write(path: Path, lines: Sequence[Sequence[np.ndarray]]) -> Path:
    height = max(cell.shape[0] for line in lines for cell in line) + GAP
    width = max(cell.shape[1] for line in lines for cell in line) + GAP
    canvas = np.full((height * len(lines) + GAP, width * max(map(len, lines)) + GAP, 3), 255, np.uint8)
    for y, line in enumerate(lines):
        for x, cell in enumerate(line):
            top, left = y * height + GAP, x * width + GAP
            canvas[top : top + cell.shape[0], left : left + cell.shape[1]] = cell
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", canvas[..., ::-1])[1].tobytes())
    return path
