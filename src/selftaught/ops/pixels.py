"""What a pixel's numbers are: axes, types, channels, moments, and the way to a network's input.

Three types are kept as stored: uint8, uint16 and float32. bool becomes 0 and 255; every other number float32.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from jaxtyping import Float, Shaped
from numpy import ndarray
from torch import Tensor

from selftaught.errors import UnreadableError

STORED = ("uint8", "uint16", "float32")
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as PIL's "L"
_SERIAL = 32_767  # so many numbers at a time stay below the size from which torch uses threads


def picture_axes(shape: tuple[int, ...], layout: str = "auto") -> tuple[bool, int | None]:
    """What the axes of an array of pictures mean: (is it one picture alone, its channel axis or None for (Y, X)).

    Two axes are one gray picture. Three are one picture where ``layout`` says how ("yxc", "cyx"), else (N, Y, X)
    ("nyx"), or one picture (Y, X, C) if the last is 3 or 4 and the others are longer than 16 ("auto"). Four are
    (N, Y, X, C) or (N, C, Y, X): channels are the one of axis 1 and the last that is 3 or 4, else the shorter, unless
    ``layout`` says. Raises ``UnreadableError`` where it cannot be told.
    """
    if len(shape) == 2:
        return True, None
    if len(shape) == 3:
        if layout in ("yxc", "cyx"):
            return True, 0 if layout == "cyx" else 2
        single = layout == "auto" and shape[2] in (3, 4) and min(shape[:2]) > 16
        return single, 2 if single else None
    if len(shape) != 4:
        raise UnreadableError(f"an array of {len(shape)} axes, not pictures (N, Y, X), (N, Y, X, C) or (N, C, Y, X)")
    if layout in ("auto", "nyx") and shape[1] == shape[3]:
        raise UnreadableError(f"rows of shape {shape[1:]} may be (Y, X, C) or (C, Y, X): say which by layout")
    colours = [side in (3, 4) for side in (shape[1], shape[3])]  # tells even where a picture has one row
    first = colours[0] if colours[0] != colours[1] else shape[1] < shape[3]
    return False, 0 if layout == "cyx" or layout != "yxc" and first else 2


def plane(shape: tuple[int, ...], axis: int | None) -> tuple[int, ...]:
    """(Y, X) of one picture of ``shape`` whose channel axis is ``axis``."""
    return tuple(side for number, side in enumerate(shape) if number != axis)


def channels_last(array: Shaped[ndarray, " ..."], axis: int | None) -> Shaped[ndarray, "Y X C"]:
    """One picture with its channel axis moved to the end, or made. Raises ``UnreadableError`` if it has no pixels."""
    if not array.size:
        raise UnreadableError(f"a picture of shape {array.shape} has no pixels")
    return array[..., None] if axis is None else np.moveaxis(array, axis, -1)


def stored_type(dtype: np.dtype) -> str:
    """The type that values of ``dtype`` are kept as."""
    return "uint8" if dtype.kind == "b" else dtype.name if dtype.name in STORED else "float32"


def as_stored(pixels: Shaped[ndarray, "Y X C"]) -> Shaped[ndarray, "Y X C"]:
    """One of the three types kept, contiguous. Raises ``UnreadableError`` for values that are not finite numbers."""
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8) * 255
    if pixels.dtype.name not in STORED:
        if pixels.dtype.kind not in "iuf":
            raise UnreadableError(f"values of type {pixels.dtype} are not pixels")
        pixels = pixels.astype(np.float32)
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise UnreadableError("holds values that are not finite (NaN or infinity)")
    return np.ascontiguousarray(pixels)


def as_channels(pixels: Shaped[ndarray, "Y X c"], channels: int) -> Shaped[ndarray, "Y X C"]:
    """Gray to colour by repetition, colour to gray by luma; 0 = as it is. Raises ``UnreadableError`` for the rest."""
    if channels in (0, pixels.shape[2]):
        return pixels
    if (pixels.shape[2], channels) == (1, 3):
        return np.repeat(pixels, 3, axis=2)
    if (pixels.shape[2], channels) == (3, 1):
        return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., None]
    raise UnreadableError(f"has {pixels.shape[2]} channels where {channels} are expected")


def as_type(pixels: Shaped[ndarray, "Y X C"], name: str) -> Shaped[ndarray, "Y X C"]:
    """8 bits to 16 and back, white to white; "" = as it is. Raises ``UnreadableError`` from or to floats: no white."""
    if name in ("", pixels.dtype.name):
        return pixels
    if pixels.dtype.kind == "f" or name == "float32":
        raise UnreadableError(f"holds {pixels.dtype} values where {name} is expected")
    return pixels.astype(np.uint16) * np.uint16(257) if name == "uint16" else (pixels >> 8).astype(np.uint8)


def moments(pixels: Shaped[ndarray, "Y X C"]) -> Float[ndarray, "4 C"]:
    """Mean, mean square, least and greatest value of every channel, float64."""
    flat = pixels.reshape(-1, pixels.shape[2]).astype(np.float64)
    return np.stack([flat.mean(0), (flat**2).mean(0), flat.min(0), flat.max(0)])


def standardise(
    data: Shaped[Tensor, "*rows X C"], mean: Sequence[float], std: Sequence[float], dtype: torch.dtype
) -> Float[Tensor, "*rows X C"]:
    """(x - mean) / std of every channel, reckoned in float32 and rounded once to ``dtype``.

    Mean and spread are repeated along a row, so that the innermost loop is long: broadcasting over C = 3 costs ten
    times as much. On a CPU it is done a few rows at a time: the float32 values stay in cache, and torch starts no
    threads, which on cores that loader workers keep busy cost more than they bring.
    The result is always new memory: the first layer keeps it for its gradient, so no buffer can be used again.
    """
    *_, width, channels = data.shape
    rows = data.reshape(-1, width * channels)
    shift, scale = (_along_a_row(tuple(each), width, data.device) for each in (mean, std))
    if data.device.type != "cpu":
        return rows.to(torch.float32).sub_(shift).div_(scale).to(dtype).view(data.shape)
    out = torch.empty(rows.shape, dtype=dtype)
    few = max(1, _SERIAL // rows.shape[1])
    scratch = torch.empty((few, rows.shape[1]), dtype=torch.float32)
    for source, target in zip(rows.split(few), out.split(few), strict=True):
        values = target if dtype == torch.float32 else scratch[: len(source)]
        values.copy_(source).sub_(shift).div_(scale)
        if values is not target:
            target.copy_(values)
    return out.view(data.shape)


@functools.lru_cache(maxsize=32)
def _along_a_row(values: tuple[float, ...], width: int, device: torch.device) -> Tensor:
    """Kept per device: making it anew each batch would stop an accelerator's queue for the copy."""
    return torch.tensor(values, dtype=torch.float32, device=device).repeat(width)
