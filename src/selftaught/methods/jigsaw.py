"""Jigsaw: a view is cut into tiles, the tiles are shuffled in one of a few ways, and the encoder is to say in which.

Noroozi & Favaro 2016, "Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles", section 4: tiles go
through the encoder one by one, and only then are they seen together. The orders are as unlike as can be (algorithm 1).

The paper's guards against shortcuts are kept: gaps and jitter between tiles, each tile less its mean and by its spread,
gray now and then. Where we depart, and why: 64 orders (the paper: 1,000), for thousands of samples rather than a
million; in a series five tiles, in a volume two along each axis; no shift of the colours against each other, for which
some pictures being gray stands in; the view that is cut up is twice as wide as the input, so that tiles of small
pictures show something.

Costs: the encoder sees nine tiles, together about 2.3 times the pixels of the input.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated

from torch import Tensor

from selftaught.methods.base import VIEWS, one_view
from selftaught.nn.heads import projection
from selftaught.ops.losses import told_wrong
from selftaught.ops.mask import picked, uniform
from selftaught.ops.patches import far_permutations, levelled, tiles
from selftaught.types import Batch, Clock, Encoders, Method, Needs, Outputs, Terms

ACROSS = {1: 5, 2: 3, 3: 2}  # tiles along each axis, by the number of axes


class Jigsaw(Method):
    """``forward`` gives z (B, N, out_dim), the tiles in their places; scores (B, P) of the orders; order (B,), the true
    one.
    """

    family = "pretext transformations"
    small_batches = True
    orders: Tensor  # (P, N)

    def __init__(
        self,
        *,
        permutations: Annotated[int, "in [2, 10000]", "orders that are told apart, where there are so many"] = 64,
        gap: Annotated[float, "in [0, 1)", "share of a cell's side that its tile leaves, for a gap and jitter"] = 0.15,
        level: Annotated[bool, "", "each tile less its mean and by its spread"] = True,
        gray: Annotated[float, "in [0, 1]", "probability that a view has no colour"] = 0.3,
        zoom: Annotated[float, "in [1, 8]", "side of the view that is cut up, in sides of the input"] = 2.0,
        hidden: Annotated[int, "in [1, inf)", "width of the hidden layer that sees all tiles"] = 512,
        out_dim: Annotated[int, "in [1, inf)", "features of a tile that it sees"] = 64,
        smallest: Annotated[float, "in (0, 1]", "share of the sample that the view keeps at least"] = 0.5,
    ) -> None:
        super().__init__()
        self.permutations, self.gap, self.level, self.gray = permutations, gap, level, gray
        self.zoom, self.hidden, self.out_dim, self.smallest = zoom, hidden, out_dim, smallest

    def needs(self) -> Needs:
        (group,) = one_view(smallest=self.smallest)
        light = dataclasses.replace(group.photometry[0], gray=self.gray)
        return Needs(plan=(dataclasses.replace(group, size=self.zoom, photometry=(light,)),))

    def build(self, encoders: Encoders) -> None:
        encoder = encoders["encoder"]
        axes = len(encoder.shape) - 1
        self.across = ACROSS[axes]
        side = [max(1, round((1 - self.gap) * (round(size * self.zoom) // self.across))) for size in encoder.shape[1:]]
        encoder.grid((encoder.shape[0], *side))  # refuses if it must
        self.register_buffer("orders", far_permutations(self.across**axes, self.permutations))
        self.narrow = projection(encoder.dim, encoder.dim, self.out_dim)
        self.head = projection(self.out_dim * self.orders.shape[1], self.hidden, len(self.orders))

    def forward(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        view = batch[VIEWS].data[:, 0]  # (B, C, *space)
        z = self.narrow(encoders["encoder"](self.cut(view, batch.p, clock).flatten(0, 1)).pooled)
        z = z.unflatten(0, (len(view), -1))
        order = (uniform(clock.noise("order", batch.p, (1,)))[:, 0] * len(self.orders)).long().to(view.device)
        return {"z": z, "scores": self.head(picked(z, self.orders[order]).flatten(1)), "order": order}

    def cut(self, view: Tensor, p: Tensor, clock: Clock) -> Tensor:
        """(B, N, C, *tile) with the guards that are on."""
        jitter = uniform(clock.noise("jitter", p, (self.orders.shape[1], view.ndim - 2))).to(view.device)
        found = tiles(view, jitter, self.across, gap=self.gap)
        return levelled(found) if self.level else found

    def loss(self, outputs: Outputs, clock: Clock) -> Terms:
        return {"order": (told_wrong(outputs["scores"], outputs["order"]), len(outputs["order"]))}
