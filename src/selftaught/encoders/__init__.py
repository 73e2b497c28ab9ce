"""Encoders by name: our own (``small``, ``vit_tiny``, ``vit_small``, ``vit_base``), every timm image model, yours.

``small`` needs torch alone; timm (five seconds to import) is imported where a name asks for it. ``auto`` is a choice
among these, see ``auto.choose``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from selftaught.encoders.base import WEIGHTS_ELSEWHERE, Context, Encoder
from selftaught.encoders.small import Small
from selftaught.encoders.whole import wrap
from selftaught.errors import EncoderError, must_be

__all__ = ["OWN", "Context", "Encoder", "check", "list_encoders", "make", "wrap"]

VITS = ("vit_tiny", "vit_small", "vit_base")
OWN = ("small", *VITS)


def make(
    name: str | Mapping[str, Any] | nn.Module,
    shape: Sequence[int] | None = None,
    *,
    pretrained: bool = False,
    **options: Any,
) -> Encoder:
    """An encoder by name, from ``encoder.config()``, or around your own module.

    ``shape``: (C, *space) of one normalised sample; from a config it may be left out, and is checked where given.
    ``options`` are those of the family: ``small`` width, depth, stride; ``vit_*`` patch, pool, attend, class_token,
    registers, dim, depth, heads, drop_path; timm's stem, attend and whatever ``timm.create_model`` takes.
    Raises EncoderError in one sentence.
    """
    if isinstance(name, Mapping):
        return _from_config(name, shape)
    if shape is None:
        raise EncoderError(must_be("shape", "make", "given: (C, *space) of one sample", None))
    shape = tuple(int(size) for size in shape)
    if isinstance(name, nn.Module):
        return wrap(name, shape)
    try:
        return _by_name(name, shape, pretrained, options)
    except TypeError as error:
        unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if unknown is None or unknown[1] not in options:
            raise
        raise EncoderError(
            must_be(unknown[1], name, "one of its options", options[unknown[1]]), hint=_options_of(name)
        ) from error


def check(
    name: str | Mapping[str, Any] | nn.Module,
    shape: Sequence[int] | None = None,
    *,
    pretrained: bool = False,
    **options: Any,
) -> None:
    """Refuses what ``make`` would refuse, without allocating weights or drawing random numbers. Raises EncoderError.

    With ``pretrained``, whether published weights exist and are within reach.
    """
    if pretrained and isinstance(name, str) and name != "small":
        from selftaught.encoders import hub

        hub.published(f"{name}_patch16_224" if name in VITS else name)
    pretrained = pretrained and name == "small"
    if isinstance(name, nn.Module):
        make(name, shape)
        return
    with torch.device("meta"):
        encoder = make(name, shape, pretrained=pretrained, **options)
    encoder.grid(encoder.shape if shape is None else shape)


def list_encoders(*, timm: bool = False) -> list[str]:
    """Our own names; with ``timm`` also every timm model (imports timm; ``catalog.timm_names`` does not)."""
    if not timm:
        return list(OWN)
    from selftaught.encoders import hub

    return [*OWN, *hub.timm.list_models()]


def _by_name(name: str, shape: tuple[int, ...], pretrained: bool, options: dict[str, Any]) -> Encoder:
    if name == "small":
        if pretrained:
            raise EncoderError(must_be("pretrained", "small", "False: nobody published weights for it", True))
        return Small(shape, **options)
    if name in VITS:
        from selftaught.encoders import vit

        return vit.make(name, shape, pretrained=pretrained, **options)
    from selftaught.encoders import hub

    return hub.make(name, shape, pretrained=pretrained, **options)


def _options_of(name: str) -> str:
    """The options that this page documents, in words; timm's models have more."""
    if name == "small":
        return "Its options: width, depth, stride, pool."
    if name in VITS:
        return "Its options: patch, pool, attend, class_token, registers, dim, depth, heads, drop_path."
    return "Its options: stem, attend, and those of timm.create_model for this model."


def _from_config(config: Mapping[str, Any], shape: Sequence[int] | None) -> Encoder:
    if config["name"] == "custom":
        raise EncoderError(
            must_be("encoder", "make", f"your {config['options']['class']}, which only you can build", "custom"),
            hint="Build the module yourself, wrap it, and load the weights into it.",
        )
    for name in WEIGHTS_ELSEWHERE.intersection(config["options"]):  # timm would unpickle it, and a pickle runs code
        raise EncoderError(must_be(name, config["name"], "left out of a saved encoder", config["options"][name]))
    encoder = make(config["name"], config["shape"], **config["options"])
    if shape is not None:
        encoder.grid(shape)  # refuses what does not fit
    return encoder
