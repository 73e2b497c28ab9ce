"""Animated pictures, GIF and WebP: each frame as it is shown, on what came before it; what is clear becomes white."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np

from selftaught.errors import UnreadableError, first_line
from selftaught.formats.pictures import MAX_PIXELS
from selftaught.formats.silence import silent

EXTENSIONS = frozenset({".gif"})
MAX_FRAMES = 100_000


def is_animation(start: bytes) -> bool:
    """By the first 21 bytes: a GIF (which may have one frame), or a WebP that says so."""
    webp = start[:4] == b"RIFF" and start[8:16] == b"WEBPVP8X" and len(start) > 20 and bool(start[20] & 2)
    return webp or start[:6] in (b"GIF87a", b"GIF89a")


def frames(data: bytes) -> int:
    """How many. Raises ``UnreadableError``."""
    with _opened(data) as picture:
        count = int(getattr(picture, "n_frames", 1))
    if not 0 < count <= MAX_FRAMES:
        raise UnreadableError(f"claims {count:,} frames")
    return count


class Frame:
    """One frame, not decoded yet. ``shape`` is (Y, X, 3), ``dtype`` uint8; ``numpy.asarray(frame)`` is the picture."""

    __slots__ = ("data", "index", "shape")
    dtype = np.dtype("uint8")

    def __init__(self, data: bytes, index: int = 0) -> None:
        self.data, self.index = data, index
        with _opened(data) as picture:
            self.shape = (picture.height, picture.width, 3)

    def decode(self, smallest: float = 1.0) -> np.ndarray:
        """(Y, X, 3) uint8. Raises ``UnreadableError`` where the file is cut off or corrupt."""
        with _opened(self.data) as picture:
            picture.seek(self.index)
            pixels = np.asarray(picture.convert("RGBA")).astype(np.float32)
        share = pixels[..., 3:] / 255
        return (pixels[..., :3] * share + 255 * (1 - share)).round().astype(np.uint8)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.decode() if dtype is None else self.decode().astype(dtype, copy=False)


@contextlib.contextmanager
def _opened(data: bytes) -> Any:
    """Pillow's picture; whatever it raises, also inside the block, becomes one sentence."""
    from PIL import Image, UnidentifiedImageError

    try:
        with silent(), Image.open(io.BytesIO(data), formats=["GIF", "WEBP"]) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise UnreadableError(f"the picture claims {picture.width} x {picture.height} pixels")
            yield picture
    except UnreadableError:
        raise
    except UnidentifiedImageError:
        raise UnreadableError("corrupt or truncated animation: its header is broken") from None
    except Exception as error:  # Pillow's readers raise what their bytes lead them to
        raise UnreadableError(f"corrupt or truncated animation: {first_line(error)}") from None
