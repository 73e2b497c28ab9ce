"""Relative patch position: two neighbouring patches are seen apart, and the encoder is to say which lies where.

Doersch, Gupta & Efros 2015, "Unsupervised Visual Representation Learning by Context Prediction", section 3: the middle
patch of three by three and one of its eight neighbours (in a series one of two, in a volume one of 26).

The paper's guards against shortcuts are kept: a gap and jitter between patches, and all but one channel of a patch
dropped where there are three (a lens bends colours unlike; the fringes tell the place). Where we depart, and why: all
neighbours of the middle one are asked at once, which costs nine patches for eight answers instead of two for one; the
view that is cut up is twice as wide as the input, so that patches of small pictures show something.

Costs: the encoder sees nine patches, together about 2.3 times the pixels of the input.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated

import torch
from torch import Tensor

from selftaught.methods.base import VIEWS, one_view
from selftaught.nn.heads import projection
from selftaught.ops.losses import told_wrong
from selftaught.ops.mask import uniform
from selftaught.ops.patches import one_channel, tiles
from selftaught.types import Batch, Clock, Encoders, Method, Needs, Outputs, Terms

ACROSS = 3  # patches along each axis


class PatchPosition(Method):
    """``forward`` gives z (B, N, D), what the encoder makes of each patch, and scores (B, N - 1, N - 1): of each
    neighbour of the middle one, in order of places, how likely each place is.
    """

    family = "pretext transformations"
    small_batches = True

    def __init__(
        self,
        *,
        gap: Annotated[float, "in [0, 1)", "share of a cell's side that its patch leaves, for a gap and jitter"] = 0.25,
        drop: Annotated[bool, "", "all channels of a patch but one, in colour pictures"] = True,
        zoom: Annotated[float, "in [1, 8]", "side of the view that is cut up, in sides of the input"] = 2.0,
        hidden: Annotated[int, "in [1, inf)", "width of the hidden layer that sees both patches"] = 512,
        smallest: Annotated[float, "in (0, 1]", "share of the sample that the view keeps at least"] = 0.5,
    ) -> None:
        super().__init__()
        self.gap, self.drop, self.zoom, self.hidden, self.smallest = gap, drop, zoom, hidden, smallest

    def needs(self) -> Needs:
        (group,) = one_view(smallest=self.smallest)
        place = dataclasses.replace(group.geometry, flip=0.0)  # left and right are told apart
        return Needs(plan=(dataclasses.replace(group, size=self.zoom, geometry=place),))

    def build(self, encoders: Encoders) -> None:
        encoder = encoders["encoder"]
        self.count = ACROSS ** (len(encoder.shape) - 1)
        side = [max(1, round((1 - self.gap) * (round(size * self.zoom) // ACROSS))) for size in encoder.shape[1:]]
        encoder.grid((encoder.shape[0], *side))  # refuses if it must
        self.head = projection(2 * encoder.dim, self.hidden, self.count - 1)

    def forward(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        view = batch[VIEWS].data[:, 0]  # (B, C, *space)
        z = encoders["encoder"](self.cut(view, batch.p, clock).flatten(0, 1)).pooled.unflatten(0, (len(view), -1))
        middle = self.count // 2
        others = torch.cat([z[:, :middle], z[:, middle + 1 :]], dim=1)  # (B, N - 1, D)
        pairs = torch.cat([z[:, middle : middle + 1].expand_as(others), others], dim=2)
        return {"z": z, "scores": self.head(pairs.flatten(0, 1)).unflatten(0, pairs.shape[:2])}

    def cut(self, view: Tensor, p: Tensor, clock: Clock) -> Tensor:
        """(B, N, C, *patch) with the guards that are on."""
        axes = view.ndim - 2
        jitter = uniform(clock.noise("jitter", p, (self.count, axes))).to(view.device)
        patches = tiles(view, jitter, ACROSS, gap=self.gap)
        if self.drop and axes == 2 and view.shape[1] == 3:
            kept = uniform(clock.noise("kept", p, (self.count,))).to(view.device)
            patches = one_channel(patches, kept, clock.noise("dropped", p, patches.shape[1:]))
        return patches

    def loss(self, outputs: Outputs, clock: Clock) -> Terms:
        scores = outputs["scores"]
        where = torch.arange(scores.shape[1], device=scores.device).expand(len(scores), -1)
        return {"place": (told_wrong(scores, where), where.numel())}

    def show(self, encoders: Encoders, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        patches = self.cut(batch[VIEWS].data[:, 0], batch.p, clock)
        middle = self.count // 2
        return {"view": batch[VIEWS].data[:, 0], "middle": patches[:, middle], "first": patches[:, 0]}
