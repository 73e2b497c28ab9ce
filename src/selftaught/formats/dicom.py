"""DICOM: frames as a screen shows them: rescaled, windowed, and with black where black is meant.

``window`` says how readings become brightness: "file" (the window that the file states, else from the lowest to the
highest reading of the frame), "none" (the readings themselves, Hounsfield units in a CT, as float32), or "40,400"
(centre and width). Colour stays colour. Sources: DICOM PS3.3 C.7.6.3 (pixels), C.11.1 (rescale), C.11.2 (windows).

Nothing of a patient leaves this file: of what a header says only the size, the number of frames and how to show them
are handed on, and the patient as a digest, which the index replaces by a number. Errors of pydicom may quote values, so
their texts are not passed on where a header is read.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
from typing import Any, NamedTuple

import numpy as np

from selftaught.errors import DataError, UnreadableError
from selftaught.formats import files
from selftaught.formats.pictures import MAX_PIXELS
from selftaught.formats.silence import silent

EXTENSIONS = frozenset({".dcm", ".dicom"})
MAX_FRAMES = 10**6
START = 132  # bytes that tell a DICOM file
WINDOWS = ("file", "none")
_SIZE = ["Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated"]
_WHOSE = ["PatientID", "StudyInstanceUID", "Modality"]
_GRAY = ("MONOCHROME1", "MONOCHROME2")


class Look(NamedTuple):
    """What the index has to know of a file; ``patient`` is a digest, "" where nothing is said."""

    frames: int
    patient: str


def is_dicom(start: bytes) -> bool:
    """By the first ``START`` bytes."""
    return start[128:132] == b"DICM"


def read_window(text: str) -> tuple[float, float] | str:
    """ "file", "none", or (centre, width) of "centre,width". Raises ``ValueError``."""
    if text in WINDOWS:
        return text
    centre, width = (float(part) for part in text.split(","))
    if not (math.isfinite(centre) and width > 0 and math.isfinite(width)):
        raise ValueError(text)
    return centre, width


def look(path: str) -> Look:
    """How many frames, and whose, without reading pixels. Raises ``UnreadableError``."""
    part = files.part_of(path)
    source: Any = io.BytesIO(files.read(path)) if part else path
    header = _header(source, stop_before_pixels=True, specific_tags=[*_SIZE, *_WHOSE])
    frames = _checked(header)[3]
    try:
        with silent():
            whose = str(header.get("PatientID") or header.get("StudyInstanceUID") or "")
    except Exception as error:
        raise UnreadableError(f"broken DICOM header: {type(error).__name__}") from None
    digest = hashlib.blake2b(whose.encode("utf-8", "replace"), digest_size=16).hexdigest() if whose else ""
    return Look(frames, digest)


class Frame:
    """One frame, not decoded yet. ``shape`` is (Y, X, C), ``dtype`` uint8 (colour), uint16 (windowed) or float32."""

    __slots__ = ("dataset", "index", "shape", "window")

    def __init__(self, data: bytes, index: int = 0, window: tuple[float, float] | str = "file") -> None:
        self.dataset, self.index, self.window = _header(io.BytesIO(data)), index, window
        rows, columns, channels, frames = _checked(self.dataset)
        if "PixelData" not in self.dataset:
            raise UnreadableError("truncated: a DICOM file whose pixels are missing")
        if index >= frames:
            raise UnreadableError(f"has {frames} frames, number {index + 1} was asked for")
        self.shape = (rows, columns, channels)

    @property
    def dtype(self) -> np.dtype:
        if self.shape[2] == 3:
            return np.dtype("uint8" if self.dataset.get("BitsAllocated", 8) <= 8 else "uint16")
        return np.dtype("float32" if self.window == "none" else "uint16")

    def decode(self, smallest: float = 1.0) -> np.ndarray:
        """(Y, X, C), whole. Raises ``UnreadableError`` where the pixels are corrupt, or of a kind nobody can read."""
        pixels = self._stored()
        try:
            with silent():
                kind = self.dataset.PhotometricInterpretation
                found = self._shown(pixels)[..., None] if kind in _GRAY else self._coloured(pixels, kind)
        except Exception as error:  # values of the header are converted here, and may be anything
            raise UnreadableError(f"broken DICOM header: {type(error).__name__}") from None
        if found.shape != self.shape:
            raise UnreadableError(f"decodes to {found.shape}, its head says {self.shape}")
        return np.ascontiguousarray(found.astype(self.dtype, copy=False))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.decode() if dtype is None else self.decode().astype(dtype, copy=False)

    def _stored(self) -> np.ndarray:
        from pydicom.pixels.utils import pixel_array

        try:
            with silent():
                return pixel_array(self.dataset, index=self.index)
        except Exception as error:  # each codec has its own
            reason = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()[:120]  # the codec's own
            raise UnreadableError(f"its pixels cannot be decoded: {reason}") from None

    def _coloured(self, pixels: np.ndarray, kind: str) -> np.ndarray:
        if kind == "PALETTE COLOR":
            from pydicom.pixels.processing import apply_color_lut

            pixels = apply_color_lut(pixels, self.dataset)[..., :3]
            return (pixels >> 8).astype(np.uint8) if pixels.dtype == np.uint16 else pixels
        return pixels  # pydicom makes RGB of what is stored as luma and chroma

    def _shown(self, pixels: np.ndarray) -> np.ndarray:
        """Readings as brightness, black at 0 and white at 65,535; or, with the window "none", as they are."""
        slope, intercept = (
            self._said("PixelValueTransformationSequence", name) for name in ("RescaleSlope", "RescaleIntercept")
        )
        readings = pixels.astype(np.float32) * np.float32(1 if slope is None else slope) + np.float32(intercept or 0)
        if self.window == "none":
            return readings
        if self.window == "file" and self._stated() is None and "VOILUTSequence" in self.dataset:
            share = self._by_table(pixels)
        else:
            share = self._by_window(readings, pixels)
        if self.dataset.PhotometricInterpretation == "MONOCHROME1":
            share = 1 - share
        return (65535 * share).round()

    def _by_window(self, readings: np.ndarray, pixels: np.ndarray) -> np.ndarray:
        """Shares of white in [0, 1]; PS3.3 C.11.2.1.2, or from the lowest to the highest reading."""
        window = self._stated() if isinstance(self.window, str) else self.window
        if window is None:
            padding = self.dataset.get("PixelPaddingValue")
            used = readings[pixels != padding] if padding is not None and (pixels != padding).any() else readings
            low, high = float(used.min()), float(used.max())
            return ((readings - low) / max(high - low, 1e-12)).clip(0, 1)
        centre, width = window
        how = (
            str(self._said("FrameVOILUTSequence", "VOILUTFunction") or "LINEAR") if self.window == "file" else "LINEAR"
        )
        if how == "SIGMOID":
            return 1 / (1 + np.exp(-4 * (readings - centre) / width))
        if how == "LINEAR_EXACT" or width <= 1:
            return ((readings - centre) / width + 0.5).clip(0, 1)
        return ((readings - (centre - 0.5)) / (width - 1) + 0.5).clip(0, 1)

    def _by_table(self, pixels: np.ndarray) -> np.ndarray:
        from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

        bits = int(self.dataset.VOILUTSequence[0].LUTDescriptor[2])
        found = apply_voi_lut(apply_modality_lut(pixels, self.dataset), self.dataset, prefer_lut=True)
        return (found.astype(np.float32) / (2**bits - 1)).clip(0, 1)

    def _stated(self) -> tuple[float, float] | None:
        """The file's (first) window; None where it states none that makes sense."""
        centre, width = (self._said("FrameVOILUTSequence", name) for name in ("WindowCenter", "WindowWidth"))
        return (centre, width) if centre is not None and width is not None and width > 0 else None

    def _said(self, sequence: str, name: str) -> Any:
        """A value for this frame: of the frame itself, of all frames, or of the file; of several the first."""
        for groups, row in (("PerFrameFunctionalGroupsSequence", self.index), ("SharedFunctionalGroupsSequence", 0)):
            with contextlib.suppress(KeyError, IndexError, TypeError, AttributeError):
                return _number(getattr(self.dataset[groups][row][sequence][0], name))
        return _number(self.dataset.get(name))


