"""TIFF directories (Exif blocks are TIFFs too), and the pixels of TIFFs that are uncompressed or deflated.

OpenCV decodes 1, 3 and 4 samples a pixel, and multiplies colours by alpha without saying so. Microscopes and satellites
write 2, 5 or 13 channels, nearly always uncompressed or deflated, so those are read here: strips or tiles, chunky or
planar, predictor 1 or 2. A page is read by making it the first (``with_page``); a part of one that is too large to be
read whole, by ``tiff_parts``.
Sources: TIFF 6.0 (Adobe, 1992), its supplement for predictor 2, BigTIFF (AWare Systems, 2007).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from selftaught.errors import UnreadableError

EXTENSIONS = frozenset({".tif", ".tiff", ".btf", ".svs"})  # the last: what Aperio's scanners write
SIGNATURES = tuple((start, "tiff") for start in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"))
MAX_PAGES = 100_000
Bytes = bytes | memoryview  # a whole file: read, or mapped where it is large
_FORMATS = {1: "B", 2: "s", 3: "H", 4: "I", 6: "b", 7: "s", 8: "h", 9: "i", 11: "f", 12: "d", 16: "Q"}
_KIND, _WIDTH, _HEIGHT, _TILE = 254, 256, 257, 322  # tags
_CODECS = {1: bytes, 8: zlib.decompress, 32946: zlib.decompress}
_COMPRESSION = {2: "fax", 5: "LZW", 7: "JPEG", 32773: "PackBits", 34712: "JPEG 2000", 50000: "Zstandard", 50001: "WebP"}


@dataclass(frozen=True, slots=True)
class Page:
    """The first directory, as far as reading pixels needs it."""

    size: tuple[int, int]  # (Y, X)
    samples: int  # stored channels, alpha included
    dtype: np.dtype
    photometric: int  # 0 white is zero, 1 black is zero, 2 RGB, 3 palette, 5 CMYK, 6 YCbCr
    alpha: bool
    premultiplied: bool  # True = colours are stored times alpha
    packed: bool  # True = several pixels a byte
    planar: bool
    tiled: bool  # False = in strips
    compression: int
    predictor: int
    orientation: int
    block: tuple[int, int]  # (Y, X) of one strip or tile
    blocks: tuple[tuple[int, int], ...]  # (offset, bytes) of each

    @property
    def colours(self) -> int:
        """Channels without alpha, as decoded: 3 for palette, CMYK and YCbCr."""
        return 3 if self.photometric in (3, 5, 6) else self.samples - self.alpha

    @property
    def depth(self) -> int:
        return 8 * self.dtype.itemsize

    @property
    def ours(self) -> bool:
        """True = ``decode`` gives its pixels."""
        codec = self.compression in _CODECS and self.predictor in (1, 2) and (self.predictor, self.depth) != (2, 32)
        return codec and self.photometric in (0, 1, 2) and not self.packed

    @property
    def unusual(self) -> bool:
        """True = OpenCV would refuse it, take a fourth channel for transparency, or drop alpha."""
        return self.photometric in (0, 1, 2) and (self.colours not in (1, 3) or (self.samples == 2 and self.alpha))


class Spot(NamedTuple):
    """Where the directory of a page is, and what it says without being read whole."""

    at: int
    size: tuple[int, int]  # (Y, X)
    tiled: bool


def directory(data: Bytes, at: int = 0) -> dict[int, tuple]:
    """Tag -> values of the directory at byte ``at``, 0 = the first.

    Raises ``struct.error`` or ``ValueError`` where it is cut short.
    """
    order, big = layout(data)
    found = {}
    for place, tag in entries(data, at):
        kind, count = struct.unpack_from(order + ("HQ" if big else "HI"), data, place + 2)
        if kind in _FORMATS:
            found[tag] = _values(data, order, _FORMATS[kind], count, place + (12 if big else 8), 8 if big else 4)
    return found


def layout(data: Bytes) -> tuple[str, bool]:
    """(byte order for struct, whether it is a BigTIFF)."""
    return "<" if data[:2] == b"II" else ">", data[2:4] in (b"+\0", b"\0+")


def entries(data: Bytes, at: int = 0) -> Iterator[tuple[int, int]]:
    """(place, tag) of every entry of the directory at byte ``at``, 0 = the first."""
    order, big = layout(data)
    if not at:
        (at,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, at)
    first, step = at + (8 if big else 2), 20 if big else 12
    for place in range(first, first + step * count, step):
        yield place, struct.unpack_from(order + "H", data, place)[0]


def _values(data: Bytes, order: str, kind: str, count: int, at: int, inline: int) -> tuple:
    form = f"{order}{count}{kind}"
    if struct.calcsize(form) > inline:
        (at,) = struct.unpack_from(order + ("Q" if inline == 8 else "I"), data, at)
    return struct.unpack_from(form, data, at)


def pages(read_at: Callable[[int, int], bytes]) -> list[Spot]:
    """The pages, but for thumbnails, masks and the smaller levels of a pyramid; ``read_at(start, count)`` gives bytes.

    Raises ``UnreadableError`` where the chain of directories leaves the file or runs in a circle.
    """
    start = read_at(0, 16)
    order, big = layout(start)
    try:
        (at,) = struct.unpack_from(order + ("Q" if big else "I"), start, 8 if big else 4)
        seen, found = set(), []
        while at:
            if at in seen or len(seen) >= MAX_PAGES:
                raise UnreadableError("broken tiff: its pages run in a circle" if at in seen else "too many pages")
            seen.add(at)
            kind, spot, after = _of_directory(read_at, at, order, big)
            if not kind & 5 and not (found and _is_level(spot, found[0])):  # bit 0: a smaller copy, bit 2: a mask
                found.append(spot)
            at = after
    except struct.error:
        raise UnreadableError("truncated tiff: a page's directory is missing") from None
    return found


def _is_level(page: Spot, first: Spot) -> bool:
    """Whether a page is the first one made smaller, which not every scanner says: pyramids are stored in tiles."""
    (y, x), (height, width) = page.size, first.size
    return first.tiled and 2 * max(y, x) <= max(height, width) and abs(y * width - x * height) <= 0.02 * x * height


def _of_directory(read_at: Callable[[int, int], bytes], at: int, order: str, big: bool) -> tuple[int, Spot, int]:
    """(NewSubfileType, the page, where the next directory is) of the directory at ``at``."""
    width, step = (8, 20) if big else (2, 12)
    (count,) = struct.unpack(order + ("Q" if big else "H"), read_at(at, width))
    if count > 4096:
        raise UnreadableError(f"broken tiff: a directory of {count:,} entries")
    body = read_at(at + width, step * count + (8 if big else 4))
    found = dict.fromkeys((_KIND, _WIDTH, _HEIGHT, _TILE), 0)
    for place in range(0, step * count, step):
        tag, stored = struct.unpack_from(order + "HH", body, place)
        if tag in found and stored in (3, 4, 16):
            (found[tag],) = struct.unpack_from(order + _FORMATS[stored], body, place + (12 if big else 8))
    spot = Spot(at, (found[_HEIGHT], found[_WIDTH]), found[_TILE] > 0)
    return found[_KIND], spot, struct.unpack_from(order + ("Q" if big else "I"), body, step * count)[0]


def with_page(data: bytes, at: int) -> bytes:
    """The same file with the directory at byte ``at`` as its first page."""
    order, big = layout(data)
    start, kind = (8, "Q") if big else (4, "I")
    if struct.unpack_from(order + kind, data, start) == (at,):
        return data
    return data[:start] + struct.pack(order + kind, at) + data[start + struct.calcsize(kind) :]


def without_orientation(data: bytes) -> bytes:
    """The same file with the orientation tag renamed to one nobody reads: OpenCV undoes some orientations itself."""
    order = "<" if data[:2] == b"II" else ">"
    at = 0
    for place, tag in entries(data):
        if tag == 274:
            at = place
    return data[:at] + struct.pack(order + "H", 65000) + data[at + 2 :] if at else data


def orientation(exif: Bytes, at: int = 0) -> int:
    """1 to 8 from an Exif block or a page; 1 where there is none or it is broken: no reason to lose a picture."""
    try:
        (value, *_) = directory(exif, at).get(274, (1,))
    except (struct.error, ValueError):
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def read_page(data: Bytes, at: int = 0) -> Page:
    """The page whose directory is at byte ``at``, 0 = the first.

    Raises ``UnreadableError``, ``struct.error`` or ``KeyError`` where it is broken.
    """
    tags = directory(data, at)
    width, height = tags[256][0], tags[257][0]
    tiled = 322 in tags
    block = (tags[323][0], tags[322][0]) if tiled else (min(height, tags.get(278, (height,))[0]), width)
    offsets, lengths = (tags[324], tags[325]) if tiled else (tags[273], tags[279])
    return Page(
        size=(height, width),
        samples=tags.get(277, (1,))[0],
        dtype=_dtype(data, tags),
        photometric=tags.get(262, (1,))[0],
        alpha=any(value in (1, 2) for value in tags.get(338, ())),
        premultiplied=1 in tags.get(338, ()),
        packed=tags.get(258, (1,))[0] < 8,
        planar=tags.get(284, (1,))[0] == 2,
        tiled=tiled,
        compression=tags.get(259, (1,))[0],
        predictor=tags.get(317, (1,))[0],
        orientation=orientation(data, at),
        block=block,
        blocks=tuple(zip(offsets, lengths, strict=True)),
    )


def _dtype(data: Bytes, tags: dict[int, tuple]) -> np.dtype:
    bits, kind = tags.get(258, (1,))[0], tags.get(339, (1,))[0]
    name = {1: "u", 2: "i", 3: "f"}.get(kind, "u") + str(max(8, bits) // 8)
    if name not in ("u1", "u2", "f4"):
        raise UnreadableError(f"a TIFF of {bits}-bit {({2: 'signed integers', 3: 'floats'}).get(kind, 'integers')}")
    return np.dtype(("<" if data[:2] == b"II" else ">") + name)


def decode(data: bytes, page: Page) -> np.ndarray:
    """(Y, X, samples) in native byte order, alpha still there. ``UnreadableError`` where ``not page.ours``."""
    if not page.ours:
        how = _COMPRESSION.get(page.compression, f"method {page.compression}")
        raise UnreadableError(
            f"a TIFF of {page.samples} channels compressed by {how}: save it uncompressed or deflated"
        )
    out = np.empty((*page.size, page.samples), page.dtype.newbyteorder("="))
    for (top, left, channels), (start, length) in zip(_places(page), page.blocks, strict=True):
        target = out[top : top + page.block[0], left : left + page.block[1], channels]
        target[:] = _block(data[start : start + length], page, target.shape[-1], target.shape[0])[
            : target.shape[0], : target.shape[1]
        ]
    return np.iinfo(out.dtype).max - out if page.photometric == 0 and out.dtype.kind == "u" else out


def _places(page: Page) -> Iterator[tuple[int, int, slice]]:
    planes = [slice(c, c + 1) for c in range(page.samples)] if page.planar else [slice(0, page.samples)]
    for channels in planes:
        for top in range(0, page.size[0], page.block[0]):
            for left in range(0, page.size[1], page.block[1]):
                yield top, left, channels


def _block(packed: bytes, page: Page, channels: int, rows: int) -> np.ndarray:
    """One strip or tile, (rows, X, channels); the last strip may hold fewer rows than the others."""
    flat = np.frombuffer(_CODECS[page.compression](packed), page.dtype)
    rows = min(page.block[0], flat.size // (page.block[1] * channels)) or rows
    pixels = flat[: rows * page.block[1] * channels].reshape(rows, page.block[1], channels)
    if page.predictor == 2:  # each value is stored as its difference from the one to its left
        pixels = np.cumsum(pixels, axis=1, dtype=page.dtype.newbyteorder("="))
    return pixels
