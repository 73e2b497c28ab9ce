"""Which encoder, at which input size, for these data on this machine, and why: what ``--encoder auto`` asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Choice:
    """``make(choice.name, (C, *size), **choice.options)`` is the encoder; ``reason`` is one sentence for the user."""

    name: str
    size: tuple[int, ...]  # input size per axis: pixels, frames, samples
    options: dict[str, Any] = field(default_factory=dict)
    reason: str = ""


def choose(
    sample_shape: Sequence[int],
    count: int,
    *,
    device: str = "cpu",
    minutes: float | None = None,
    cores: int | None = None,
) -> Choice:
    """``sample_shape``: (C, *space) of typical samples as stored; ``count`` of them; ``device`` "cpu", "cuda", "mps".

    ``minutes``: the time the user gives the whole job, None = unknown. ``cores``: None = those of this machine.
    """
    raise NotImplementedError
