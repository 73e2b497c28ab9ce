"""Grids of samples, of views and of what a method makes of them, for a person to look at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from selftaught.commands.files import whole
from selftaught.types import Batch, Modality

CELL = 96  # pixels, at most, of one picture in a grid
GAP = 4


def write_samples(path: Path, batch: Batch, modality: Modality, *, columns: int = 8) -> Path:
    """Untouched samples, as the encoder sees them after training."""
    return write_cells(path, batch["plain"].data[:, 0].numpy(), modality, columns=columns)


def write_cells(path: Path, samples: np.ndarray, modality: Modality, *, columns: int = 8) -> Path:
    """Samples as stored, in rows."""
    cells = [cell_of(modality, sample) for sample in samples]
    return _write(path, [cells[start : start + columns] for start in range(0, len(cells), columns)])


def write_views(path: Path, batches: Iterable[Batch], modality: Modality, *, rows: int = 8) -> Path:
    """A row for each sample of the first batches, a column for each of its views, group by group."""
    lines: list[list[np.ndarray]] = []
    for batch in batches:
        for sample in range(min(len(batch), rows - len(lines))):
            groups = batch.streams.values()
            lines.append([cell_of(modality, view) for group in groups for view in group.data[sample].numpy()])
    return _write(path, _side_by_side(lines, most=max(4, 8 // len(lines[0]))))


def write_shown(path: Path, columns: Mapping[str, Tensor], modality: Modality) -> Path:
    """A row for each sample, two abreast, a column for each of ``Method.show``'s, with its name above."""
    drawn = [_drawn(data.cpu(), modality) for data in columns.values()]
    lines = [[fitting(column[row]) for column in drawn] for row in range(len(drawn[0]))]
    grid = _side_by_side(lines, most=2)
    names = [*columns] * min(2, len(lines))
    return _write(path, [[_name(name, cell.shape[1]) for name, cell in zip(names, grid[0], strict=True)], *grid])


def _drawn(data: Tensor, modality: Any) -> list[np.ndarray]:
    """Each sample as a picture; uint8 is one already."""
    if data.dtype == torch.uint8:
        return list(data.numpy())
    return [modality.picture(one) for one in modality.denormalise(data.float()).numpy()]


def _name(text: str, width: int) -> np.ndarray:
    """A word in black on white, as wide as the cells below it."""
    cell = np.full((18, width, 3), 255, np.uint8)
    return cv2.putText(cell, text, (2, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA)  # type: ignore[return-value]


def _side_by_side(lines: list[list[np.ndarray]], most: int = 4) -> list[list[np.ndarray]]:
    """Several samples in one line of the grid, so that the picture is not a ribbon."""
    return [[cell for line in lines[start : start + most] for cell in line] for start in range(0, len(lines), most)]


def cell_of(modality: Any, view: np.ndarray) -> np.ndarray:
    """A view as a cell of a grid."""
    return fitting(modality.picture(view))


def fitting(picture: np.ndarray) -> np.ndarray:
    """(Y, X, 3) uint8, small ones enlarged without blur so that pixels stay pixels."""
    height, width = picture.shape[:2]
    scale = CELL / max(height, width)
    scale = max(1, int(scale)) if scale >= 1 else scale
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(picture, size, interpolation=cv2.INTER_NEAREST if scale >= 1 else cv2.INTER_AREA)


def _write(path: Path, lines: Sequence[Sequence[np.ndarray]]) -> Path:
    heights = [max(cell.shape[0] for cell in line) + GAP for line in lines]
    width = max(cell.shape[1] for line in lines for cell in line) + GAP
    canvas = np.full((sum(heights) + GAP, width * max(map(len, lines)) + GAP, 3), 255, np.uint8)
    top = GAP
    for line, height in zip(lines, heights, strict=True):
        for x, cell in enumerate(line):
            left = x * width + GAP
            canvas[top : top + cell.shape[0], left : left + cell.shape[1]] = cell
        top += height
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as fresh:  # what is there is not made again by a run that goes on
        fresh.write_bytes(cv2.imencode(".png", canvas[..., ::-1])[1].tobytes())
    return path
