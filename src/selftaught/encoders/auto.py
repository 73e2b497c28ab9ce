"""Which encoder, at which input size, for these data on this machine, and why: what ``--encoder auto`` asks.

On a CPU the number of steps decides: a small network at a reduced size that takes many steps beats a large one that
takes few. So pictures are reduced to 64 pixels, to 48 where there is time for few steps, and the network is widened
where there is time to spare. On an accelerator the data decide: the more samples and the larger, the larger the model.
Speeds are those of ``small`` on one core of a server of 2023 with bf16; other machines differ by a factor, which moves
the choice little. Measured by kNN on 3,000 pictures of 100 pixels at equal processor time; the rules for width 64, for
series, volumes and accelerators are reasoned, not measured.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from selftaught.encoders.small import CELLS, SMALLEST, stem_stride
from selftaught.errors import EncoderError, must_be

LARGEST, SMALLER, LEAST = 64, 48, 16  # pixels a side; above 64 the stem strides by 4: 5 points of kNN less
FEW = 500_000  # pictures passed in the time, below which 48 pixels do as well as 64 at 0.6 times the cost
PLENTY = 300  # times every sample is seen, above which a wider network is worth its price
WIDTHS = (32, 64)
ENLARGED = 4 / 3  # whole pictures against views: a random crop of 20 to 100 % shows things about that much larger
CELL = 16  # whole pictures come in these steps of pixels: the last grid then needs no padding
MINUTES = 10.0  # where the user gives no time
CELLS_PER_SECOND = 250_000  # stem cells of one view, width 32, depth 1, forward and backward, on one core
LARGEST_ON_GPU = 224
LONGEST = {1: 2048, 3: 64}  # cells per axis of a series or a volume beyond which it is reduced


@dataclass(frozen=True, slots=True)
class Choice:
    """``make(choice.name, (C, *size), **choice.options)`` is the encoder; ``reason`` is one sentence for the user."""

    name: str
    size: tuple[int, ...]  # input size per axis: pixels, frames, samples
    options: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    whole: tuple[int, ...] = ()  # size of whole samples when they are embedded; () = as ``size``


def choose(
    sample_shape: Sequence[int],
    count: int,
    *,
    device: str = "cpu",
    minutes: float | None = None,
    cores: int | None = None,
) -> Choice:
    """``sample_shape``: (C, *space) of typical samples as stored; ``count`` of them; ``device`` "cpu", "cuda", "mps".

    ``minutes``: the time the user gives the whole job, None = unknown. ``cores``: None = those this process may use.
    Raises EncoderError for samples that are no series, pictures or volumes.
    """
    space = tuple(int(size) for size in sample_shape[1:])
    if len(space) not in CELLS or min(space) < 1:
        raise EncoderError(must_be("shape", "auto", "(C, *space) with 1, 2 or 3 axes of space", tuple(sample_shape)))
    if str(device).split(":")[0] != "cpu" and len(space) == 2:
        return _on_accelerator(space, count)
    if len(space) != 2:
        return _no_picture(space, count)
    return _on_cpu(space, count, MINUTES if minutes is None else minutes, cores or _cores())


def times_seen(size: Sequence[int], count: int, *, minutes: float, cores: int, width: int = 32) -> float:
    """How often two views of each of ``count`` samples pass through ``small`` in that time, about."""
    cells = math.prod(-(-side // stride) for side, stride in zip(size, stem_stride(size), strict=True))
    views_per_second = cores * CELLS_PER_SECOND / cells * (32 / width) ** 1.8
    return views_per_second * 60 * minutes / (2 * max(1, count))


def _on_cpu(space: tuple[int, ...], count: int, minutes: float, cores: int) -> Choice:
    passed = count * times_seen((LARGEST, LARGEST), count, minutes=minutes, cores=cores)
    size = _size(min(space), few=passed < FEW)
    narrow, wide = (times_seen((size, size), count, minutes=minutes, cores=cores, width=width) for width in WIDTHS)
    width, seen = (WIDTHS[1], wide) if wide >= PLENTY else (WIDTHS[0], narrow)
    see, unit = "sees" if cores == 1 else "see", "minute" if minutes == 1 else "minutes"
    reason = (
        f"small at {size} pixels, width {width}: {_number(cores)} {see} {count:,} pictures about {_rounded(seen)} "
        f"times in {minutes:g} {unit}, and on a processor the number of steps decides."
    )
    whole = max(size, min(min(space), int(size * ENLARGED)) // CELL * CELL)
    return Choice("small", (size, size), {"width": width}, reason, (whole, whole))


def _size(side: int, *, few: bool) -> int:
    """Pixels: as they are up to 32 (in fours, at least 16), else 32, 48 or 64, which suit the stem's strides."""
    if side <= 32:
        return max(LEAST, side // 4 * 4)
    if side < SMALLER:
        return 32
    return LARGEST if side >= LARGEST and not few else SMALLER


def _on_accelerator(space: tuple[int, ...], count: int) -> Choice:
    size = min(LARGEST_ON_GPU, min(space))
    size = max(16, size // 16 * 16)
    name = "resnet18"
    if count >= 200_000 and size >= 160:
        name = "vit_small"
    elif count >= 20_000 and size > 64:
        name = "resnet50"
    why = {
        "resnet18": "few or small pictures are learned best by a small convnet",
        "resnet50": "there are enough pictures for a larger convnet, too few for a transformer",
        "vit_small": "there are enough pictures for a transformer",
    }[name]
    return Choice(name, (size, size), {}, f"{name} at {size} pixels: {count:,} pictures on an accelerator; {why}.")


def _no_picture(space: tuple[int, ...], count: int) -> Choice:
    most = LONGEST[len(space)]
    size = tuple(max(SMALLEST, min(side, most)) for side in space)
    what = "series" if len(space) == 1 else "volumes"
    shown = " x ".join(map(str, size))
    reason = f"small at {shown} cells, width 32: {count:,} {what}; it takes any length and learns from few samples."
    return Choice("small", size, {"width": 32}, reason)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _number(cores: int) -> str:
    return {1: "one core", 2: "two cores"}.get(cores, f"{cores} cores")


def _rounded(times: float) -> str:
    """Two significant figures, as a whole number where it is one."""
    return f"{float(f'{times:.2g}'):g}"