def _number(value: Any) -> Any:
    """Numbers as float, the first of several; texts as they are."""
    if value is None or isinstance(value, str) and not value.strip():
        return None
    if not isinstance(value, str) and hasattr(value, "__len__"):
        value = value[0] if len(value) else None
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return value


def _checked(header: Any) -> tuple[int, int, int, int]:
    """(rows, columns, channels, frames). Raises ``UnreadableError`` for what holds no pictures, or claims too much."""
    try:  # values are converted when they are asked for
        with silent():
            rows, columns = int(header.get("Rows") or 0), int(header.get("Columns") or 0)
            frames, kind = int(header.get("NumberOfFrames") or 1), str(header.get("PhotometricInterpretation") or "")
    except Exception as error:
        raise UnreadableError(f"broken DICOM header: {type(error).__name__}") from None
    if not (rows and columns and kind):
        what = str(header.get("Modality") or "")
        raise UnreadableError(f"a DICOM file without pictures{f' ({what})' if what.isalpha() else ''}")
    if rows * columns > MAX_PIXELS or not 0 < frames <= MAX_FRAMES:
        raise UnreadableError(f"claims {frames:,} frames of {columns:,} x {rows:,} pixels")
    return rows, columns, 1 if kind in _GRAY else 3, frames


def _header(source: Any, **options: Any) -> Any:
    try:
        import pydicom
    except ImportError:
        raise DataError("Reading DICOM takes pydicom.", hint="pip install 'selftaught[dicom]'") from None
    try:
        with silent():  # warnings and logs quote values
            return pydicom.dcmread(source, **options)
    except OSError as error:
        raise UnreadableError(
            f"cannot be opened: {error.strerror}" if error.strerror else "truncated DICOM file"
        ) from None
    except Exception as error:
        raise UnreadableError(f"broken DICOM header: {type(error).__name__}") from None
