"""What every encoder is: ``embed`` (input -> tokens), ``context`` (tokens -> tokens), ``pool`` (tokens -> one vector).

``embed`` holds content only; ``context`` puts the mask vector where tokens are hidden, adds positions and the prefix,
and works through the layers; ``pool`` makes one vector of what comes out. Calling the encoder does all three.

To drop tokens instead of replacing them: ``context(ops.tokens.keep(tokens, hidden))``, where ``"drop" in hides``.
The mask vector is a parameter that does not learn until a masked method calls ``learn_mask()`` in its ``build``:
a parameter that never gets a gradient stops torch's DDP.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from selftaught.errors import EncoderError, must_be
from selftaught.ops.tokens import all_positions, enlarge
from selftaught.types import Features, Tokens

WEIGHTS_ELSEWHERE = frozenset({"checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay"})  # options of timm
POOLS = ("mean", "first", "last")
DROPPERS = "Vision transformers can: vit_tiny, vit_small, vit_base."


@dataclass(slots=True)
class Context(Tokens):
    """Tokens after ``context``, with what is kept apart from the grid."""

    prefix: Tensor | None = None  # (B, P, D) class and register tokens; None = the model has none
    causal: bool = False  # True = tokens did not see all others, the class token least of all


class Encoder(nn.Module):
    """Base of every encoder; subclasses write ``grid``, ``embed`` and ``context``, and ``pool`` where it is not plain.

    ``name``, ``shape`` (C, *space) and ``options`` rebuild it: ``make(encoder.config())`` gives the same architecture.
    ``dim`` is D of the pooled vector and ``token_dim`` that of the tokens (they differ where a model widens after
    pooling); ``depth`` is the number of layers that ``context(layers=…)`` can return.
    """

    mask_vector: nn.Parameter | None

    def __init__(
        self,
        name: str,
        shape: Sequence[int],
        *,
        dim: int,
        options: Mapping[str, Any] | None = None,
        token_dim: int | None = None,
        hides: Iterable[str] = (),
        gives_tokens: bool = True,
        pooling: str = "mean",
        depth: int = 0,
    ) -> None:
        super().__init__()
        if pooling not in POOLS and pooling != "own":
            raise EncoderError(must_be("pool", name, f"one of {', '.join(POOLS)}", pooling))
        self.name, self.shape, self.options = name, tuple(shape), _as_json(options or {})
        self.dim, self.token_dim, self.depth = dim, token_dim or dim, depth
        self.hides, self.gives_tokens, self.pooling = frozenset(hides), gives_tokens, pooling
        self.register_parameter("mask_vector", None)

    def grid(self, shape: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """(embed grid, output grid) for inputs of ``shape`` (C, *space), without running anything on data.

        Masks are drawn on the output grid. Raises EncoderError where the encoder cannot take that shape.
        """
        raise NotImplementedError

    def embed(self, x: Tensor, valid: Tensor | None = None) -> Tokens:
        """(B, C, *space) float, ``valid`` (B, *space) with False = padding -> content of the embed grid's cells."""
        raise NotImplementedError

    def context(
        self,
        tokens: Tokens,
        *,
        hidden: Tensor | None = None,
        attend: str | Tensor | None = None,
        layers: Sequence[int] = (),
    ) -> tuple[Context, list[Tensor]]:
        """Tokens that know of each other, and the outputs (B, N, D) of the ``layers`` asked for, in that order.

        ``hidden`` (B, N) bool, True = replaced by the mask vector, on the embed or the output grid.
        ``attend``: "none" (all see all), "causal", document ids (B, N) int, or (B, N, N) bool, True = the row's token
        may look at the column's; None = as the encoder was made.
        ``layers``: from 0; negative from the end, -1 the last (before any final norm).
        """
        raise NotImplementedError

    def pool(self, tokens: Tokens) -> Tensor:
        """(B, N, D) -> (B, D): mean over valid tokens, the first (class) token, or the last valid token."""
        prefix, causal = getattr(tokens, "prefix", None), getattr(tokens, "causal", False)
        if self.pooling == "first":
            if causal:
                raise refuse_first(self.name)
            return tokens.values[:, 0] if prefix is None else prefix[:, 0]
        if self.pooling == "last":
            return _last(tokens)
        return mean_of_valid(tokens.values, tokens.valid)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Features:
        """(B, C, *space) -> ``Features``; ``tokens`` is None where the encoder gives one vector only."""
        tokens, _ = self.context(self.embed(x, valid))
        pooled = self.pool(tokens)
        if not self.gives_tokens:
            return Features(pooled)
        return Features(pooled, tokens.values, tokens.grid, tokens.valid)

    def layers(self) -> dict[str, int]:
        """Parameter name -> its layer, 0 nearest to the input, for rates that fall with depth; {} = not known."""
        return {}

    def config(self) -> dict[str, Any]:
        """JSON-able; ``make(config)`` rebuilds the architecture (weights come from the state dict)."""
        return {"name": self.name, "shape": list(self.shape), "options": dict(self.options)}

    def learn_mask(self) -> None:
        """From now on the mask vector learns. Raises EncoderError where hidden tokens cannot be replaced."""
        if "replace" not in self.hides:
            raise EncoderError(must_be("encoder", "a masked method", "able to replace hidden tokens", self.name))
        if self.mask_vector is not None:  # models that hide pixels use a constant: zero, the mean colour
            self.mask_vector.requires_grad_(True)

    def _replace(self, tokens: Tokens, hidden: Tensor | None, output_grid: Sequence[int]) -> Tensor:
        """Token values with the mask vector (zero where there is none) at the hidden ones."""
        if hidden is None:
            return tokens.values
        if hidden.shape[1] != tokens.values.shape[1]:
            hidden = enlarge(hidden, output_grid, tokens.grid)
        fill = tokens.values.new_zeros(()) if self.mask_vector is None else self.mask_vector.to(tokens.values.dtype)
        return torch.where(hidden[..., None], fill, tokens.values)

    def _refuse(self, what: str, parameter: str, got: object, *, hint: str = "") -> EncoderError:
        return EncoderError(must_be(parameter, self.name, what, got), hint=hint)


