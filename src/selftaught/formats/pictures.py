"""Pictures: bytes -> array, whole or not at all.

A picture stays encoded until somebody knows how large it has to be: a JPEG is then decoded at the next DCT scale
(n/8) at or above, which costs a third at half the size. Truncated files are refused: libjpeg would fill the rest with
grey, and OpenCV 4.10 with rows of the picture before (opencv issue 26488). 16 bits stay 16 bits, one channel stays
one, Exif's orientation is undone, and transparency is laid onto white.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import simplejpeg

from selftaught.errors import UnreadableError
from selftaught.formats import heads, tiff

EXTENSIONS = tiff.EXTENSIONS | {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
MAX_PIXELS = 2**28  # 16,384 squared; a few kilobytes of PNG can claim more memory than the machine has

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # we say it ourselves, once, with the path


class Picture:
    """One encoded picture. Cheap to hold and to pickle: the file's bytes and its head.

    ``shape`` is (Y, X, C) of the full decode, upright, without decoding; ``dtype`` is uint8 or uint16, or float32 for
    TIFFs that hold floats. ``numpy.asarray(picture)`` is the full decode.
    """

    __slots__ = ("data", "head")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.head = heads.read_head(data)
        height, width = self.head.size
        if height < 1 or width < 1:
            raise UnreadableError(f"the picture is {width} x {height} pixels")
        if height * width > MAX_PIXELS:
            raise UnreadableError(f"the picture claims {width} x {height} pixels, more than {MAX_PIXELS:,}")

    @property
    def shape(self) -> tuple[int, int, int]:
        height, width = self.head.size
        return (width, height, self.head.channels) if self.head.orientation > 4 else (height, width, self.head.channels)

    @property
    def dtype(self) -> np.dtype:
        return np.dtype({8: "uint8", 16: "uint16", 32: "float32"}[self.head.depth])

    @property
    def scales(self) -> bool:
        """Whether ``decode`` gives less than the whole picture where less is enough: at ``eighths(…)``."""
        return self.head.kind == "jpeg" and not self.head.odd

    def decode(self, smallest: float = 1.0) -> np.ndarray:
        """(Y, X, C), at full size or, for a JPEG, at the smallest scale n/8 that is at least ``smallest`` (in (0, 1]).

        Raises ``UnreadableError`` where the file is truncated or corrupt.
        """
        pixels = _decode_jpeg(self, smallest) if self.head.kind == "jpeg" else _decode_other(self)
        pixels = pixels if pixels.ndim == 3 else pixels[..., None]
        return np.ascontiguousarray(upright(pixels, self.head.orientation))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.decode() if dtype is None else self.decode().astype(dtype, copy=False)

    def __repr__(self) -> str:
        return f"Picture({self.head.kind}, shape={self.shape}, {len(self.data)} bytes)"


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undoes Exif's orientation (1 to 8) of (Y, X, C) pixels: 5 to 8 are stored with rows and columns swapped."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def eighths(size: Sequence[int], smallest: float) -> int:
    """The least n of which a JPEG of (Y, X) pixels, decoded at n/8, has at least ``smallest`` of each side.

    Scales of 7/8 and 6/8 take 1.9 and 1.2 times as long as the whole picture (measured), so they are passed over.
    """
    if smallest > 5 / 8:
        return 8
    wanted = [math.ceil(side * smallest) for side in size]
    enough = (
        n for n in range(1, 6) if all(-(-side * n // 8) >= least for side, least in zip(size, wanted, strict=True))
    )
    return next(enough, 8)


def _decode_jpeg(picture: Picture, smallest: float) -> np.ndarray:
    if picture.head.odd:
        return _decode_odd_jpeg(picture)
    colours = "GRAY" if picture.head.channels == 1 else "RGB"
    scale, height, width, factor = eighths(picture.head.size, smallest), 0, 0, 1.0
    if scale < 8:
        height, width = (-(-side * scale // 8) for side in picture.head.size)  # as libjpeg rounds: up
        factor = 1.5  # of no scale between 5/8 and the whole

    def decode(strict: bool) -> np.ndarray:
        return simplejpeg.decode_jpeg(
            picture.data, colours, min_height=height, min_width=width, min_factor=factor, strict=strict
        )

    try:
        return decode(strict=True)
    except ValueError as error:
        if not _harmless(str(error), picture.data):
            raise UnreadableError(f"corrupt or truncated jpeg: {error}") from None
    return decode(strict=False)


def _decode_odd_jpeg(picture: Picture) -> np.ndarray:
    """By OpenCV, which does not say when pixels are missing: at least the end has to be there."""
    if not picture.data.rstrip(b"\0").endswith(b"\xff\xd9"):
        raise UnreadableError("truncated jpeg: its end marker is missing")
    stored, how = np.frombuffer(picture.data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = cv2.cvtColor(_guard(lambda: cv2.imdecode(stored, how), "jpeg"), cv2.COLOR_BGR2RGB)
    return pixels[..., : picture.head.channels]


def _harmless(message: str, data: bytes) -> bool:
    """Padding between the last pixel and the end marker, as some cameras write it: the whole picture is there."""
    return "extraneous bytes before marker 0xd9" in message and data.rstrip(b"\0").endswith(b"\xff\xd9")


def _decode_other(picture: Picture) -> np.ndarray:
    heads.check_complete(picture.data, picture.head)
    pixels, premultiplied = _pixels(picture)
    if pixels.shape[-1] == 4 and picture.head.channels in (1, 3) or picture.head.alpha and pixels.shape[-1] == 2:
        pixels = _onto_white(pixels[..., :-1], pixels[..., -1:], premultiplied)
    if pixels.shape[-1] == 3 and picture.head.channels == 1:
        pixels = pixels[..., :1]  # OpenCV spreads gray with alpha over three channels
    if pixels.shape != (*picture.head.size, picture.head.channels):
        raise UnreadableError(f"decodes to {pixels.shape}, its head says {(*picture.head.size, picture.head.channels)}")
    return pixels


def _pixels(picture: Picture) -> tuple[np.ndarray, bool]:
    """((Y, X, C) in the order R, G, B, A, as stored; whether the colours are multiplied by alpha)."""
    data, premultiplied = picture.data, False
    if picture.head.kind == "tiff":
        page = tiff.read_page(data)
        if page.ours or page.unusual:
            return _guard(lambda: tiff.decode(data, page), "tiff"), page.premultiplied
        data, premultiplied = tiff.without_orientation(data), page.premultiplied or page.depth == 8
    pixels = _guard(lambda: cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED), picture.head.kind)
    if pixels.ndim == 2:
        return pixels[..., None], premultiplied
    return cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA if pixels.shape[-1] == 4 else cv2.COLOR_BGR2RGB), premultiplied


def _guard(decode: Any, kind: str) -> np.ndarray:
    """Any way a decoder fails on broken bytes becomes one sentence."""
    try:
        pixels = decode()
    except UnreadableError:
        raise
    except Exception as error:  # OpenCV, zlib and numpy each have their own, and files their own ways to be broken
        raise UnreadableError(f"corrupt {kind}: {str(error).splitlines()[0][:120]}") from None
    if pixels is None:
        raise UnreadableError(f"corrupt or truncated {kind}")
    return pixels


def _onto_white(pixels: np.ndarray, alpha: np.ndarray, premultiplied: bool) -> np.ndarray:
    """Composites onto white where the picture is not opaque; opaque pixels keep their bits."""
    white = np.iinfo(pixels.dtype).max if pixels.dtype.kind == "u" else 1.0
    if (alpha == white).all():
        return np.ascontiguousarray(pixels)
    share = alpha.astype(np.float32) / white
    mixed = pixels * (1 if premultiplied else share) + white * (1 - share)
    return np.clip(mixed.round(), 0, white).astype(pixels.dtype) if pixels.dtype.kind == "u" else mixed
