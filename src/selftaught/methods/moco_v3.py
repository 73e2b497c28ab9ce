"""MoCo v3: every view predicts the teacher's other view among those of the whole batch; no queue.

Chen, Xie & He 2021, "An Empirical Study of Training Self-Supervised Vision Transformers", algorithm 1.

Where we depart, and why: the teacher's momentum rises from 0.99 to 1 along a cosine, as in the paper's code; hidden
layers are 1,024 wide (4,096). The patch projection of a vision transformer learns: freezing it (section 4.3) matters
for large batches.

Costs: a second forward pass per view, without gradient, and a second copy of the encoder; large batches help.
"""

from __future__ import annotations

from typing import Annotated

import torch

from selftaught.methods.base import VIEWS, unlike_views
from selftaught.nn.batchwise import gather, rank
from selftaught.nn.heads import each_view, projection
from selftaught.nn.teacher import Teacher, rising
from selftaught.ops.losses import told_apart, unit
from selftaught.types import Batch, Clock, Encoders, Method, Needs, Outputs, Terms


class MoCoV3(Method):
    """``forward`` gives z and q (B, 2, out_dim), projected and predicted views, and key, the teacher's."""

    family = "contrastive"
    couples = True  # the negatives are the batch's

    def __init__(
        self,
        *,
        temperature: Annotated[float, "in (0, inf)", "softness of the comparison; lower = harder negatives"] = 0.2,
        momentum: Annotated[float, "in [0, 1]", "how slowly the teacher follows at first; rises to 1"] = 0.99,
        hidden: Annotated[int, "in [1, inf)", "width of the hidden layers of projection and prediction"] = 1024,
        out_dim: Annotated[int, "in [1, inf)", "dimensions in which views are compared"] = 256,
        smallest: Annotated[float, "in (0, 1]", "share of the sample that a crop keeps at least"] = 0.2,
        colour: Annotated[float, "in [0, inf)", "strength of colour changes; 0.5 = the paper's"] = 0.5,
    ) -> None:
        super().__init__()
        self.temperature, self.momentum, self.hidden, self.out_dim = temperature, momentum, hidden, out_dim
        self.smallest, self.colour = smallest, colour

    def needs(self) -> Needs:
        return Needs(plan=unlike_views(smallest=self.smallest, colour=self.colour))

    def build(self, encoders: Encoders) -> None:
        self.projector = projection(encoders["encoder"].dim, self.hidden, self.out_dim, layers=3, last_norm=True)
        self.predictor = projection(self.out_dim, self.hidden, self.out_dim, last_norm=True)
        self.teacher = Teacher({"encoder": encoders["encoder"], "projector": self.projector})

    def forward(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        views = batch[VIEWS].data
        z = each_view(views, encoders["encoder"], self.projector)
        with torch.no_grad():
            key = each_view(views, self.teacher["encoder"], self.teacher["projector"])
        return {"z": z, "q": each_view(z, self.predictor), "key": key}

    def loss(self, outputs: Outputs, clock: Clock) -> Terms:
        """Both directions summed, times 2 t, as in algorithm 1."""
        q = unit(outputs["q"])  # (b, 2, D)
        keys = unit(gather(outputs["key"].detach()))  # (B, 2, D)
        own = torch.arange(len(q), device=q.device) + rank() * len(q)
        rows = [
            told_apart(q[:, one], keys[:, other], own, temperature=self.temperature) for one, other in ((0, 1), (1, 0))
        ]
        return {"contrast": (2 * self.temperature * torch.stack(rows).sum(), len(q))}

    def after_step(self, outputs: Outputs, clock: Clock) -> None:
        self.teacher.follow(rising(self.momentum, clock.fraction))
