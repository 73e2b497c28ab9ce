"""Every vector against every other one, without holding all of these products at once."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

AT_ONCE = 2**25  # products held at a time: 128 MiB in float32


def log_sum_exp(
    anchors: Float[Tensor, "N D"], keys: Float[Tensor, "M D"], *, scale: float, skip: Int[Tensor, "N S"] | None = None
) -> Float[Tensor, " N"]:
    """log sum_j exp(scale a_i . k_j) for every anchor, over all keys but the rows in ``skip``.

    With more than ``AT_ONCE`` products they are made in pieces, and made again for the gradient: memory is then that of
    the vectors and of one piece, for a third more arithmetic. Rabe & Staats 2021, "Self-attention Does Not Need O(n^2)
    Memory", do the same for attention.
    """
    if len(anchors) * len(keys) <= AT_ONCE:
        products = anchors @ keys.T * scale
        return (products if skip is None else products.scatter(1, skip, -torch.inf)).logsumexp(1)
    return _InPieces.apply(anchors, keys, scale, skip)  # type: ignore[return-value]


class _InPieces(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, anchors: Tensor, keys: Tensor, scale: float, skip: Tensor | None) -> Tensor:
        sums = torch.empty(len(anchors), dtype=anchors.dtype, device=anchors.device)
        for piece in _pieces(anchors, keys):
            sums[piece] = _products(anchors, keys, scale, skip, piece).logsumexp(1)
        ctx.save_for_backward(anchors, keys, sums, *([] if skip is None else [skip]))
        ctx.scale = scale
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, pull: Tensor) -> tuple[Tensor, Tensor, None, None]:
        anchors, keys, sums, *rest = ctx.saved_tensors
        skip = rest[0] if rest else None
        of_anchors, of_keys = torch.empty_like(anchors), torch.zeros_like(keys)
        for piece in _pieces(anchors, keys):
            share = _products(anchors, keys, ctx.scale, skip, piece).sub_(sums[piece, None]).exp_()
            share.mul_(pull[piece, None] * ctx.scale)
            torch.matmul(share, keys, out=of_anchors[piece])
            of_keys.addmm_(share.T, anchors[piece])
        return of_anchors, of_keys, None, None


def _pieces(anchors: Tensor, keys: Tensor) -> list[slice]:
    size = max(1, AT_ONCE // len(keys))
    return [slice(first, first + size) for first in range(0, len(anchors), size)]


def _products(anchors: Tensor, keys: Tensor, scale: float, skip: Tensor | None, piece: slice) -> Tensor:
    with torch.autocast(anchors.device.type, enabled=False):
        products = (anchors[piece] @ keys.T).mul_(scale)
    return products if skip is None else products.scatter_(1, skip[piece], -torch.inf)
