"""A rectangle of a TIFF's page, without reading the rest: slides and maps are larger than memory.

The strips or tiles that the rectangle touches are put into a small TIFF of their own, with the tags that say how they
are encoded; so whatever can be read whole can be read in parts, by the same decoder. Uncompressed strips are cut row by
row, so that a picture in a single strip is no harder than one in tiles.
Sources: TIFF 6.0 (Adobe, 1992), sections 2, 8, 15 and 22; BigTIFF (AWare Systems, 2007).
"""

from __future__ import annotations

import struct

import numpy as np

from selftaught.errors import UnreadableError
from selftaught.formats import pictures, tiff

# how pixels are encoded: bits, compression, colours, order of bits, samples, planes, fax options, predictor, palette,
# alpha, kind of numbers, JPEG tables, and what YCbCr is
_KEPT = (258, 259, 262, 266, 277, 284, 292, 293, 317, 320, 338, 339, 347, 529, 530, 532)
_SIZES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    16: 8,
}  # bytes of a value, by its type
_LONG, _LONG8 = 4, 16
_YCBCR = 6  # of which several pixels share a value

Box = tuple[int, int, int, int]  # y0, x0, y1, x1 in whole pixels


class Part:
    """The pixels of ``box`` of the page at byte ``at``, both before its orientation is undone.

    As ``pictures.Picture``: ``shape``, ``dtype``, ``decode``, ``numpy.asarray``. Raises ``UnreadableError`` where the
    file is broken or ends before these pixels.
    """

    __slots__ = ("cut", "orientation", "picture")
    scales = False  # it is decoded at full size, whatever is asked for

    def __init__(self, data: tiff.Bytes, at: int, box: Box) -> None:
        try:
            page = tiff.read_page(data, at)
            small, self.cut = _small(data, at, page, box)
        except (struct.error, ValueError, KeyError, IndexError) as error:
            raise UnreadableError(f"broken tiff: {error}") from None
        self.orientation = page.orientation
        self.picture = pictures.Picture(small)

    @property
    def shape(self) -> tuple[int, int, int]:
        y0, x0, y1, x1 = self.cut
        sides = (x1 - x0, y1 - y0) if self.orientation > 4 else (y1 - y0, x1 - x0)
        return (*sides, self.picture.head.channels)

    @property
    def dtype(self) -> np.dtype:
        return self.picture.dtype

    def decode(self, smallest: float = 1.0) -> np.ndarray:
        """(Y, X, C), always at full size."""
        y0, x0, y1, x1 = self.cut
        return np.ascontiguousarray(pictures.upright(self.picture.decode()[y0:y1, x0:x1], self.orientation))

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        return self.decode() if dtype is None else self.decode().astype(dtype, copy=False)


