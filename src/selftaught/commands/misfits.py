"""What does not go together: a method that asks for what the encoder, the data or the request do not have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from selftaught.errors import EncoderError, MethodError, must_be
from selftaught.types import Method, Plan

WITH_TOKENS = "With tokens: vit_tiny, vit_small, vit_base."


def refuse_missing(method: Method, request: Mapping[str, Any]) -> None:
    """A teacher or labels that a method learns from, where none are given, or a teacher that it does not ask for."""
    title, needs = type(method).__name__, method.needs()
    taught = "teacher" in needs.encoders
    if taught and request["teacher"] is None:
        hint = "Give --teacher RUN, or published weights: a timm name or a model of transformers."
        raise MethodError(f"{title} learns from a teacher, and there is none.", hint=hint)
    if request["teacher"] is not None and not taught:
        raise MethodError(
            f"{title} takes no teacher.", hint="Leave out --teacher, or learn from it by --method distill."
        )
    if needs.labels and request["labels"] is None:
        hint = "Give --labels; samples without a label (an empty one, in a CSV) take part all the same."
        raise MethodError(f"{title} learns from labels, and there are none.", hint=hint)


def refuse_stream(method: Method, request: Mapping[str, Any]) -> None:
    """What takes a list of all samples, where they come in from elsewhere and there is none."""
    title = type(method).__name__
    hint = "Copy the shards to this machine: there they are listed."
    if method.remembers:
        raise MethodError(f"{title} keeps something for every sample, and a stream has no list of them.", hint=hint)
    if method.needs().labels or any(group.companion for group in method.needs().plan):
        what = "labels" if method.needs().labels else "neighbours in time"
        raise MethodError(f"{title} learns from {what}, which a stream does not give.", hint=hint)
    for name in ("balance", "mix", "weights", "cache_gb"):
        if request[name]:
            raise MethodError(f"The {name!r} parameter is for data on this machine, and these are streamed.", hint=hint)


def refuse(method: Method, encoder: Any, modality: Any, plan: Plan, name: str) -> None:
    """An encoder, called ``name``, that cannot take the views' sizes, or do what the method asks of it."""
    needs, title = method.needs(), type(method).__name__
    for group in plan:
        if group.pretext and group.pretext not in {*modality.pretext, *(["auto"] if modality.pretext else [])}:
            known = ", ".join(modality.pretext) or "none"
            raise MethodError(
                f"{title} needs data of which {group.pretext!r} can be asked. Got {modality.name}.",
                hint=f"With {modality.name}: {known}.",
            )
    channels, *space = modality.shape()
    for group in plan:  # each refuses a size that it cannot take: small views, then whole samples
        encoder.grid((channels, *(max(1, round(side * group.size)) for side in space)))
    encoder.grid(modality.plain_shape())
    if set(needs.encoders) - {"encoder", "teacher"}:
        raise MethodError(f"{title} needs several encoders ({', '.join(needs.encoders)}), which pretrain cannot give.")
    if needs.tokens and not encoder.gives_tokens:
        raise EncoderError(
            f"The 'encoder' parameter of {title} must give tokens. Got {name!r} instead.", hint=WITH_TOKENS
        )
    if needs.hides and needs.hides not in encoder.hides:
        raise EncoderError(must_be("encoder", title, f"able to {needs.hides} hidden tokens", name), hint=WITH_TOKENS)
