"""timm's models that are not opened up (convnets, Swin, BEiT, mixers): they run whole, through timm's own methods."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from selftaught.encoders.base import Context
from selftaught.encoders.whole import Whole, as_context
from selftaught.ops.tokens import to_tokens
from selftaught.types import Tokens


@dataclass(frozen=True, slots=True)
class Layout:
    """What a model gives, found by running it once. ``kind``: opened, maps (B, D, Y, X), maps last (B, Y, X, D),
    tokens (B, P + N, D) or vector (B, D)."""

    kind: str
    dim: int = 0
    token_dim: int = 0
    grid: tuple[int, ...] = (1, 1)
    prefix: int = 0
    depth: int = 0


class TimmModel(Whole):
    """A timm model that runs whole."""

    def __init__(
        self, name: str, shape: Sequence[int], net: nn.Module, *, layout: Layout, look: Callable, options: dict
    ) -> None:
        tokens = layout.kind != "vector"
        super().__init__(
            name, shape, dim=layout.dim, token_dim=layout.token_dim, options=options,
            hides=["replace"] if tokens else [], gives_tokens=tokens, pooling="own", depth=layout.depth,
        )  # fmt: skip
        self.net, self.layout, self._look = net, layout, look
        self._grids = {self.shape: layout.grid}

    def layers(self) -> dict[str, int]:
        from selftaught.encoders.hub import layers_of  # which imports this file

        return layers_of(self.net)

    def pool(self, tokens: Tokens) -> Tensor:
        if self.layout.kind == "vector":
            return tokens.values[:, 0]
        features = tokens.values
        if self.layout.kind == "maps":
            features = features.transpose(1, 2).unflatten(2, tokens.grid)
        elif self.layout.kind == "maps last":
            features = features.unflatten(1, tokens.grid)
        elif (prefix := getattr(tokens, "prefix", None)) is not None:
            features = torch.cat([prefix, features], dim=1)
        return self.net.forward_head(features, pre_logits=True)  # type: ignore[operator]

    def _run(self, x: Tensor, layers: list[int]) -> tuple[Context, list[Tensor]]:
        outputs: list[Tensor] = []
        if layers:
            order = sorted(set(layers))
            features, maps = self.net.forward_intermediates(x, indices=order)  # type: ignore[operator]
            outputs = [to_tokens(maps[order.index(layer)]) for layer in layers]
        else:
            features = self.net.forward_features(x)  # type: ignore[operator]
        return self._tokens(features, self._output_grid(tuple(x.shape[1:]))), outputs

    def _tokens(self, features: Any, grid: tuple[int, ...]) -> Context:
        kind, prefix = self.layout.kind, self.layout.prefix
        if kind == "vector":
            features = self.net.forward_head(features, pre_logits=True)[..., None, None]  # type: ignore[operator]
        elif kind == "maps last":
            features = features.permute(0, 3, 1, 2)
        elif kind == "tokens":
            context = as_context(features[:, prefix:].transpose(1, 2).unflatten(2, grid))
            context.prefix = features[:, :prefix] if prefix else None
            return context
        return as_context(features)

    def _output_grid(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if shape not in self._grids:
            try:
                self._grids[shape] = self._look(shape).grid
            except Exception as error:
                raise self._refuse(f"{self.shape[1:]}, for which it was made", "size", shape[1:]) from error
        return self._grids[shape]
