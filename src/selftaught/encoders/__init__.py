"""Encoders by name: our own (``small``, ``vit_tiny``, ``vit_small``, ``vit_base``), every timm image model, yours.

``small`` needs torch alone; timm (five seconds to import) is imported where a name asks for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from selftaught.encoders.base import Context, Encoder

__all__ = ["Context", "Encoder", "check", "list_encoders", "make", "timm_names", "wrap"]


def make(
    name: str | Mapping[str, Any] | nn.Module,
    shape: Sequence[int] | None = None,
    *,
    pretrained: bool = False,
    **options: Any,
) -> Encoder:
    """An encoder by name, from ``encoder.config()``, or around your own module.

    ``shape``: (C, *space) of one normalised sample; from a config it may be left out, and is checked where given.
    ``options`` are those of the family: ``small`` width, depth, stride, pool; ``vit_*`` patch, registers, class_token,
    pool, attend; timm stem and whatever ``timm.create_model`` takes. Raises EncoderError in one sentence.
    """
    raise NotImplementedError


def check(name: str | Mapping[str, Any] | nn.Module, shape: Sequence[int] | None = None, **options: Any) -> None:
    """Refuses, without building weights, what ``make`` would refuse. Raises EncoderError."""
    raise NotImplementedError


def list_encoders(*, timm: bool = False) -> list[str]:
    """Our own names, and with ``timm`` also the 1,371 of timm (found without importing it)."""
    raise NotImplementedError


def wrap(module: nn.Module, shape: Sequence[int]) -> Encoder:
    """Any module of yours that maps (B, C, *space) to (B, D) or (B, D, *grid), as an encoder."""
    raise NotImplementedError


def timm_names() -> list[str]:
    """Every timm image model, sorted, read from timm's source without importing it."""
    raise NotImplementedError
