"""A vision transformer opened up (Dosovitskiy et al., 2021, arXiv:2010.11929): tokens can be dropped or replaced.

Works through timm's ``VisionTransformer`` and ``Eva`` (CLIP, SigLIP, DINOv2, DINOv3, EVA02) piece by piece; with all
tokens shown it equals timm's own forward pass. Positions are looked up by ``tokens.position``: tokens that are dropped
or replaced keep theirs. Inputs of another size than the model was made for get interpolated positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.encoders.base import Context, Encoder, mean_of_valid, normal_layers, refuse_first, whole_grid
from selftaught.errors import EncoderError, must_be
from selftaught.ops.tokens import shrink
from selftaught.types import Tokens


class Transformer(Encoder):
    """A timm transformer opened up. ``attend``: "none" or "causal", where ``context`` is not told otherwise."""

    def __init__(
        self,
        name: str,
        shape: Sequence[int],
        net: Any,
        *,
        options: dict[str, Any],
        pooling: str = "own",
        attend: str = "none",
    ) -> None:
        _check_attend(name, attend)
        if attend == "causal" and (pooling == "first" or (pooling == "own" and net.global_pool == "token")):
            raise refuse_first(name)
        super().__init__(
            name, shape, dim=net.num_features, options=options, hides=["drop", "replace"], pooling=pooling,
            depth=len(net.blocks),
        )  # fmt: skip
        self.net, self.attend = net, attend
        self.mask_vector = nn.Parameter(torch.randn(self.dim) * 0.02, requires_grad=False)

    def grid(self, shape: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        patch, space = tuple(self.net.patch_embed.patch_size), tuple(shape[1:])
        if len(shape) != len(self.shape) or shape[0] != self.shape[0]:
            expected = f"({self.shape[0]}, *space) with {len(patch)} axes of space"
            raise self._refuse(expected, "shape", tuple(shape))
        pads = getattr(self.net.patch_embed, "dynamic_img_pad", False)
        if not pads and any(size % step for size, step in zip(space, patch, strict=True)):
            below = tuple(max(step, size // step * step) for size, step in zip(space, patch, strict=True))
            raise self._refuse(f"a multiple of {patch}", "size", space, hint=f"The nearest below is {below}.")
        cells = tuple(-(-size // step) for size, step in zip(space, patch, strict=True))
        return cells, cells

    def layers(self) -> dict[str, int]:
        from selftaught.encoders.hub import layers_of  # the one place that knows how timm groups a model's layers

        return {"mask_vector": 0, **layers_of(self.net)}

    def embed(self, x: Tensor, valid: Tensor | None = None) -> Tokens:
        grid, _ = self.grid(x.shape[1:])
        if valid is not None:
            x = x.masked_fill(~valid[:, None], 0)
        values = self.net.patch_embed(x)
        if values.ndim > 3:  # timm keeps the grid where it expects to resize positions
            values = values.flatten(1, 2)
        return whole_grid(values, grid, None if valid is None else shrink(valid, grid))

    def context(
        self,
        tokens: Tokens,
        *,
        hidden: Tensor | None = None,
        attend: str | Tensor | None = None,
        layers: Sequence[int] = (),
    ) -> tuple[Context, list[Tensor]]:
        if isinstance(attend, str):
            _check_attend(self.name, attend)
        wanted = normal_layers(layers, self.depth, self.name)
        documents = attend if isinstance(attend, Tensor) and attend.dtype != torch.bool else None
        allowed = attend if isinstance(attend, Tensor) and documents is None else None
        causal = (attend if isinstance(attend, str) else self.attend) == "causal"
        position = tokens.position if documents is None else _restart(tokens.position, documents)
        values = self._replace(tokens, hidden, tokens.grid)
        x, prefix = self._with_positions(values, position, tokens.grid)
        mask = _may_attend(tokens, prefix, causal=causal, documents=documents, allowed=allowed)
        x, outputs = self._through_blocks(x, mask, causal=causal, rope=self._rope(position, tokens.grid))
        x, outputs = self.net.norm(x), [outputs[layer][:, prefix:] for layer in wanted]
        kept_apart = x[:, :prefix] if prefix else None
        partial = causal or allowed is not None
        return Context(x[:, prefix:], tokens.position, tokens.grid, tokens.valid, kept_apart, partial), outputs

    def pool(self, tokens: Tokens) -> Tensor:
        if self.pooling != "own":
            return super().pool(tokens)
        prefix = getattr(tokens, "prefix", None)
        if getattr(tokens, "causal", False) and self.net.global_pool == "token":
            raise refuse_first(self.name)
        if tokens.valid is not None and self.net.global_pool not in ("token", "avg"):
            raise self._refuse("token or avg where tokens are padded", "global_pool", self.net.global_pool)
        if tokens.valid is not None and self.net.global_pool == "avg":
            return self.net.head_drop(self.net.fc_norm(mean_of_valid(tokens.values, tokens.valid)))
        x = tokens.values if prefix is None else torch.cat([prefix, tokens.values], dim=1)
        return self.net.forward_head(x, pre_logits=True)

    def _with_positions(self, values: Tensor, position: Tensor, grid: Sequence[int]) -> tuple[Tensor, int]:
        """(B, P + N, D) with positions and the P class and register tokens in front; and P."""
        net = self.net
        front = [token for token in (net.cls_token, net.reg_token) if token is not None]
        prefix = torch.cat(front, dim=1) if front else None  # (1, P, D)
        if net.pos_embed is not None:
            embedded = 0 if net.no_embed_class else net.num_prefix_tokens  # prefix tokens with a position of their own
            table = positions_for(net.pos_embed, grid, net.patch_embed.grid_size, prefix=embedded)
            if prefix is not None and embedded:
                prefix = prefix + table[:, :embedded]
            values = values + _rows(table[0, embedded:], position)
        if prefix is not None:
            values = torch.cat([prefix.to(values.dtype).expand(len(values), -1, -1), values], dim=1)
        return net.norm_pre(net.pos_drop(values)), 0 if prefix is None else prefix.shape[1]

    def _rope(self, position: Tensor, grid: Sequence[int]) -> Tensor | None:
        """Rotary embeddings of the tokens' positions, ready for timm's blocks; None where the model has none."""
        rope = getattr(self.net, "rope", None)
        if rope is None:
            return None
        cached = getattr(rope, "feat_shape", None)
        same = cached is not None and tuple(cached) == tuple(grid)
        table = rope.get_embed() if same else rope.get_embed(shape=list(grid))
        if position.stride(0) == 0:  # all samples have the same tokens
            return table.index_select(-2, position[0])
        if table.ndim == 2:
            return table[position][:, None]  # (B, 1, N, d): one for all heads
        return table[:, :, position].transpose(1, 2)  # (layers, B, heads, N, d)

    def _through_blocks(
        self, x: Tensor, mask: Tensor | None, *, causal: bool, rope: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        extra: dict[str, Any] = {}
        if mask is not None or causal:
            extra = {"attn_mask": mask, "is_causal": causal and mask is None}
        per_layer = rope is not None and getattr(self.net, "rope_mixed", False)
        outputs = []
        for layer, block in enumerate(self.net.blocks):
            if rope is not None:
                extra["rope"] = rope[layer] if per_layer else rope
            x = block(x, **extra)
            outputs.append(x)
        return x, outputs


def positions_for(table: Tensor, grid: Sequence[int], made_for: Sequence[int], *, prefix: int = 0) -> Tensor:
    """(1, P + N, D) learned positions, interpolated where the grid is not the one they were made for."""
    if tuple(grid) == tuple(made_for):
        return table
    maps = table[:, prefix:].transpose(1, 2).unflatten(2, tuple(made_for)).float()
    mode = {1: "linear", 2: "bicubic", 3: "trilinear"}[len(grid)]
    maps = F.interpolate(maps, tuple(grid), mode=mode, antialias=len(grid) == 2)  # in 2-D as timm's dynamic_img_size
    return torch.cat([table[:, :prefix], maps.flatten(2).transpose(1, 2).to(table.dtype)], dim=1)


def _rows(table: Tensor, position: Tensor) -> Tensor:
    """(N, D) at (B, K) -> (B, K, D), or (1, K, D) where all samples have the same tokens."""
    return table[position[:1]] if position.stride(0) == 0 else table[position]


def _restart(position: Tensor, documents: Tensor) -> Tensor:
    """Positions within each document: tokens of a document follow each other."""
    first = torch.ones_like(documents[:, :1], dtype=torch.bool)
    starts = torch.cat([first, documents[:, 1:] != documents[:, :-1]], dim=1)
    return position - torch.where(starts, position, 0).cummax(dim=1).values


def _may_attend(
    tokens: Tokens, prefix: int, *, causal: bool, documents: Tensor | None, allowed: Tensor | None
) -> Tensor | None:
    """(B, 1, P + N, P + N) bool, True = row may look at column; None = timm's plain or causal attention does it.

    With documents, or where it is said who may look at whom, the prefix looks at itself alone, or it would carry what
    one token may not see to another.
    """
    if tokens.valid is None and documents is None and allowed is None:
        return None
    batch, length = tokens.values.shape[:2]
    may = torch.ones(batch, length, length, dtype=torch.bool, device=tokens.values.device)
    if tokens.valid is not None:
        may = may & tokens.valid[:, None, :]
    if documents is not None:
        may = may & (documents[:, :, None] == documents[:, None, :])
    if allowed is not None:
        may = may & allowed
    may = F.pad(may, (prefix, 0, prefix, 0), value=True)
    if documents is not None or allowed is not None:
        may[:, :prefix, prefix:] = False
    elif tokens.valid is not None:
        may[:, :prefix, prefix:] = tokens.valid[:, None, :]
    if causal:
        may = may.tril()
    return (may | torch.eye(prefix + length, dtype=torch.bool, device=may.device))[:, None]  # no row without a column


def _check_attend(name: str, attend: str) -> None:
    if attend not in ("none", "causal"):
        raise EncoderError(must_be("attend", name, "one of none, causal", attend))
