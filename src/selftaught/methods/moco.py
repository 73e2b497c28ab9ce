"""MoCo v1 and v2: a view is told from thousands of others that a slowly following teacher saw before, kept in a queue.

He, Fan, Wu, Xie & Girshick 2020, "Momentum Contrast for Unsupervised Visual Representation Learning", eq. 1 and 2;
Chen, Fan, Girshick & He 2020, "Improved Baselines with Momentum Contrastive Learning" (v2), which is the default here:
a projection with a hidden layer, blur, temperature 0.2. v1 is ``hidden=0, temperature=0.07, blur=0``.

Where we depart, and why: batch norm normalises over all ranks in place of shuffling samples between them, which serves
the same end (no rank can tell its own keys by their statistics); the queue holds 4,096 keys (65,536: more than most
small data sets have samples) and the teacher follows at 0.99 (0.999), as the queue turns over faster.

Costs: one forward pass without gradient, a second copy of the encoder, queue x out_dim numbers. Small batches will do.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from selftaught.methods.base import VIEWS, two_views
from selftaught.nn.heads import projection
from selftaught.nn.memory import Queue
from selftaught.nn.teacher import Teacher
from selftaught.ops.losses import info_nce, unit
from selftaught.types import Batch, Clock, Encoders, Method, Needs, Outputs, Terms


class MoCo(Method):
    """``forward`` gives z (B, 1, out_dim), the first view, and key (B, out_dim), the teacher's of the second."""

    family = "contrastive"

    def __init__(
        self,
        *,
        temperature: Annotated[float, "in (0, inf)", "softness of the comparison; lower = harder negatives"] = 0.2,
        queue: Annotated[int, "in [1, inf)", "keys of earlier samples to compare with"] = 4096,
        momentum: Annotated[float, "in [0, 1]", "how slowly the teacher follows"] = 0.99,
        hidden: Annotated[int, "in [0, inf)", "width of the projection's hidden layer; 0 = none (v1)"] = 512,
        out_dim: Annotated[int, "in [1, inf)", "dimensions in which views are compared"] = 128,
        smallest: Annotated[float, "in (0, 1]", "share of the sample that a crop keeps at least"] = 0.2,
        colour: Annotated[float, "in [0, inf)", "strength of colour changes; 0.5 = the paper's"] = 0.5,
        blur: Annotated[float, "in [0, 1]", "probability of blurring a view; 0 in v1"] = 0.5,
    ) -> None:
        super().__init__()
        self.temperature, self.queue_size, self.momentum = temperature, queue, momentum
        self.hidden, self.out_dim = hidden, out_dim
        self.smallest, self.colour, self.blur = smallest, colour, blur

    def needs(self) -> Needs:
        return Needs(plan=two_views(smallest=self.smallest, colour=self.colour, blur=self.blur))

    def build(self, encoders: Encoders) -> None:
        layers = 2 if self.hidden else 1
        self.head = projection(encoders["encoder"].dim, self.hidden, self.out_dim, layers=layers, norm=False)
        self.teacher = Teacher({"encoder": encoders["encoder"], "head": self.head})
        self.queue = Queue(self.queue_size, self.out_dim)

    def forward(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        views: Tensor = batch[VIEWS].data  # (B, 2, C, *space)
        z = self.head(encoders["encoder"](views[:, 0]).pooled)
        with torch.no_grad():
            key = self.teacher["head"](self.teacher["encoder"](views[:, 1]).pooled)
        return {"z": z[:, None], "key": key}

    def loss(self, outputs: Outputs, clock: Clock) -> Terms:
        query = unit(outputs["z"][:, 0])
        key = unit(outputs["key"].detach())
        rows = info_nce(query, key, self.queue.vectors.to(query.dtype), temperature=self.temperature)
        return {"contrast": (rows.sum(), len(rows))}

    def after_step(self, outputs: Outputs, clock: Clock) -> None:
        self.teacher.follow(self.momentum)
        self.queue.push(outputs["key"])
