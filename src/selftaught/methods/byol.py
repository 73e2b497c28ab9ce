"""BYOL: one view predicts what a slowly following teacher makes of the other; there are no negatives.

Grill et al. 2020, "Bootstrap Your Own Latent: A New Approach to Self-Supervised Learning", eq. 2 and algorithm 1.

Where we depart, and why: the teacher follows at 0.99 at first (the paper: 0.996 for 300 epochs of ImageNet; short runs
would hardly move a slower one), hidden layers are 1,024 wide (4,096), crops keep 20 % at least (8 %). Projections are
centred by a last batch norm, as in MoCo v3 and SimSiam (the paper has none): what all samples have in common is most of
an untrained network's projection, and in 190 steps on photographs predicting it let the effective rank fall to 22
instead of 37, and cost two to four points of linear accuracy (one seed on each of two sets, docs/log.md).

Costs: a second forward pass per view, without gradient, and a second copy of the encoder.
"""

from __future__ import annotations

from typing import Annotated

import torch

from selftaught.methods.base import VIEWS, unlike_views
from selftaught.nn.heads import each_view, projection
from selftaught.nn.teacher import Teacher, rising
from selftaught.ops.losses import across_views
from selftaught.types import Batch, Clock, Encoders, Method, Needs, Outputs, Terms


class BYOL(Method):
    """``forward`` gives z and p (B, V, out_dim), projected and predicted views, and target, the teacher's."""

    family = "non-contrastive"

    def __init__(
        self,
        *,
        momentum: Annotated[float, "in [0, 1]", "how slowly the teacher follows at first; rises to 1"] = 0.99,
        hidden: Annotated[int, "in [1, inf)", "width of the hidden layers of projection and prediction"] = 1024,
        out_dim: Annotated[int, "in [1, inf)", "dimensions in which views are compared"] = 256,
        smallest: Annotated[float, "in (0, 1]", "share of the sample that a crop keeps at least"] = 0.2,
        colour: Annotated[float, "in [0, inf)", "strength of colour changes; 0.5 = the paper's"] = 0.5,
    ) -> None:
        super().__init__()
        self.momentum, self.hidden, self.out_dim = momentum, hidden, out_dim
        self.smallest, self.colour = smallest, colour

    def needs(self) -> Needs:
        return Needs(plan=unlike_views(smallest=self.smallest, colour=self.colour))

    def build(self, encoders: Encoders) -> None:
        self.projector = projection(encoders["encoder"].dim, self.hidden, self.out_dim, last_norm=True)
        self.predictor = projection(self.out_dim, self.hidden, self.out_dim)
        self.teacher = Teacher({"encoder": encoders["encoder"], "projector": self.projector})

    def forward(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        views = batch[VIEWS].data
        z = each_view(views, encoders["encoder"], self.projector)
        with torch.no_grad():
            target = each_view(views, self.teacher["encoder"], self.teacher["projector"])
        return {"z": z, "p": each_view(z, self.predictor), "target": target}

    def loss(self, outputs: Outputs, clock: Clock) -> Terms:
        """Squared distance of unit vectors, 2 - 2 cos, summed over both directions: in [0, 8]."""
        rows = 2 * (2 - 2 * across_views(outputs["p"], outputs["target"].detach()))
        return {"distance": (rows.sum(), len(rows))}

    def after_step(self, outputs: Outputs, clock: Clock) -> None:
        self.teacher.follow(rising(self.momentum, clock.fraction))