def mean_of_valid(values: Tensor, valid: Tensor | None) -> Tensor:
    """(B, N, D), (B, N) -> (B, D)."""
    if valid is None:
        return values.mean(1)
    weight = valid.to(values.dtype)[..., None]
    return (values * weight).sum(1) / weight.sum(1).clamp(min=1)


def whole_grid(values: Tensor, grid: Sequence[int], valid: Tensor | None = None) -> Tokens:
    """Tokens of a whole grid, in order."""
    return Tokens(values, all_positions(len(values), grid, values.device), tuple(grid), valid)


def normal_layers(layers: Sequence[int], depth: int, name: str) -> list[int]:
    """Layer numbers from 0, negative ones counted from the end. Raises EncoderError outside the model."""
    for layer in layers:
        if not -depth <= layer < depth:
            raise EncoderError(must_be("layers", name, f"in [-{depth}, {depth})", layer))
    return [layer % depth for layer in layers]


def _as_json(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}


def _last(tokens: Tokens) -> Tensor:
    if tokens.valid is None:
        return tokens.values[:, -1]
    places = torch.arange(tokens.values.shape[1], device=tokens.values.device)
    last = torch.where(tokens.valid, places, 0).amax(1)
    return tokens.values[torch.arange(len(last), device=last.device), last]


def refuse_first(name: str) -> EncoderError:
    """For pooling by the class token where tokens attend causally."""
    return EncoderError(
        must_be("pool", name, "mean or last where tokens attend causally", "first"),
        hint="The first token sees none of the others.",
    )


def refuse_partial(tokens: Tokens, attend: str | Tensor | None, name: str) -> None:
    """For models that work on whole grids: neither dropped tokens nor a direction of attention."""
    if tokens.values.shape[1] != math.prod(tokens.grid):
        raise EncoderError(must_be("encoder", "a method that drops tokens", "able to drop them", name), hint=DROPPERS)
    if isinstance(attend, Tensor) or attend not in (None, "none"):
        got = "document ids" if isinstance(attend, Tensor) else attend
        raise EncoderError(must_be("attend", name, "none", got), hint=DROPPERS)
