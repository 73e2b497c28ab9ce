"""RotNet: a picture is turned by 0, 90, 180 or 270 degrees, and the encoder is to say by how much.

Gidaris, Singh & Komodakis 2018, "Unsupervised Representation Learning by Predicting Image Rotations", eq. 1 to 3.

As in the paper, all four turns of a sample are in the batch, and turning by quarters leaves no trace of interpolation.
Where we depart, and why: each turned view is a crop of its own (the paper: one), so that the crop's border says nothing
and the batch shows more of the sample.

Costs: four views. There must be an up: pictures from above (cells, satellites, textures) look alike from all sides, and
the loss stays at log 4 = 1.39.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated

from torch import nn

from selftaught.methods.base import VIEWS, one_view
from selftaught.nn.heads import each_view
from selftaught.ops.losses import told_wrong
from selftaught.types import Batch, Clock, Encoders, Method, Needs, Outputs, Terms

TURNS = 4


class Rotation(Method):
    """``forward`` gives scores (B, V, 4) of the turns, and turned (B, V), the true ones."""

    family = "pretext transformations"
    small_batches = True
    minimum_batch = 1

    def __init__(
        self,
        *,
        views: Annotated[int, "in [1, 16]", "turned views of a sample; 4 = each turn once, as the paper's"] = 4,
        smallest: Annotated[float, "in (0, 1]", "share of the sample that a crop keeps at least"] = 0.3,
    ) -> None:
        super().__init__()
        self.views, self.smallest = views, smallest

    def needs(self) -> Needs:
        (group,) = one_view(smallest=self.smallest)
        return Needs(plan=(dataclasses.replace(group, count=self.views, pretext="rotation"),))

    def build(self, encoders: Encoders) -> None:
        self.head = nn.Linear(encoders["encoder"].dim, TURNS)

    def forward(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        scores = each_view(batch[VIEWS].data, encoders["encoder"], self.head)
        return {"scores": scores, "turned": batch[VIEWS].drawn["rotation"]}

    def loss(self, outputs: Outputs, clock: Clock) -> Terms:
        scores, turned = outputs["scores"], outputs["turned"]
        return {"rotation": (told_wrong(scores, turned), turned.numel())}
