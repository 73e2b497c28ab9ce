"""Pictures: photographs, scans, microscopy; 1, 3 (RGB) or N channels; 8 bits, 16 bits or float.

Pixels stay as stored until ``normalise``. The views of a picture are drawn from its shape before it is decoded, so that
a JPEG is decoded at the smallest scale that the crops allow. A picture has colour if it has three channels; otherwise
brightness and contrast are all that changes in its values.

The order of random numbers is fixed: group by group of the plan, first the geometry (unless an earlier group of the
same geometry drew it), 22 numbers per box and one per flip, then ten per view for the photometry, then the values of a
pretext. So a group added to a plan changes nothing in the groups before it, and switching blur off moves no crop.
Source: Chen et al. 2020 (SimCLR, arXiv:2002.05709), appendix A; departures are stated in ``ops/photo.py``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from selftaught.errors import ConfigError, DataError, MethodError, UnreadableError, must_be
from selftaught.formats import arrays, dicom, pictures, stills, tiff_parts, tiles
from selftaught.modalities.base import Modality, draw_values, pretext_of
from selftaught.ops import photo, pixels, spatial
from selftaught.types import Batch, Item, Photometry, Plan, Sample, ViewGroup, Views

LAYOUTS = ("auto", "yxc", "cyx", "nyx")
RAW_SIDE, RAW_NUMBERS = 32, 3072  # the raw control sees at most 32 x 32 pixels and 3,072 numbers


class Image(Modality):
    """Pictures in files (jpg, png, webp, tiff, bmp, DICOM, NIfTI) or arrays (N, Y, X), (N, Y, X, C), (N, C, Y, X)."""

    name = "image"
    extensions = stills.EXTENSIONS | arrays.EXTENSIONS
    default_method = "simclr"
    default_encoder = "auto"

    def __init__(
        self,
        *,
        size: Annotated[int, "in [0, 4096]", "side of the encoder's input, pixels, at least 8; 0 = from the data"] = 0,
        whole_size: Annotated[int, "in [0, 4096]", "side of whole pictures when they are embedded; 0 = size"] = 0,
        channels: Annotated[int, "in [0, 1024]", "1 gray, 3 RGB, N others; 0 = from the data"] = 0,
        layout: Annotated[
            str, "one of auto, yxc, cyx, nyx", "axes of arrays; yxc or cyx: a file of three axes is one picture"
        ] = "auto",
        window: Annotated[str, "", "DICOM: file (its own window), none (readings), or CENTRE,WIDTH"] = "file",
        axis: Annotated[int, "in [0, 2]", "NIfTI: slices are 2 axial, 1 coronal, 0 sagittal"] = 2,
        tile: Annotated[
            int, "in [0, 16384]", "larger pictures are cut into tiles of that side, pixels; 0 = too large ones alone"
        ] = 0,
    ) -> None:
        for name, side, zero in (("size", size, "from the data"), ("whole_size", whole_size, "as size")):
            if side and not 8 <= side <= 4096:
                raise ConfigError(must_be(name, "Image", f"an int in [8, 4096], or 0 ({zero})", side))
        if layout not in LAYOUTS:
            raise ConfigError(must_be("layout", "Image", f"one of {', '.join(LAYOUTS)}", layout))
        if tile and not 8 <= tile <= 16384:
            raise ConfigError(must_be("tile", "Image", "an int in [8, 16384], or 0 (what is too large alone)", tile))
        if axis not in (0, 1, 2):
            raise ConfigError(must_be("axis", "Image", "an int in [0, 2]", axis))
        self.size, self.channels, self.layout, self.window, self.axis = size, channels, layout, window, axis
        self.tile = tile
        self._read_window()  # refused here, not at the first file
        self.whole_size = whole_size
        self.dtype = ""  # of the stored pixels; "" = not fitted: as each picture has it
        self.mean: list[float] = []  # per channel, in stored units, as is std
        self.std: list[float] = []
        self.low, self.high = 0.0, 255.0  # what black and white are, in stored units
        self.too_large = False  # True = some are cut into tiles that nobody asked for
        self.side = 0  # the median short side of the pictures looked at, pixels

    @property
    def scan_key(self) -> str:
        """What ``items`` depends on."""
        given = [(self.axis != 2, f"axis {self.axis}"), (self.layout != "auto", f"layout {self.layout}")]
        given += [(self.tile > 0, f"tile {self.tile}")]
        return ", ".join(said for differs, said in given if differs)

    def _read_window(self) -> Any:
        try:
            return dicom.read_window(self.window)
        except ValueError:
            wanted = "file, none, or two numbers CENTRE,WIDTH with a width above 0"
            raise ConfigError(must_be("window", "Image", wanted, self.window)) from None

    @property
    def pretext(self) -> Mapping[str, int]:  # type: ignore[override]
        """Turns by quarters; and the colour, unless ``fit`` found that there is none."""
        return {"rotation": 4, "colour": 0} if self.channels in (0, 3) else {"rotation": 4}

    # --- reading -----------------------------------------------------------------------------------------------------

    @classmethod
    def claims(cls, shape: tuple[int, ...], kind: str) -> float:
        """Small whole numbers, three axes, or two of like length."""
        alike = len(shape) == 2 and min(shape) >= 8 and max(shape) <= 4 * min(shape)
        return 1.0 if kind == "u" or len(shape) == 3 else 0.8 if alike else 0.0

    def items(self, path: str) -> Iterable[Item]:
        """One item per picture, page, frame, slice or tile of a file, or row of an array; only heads are read."""
        if not arrays.is_array(path):
            count, group = stills.look(path, axis=self.axis, tile=self.tile)
            return [Item(path, part, group=group) for part in range(count)]
        shape = arrays.open_array(path).shape
        single, axis = pixels.picture_axes(shape, self.layout)
        count = tiles.count(pixels.plane(shape, axis), self.tile) if single else arrays.rows(path)
        return [Item(path, part, group=path if single and count > 1 else "") for part in range(count)]

    def read(self, item: Item) -> Sample:
        """A picture as ``formats.stills`` gives it, mostly still encoded, or what of an array is one, as (Y, X, C)."""
        if not arrays.is_array(item.path):
            window = self._read_window()
            return Sample(
                {"image": stills.open_still(item.path, item.part, window=window, axis=self.axis, tile=self.tile)}
            )
        array = arrays.open_array(item.path)
        single, axis = pixels.picture_axes(array.shape, self.layout)
        if not single:
            return Sample({"image": pixels.channels_last(array[item.part], axis)})
        y0, x0, y1, x1 = tiles.box(pixels.plane(array.shape, axis), self.tile, item.part)
        part = array[:, y0:y1, x0:x1] if axis == 0 else array[y0:y1, x0:x1]
        return Sample({"image": pixels.channels_last(np.asarray(part), axis)})

    def from_array(self, array: np.ndarray) -> Sample:
        """One picture in memory: (Y, X), (Y, X, C) or (C, Y, X). Raises ``UnreadableError`` for other shapes."""
        if array.ndim not in (2, 3):
            raise UnreadableError(f"an array of shape {array.shape} is not a picture (Y, X), (Y, X, C) or (C, Y, X)")
        axis = pixels.picture_axes((1, *array.shape), self.layout)[1] if array.ndim == 3 else None
        return Sample({"image": pixels.channels_last(array, axis)})

    # --- what is learned before step 0 -------------------------------------------------------------------------------

    def fit(self, samples: Iterable[Sample]) -> None:
        """Channels, size and type where they are not given; then mean and standard deviation of every channel.

        Passes over what cannot be decoded, which the loader names when it is drawn. Raises ``DataError`` if all is so.
        A few hundred samples are enough; all of them are held, still encoded.
        """
        samples = list(samples)
        if not samples:
            raise DataError("There are no pictures to learn from.")
        shapes = [sample.data.shape for sample in samples]
        kinds = [pixels.stored_type(sample.data.dtype) for sample in samples]
        self.channels = self.channels or _common([shape[2] for shape in shapes])
        self.side = int(np.median([min(shape[:2]) for shape in shapes]))
        self.size = self.size or auto_size([min(shape[:2]) for shape in shapes])
        self.dtype = max(pixels.STORED, key=kinds.count)
        self.too_large = not self.tile and any(isinstance(sample.data, tiff_parts.Part) for sample in samples)
        self._measure(samples)

    def _measure(self, samples: Sequence[Sample]) -> None:
        """Mean, spread and range; every picture weighs the same, whatever its size."""
        moments = []
        for sample in samples:
            with contextlib.suppress(UnreadableError):
                moments.append(pixels.moments(self._pixels(sample.data, min(1.0, 256 / min(sample.data.shape[:2])))))
        if not moments:
            raise DataError("None of the pictures looked at can be decoded.")
        mean, square, low, high = (np.stack(column) for column in zip(*moments, strict=True))
        self.mean = mean.mean(0).tolist()
        std = np.sqrt(np.maximum(square.mean(0) - mean.mean(0) ** 2, 0))
        self.std = np.where(std > 1e-6 * (1 + abs(mean.mean(0))), std, 1.0).tolist()  # a constant channel stays finite
        self.low, self.high = (0.0, 255.0) if self.dtype == "uint8" else (float(low.min()), float(high.max()))

    # --- views -------------------------------------------------------------------------------------------------------

    def views(self, sample: Sample, rng: np.random.Generator, plan: Plan) -> Views:
        """Crops, flips and colour; ``drawn`` holds each view's box (y0, x0, y1, x1 in [0, 1]) as cut, and its flip."""
        shape = sample.data.shape[:2]
        drawn, shared = [], {}
        for group in plan:  # everything random comes first: what to decode depends on it
            place, draws = _places(rng, group, shared, shape), rng.random((group.count, photo.DRAWS)).tolist()
            drawn.append((*place, draws, self._turns(rng, group)))
        sizes = [self.size_of(group) for group in plan]
        share = max(
            spatial.share_needed(boxes, size, shape=shape) for (boxes, *_), size in zip(drawn, sizes, strict=True)
        )
        picture, views = self._pixels(sample.data, share), Views({}, target=sample.target)
        for group, size, (boxes, flips, draws, turns) in zip(plan, sizes, drawn, strict=True):
            cuts = spatial.snap(boxes, size, shape=picture.shape[:2])
            views.streams[group.name] = np.stack(
                [
                    self._light(spatial.cut(picture, cut, size=size, flip=flip), light, draw)
                    for cut, flip, light, draw in zip(cuts, flips.tolist(), _per_view(group), draws, strict=True)
                ]
            )
            views.drawn[group.name] = {"box": _shares(cuts, picture.shape), "flip": flips}
            self._pretext(views, group, turns)
        return views

    def _turns(self, rng: np.random.Generator, group: ViewGroup) -> np.ndarray | None:
        """(V,) quarter turns of a group's views, None where they are not turned."""
        return draw_values(rng, group.count, 4) if pretext_of(self, group) == "rotation" else None

    def _pretext(self, views: Views, group: ViewGroup, turns: np.ndarray | None) -> None:
        """Turns a group's views (counter-clockwise, without interpolation), or takes their colour and keeps it apart.

        Of colour, ``drawn`` holds (V, Y, X, 3) uint8 Lab as OpenCV stores it: L 255 / 100, a + 128, b + 128.
        """
        made, drawn = views.streams[group.name], views.drawn[group.name]
        if turns is not None:
            views.streams[group.name] = np.stack(
                [np.rot90(one, k) for one, k in zip(made, turns.tolist(), strict=True)]
            )
            drawn["rotation"] = turns
        elif pretext_of(self, group) == "colour":
            drawn["colour"] = np.stack([photo.lab(one, low=self.low, high=self.high) for one in made])
            views.streams[group.name] = np.stack([photo.recolour(one, photo.GRAY) for one in made])

    def plain(self, sample: Sample) -> Views:
        """The short side resized to ``whole_size`` (ratio 1: a square loses no border), then the centre.

        Random crops show things larger than the whole picture does at the same size, so a convnet tells more of whole
        pictures that are larger than its views (Touvron et al. 2019, FixRes, arXiv:1906.06423).
        """
        size, box = self.whole_size or self.size_of(ViewGroup()), spatial.centre_box(sample.data.shape[:2])[None]
        picture = self._pixels(sample.data, spatial.share_needed(box, size, shape=sample.data.shape[:2]))
        cuts = spatial.snap(box, size, shape=picture.shape[:2])
        drawn = {"plain": {"box": _shares(cuts, picture.shape), "flip": np.zeros(1, bool)}}
        return Views({"plain": spatial.cut(picture, cuts[0], size=size)[None]}, drawn=drawn, target=sample.target)

    def size_of(self, group: ViewGroup) -> int:
        """Side of a group's views in pixels."""
        if not self.size:
            raise DataError("The size of the pictures is not known yet.", hint="Call fit first, or give size.")
        return max(1, round(self.size * group.size))

    def _light(self, view: np.ndarray, light: Photometry, draws: list[float]) -> np.ndarray:
        """One view with its ten random numbers, in SimCLR's order: jitter, gray, blur, solarise."""
        jitter = photo.jitter(light.colour, draws[1:6]) if light.colour and draws[0] < light.colour_p else None
        gray = draws[6] < light.gray
        if view.shape[2] == 3 and (jitter or gray):
            matrix = photo.colour_matrix(jitter, mean=photo.mean_of(view), gray=gray, low=self.low)
            view = photo.recolour(view, matrix)
        elif jitter:
            view = photo.recolour(view, photo.gain_matrix(jitter, mean=photo.mean_of(view), low=self.low))
        if draws[7] < light.blur:
            view = photo.blur(view, photo.blur_sigma(draws[8], view.shape[0]))
        if draws[9] < light.solarise:
            view = photo.solarise(view, low=self.low, high=self.high)
        return view

    def _pixels(self, stored: Any, share: float = 1.0) -> np.ndarray:
        """(Y, X, C), decoded at ``share`` of full scale or more, in the channels and the type that ``fit`` chose."""
        decoded = stored.decode(share) if hasattr(stored, "decode") else np.asarray(stored)
        return pixels.as_type(pixels.as_channels(pixels.as_stored(decoded), self.channels), self.dtype)

    # --- on the device -----------------------------------------------------------------------------------------------

    def normalise(self, data: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """(B, V, Y, X, C) as stored -> (B, V, C, Y, X): (x - mean) / std in float32, rounded once to ``dtype``.

        Flattened to (B V, C, Y, X) the result is channels-last without a copy.
        """
        return pixels.standardise(data, self.mean, self.std, dtype).movedim(-1, -3)

    def denormalise(self, data: Tensor) -> Tensor:
        """(…, C, Y, X) -> (…, Y, X, C) in stored units and type, rounded and clipped."""
        mean, std = (torch.tensor(each, dtype=torch.float32, device=data.device) for each in (self.mean, self.std))
        values = data.movedim(-3, -1).float() * std + mean
        if self.dtype == "float32":
            return values
        return values.round().clamp(0, 255 if self.dtype == "uint8" else 65535).to(getattr(torch, self.dtype))

    def raw(self, batch: Batch) -> Tensor:
        """(B, D) normalised pixels, averaged down to at most 32 x 32 and at most 3,072 numbers (if C allows)."""
        x = self.normalise(batch["plain"].data)[:, 0]
        side = max(1, min(RAW_SIDE, x.shape[-1], int((RAW_NUMBERS / x.shape[1]) ** 0.5)))
        return torch.nn.functional.adaptive_avg_pool2d(x, side).flatten(1)

    # --- for people, and the record ----------------------------------------------------------------------------------

    def picture(self, data: np.ndarray) -> np.ndarray:
        """(Y, X, C) as stored -> (Y, X, 3) uint8: gray thrice, or the first three channels; other depths stretched."""
        shown = np.asarray(data)
        if shown.dtype != np.uint8:
            stretched = (shown.astype(np.float32) - self.low) / max(self.high - self.low, 1e-12)
            shown = (255 * stretched.clip(0, 1)).round().astype(np.uint8)
        if shown.shape[-1] == 2:
            shown = np.concatenate([shown, np.zeros_like(shown[..., :1])], axis=-1)
        return np.ascontiguousarray(np.repeat(shown, 3, axis=-1) if shown.shape[-1] == 1 else shown[..., :3])

    def shape(self) -> tuple[int, ...]:
        return (self.channels, self.size, self.size)

    def plain_shape(self) -> tuple[int, ...]:
        side = self.whole_size or self.size
        return (self.channels, side, side)

    def state(self) -> dict[str, Any]:
        return {"modality": self.name, **{key: getattr(self, key) for key in _STATE}}

    def load_state(self, state: Mapping[str, Any]) -> None:
        for key in _STATE:
            setattr(self, key, state.get(key, getattr(self, key)))  # a run of an earlier version knows less

    def advice(self, plan: Plan) -> list[str]:
        """What to know of pictures that are cut into tiles unasked, or shown much smaller by any crop."""
        said = []
        if self.too_large:
            said.append(
                "Some pictures are too large to be read whole (over "
                f"{pictures.MAX_PIXELS // 10**6} million pixels): each of their tiles of {tiles.UNASKED:,} pixels "
                "is a sample. --modality.tile gives all pictures tiles of another side"
            )
        group = plan[0]
        small, large = (self.side * share**0.5 / self.size_of(group) for share in group.geometry.scale)
        if small < COARSE:
            return said
        size, kept = self.size_of(group), " to ".join(f"{100 * share:.3g}" for share in group.geometry.scale)
        native = (size / self.side) ** 2
        return [
            *said,
            f"The pictures are about {self.side:,} pixels wide. A view is a crop of {kept} % of their area, shown at "
            f"{size} pixels: {small:.0f} to {large:.0f} pixels become one. Whole pictures are shown at "
            f"{self.whole_size or size}. If what matters is smaller (cells, cracks, textures), learn from tiles by "
            f"--modality.tile {2 * size} (each is a sample then; examples/tiles.py cuts them once and for all), or "
            f"take crops at full resolution by --views.scale {native:.2g},{8 * native:.2g}",
        ]

    def toy(self, n: int, seed: int = 0) -> list[Sample]:
        """Pictures of 40 x 40: a disc on plain ground (target 0) or stripes (target 1), in any colours, noisy."""
        rng = np.random.default_rng(seed)
        return [Sample({"image": _toy_picture(rng, p % 2, self.channels or 3)}, target=p % 2) for p in range(n)]


_GIVEN = ("size", "whole_size", "channels", "layout", "window", "axis", "tile")
_STATE = (*_GIVEN, "dtype", "mean", "std", "low", "high", "side")
COARSE = 4  # pixels of a picture that become one of a view, along each axis: from there on fine things are lost


def auto_size(short_sides: Sequence[int]) -> int:
    """The median short side, down to a multiple of 4 (of 16 from 32 pixels on), in [8, 224]."""
    median = int(np.median(short_sides))
    step = 16 if median >= 32 else 4
    return min(224, max(8, median // step * step))


def _common(channels: Sequence[int]) -> int:
    """Gray among colour is made colour; otherwise the most common number, and the rest are named as unreadable."""
    return 3 if set(channels) == {1, 3} else max(sorted(set(channels)), key=channels.count)


Place = tuple[np.ndarray, np.ndarray]  # boxes (V, 4), flips (V,)


def _places(rng: np.random.Generator, group: ViewGroup, drawn: dict[str, Place], shape: tuple[int, int]) -> Place:
    """Where a group's views are cut: what an earlier group of the same geometry drew, unless each has its own."""
    geometry = group.geometry
    if geometry.name == "own" or geometry.name not in drawn:
        boxes = spatial.draw_boxes(rng, group.count, shape=shape, scale=geometry.scale, ratio=geometry.ratio)
        drawn[geometry.name] = boxes, spatial.draw_flips(rng, group.count, p=geometry.flip)
    boxes, flips = drawn[geometry.name]
    if len(boxes) < group.count:
        most = f"at most {len(boxes)}, as in the first group of its geometry"
        raise MethodError(must_be("count", f"ViewGroup {group.name!r}", most, group.count))
    return boxes[: group.count], flips[: group.count]


def _per_view(group: ViewGroup) -> Sequence[Photometry]:
    return group.photometry * group.count if len(group.photometry) == 1 else group.photometry


def _shares(cuts: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Whole pixels -> (V, 4) float32 in [0, 1]."""
    return (cuts / np.array([shape[0], shape[1], shape[0], shape[1]])).astype(np.float32)


def _toy_picture(rng: np.random.Generator, kind: int, channels: int) -> np.ndarray:
    side = 40
    y, x = np.mgrid[:side, :side] / side
    if kind == 0:
        centre, radius = rng.uniform(0.35, 0.65, 2), rng.uniform(0.2, 0.3)
        inside = np.hypot(y - centre[0], x - centre[1]) < radius
    else:
        angle, phase = rng.uniform(0, np.pi), rng.uniform(0, 1)
        inside = (5 * (x * np.cos(angle) + y * np.sin(angle)) + phase) % 1 < 0.5
    ground = rng.uniform(40, 110, channels)
    picture = np.where(inside[..., None], ground + rng.uniform(60, 120, channels), ground)
    return (picture + rng.normal(0, 8, picture.shape)).clip(0, 255).round().astype(np.uint8)
