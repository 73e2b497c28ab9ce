"""NNCLR: a view is pulled towards the nearest neighbour, among samples seen before, of the other view.

Dwibedi, Aytar, Tompson, Sermanet & Zisserman 2021, "With a Little Help from My Friends: Nearest-Neighbor Contrastive
Learning of Visual Representations", eq. 3 (symmetric, with the predictor of section 3.3).

Where we depart, and why: the queue holds 2,048 neighbours (the paper: 98,304; more than small data sets have samples,
and a queue that holds a sample's own older view finds that one), hidden layers are 1,024 wide (2,048).

Costs: as SimCLR, and queue x out_dim numbers.
"""

from __future__ import annotations

from typing import Annotated

import torch

from selftaught.methods.base import VIEWS, two_views
from selftaught.nn.batchwise import gather, rank
from selftaught.nn.heads import each_view, projection
from selftaught.nn.memory import Queue
from selftaught.ops.losses import told_apart, unit
from selftaught.types import Batch, Clock, Encoders, Method, Needs, Outputs, Terms


class NNCLR(Method):
    """``forward`` gives z and p (B, 2, out_dim): projected and predicted views."""

    family = "contrastive"
    couples = True  # the negatives are the batch's

    def __init__(
        self,
        *,
        temperature: Annotated[float, "in (0, inf)", "softness of the comparison; lower = harder negatives"] = 0.1,
        queue: Annotated[int, "in [1, inf)", "earlier samples among which neighbours are looked for"] = 2048,
        hidden: Annotated[int, "in [1, inf)", "width of the hidden layers of projection and prediction"] = 1024,
        out_dim: Annotated[int, "in [1, inf)", "dimensions in which views are compared"] = 256,
        smallest: Annotated[float, "in (0, 1]", "share of the sample that a crop keeps at least"] = 0.2,
        colour: Annotated[float, "in [0, inf)", "strength of colour changes; 1 = SimCLR's"] = 1.0,
        blur: Annotated[float, "in [0, 1]", "probability of blurring a view"] = 0.5,
    ) -> None:
        super().__init__()
        self.temperature, self.queue_size, self.hidden, self.out_dim = temperature, queue, hidden, out_dim
        self.smallest, self.colour, self.blur = smallest, colour, blur

    def needs(self) -> Needs:
        return Needs(plan=two_views(smallest=self.smallest, colour=self.colour, blur=self.blur))

    def build(self, encoders: Encoders) -> None:
        self.projector = projection(encoders["encoder"].dim, self.hidden, self.out_dim, layers=3, last_norm=True)
        self.predictor = projection(self.out_dim, self.hidden, self.out_dim)
        self.queue = Queue(self.queue_size, self.out_dim)

    def forward(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        z = each_view(batch[VIEWS].data, encoders["encoder"], self.projector)
        return {"z": z, "p": each_view(z, self.predictor)}

    def loss(self, outputs: Outputs, clock: Clock) -> Terms:
        z = unit(outputs["z"].detach())
        p = unit(gather(outputs["p"]))  # (B, 2, D)
        own = torch.arange(len(z), device=z.device) + rank() * len(z)
        rows = [
            told_apart(self.queue.nearest(z[:, one]), p[:, other], own, temperature=self.temperature)
            for one, other in ((0, 1), (1, 0))
        ]
        return {"contrast": (torch.stack(rows).mean(0).sum(), len(z))}

    def after_step(self, outputs: Outputs, clock: Clock) -> None:
        self.queue.push(outputs["z"][:, 0])
