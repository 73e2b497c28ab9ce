"""Sensor series: one or more channels over time, with gaps (NaN), in arrays on disk (``formats.arrays``).

A sample is (C, T) float32. Views are windows of at least half of the duration, resampled to one length, then disturbed
as sensors are: jitter, scaling, drift, and with several channels one of them gone now and then. Missing values are
marked in ``observed`` (True = observed) and take the channel's mean, which is 0 once normalised.
Time is mirrored only if asked for: most series have a direction.

The order of random numbers is fixed: group by group of the plan, two per window and one per flip, then per view C
for dropped channels and C (T + 5) normal ones for the disturbances, then the values of a pretext: forwards or
backwards, the order of three thirds, or readings mirrored about their channel's mean.
Source: Um et al. 2017 (arXiv:1706.00527) for the disturbances; Eldele et al. 2021 (TS-TCC, arXiv:2106.14112) for their
use in contrastive learning. We depart in cutting windows and in adding drift rather than multiplying by it, so that a
channel around zero drifts as well.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import cv2
import numpy as np
import torch
from torch import Tensor

from selftaught.errors import ConfigError, DataError, MethodError, UnreadableError, must_be
from selftaught.formats import arrays
from selftaught.modalities.base import Modality, draw_values, pretext_of
from selftaught.ops import signal
from selftaught.types import Item, Photometry, Plan, Sample, ViewGroup, Views

LAYOUTS = ("auto", "nct", "ntc")
ORDERS = list(itertools.permutations(range(3)))  # of the thirds of a view
COLOURS = np.array([[31, 119, 180], [214, 39, 40], [44, 160, 44], [148, 103, 189], [255, 127, 14], [23, 190, 207]])


class Series(Modality):
    """Sensor series in arrays (N, T), (N, C, T) or (N, T, C); missing values are NaN."""

    name = "series"
    extensions = arrays.EXTENSIONS
    default_method = "simclr"
    default_encoder = "small"
    pretext = {"direction": 2, "order": 6, "sign": 2}

    def __init__(
        self,
        *,
        length: Annotated[int, "in [0, 1048576]", "points of the encoder's input, at least 8; 0 = from the data"] = 0,
        layout: Annotated[str, "one of auto, nct, ntc", "axes of arrays; auto = time is the longer one"] = "auto",
        shortest: Annotated[float, "in (0, 1]", "share of the duration that a view keeps at least"] = 0.5,
        dropout: Annotated[
            float, "in [0, 1)", "probability that a view loses a channel, where there are several"
        ] = 0.1,
        mirror: Annotated[bool, "", "views may run backwards in time"] = False,
    ) -> None:
        if length and not 8 <= length <= 2**20:
            raise ConfigError(must_be("length", "Series", "an int in [8, 1048576], or 0 (from the data)", length))
        if layout not in LAYOUTS:
            raise ConfigError(must_be("layout", "Series", f"one of {', '.join(LAYOUTS)}", layout))
        if not 0 < shortest <= 1:
            raise ConfigError(must_be("shortest", "Series", "a float in (0, 1]", shortest))
        if not 0 <= dropout < 1:
            raise ConfigError(must_be("dropout", "Series", "a float in [0, 1)", dropout))
        self.length, self.layout, self.shortest, self.dropout, self.mirror = length, layout, shortest, dropout, mirror
        self.channels = 0
        self.mean: list[float] = []  # per channel, in stored units, as is std
        self.std: list[float] = []

    # --- reading -----------------------------------------------------------------------------------------------------

    @classmethod
    def claims(cls, shape: tuple[int, ...], kind: str) -> float:
        """One axis, or two where pictures do not claim them."""
        return {1: 0.9, 2: 0.5}.get(len(shape), 0.0)

    def items(self, path: str) -> Iterable[Item]:
        """One item per row; ``length`` is its number of readings."""
        array = _numbers(arrays.open_array(path))
        length = array.shape[self._time_axis(array.shape)]
        return [Item(path, part, length) for part in range(len(array))]

    def read(self, item: Item) -> Sample:
        array = _numbers(arrays.open_array(item.path))
        return self._sample(array[item.part], self._time_axis(array.shape))

    def from_array(self, array: np.ndarray) -> Sample:
        """One series in memory: (T,), or (C, T) or (T, C) as ``layout`` says."""
        return self._sample(np.asarray(array), self._time_axis((1, *np.shape(array))))

    def _time_axis(self, shape: tuple[int, ...]) -> int:
        """Which axis of an array of series is time. Raises ``UnreadableError`` where it cannot be told."""
        if len(shape) == 2:
            return 1
        if len(shape) != 3:
            raise UnreadableError(f"an array of shape {shape} is not series (N, T), (N, C, T) or (N, T, C)")
        if self.layout == "auto" and shape[1] == shape[2]:
            raise UnreadableError(f"series of shape {shape[1:]} may be (C, T) or (T, C): say which by layout")
        return 2 if self.layout == "nct" or self.layout == "auto" and shape[2] > shape[1] else 1

    def _sample(self, row: np.ndarray, time_axis: int) -> Sample:
        x = row[None] if row.ndim == 1 else row.T if time_axis == 1 else row
        x = np.array(_numbers(x), np.float32, order="C")  # a copy: rows of a map are read-only
        if not x.size:
            raise UnreadableError(f"a series of shape {x.shape} has no readings")
        if np.isinf(x).any():
            raise UnreadableError("holds infinite values")
        observed = ~np.isnan(x)
        if not observed.any():
            raise UnreadableError("holds no reading that is not missing (NaN)")
        if self.channels and len(x) != self.channels:
            raise UnreadableError(f"has {len(x)} channels where {self.channels} are expected")
        return Sample({"series": x}, {"series": observed})

    # --- what is learned before step 0 -------------------------------------------------------------------------------

    def fit(self, samples: Iterable[Sample]) -> None:
        """Channels, length (the median) where it is not given, mean and standard deviation of every channel."""
        series = [sample.data for sample in samples]
        if not series:
            raise DataError("There are no series to learn from.")
        counts = [len(x) for x in series]
        self.channels = max(sorted(set(counts)), key=counts.count)
        same = [x.astype(np.float64) for x in series if len(x) == self.channels]
        self.length = self.length or max(8, int(np.median([x.shape[1] for x in same])))
        flat = np.concatenate(same, axis=1)
        self._learn(flat, ~np.isnan(flat))

    def _learn(self, flat: np.ndarray, observed: np.ndarray) -> None:
        """All readings side by side (C, all) -> mean and std; a constant or empty channel gets a spread of 1."""
        count = np.maximum(observed.sum(1), 1)
        mean = np.where(observed, flat, 0).sum(1) / count
        std = np.sqrt((np.where(observed, flat - mean[:, None], 0) ** 2).sum(1) / count)
        self.mean, self.std = mean.tolist(), np.where(std > 1e-6 * abs(mean), std, 1.0).tolist()

    # --- views -------------------------------------------------------------------------------------------------------

    def views(self, sample: Sample, rng: np.random.Generator, plan: Plan) -> Views:
        """Windows (V, C, T); ``drawn`` holds each view's window ("box": start, stop in [0, 1]) and its flip."""
        views, shared = Views({}, target=sample.target), {}
        for group in plan:
            windows, flips = self._places(rng, group, shared)
            lights = group.photometry * group.count if len(group.photometry) == 1 else group.photometry
            made = [
                self._view(sample, rng, tuple(window), flip, light, max(1, round(self._length() * group.size)))
                for window, flip, light in zip(windows.tolist(), flips.tolist(), lights, strict=True)
            ]
            drawn: dict[str, np.ndarray] = {"box": windows.astype(np.float32), "flip": flips}
            if name := pretext_of(self, group):
                drawn[name] = draw_values(rng, group.count, self.pretext[name])
                made = [self._changed(*one, name, value) for one, value in zip(made, drawn[name].tolist(), strict=True)]
            views.streams[group.name] = np.stack([x for x, _ in made])
            views.observed[group.name] = np.stack([observed for _, observed in made])
            views.drawn[group.name] = drawn
        return views

    def _changed(self, x: np.ndarray, observed: np.ndarray, name: str, value: int) -> tuple[np.ndarray, np.ndarray]:
        """A view under one value of a pretext: 0 leaves it as it is."""
        if name == "direction":
            return (x[:, ::-1], observed[:, ::-1]) if value else (x, observed)
        if name == "sign":
            return (2 * self._mean()[:, None] - x if value else x), observed
        order = np.concatenate([np.array_split(np.arange(x.shape[1]), 3)[part] for part in ORDERS[value]])
        return x[:, order], observed[:, order]

    def plain(self, sample: Sample) -> Views:
        """The whole series at the input length."""
        x, observed = self._resampled(sample, (0.0, 1.0), self._length())
        drawn = {"plain": {"box": np.array([[0, 1]], np.float32), "flip": np.zeros(1, bool)}}
        return Views({"plain": x[None]}, observed={"plain": observed[None]}, drawn=drawn, target=sample.target)

    def _view(
        self,
        sample: Sample,
        rng: np.random.Generator,
        window: tuple[float, float],
        flip: bool,
        light: Photometry,
        length: int,
    ) -> tuple[np.ndarray, np.ndarray]:
        x, observed = self._resampled(sample, window, length)
        observed = observed & ~signal.draw_dropped(rng, len(x), p=self.dropout if light.noise else 0.0)[:, None]
        x = signal.disturb(x, rng, strength=light.noise, mean=self._mean(), std=np.array(self.std, np.float32))
        x = self._filled(x, observed)
        return (x[:, ::-1], observed[:, ::-1]) if flip else (x, observed)

    def _places(
        self, rng: np.random.Generator, group: ViewGroup, drawn: dict[str, tuple[np.ndarray, np.ndarray]]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Windows and flips: what an earlier group of the same geometry drew, unless each has its own."""
        geometry = group.geometry
        if geometry.name == "own" or geometry.name not in drawn:
            windows = signal.draw_windows(rng, group.count, scale=geometry.scale, floor=self.shortest)
            drawn[geometry.name] = windows, (rng.random(group.count) < geometry.flip) & self.mirror
        windows, flips = drawn[geometry.name]
        if len(windows) < group.count:
            most = f"at most {len(windows)}, as in the first group of its geometry"
            raise MethodError(must_be("count", f"ViewGroup {group.name!r}", most, group.count))
        return windows[: group.count], flips[: group.count]

    def _resampled(self, sample: Sample, window: tuple[float, float], length: int) -> tuple[np.ndarray, np.ndarray]:
        observed = sample.observed.get("series")
        observed = ~np.isnan(sample.data) if observed is None else observed
        x, observed = signal.resample(sample.data, observed, window=window, length=length)
        return self._filled(x, observed), observed

    def _filled(self, x: np.ndarray, observed: np.ndarray) -> np.ndarray:
        return np.where(observed, x, self._mean()[:, None])

    def _mean(self) -> np.ndarray:
        return np.array(self.mean, np.float32)

    def _length(self) -> int:
        if not self.length or not self.mean:
            raise DataError("The length of the series is not known yet.", hint="Call fit first.")
        return self.length

    # --- on the device -----------------------------------------------------------------------------------------------

    def normalise(self, data: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """(B, V, C, T) as stored -> the same shape, (x - mean) / std of every channel, rounded once to ``dtype``."""
        mean, std = self._scales(data)
        return ((data - mean) / std).to(dtype)

    def denormalise(self, data: Tensor) -> Tensor:
        mean, std = self._scales(data)
        return data.float() * std + mean

    def _scales(self, like: Tensor) -> tuple[Tensor, Tensor]:
        both = torch.tensor([self.mean, self.std], dtype=torch.float32, device=like.device)[:, :, None]
        return both[0], both[1]

    # --- for people, and the record ----------------------------------------------------------------------------------

    def picture(self, data: np.ndarray) -> np.ndarray:
        """(C, T) as stored -> (96, 192, 3) uint8: a line per channel, each over its own range of three spreads."""
        height, width = 96, 192
        canvas = np.full((height, width, 3), 255, np.uint8)
        z = (np.asarray(data, np.float64) - self._mean()[:, None]) / np.array(self.std)[:, None]
        across = np.linspace(2, width - 3, z.shape[1])
        for channel, values in enumerate(z):
            down = height / 2 - np.nan_to_num(values).clip(-3, 3) * (height / 2 - 3) / 3
            points = np.stack([across, down], axis=1).round().astype(np.int32)
            cv2.polylines(canvas, [points], False, COLOURS[channel % len(COLOURS)].tolist(), 1, cv2.LINE_AA)
        return canvas

    def shape(self) -> tuple[int, ...]:
        return (self.channels, self.length)

    def state(self) -> dict[str, Any]:
        return {"modality": self.name, **{key: getattr(self, key) for key in _STATE}}

    def load_state(self, state: Mapping[str, Any]) -> None:
        for key in _STATE:
            setattr(self, key, state[key])

    def toy(self, n: int, seed: int = 0) -> list[Sample]:
        """Two channels of 64 noisy readings: a slow sine (target 0, 2 to 3 turns) or a fast one (1, 7 to 9 turns)."""
        rng = np.random.default_rng(seed)
        samples = []
        for p in range(n):
            turns = rng.uniform(2, 3) if p % 2 == 0 else rng.uniform(7, 9)
            phase = 2 * np.pi * (turns * np.arange(64) / 64 + rng.random())
            x = np.stack([np.sin(phase), np.cos(phase)]) + rng.normal(0, 0.1, (2, 64))
            sample = self._sample(x, 2)
            sample.target = p % 2
            samples.append(sample)
        return samples


_STATE = ("length", "layout", "shortest", "dropout", "mirror", "channels", "mean", "std")


def _numbers(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "biuf":
        raise UnreadableError(f"values of type {array.dtype} are not readings")
    return array
