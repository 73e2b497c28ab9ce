"""Large pictures as tiles, each a sample: row by row, the last of a row or column moved back so that it is whole.

Where nobody says how large tiles are, only pictures that are not read whole (``pictures.MAX_PIXELS``) are cut.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from selftaught.errors import UnreadableError
from selftaught.formats.pictures import MAX_PIXELS

MOST = 1_000_000  # tiles of a picture; broken files claim any size
UNASKED = 1024  # side of the tiles of a picture that is too large to be read whole

Box = tuple[int, int, int, int]  # y0, x0, y1, x1 in whole pixels


def side(size: tuple[int, ...], asked: int) -> int:
    """The side of the tiles that a picture of ``size`` (Y, X) is cut into; 0 = it is one sample. ``asked`` 0 = auto."""
    large = max(size) > asked if asked else size[0] * size[1] > MAX_PIXELS
    return (asked or UNASKED) if large else 0


def count(size: tuple[int, ...], asked: int) -> int:
    """How many samples a picture is. Raises ``UnreadableError`` where nobody has so many."""
    tile = side(size, asked)
    found = -(-size[0] // tile) * -(-size[1] // tile) if tile else 1
    if found > MOST:
        raise UnreadableError(f"claims {size[1]:,} x {size[0]:,} pixels: {found:,} tiles, more than {MOST:,}")
    return found


def box(size: tuple[int, ...], asked: int, number: int) -> Box:
    """Where the sample with this number lies, in pixels of the picture: the whole of it where it is not cut.

    Raises ``UnreadableError`` where there is none, as in a file that was replaced by another.
    """
    if number >= (there := count(size, asked)):
        raise UnreadableError(f"holds {there:,} pictures, number {number + 1:,} was asked for")
    tile = side(size, asked)
    if not tile:
        return 0, 0, size[0], size[1]
    row, column = divmod(number, -(-size[1] // tile))
    y, x = (max(0, min(tile * at, whole - tile)) for at, whole in zip((row, column), size, strict=True))
    return y, x, min(y + tile, size[0]), min(x + tile, size[1])


class Tile:
    """A part of a picture that can only be decoded whole. Also see ``tiff_parts.Part``, which need not."""

    __slots__ = ("box", "picture")
    scales = False  # it is decoded at full size, whatever is asked for

    def __init__(self, picture: Any, box: Box) -> None:
        self.picture, self.box = picture, box

    @property
    def shape(self) -> tuple[int, int, int]:
        y0, x0, y1, x1 = self.box
        return y1 - y0, x1 - x0, self.picture.shape[2]

    @property
    def dtype(self) -> np.dtype:
        return self.picture.dtype

    def decode(self, smallest: float = 1.0) -> np.ndarray:
        """(Y, X, C), always at full size."""
        y0, x0, y1, x1 = self.box
        return np.ascontiguousarray(self.picture.decode()[y0:y1, x0:x1])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.decode() if dtype is None else self.decode().astype(dtype, copy=False)
