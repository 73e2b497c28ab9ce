"""What changes in a view besides its place: colour, gray, blur, solarise.

Brightness, contrast, saturation, hue and gray are all affine maps of a pixel's colour, so they are folded, in the order
drawn, into ONE 3x4 matrix (a gain and an offset per channel where there is no colour) that OpenCV applies in one pass.

Departures from the torchvision / PIL operations that the SimCLR paper used, and why:
- values are clipped once, at the end, not after each operation (that is what makes them one matrix);
- hue is a rotation of the chroma plane of YIQ at constant luma, not PIL's shift of HSV's H, which is not linear;
  the angle (share of a turn) is drawn alike;
- contrast pulls towards the mean luma itself, not the rounded one.
Where pixels are not 8 bit, ``low`` and ``high`` are the ends of the data's range: brightness scales the distance from
``low``, and "128" means the middle of the range.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, Shaped
from numpy import ndarray

from selftaught.ops.pixels import LUMA
from selftaught.ops.spatial import by_channels

_YIQ = np.array([LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_RGB = np.linalg.inv(_YIQ)
_ORDERS = tuple(itertools.permutations(("brightness", "contrast", "saturation", "hue")))
GRAY = np.pad(np.broadcast_to(LUMA, (3, 3)), ((0, 0), (0, 1))).astype(np.float32)  # the matrix of ``gray`` alone
DRAWS = 10  # uniform numbers that the photometry of one view takes, used or not


@dataclass(frozen=True, slots=True)
class Jitter:
    """One draw of the colour jitter: three factors around 1, a hue shift in turns, and the order of the four."""

    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0
    order: tuple[str, ...] = _ORDERS[0]


def jitter(strength: float, draws: list[float]) -> Jitter:
    """Five uniform numbers in [0, 1) -> the jitter of the SimCLR paper at ``strength`` s.

    Brightness, contrast and saturation in [max(0, 1 - 0.8 s), 1 + 0.8 s], hue in [-0.2 s, 0.2 s] turns (at most half a
    turn), in one of the 24 orders. Source: Chen et al. 2020 (SimCLR), appendix A.
    """
    low, high = max(0.0, 1 - 0.8 * strength), 1 + 0.8 * strength
    brightness, contrast, saturation = (low + (high - low) * one for one in draws[:3])
    hue = min(0.5, 0.2 * strength) * (2 * draws[3] - 1)
    return Jitter(brightness, contrast, saturation, hue, _ORDERS[int(draws[4] * len(_ORDERS))])


def colour_matrix(
    one: Jitter | None, *, mean: Float[ndarray, " 3"], gray: bool = False, low: float = 0.0
) -> Float[ndarray, "3 4"]:
    """Everything that happens to an RGB pixel x as one affine map: ``matrix[:, :3] @ x + matrix[:, 3]``.

    ``mean`` is the view's mean colour before any of it (contrast needs it, and an affine map keeps track of it),
    ``low`` the value that means black. ``one`` None and ``gray`` False is the identity.
    """
    matrix = np.eye(3, 4)
    for name in one.order if one else ():
        matrix = _step(name, getattr(one, name), matrix, mean, low)
    if gray:
        matrix = np.broadcast_to(LUMA @ matrix, (3, 4))
    return matrix.astype(np.float32)


def gain_matrix(one: Jitter, *, mean: Float[ndarray, " C"], low: float = 0.0) -> Float[ndarray, "C 2"]:
    """Brightness and contrast alone, for pictures without colour (C is not 3): gain and offset of every channel.

    One draw serves all channels; contrast pulls each channel towards its own mean.
    """
    gain, offset = np.ones(len(mean)), np.zeros(len(mean))
    for name in one.order:
        if name == "brightness":
            gain, offset = gain * one.brightness, low + one.brightness * (offset - low)
        elif name == "contrast":
            middle = gain * mean + offset
            gain, offset = gain * one.contrast, middle + one.contrast * (offset - middle)
    return np.stack([gain, offset], axis=1).astype(np.float32)


def recolour(view: Shaped[ndarray, "Y X C"], matrix: Float[ndarray, "C K"]) -> Shaped[ndarray, "Y X C"]:
    """The affine map of ``colour_matrix`` or ``gain_matrix`` applied; integers are rounded and saturate."""
    if matrix.shape == (3, 4):
        return cv2.transform(view, matrix)
    if len(matrix) <= 4:
        gains = np.concatenate([np.diag(matrix[:, 0]), matrix[:, 1:]], axis=1)
        return cv2.transform(view, gains).reshape(view.shape)  # it drops a channel axis of one
    changed = view.astype(np.float32) * matrix[:, 0] + matrix[:, 1]
    if view.dtype.kind == "f":
        return changed
    return np.clip(np.rint(changed), 0, np.iinfo(view.dtype).max).astype(view.dtype)


def mean_of(view: Shaped[ndarray, "Y X C"]) -> Float[ndarray, " C"]:
    """The mean of every channel, float64."""
    if view.shape[2] <= 4:
        return np.array(cv2.mean(view)[: view.shape[2]])
    return view.mean(axis=(0, 1), dtype=np.float64)


def blur(view: Shaped[ndarray, "Y X C"], sigma: float) -> Shaped[ndarray, "Y X C"]:
    """Gaussian blur; ``sigma`` in pixels of the view, ``2 ceil(3 sigma) + 1`` taps, edges reflected."""
    kernel = cv2.getGaussianKernel(2 * math.ceil(3 * sigma) + 1, sigma, cv2.CV_32F)
    return by_channels(lambda part: cv2.sepFilter2D(part, -1, kernel, kernel), view)


def blur_sigma(draw: float, size: int) -> float:
    """A uniform number -> sigma in pixels: [0.1, 2.0] in a view of 224 pixels, in proportion at other sizes.

    SimCLR's kernel, a tenth of 224, reaches 5.5 of the largest sigma, so three sigmas a side lose 0.3 % of the weight.
    The paper switches blur off for CIFAR-10's 32 pixels; in proportion, sigma is at most 0.29 there, next to nothing.
    """
    return (0.1 + 1.9 * draw) * size / 224


def solarise(view: Shaped[ndarray, "Y X C"], *, low: float = 0.0, high: float = 255.0) -> Shaped[ndarray, "Y X C"]:
    """Values in the upper half of [low, high] (128 and above for 8 bits) are mirrored: x -> low + high - x."""
    if view.dtype == np.uint8 and (low, high) == (0.0, 255.0):
        return by_channels(lambda part: cv2.LUT(part, _SOLARISED), view)
    return np.where(view >= (low + high) / 2, low + high - view, view).astype(view.dtype)


def lab(view: Shaped[ndarray, "Y X 3"], *, low: float = 0.0, high: float = 255.0) -> Shaped[ndarray, "Y X 3"]:
    """CIE Lab of an sRGB view as OpenCV stores it in uint8: L 255 / 100, a + 128, b + 128.

    Values that are not 8 bit are taken as sRGB from ``low`` to ``high``.
    """
    if view.dtype != np.uint8:
        share = (view.astype(np.float32) - low) / max(high - low, 1e-12)
        view = np.rint(255 * share.clip(0, 1)).astype(np.uint8)
    return cv2.cvtColor(view, cv2.COLOR_RGB2LAB)


def _step(name: str, amount: float, matrix: ndarray, mean: ndarray, low: float) -> ndarray:
    """``matrix`` followed by one operation."""
    if name == "brightness":
        return _towards(matrix, amount, low)
    if name == "contrast":
        return _towards(matrix, amount, float(LUMA @ (matrix[:, :3] @ mean + matrix[:, 3])))
    return _chroma(amount, 0.0) @ matrix if name == "saturation" else _chroma(1.0, amount) @ matrix


def _towards(matrix: ndarray, factor: float, middle: float) -> ndarray:
    """x -> middle + factor (x - middle)."""
    changed = factor * matrix
    changed[:, 3] += (1 - factor) * middle
    return changed


def _chroma(factor: float, turns: float) -> ndarray:
    """Chroma scaled by ``factor`` and turned, luma kept; positive turns go from red to green, as in HSV."""
    c, s = factor * math.cos(2 * math.pi * turns), factor * math.sin(2 * math.pi * turns)
    return _RGB @ np.array([[1, 0, 0], [0, c, s], [0, -s, c]]) @ _YIQ


_SOLARISED = np.array([value if value < 128 else 255 - value for value in range(256)], np.uint8)
