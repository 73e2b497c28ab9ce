"""Where a view is cut: boxes drawn from the shape alone, then crop and resize in one go, then the mirror.

A box is four numbers in [0, 1], ``y0, x0, y1, x1``, shares of the picture's height and width. It is drawn before a
pixel is decoded, so that a JPEG need only be decoded at the scale that the smallest box allows (``share_needed``);
``snap`` then moves it to whole pixels of what was decoded, and that box is the one recorded: cutting it again gives the
same view, bit for bit.

Resizing is linear, after exact halvings (2x2 means) while the box is at least twice as large as the view: on one core a
600x800 crop to 224 takes 0.25 ms so, 2.4 ms with OpenCV's INTER_AREA, and aliases no more than 2:1 linear sampling can.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from numpy import ndarray

TRIES = 10  # proposals per box before the fallback, as in torchvision's RandomResizedCrop


def draw_boxes(
    rng: np.random.Generator,
    count: int,
    *,
    shape: tuple[int, int],
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Float[ndarray, "V 4"]:
    """``count`` boxes (y0, x0, y1, x1) in [0, 1] of a picture of ``shape`` (Y, X) pixels: inception-style crops.

    Area is uniform in ``scale`` (share of the picture's), aspect (width / height in pixels) log-uniform in ``ratio``.
    The first of ten proposals that fits is taken; if none does, the largest centred box whose aspect is in ``ratio``.
    Takes 22 uniform numbers per box from ``rng``, whatever happens.
    Source: Szegedy et al. 2015 (Going deeper with convolutions), section 6; SimCLR, appendix A.
    """
    draws = rng.random((count, 2 * TRIES + 2)).tolist()
    return np.array([_box(one, shape, scale, ratio) for one in draws], np.float64).reshape(count, 4)


def draw_flips(rng: np.random.Generator, count: int, *, p: float = 0.5) -> Bool[ndarray, " V"]:
    """Which views are mirrored left to right. Takes one uniform number per view."""
    return rng.random(count) < p


def centre_box(shape: tuple[int, int]) -> Float[ndarray, " 4"]:
    """The largest centred square of a picture of ``shape`` (Y, X) pixels, as a box in [0, 1]."""
    y, x = shape
    short = min(y, x)
    return np.array([(y - short) / 2 / y, (x - short) / 2 / x, (y + short) / 2 / y, (x + short) / 2 / x])


def share_needed(boxes: Float[ndarray, "V 4"], size: int, *, shape: tuple[int, int]) -> float:
    """The share of full scale, in (0, 1], at which the smallest box still has ``size`` pixels along both axes."""
    sides = np.minimum((boxes[:, 2] - boxes[:, 0]) * shape[0], (boxes[:, 3] - boxes[:, 1]) * shape[1])
    return min(1.0, size / max(float(sides.min()), 1e-6))


def snap(boxes: Float[ndarray, "V 4"], size: int, *, shape: tuple[int, int]) -> Int[ndarray, "V 4"]:
    """Boxes in [0, 1] -> whole pixels (y0, x0, y1, x1) of a picture of ``shape`` (Y, X), at least one pixel each way.

    A box that ``cut`` will halve k times on its way to ``size`` gets sides that are multiples of 2^k.
    """
    return np.array([_whole(box, size, shape) for box in boxes.tolist()], np.int64).reshape(len(boxes), 4)


def cut(
    picture: Shaped[ndarray, "Y X C"], box: Int[ndarray, " 4"], *, size: int, flip: bool = False
) -> Shaped[ndarray, "{size} {size} C"]:
    """The box (whole pixels, from ``snap``) resized to ``size`` by ``size`` pixels and mirrored if ``flip``.

    ``picture`` is uint8, uint16 or float32 with any number of channels.
    """
    y0, x0, y1, x1 = (int(edge) for edge in box)

    def resized(part: ndarray) -> ndarray:
        for _ in range(_halvings(min(part.shape[:2]), size)):
            half = (part.shape[1] // 2, part.shape[0] // 2)
            part = cv2.resize(part, half, interpolation=cv2.INTER_AREA)
        if part.shape[:2] != (size, size):
            part = cv2.resize(part, (size, size), interpolation=cv2.INTER_LINEAR)
        return cv2.flip(part, 1) if flip else part

    return by_channels(resized, picture[y0:y1, x0:x1])


def by_channels(change: Callable[[ndarray], ndarray], picture: Shaped[ndarray, "Y X C"]) -> Shaped[ndarray, "y x C"]:
    """``change`` applied to at most four channels at a time (OpenCV's limit); one channel keeps its axis."""
    if picture.shape[2] <= 4:
        changed = change(picture)
        return changed if changed.ndim == 3 else changed[:, :, None]
    parts = (picture[:, :, start : start + 4] for start in range(0, picture.shape[2], 4))
    return np.concatenate([by_channels(change, np.ascontiguousarray(part)) for part in parts], axis=2)


def _box(
    draws: list[float], shape: tuple[int, int], scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[float, float, float, float]:
    y, x = shape
    height, width, top, left = *_fallback(shape, ratio), 0.5, 0.5
    slowest, span = math.log(ratio[0]), math.log(ratio[1]) - math.log(ratio[0])
    for one in range(TRIES):
        area = y * x * (scale[0] + (scale[1] - scale[0]) * draws[one])
        aspect = math.exp(slowest + span * draws[TRIES + one])
        h, w = math.sqrt(area / aspect), math.sqrt(area * aspect)
        if h <= y and w <= x:
            height, width, top, left = h, w, draws[-2], draws[-1]
            break
    y0, x0 = top * (y - height), left * (x - width)
    return y0 / y, x0 / x, (y0 + height) / y, (x0 + width) / x


def _fallback(shape: tuple[int, int], ratio: tuple[float, float]) -> tuple[float, float]:
    """Height and width of the largest box with an allowed aspect."""
    y, x = float(shape[0]), float(shape[1])
    aspect = min(max(x / y, ratio[0]), ratio[1])
    return (y, y * aspect) if x / y > aspect else (x / aspect, x)


def _whole(box: list[float], size: int, shape: tuple[int, int]) -> tuple[int, int, int, int]:
    edges = []
    for low, high, extent in ((box[0], box[2], shape[0]), (box[1], box[3], shape[1])):
        start = min(max(round(low * extent), 0), extent - 1)
        edges.append((start, min(max(round(high * extent), start + 1), extent)))
    (y0, y1), (x0, x1) = edges
    step = 1 << _halvings(min(y1 - y0, x1 - x0), size)
    return y0, x0, y0 + (y1 - y0) // step * step, x0 + (x1 - x0) // step * step


def _halvings(side: int, size: int) -> int:
    """How often a box of ``side`` pixels is halved before the linear step: while at least twice the size is left."""
    return max(0, (side // size).bit_length() - 1)
