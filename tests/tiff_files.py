"""TIFFs as scanners and microscopes write them, from the specification: no library here writes all of these."""

from __future__ import annotations

import itertools
import struct
import zlib
from typing import Literal

import cv2
import numpy as np

CODECS = {"": 1, "deflate": 8, "jpeg": 7}


def written(
    pixels: np.ndarray,
    *,
    codec: Literal["", "deflate", "jpeg"] = "",
    planar: bool = False,
    predictor: int = 1,
    order: Literal["<", ">"] = "<",
    tile: int = 0,
    rows: int = 8,
    big: bool = False,
    orientation: int = 1,
    before: bytes = b"",
) -> bytes:
    """(Y, X, C) pixels as tiles of ``tile`` or strips of ``rows``, then the directory; ``before``: the pages so far."""
    height, width, channels = pixels.shape
    word, start = ("Q", 16) if big else ("I", 8)
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "H", 43 if big else 42)
    head += struct.pack(order + "HH", 8, 0) if big else b""
    out, offsets, lengths = bytearray(before or head.ljust(start, b"\0")), [], []
    link = len(out) - struct.calcsize(order + word)  # of the header, or of the last page
    down, across = tile or rows, tile or width
    for plane in [pixels[..., c : c + 1] for c in range(channels)] if planar else [pixels]:
        for top, left in itertools.product(range(0, height, down), range(0, width, across)):
            block = plane[top : top + down, left : left + across]
            if tile:  # tiles at the border are padded, strips are not
                block = np.pad(block, ((0, tile - block.shape[0]), (0, tile - block.shape[1]), (0, 0)), mode="edge")
            packed = _packed(block, codec, predictor, order)
            offsets.append(len(out))
            lengths.append(len(packed))
            out += packed
    colours = 6 if codec == "jpeg" and channels == 3 else 1  # YCbCr, every second value of which is kept
    tags = {256: [width], 257: [height], 258: [8 * pixels.itemsize] * channels, 259: [CODECS[codec]], 262: [colours],
            274: [orientation], 277: [channels], 284: [2 if planar else 1], 317: [predictor]}  # fmt: skip
    tags |= {530: [2, 2]} if colours == 6 else {338: [0] * (channels - 1)}
    tags |= {322: [tile], 323: [tile], 324: offsets, 325: lengths} if tile else {}
    tags |= {} if tile else {273: offsets, 278: [rows], 279: lengths}
    listed = sorted((tag, values) for tag, values in tags.items() if values)
    places = []
    for _, values in listed:
        places.append(len(out))
        out += struct.pack(f"{order}{len(values)}{word}", *values)
    struct.pack_into(order + word, out, link, len(out))
    out += struct.pack(order + ("Q" if big else "H"), len(listed))
    for (tag, values), place in zip(listed, places, strict=True):
        value = values[0] if len(values) == 1 else place
        out += struct.pack(f"{order}HH{word}{word}", tag, 16 if big else 4, len(values), value)
    return bytes(out) + struct.pack(order + word, 0)


def _packed(block: np.ndarray, codec: str, predictor: int, order: Literal["<", ">"]) -> bytes:
    if codec == "jpeg":
        swapped = block if block.shape[2] == 1 else block[..., ::-1]
        return cv2.imencode(".jpg", swapped, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    if predictor == 2:
        block = np.diff(block, axis=1, prepend=np.zeros_like(block[:, :1]))
    stored = np.ascontiguousarray(block).astype(block.dtype.newbyteorder(order)).tobytes()
    return zlib.compress(stored) if codec == "deflate" else stored
