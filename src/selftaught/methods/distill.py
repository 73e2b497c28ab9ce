"""Distill: an encoder learns to see what a frozen teacher sees: published weights, or the encoder of another run.

Features: Romero et al. 2015, "FitNets" (hints), on the unit sphere. Relations: Fang, Wang, Wang, Zhang, Yang & Liu
2021, "SEED: Self-Supervised Distillation for Visual Representation", eq. 4 to 6.

Where we depart, and why: features are compared by their cosine, as their scale is the teacher's own business; relations
are to the last 4,096 samples (SEED: 65,536) in the teacher's space. One changed view, the same for both networks.

Costs: a forward pass of the teacher for each view, without gradient. Any encoder learns from any teacher of its kind of
data: ``--teacher RUN`` or ``--teacher NAME`` (published weights: a timm name, or a model of transformers, by its name
on the hub or the folder that it was saved to).
"""

from __future__ import annotations

from typing import Annotated

import torch

from selftaught.methods.base import VIEWS, two_views
from selftaught.nn.heads import each_view, projection
from selftaught.nn.memory import Queue
from selftaught.ops.losses import log_shares, unit
from selftaught.types import Batch, Clock, Encoders, Method, Needs, Outputs, Terms


class Distill(Method):
    """``forward`` gives z (B, V, T), projected into the teacher's space, and target (B, V, T), the teacher's own."""

    family = "self-distillation"

    def __init__(
        self,
        *,
        features: Annotated[float, "in [0, inf)", "weight of seeing the same"] = 1.0,
        relations: Annotated[float, "in [0, inf)", "weight of finding the same earlier samples similar"] = 1.0,
        temperature: Annotated[float, "in (0, inf)", "softness of the student's similarities"] = 0.1,
        teacher_temperature: Annotated[float, "in (0, inf)", "softness of the teacher's; sharper than that"] = 0.05,
        queue: Annotated[int, "in [1, inf)", "earlier samples to be similar to"] = 4096,
        hidden: Annotated[int, "in [1, inf)", "width of the projection's hidden layer"] = 1024,
        count: Annotated[int, "in [1, 16]", "views of each sample"] = 1,
        smallest: Annotated[float, "in (0, 1]", "share of the sample that a crop keeps at least"] = 0.2,
        colour: Annotated[float, "in [0, inf)", "strength of colour changes; 1 = SimCLR's"] = 0.5,
    ) -> None:
        super().__init__()
        self.features, self.relations = features, relations
        self.temperature, self.teacher_temperature = temperature, teacher_temperature
        self.queue_size, self.hidden, self.count = queue, hidden, count
        self.smallest, self.colour = smallest, colour

    def needs(self) -> Needs:
        plan = two_views(smallest=self.smallest, colour=self.colour, count=self.count)
        return Needs(plan=plan, encoders=("encoder", "teacher"))

    def build(self, encoders: Encoders) -> None:
        dim = encoders["teacher"].dim
        self.head = projection(encoders["encoder"].dim, self.hidden, dim)
        self.queue = Queue(self.queue_size, dim)

    def forward(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        views = batch[VIEWS].data
        with torch.no_grad():
            target = each_view(views, encoders["teacher"])
        return {"z": each_view(views, encoders["encoder"], self.head), "target": target}

    def loss(self, outputs: Outputs, clock: Clock) -> Terms:
        z, target = unit(outputs["z"]), unit(outputs["target"].detach())
        terms: Terms = {}
        if self.features:
            rows = 1 - (z * target).sum(-1)
            terms["features"] = (self.features * rows.sum(), rows.numel())
        if self.relations:
            queue = self.queue.vectors.to(z.dtype)
            wanted = (target @ queue.T / self.teacher_temperature).softmax(-1)
            rows = -(wanted * log_shares(z @ queue.T, temperature=self.temperature)).sum(-1)
            terms["relations"] = (self.relations * rows.sum(), rows.numel())
        return terms or {"nothing": (z.sum() * 0, 1)}

    def after_step(self, outputs: Outputs, clock: Clock) -> None:
        self.queue.push(outputs["target"][:, 0])
