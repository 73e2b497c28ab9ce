"""Which pictures look alike, whatever their size, format and compression: 64 bits each, compared by how many differ,
and a thumbnail of 16 x 16 for those that come near, since the bits know no colour.

The perceptual hash by discrete cosine transform (Zauner 2010, "Implementation and Benchmarking of Perceptual Image Hash
Functions", section 3.2.1): the 64 lowest frequencies but the mean, each above or below their median.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Int, Shaped, UInt8
from numpy import ndarray

ALIKE = 6  # bits, at most, in which the same picture saved again differs
_SIDE = 32  # pixels that are looked at
_FLATTEST = 2.0  # standard deviation of gray values below which there is nothing to compare
NEAR = 24.0  # mean difference of thumbnails, in gray values of 256, up to which pictures may be the same
_THUMBNAIL = 16  # pixels
_BITS = np.array([bin(byte).count("1") for byte in range(256)], np.uint8)
_AT_ONCE = 2**26  # bytes compared at a time
MOST = 100_000  # pairs, where nearly all are alike (frames of a film)


def perceptual_hash(picture: UInt8[ndarray, "Y X 3"]) -> np.ndarray | None:
    """(8,) uint8, or None for a picture without contrast."""
    gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(gray, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    if small.std() < _FLATTEST:
        return None
    low = cv2.dct(small)[:9, :9].flatten()[1:65]
    return np.packbits(low > np.median(low))


def thumbnail(picture: UInt8[ndarray, "Y X 3"]) -> UInt8[ndarray, "16 16 3"]:
    return cv2.resize(picture, (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA)  # type: ignore[return-value]


def apart(one: UInt8[ndarray, "Y X 3"], other: UInt8[ndarray, "Y X 3"]) -> float:
    """The mean absolute difference of two thumbnails, in gray values."""
    return float(np.abs(one.astype(np.int16) - other).mean())


def near_pairs(
    hashes: UInt8[ndarray, "N 8"], others: UInt8[ndarray, "M 8"] | None = None, *, most: int = ALIKE
) -> tuple[Int[ndarray, "P 2"], Shaped[ndarray, " P"]]:
    """(row, row of ``others``) of all pairs that differ in at most ``most`` bits, and in how many; nearest first.

    Without ``others`` each pair of ``hashes`` once. From ``MOST`` pairs on no further rows are compared.
    """
    found, far = [np.zeros((0, 2), np.int64)], [np.zeros(0, np.int64)]
    against = hashes if others is None else others
    some = max(1, _AT_ONCE // (8 * max(1, len(against))))
    for start in range(0, len(hashes), some):
        differ = _BITS[hashes[start : start + some, None] ^ against[None]].sum(-1, dtype=np.int16)  # (rows, M)
        rows, columns = np.nonzero(differ <= most)
        kept = columns > rows + start if others is None else slice(None)
        rows, columns = rows[kept], columns[kept]
        found.append(np.stack([rows + start, columns], axis=1))
        far.append(differ[rows, columns].astype(np.int64))
        if sum(map(len, found)) >= MOST:
            break
    pairs, bits = np.concatenate(found), np.concatenate(far)
    order = np.argsort(bits, kind="stable")
    return pairs[order], bits[order]
