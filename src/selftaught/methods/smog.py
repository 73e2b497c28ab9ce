"""SMoG: views are told from groups instead of from samples, groups that move with every batch, gradient and all.

Pang, Zhang, Li, Cai & Lu 2022, "Unsupervised Visual Representation Learning by Synchronous Momentum Grouping", eq. 4 to
6, with the periodic re-grouping of section 3.3.

Where we depart, and why: 128 groups (the paper: 3,000), both views predict (the paper: one), groups are found anew from
the last 4,096 samples every 300 steps as in the authors' code, the teacher follows at 0.99 at first (0.999). Groups are
of unit length after each move, so that none grows.

Costs: two views through two networks; a queue for the re-grouping.
"""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Float, Int
from torch import Tensor

from selftaught.methods.base import VIEWS, unlike_views
from selftaught.nn.batchwise import from_first, gather
from selftaught.nn.heads import each_view, projection
from selftaught.nn.memory import Queue
from selftaught.nn.teacher import Teacher, rising
from selftaught.ops.assignment import spherical_kmeans
from selftaught.ops.losses import log_shares, unit
from selftaught.types import Batch, Clock, Encoders, Method, Needs, Outputs, Terms


class SMoG(Method):
    """``forward`` gives z and p (B, 2, out_dim), projected and predicted views, and key, the teacher's projected."""

    family = "clustering"
    couples = True  # groups move with the whole batch
    groups_now: Tensor  # (K, out_dim), of unit length

    def __init__(
        self,
        *,
        count: Annotated[int, "in [2, inf)", "groups"] = 128,
        temperature: Annotated[float, "in (0, inf)", "softness of the prediction"] = 0.1,
        beta: Annotated[float, "in [0, 1)", "how slowly groups move"] = 0.99,
        every: Annotated[int, "in [1, inf)", "steps between two re-groupings"] = 300,
        queue: Annotated[int, "in [1, inf)", "earlier samples that are grouped then"] = 4096,
        momentum: Annotated[float, "in [0, 1]", "how slowly the teacher follows at first; rises to 1"] = 0.99,
        hidden: Annotated[int, "in [1, inf)", "width of the hidden layers of projection and prediction"] = 1024,
        out_dim: Annotated[int, "in [1, inf)", "dimensions of the groups"] = 128,
        smallest: Annotated[float, "in (0, 1]", "share of the sample that a crop keeps at least"] = 0.2,
        colour: Annotated[float, "in [0, inf)", "strength of colour changes; 0.5 = the paper's"] = 0.5,
    ) -> None:
        super().__init__()
        self.count, self.temperature, self.beta, self.every = count, temperature, beta, every
        self.queue_size, self.momentum, self.hidden, self.out_dim = max(queue, count), momentum, hidden, out_dim
        self.smallest, self.colour = smallest, colour

    def needs(self) -> Needs:
        return Needs(plan=unlike_views(smallest=self.smallest, colour=self.colour))

    def build(self, encoders: Encoders) -> None:
        self.projector = projection(encoders["encoder"].dim, self.hidden, self.out_dim, last_norm=True)
        self.predictor = projection(self.out_dim, self.hidden, self.out_dim)
        self.teacher = Teacher({"encoder": encoders["encoder"], "projector": self.projector})
        self.queue = Queue(self.queue_size, self.out_dim)
        self.register_buffer("groups_now", unit(torch.randn(self.count, self.out_dim)))

    def forward(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        views = batch[VIEWS].data
        z = each_view(views, encoders["encoder"], self.projector)
        with torch.no_grad():
            key = each_view(views, self.teacher["encoder"], self.teacher["projector"])
        return {"z": z, "p": each_view(z, self.predictor), "key": key}

    def loss(self, outputs: Outputs, clock: Clock) -> Terms:
        p, key = unit(outputs["p"]), unit(outputs["key"].detach())
        moved = moved_groups(self.groups_now.to(p.dtype), unit(gather(outputs["z"])).flatten(0, 1), beta=self.beta)
        wanted = (key @ self.groups_now.to(p.dtype).T).argmax(-1).flip(1)  # (b, 2): what the other view belongs to
        rows = -log_shares(p @ moved.T, temperature=self.temperature).gather(2, wanted[..., None])
        return {"groups": (rows.sum(), rows.numel())}

    @torch.no_grad()
    def after_step(self, outputs: Outputs, clock: Clock) -> None:
        z = unit(gather(outputs["z"])).to(self.groups_now.dtype).flatten(0, 1)
        self.groups_now.copy_(moved_groups(self.groups_now, z, beta=self.beta))
        self.queue.push(outputs["z"][:, 0])
        self.teacher.follow(rising(self.momentum, clock.fraction))
        if (clock.step + 1) % self.every == 0:
            key = torch.tensor([clock.step])
            start = clock.noise("groups", key, (len(self.queue),))[0].topk(self.count).indices
            self.groups_now.copy_(spherical_kmeans(self.queue.vectors, start.to(z.device))[0])
            from_first(self.groups_now)


def moved_groups(groups: Float[Tensor, "K D"], z: Float[Tensor, "B D"], *, beta: float) -> Float[Tensor, "K D"]:
    """Groups moved towards the mean of those vectors that are most similar to them, of unit length (eq. 5).

    The gradient goes through the vectors; a group without any stays.
    """
    nearest: Int[Tensor, " B"] = (z @ groups.T).detach().argmax(1)
    sums = torch.zeros_like(groups).index_add(0, nearest, z)
    counts = torch.bincount(nearest, minlength=len(groups))[:, None].to(z.dtype)
    moved = beta * groups + (1 - beta) * sums / counts.clamp(min=1)
    return unit(torch.where(counts > 0, moved, groups))