def _small(data: tiff.Bytes, at: int, page: tiff.Page, box: Box) -> tuple[bytes, Box]:
    """(a TIFF of the blocks that ``box`` touches, where the box is in it)."""
    y0, x0, y1, x1 = box
    in_rows = page.block[1] == page.size[1] and not page.packed and page.photometric != _YCBCR
    if page.compression == 1 and in_rows:
        blocks = [_rows(data, page, plane, box) for plane in range(page.samples if page.planar else 1)]
        return _written(data, at, blocks, size=(y1 - y0, x1 - x0), tile=None), (0, 0, y1 - y0, x1 - x0)
    high, wide = page.block
    if high * wide > pictures.MAX_PIXELS:
        raise UnreadableError(f"{wide:,} x {high:,} pixels are compressed in one piece: save it in tiles")
    down, across = -(-page.size[0] // high), -(-page.size[1] // wide)
    rows, columns = range(y0 // high, -(-y1 // high)), range(x0 // wide, -(-x1 // wide))
    planes = range(page.samples if page.planar else 1)
    numbers = [(plane * down + row) * across + column for plane in planes for row in rows for column in columns]
    blocks = [_bytes(data, *page.blocks[number]) for number in numbers]
    top, left = rows.start * high, columns.start * wide
    size = (min(page.size[0], rows.stop * high) - top, min(page.size[1], columns.stop * wide) - left)
    tile = page.block if page.tiled else None
    small = _written(data, at, blocks, size=size, tile=tile, rows=high)
    return small, (y0 - top, x0 - left, y1 - top, x1 - left)


def _bytes(data: tiff.Bytes, start: int, length: int) -> bytes:
    found = bytes(data[start : start + length])
    if len(found) < length:
        raise UnreadableError(f"truncated tiff: {len(found):,} of {length:,} bytes at byte {start:,} are there")
    return found


def _rows(data: tiff.Bytes, page: tiff.Page, plane: int, box: Box) -> bytes:
    """The pixels of ``box`` where rows lie one after the other, uncompressed."""
    y0, x0, y1, x1 = box
    high, wide = page.block
    pixel = page.dtype.itemsize * (1 if page.planar else page.samples)
    first = plane * -(-page.size[0] // high)
    found = []
    for y in range(y0, y1):
        start, _ = page.blocks[first + y // high]
        found.append(_bytes(data, start + (y % high * wide + x0) * pixel, (x1 - x0) * pixel))
    return b"".join(found)


def _written(
    data: tiff.Bytes,
    at: int,
    blocks: list[bytes],
    *,
    size: tuple[int, int],
    tile: tuple[int, int] | None,
    rows: int = 0,
) -> bytes:
    """A TIFF of ``size`` with ``blocks``: tiles of ``tile`` (Y, X), or strips of ``rows`` (0 = all in one)."""
    order, _ = tiff.layout(data)
    body = [b"II*\0" if order == "<" else b"MM\0*", b"where the directory is"]
    end, places = 8, []
    for block in blocks:
        places.append(end)
        body += [block, b"\0" * (len(block) % 2)]
        end += len(block) + len(block) % 2
    tags = {tag: value for tag, value in _encoding(data, at)}
    longs = {256: (size[1],), 257: (size[0],)}
    lengths = tuple(len(block) for block in blocks)
    if tile:
        longs |= {322: (tile[1],), 323: (tile[0],), 324: tuple(places), 325: lengths}
    else:
        longs |= {273: tuple(places), 278: (rows or size[0],), 279: lengths}
    tags |= {tag: (_LONG, len(found), struct.pack(f"{order}{len(found)}I", *found)) for tag, found in longs.items()}
    listed = [struct.pack(order + "H", len(tags))]
    after = end + 2 + 12 * len(tags) + 4  # where values are that do not fit into an entry
    beyond = []
    for tag, (kind, count, value) in sorted(tags.items()):
        stored = value.ljust(4, b"\0")
        if len(value) > 4:
            stored = struct.pack(order + "I", after)
            beyond.append(value + b"\0" * (len(value) % 2))
            after += len(beyond[-1])
        listed.append(struct.pack(order + "HHI", tag, kind, count) + stored)
    body[1] = struct.pack(order + "I", end)
    return b"".join([*body, *listed, b"\0\0\0\0", *beyond])


def _encoding(data: tiff.Bytes, at: int) -> list[tuple[int, tuple[int, int, bytes]]]:
    """(tag, (type, count, bytes)) of what says how pixels are encoded."""
    order, big = tiff.layout(data)
    found = []
    for place, tag in tiff.entries(data, at):
        kind, count = struct.unpack_from(order + ("HQ" if big else "HI"), data, place + 2)
        if tag in _KEPT and kind in _SIZES:
            length, start = count * _SIZES[kind], place + (12 if big else 8)
            if length > (8 if big else 4):
                (start,) = struct.unpack_from(order + ("Q" if big else "I"), data, start)
            value = _bytes(data, start, length)
            if kind == _LONG8:  # which the small file, no BigTIFF, does not have
                kind, value = _LONG, struct.pack(f"{order}{count}I", *struct.unpack(f"{order}{count}Q", value))
            found.append((tag, (kind, count, value)))
    return found
