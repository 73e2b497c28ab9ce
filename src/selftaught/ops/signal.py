"""Where a view of a signal is cut in time, and what sensors do to it. Signals are (C, T) float32.

``observed`` goes along everywhere: True where a value was measured. A resampled point is observed if measured values
carry at least half of its weight, and takes its value from those alone.
Strengths are in units of each channel's spread, so that one number fits volts and degrees. They are those of
Um et al. 2017 (Data augmentation of wearable sensor data), section 3: jitter 0.05, scaling 0.1, drift 0.2 at 4 knots.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

JITTER, SCALING, DRIFT, KNOTS, DROPOUT = 0.05, 0.1, 0.2, 4, 0.1


def draw_windows(
    rng: np.random.Generator, count: int, *, scale: tuple[float, float], floor: float = 0.0
) -> Float[ndarray, "V 2"]:
    """``count`` windows (start, stop) in [0, 1]; the share of the duration is uniform in ``scale``, at least ``floor``.

    Takes two uniform numbers per window from ``rng``.
    """
    draws = rng.random((count, 2))
    low, high = max(scale[0], floor), max(scale[1], floor)
    share = low + (high - low) * draws[:, 0]
    start = draws[:, 1] * (1 - share)
    return np.stack([start, np.minimum(start + share, 1.0)], axis=1)


def resample(
    x: Float[ndarray, "C T"], observed: Bool[ndarray, "C T"], *, window: tuple[float, float], length: int
) -> tuple[Float[ndarray, "C {length}"], Bool[ndarray, "C {length}"]]:
    """The window (start, stop in [0, 1]) of a signal at ``length`` evenly spaced points, by linear interpolation.

    Points lie at the middles of ``length`` equal parts of the window. Where a window holds at least twice as many
    readings as points, neighbours are averaged in pairs first, so that fast wiggles do not turn into slow ones.
    Values that are not observed may be anything (NaN too) and come back as 0.
    """
    weight = observed.astype(np.float32)
    total = np.where(observed, x, np.float32(0)).astype(np.float32)
    begin, extent = window[0] * x.shape[1], (window[1] - window[0]) * x.shape[1]
    at = begin + (np.arange(length) + 0.5) / length * extent  # in readings; reading t covers [t, t + 1)
    for _ in range(max(0, int(extent // length).bit_length() - 1)):
        total, weight, at = _halve(total), _halve(weight), at / 2
    at = np.clip(at - 0.5, 0, total.shape[1] - 1)
    left = np.floor(at).astype(np.int64)
    right, share = np.minimum(left + 1, total.shape[1] - 1), (at - left).astype(np.float32)
    total = total[:, left] * (1 - share) + total[:, right] * share
    weight = weight[:, left] * (1 - share) + weight[:, right] * share
    seen = weight >= 0.5
    return np.divide(total, weight, out=np.zeros_like(total), where=seen), seen


def disturb(
    x: Float[ndarray, "C T"],
    rng: np.random.Generator,
    *,
    strength: float,
    mean: Float[ndarray, " C"],
    std: Float[ndarray, " C"],
) -> Float[ndarray, "C T"]:
    """Jitter, scaling about the channel's mean, and slow drift, each ``strength`` times the figures above.

    Takes C (T + 1 + 4) normal numbers from ``rng``, at strength 0 as well.
    """
    channels, length = x.shape
    jitter = JITTER * rng.standard_normal((channels, length), np.float32)
    factor = 1 + strength * SCALING * rng.standard_normal((channels, 1))
    drift = DRIFT * _through(rng.standard_normal((channels, KNOTS)), length)
    mean, std = mean[:, None], std[:, None]
    return (mean + factor * (x - mean) + strength * std * (jitter + drift)).astype(np.float32)


def draw_dropped(rng: np.random.Generator, channels: int, *, p: float = DROPOUT) -> Bool[ndarray, " C"]:
    """Which channels are taken away: each with probability ``p``, never all, none where there is only one.

    Takes C uniform numbers from ``rng``.
    """
    draws = rng.random(channels)
    dropped = draws < p
    dropped[draws.argmax()] = False
    return dropped


def _halve(x: ndarray) -> ndarray:
    """Means of neighbours; an odd one at the end is a pair with itself, so that time stays where it was."""
    if x.shape[1] % 2:
        x = np.concatenate([x, x[:, -1:]], axis=1)
    return (x[:, 0::2] + x[:, 1::2]) / 2


def _through(knots: ndarray, length: int) -> ndarray:
    """(C, K) values at evenly spaced knots -> (C, length), eased by a cosine so that the curve has no corners."""
    at = np.linspace(0, knots.shape[1] - 1, length)
    left = np.minimum(at.astype(np.int64), knots.shape[1] - 2)
    share = (1 - np.cos(np.pi * (at - left))) / 2
    return knots[:, left] * (1 - share) + knots[:, left + 1] * share
