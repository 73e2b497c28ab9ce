"""DenseCL: besides the whole, every place of a view is told from others, and is to find its match in the other view.

Wang, Zhang, Shen, Kong & Li 2021, "Dense Contrastive Learning for Self-Supervised Visual Pre-Training", eq. 1 to 5. For
encoders that are to serve segmentation and detection.

Where we depart, and why: both queues hold 4,096 keys (the paper: 65,536) and the teacher follows at 0.99 (0.999), for
thousands of samples rather than a million.

Costs: as MoCo, and places x places similarities for each sample.
"""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor

from selftaught.methods.base import VIEWS, two_views
from selftaught.nn.heads import projection
from selftaught.nn.memory import Queue
from selftaught.nn.teacher import Teacher
from selftaught.ops.losses import info_nce, unit
from selftaught.types import Batch, Clock, Encoders, Method, Needs, Outputs, Terms


class DenseCL(Method):
    """``forward`` gives, for the first view, z (B, 1, out_dim) and dense (B, N, out_dim); of the teacher's second view
    key (B, out_dim), match (B, N, out_dim), the matches of dense, and places (B, out_dim), the mean over its places.
    """

    family = "contrastive"

    def __init__(
        self,
        *,
        temperature: Annotated[float, "in (0, inf)", "softness of the comparison; lower = harder negatives"] = 0.2,
        dense: Annotated[float, "in [0, 1]", "weight of the places against the whole"] = 0.5,
        queue: Annotated[int, "in [1, inf)", "keys of earlier samples to compare with"] = 4096,
        momentum: Annotated[float, "in [0, 1]", "how slowly the teacher follows"] = 0.99,
        hidden: Annotated[int, "in [1, inf)", "width of the projections' hidden layers"] = 512,
        out_dim: Annotated[int, "in [1, inf)", "dimensions in which views are compared"] = 128,
        smallest: Annotated[float, "in (0, 1]", "share of the sample that a crop keeps at least"] = 0.2,
        colour: Annotated[float, "in [0, inf)", "strength of colour changes; 0.5 = the paper's"] = 0.5,
    ) -> None:
        super().__init__()
        self.temperature, self.dense, self.queue_size, self.momentum = temperature, dense, queue, momentum
        self.hidden, self.out_dim, self.smallest, self.colour = hidden, out_dim, smallest, colour

    def needs(self) -> Needs:
        return Needs(plan=two_views(smallest=self.smallest, colour=self.colour), tokens=True)

    def build(self, encoders: Encoders) -> None:
        encoder = encoders["encoder"]
        self.head = projection(encoder.dim, self.hidden, self.out_dim, norm=False)
        self.places = projection(encoder.token_dim, self.hidden, self.out_dim, norm=False)
        self.teacher = Teacher({"encoder": encoder, "head": self.head, "places": self.places})
        self.queue, self.dense_queue = (Queue(self.queue_size, self.out_dim) for _ in range(2))

    def forward(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        views: Tensor = batch[VIEWS].data  # (B, 2, C, *space)
        here = encoders["encoder"](views[:, 0])
        assert here.tokens is not None
        with torch.no_grad():
            there = self.teacher["encoder"](views[:, 1])
            keys = self.teacher["places"](there.tokens)
            match = matched(here.tokens.detach(), there.tokens, keys)
            key = self.teacher["head"](there.pooled)
        outputs = {"z": self.head(here.pooled)[:, None], "dense": self.places(here.tokens)}
        return {**outputs, "key": key, "match": match, "places": keys.mean(1)}

    def loss(self, outputs: Outputs, clock: Clock) -> Terms:
        query, key = unit(outputs["z"][:, 0]), unit(outputs["key"].detach())
        whole = info_nce(query, key, self.queue.vectors.to(query.dtype), temperature=self.temperature)
        place, match = unit(outputs["dense"]).flatten(0, 1), unit(outputs["match"].detach()).flatten(0, 1)
        parts = info_nce(place, match, self.dense_queue.vectors.to(place.dtype), temperature=self.temperature)
        return {
            "whole": ((1 - self.dense) * whole.sum(), len(whole)),
            "places": (self.dense * parts.sum(), len(parts)),
        }

    def after_step(self, outputs: Outputs, clock: Clock) -> None:
        self.teacher.follow(self.momentum)
        self.queue.push(outputs["key"])
        self.dense_queue.push(outputs["places"])


def matched(
    here: Float[Tensor, "B N D"], there: Float[Tensor, "B M D"], values: Float[Tensor, "B M E"]
) -> Float[Tensor, "B N E"]:
    """For every place of one view the value at the place of the other that is most similar to it (eq. 4)."""
    nearest = (unit(here) @ unit(there).mT).argmax(-1)
    return values.gather(1, nearest[..., None].expand(-1, -1, values.shape[-1]))
