"""TiCo: views agree with a teacher's, away from the directions that a running covariance says are crowded.

Zhu, Moraes, Karakulak, Sobol, Canziani & LeCun 2022, "TiCo: Transformation Invariance and Covariance Contrast for
Self-Supervised Visual Representation Learning", eq. 6 and algorithm 1.

Where we depart, and why: both views pass through student and teacher (the algorithm shows one direction), the
covariance is that of all of a step's views over all ranks; ``rho`` is 8 (20 for ImageNet). No gradient passes through
the covariance, as in lightly; whether the authors' code stops it there was not checked.

Costs: a second forward pass per view, without gradient, a second copy of the encoder, and one D x D matrix.
"""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor

from selftaught.methods.base import VIEWS, unlike_views
from selftaught.nn.batchwise import gather
from selftaught.nn.heads import each_view, projection
from selftaught.nn.teacher import Teacher, rising
from selftaught.ops.losses import across_views, unit
from selftaught.types import Batch, Clock, Encoders, Method, Needs, Outputs, Terms


class TiCo(Method):
    """``forward`` gives z (B, V, out_dim), projected views, and target, the teacher's."""

    family = "non-contrastive"
    couples = True  # the covariance is the batch's
    covariance: Tensor  # (out_dim, out_dim), running

    def __init__(
        self,
        *,
        rho: Annotated[float, "in [0, inf)", "weight of the covariance term"] = 8.0,
        beta: Annotated[float, "in [0, 1)", "how slowly the covariance follows"] = 0.9,
        momentum: Annotated[float, "in [0, 1]", "how slowly the teacher follows at first; rises to 1"] = 0.99,
        hidden: Annotated[int, "in [1, inf)", "width of the projection's hidden layer"] = 1024,
        out_dim: Annotated[int, "in [1, inf)", "dimensions in which views are compared"] = 256,
        smallest: Annotated[float, "in (0, 1]", "share of the sample that a crop keeps at least"] = 0.2,
        colour: Annotated[float, "in [0, inf)", "strength of colour changes; 0.5 = the paper's"] = 0.5,
    ) -> None:
        super().__init__()
        self.rho, self.beta, self.momentum = rho, beta, momentum
        self.hidden, self.out_dim, self.smallest, self.colour = hidden, out_dim, smallest, colour

    def needs(self) -> Needs:
        return Needs(plan=unlike_views(smallest=self.smallest, colour=self.colour))

    def build(self, encoders: Encoders) -> None:
        self.projector = projection(encoders["encoder"].dim, self.hidden, self.out_dim)
        self.teacher = Teacher({"encoder": encoders["encoder"], "projector": self.projector})
        self.register_buffer("covariance", torch.zeros(self.out_dim, self.out_dim))

    def forward(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        views = batch[VIEWS].data
        z = each_view(views, encoders["encoder"], self.projector)
        with torch.no_grad():
            target = each_view(views, self.teacher["encoder"], self.teacher["projector"])
        return {"z": z, "target": target}

    def loss(self, outputs: Outputs, clock: Clock) -> Terms:
        rows = 1 - across_views(outputs["z"], outputs["target"].detach())
        everyone = unit(gather(outputs["z"])).flatten(0, 1)
        crowding = covariance_contrast(everyone, self.covariance.to(everyone.dtype), beta=self.beta)
        return {"invariance": (rows.sum(), len(rows)), "covariance": (self.rho * crowding, 1)}

    def after_step(self, outputs: Outputs, clock: Clock) -> None:
        z = unit(gather(outputs["z"])).flatten(0, 1)
        self.covariance.lerp_((z.T @ z / len(z)).to(self.covariance.dtype), 1 - self.beta)
        self.teacher.follow(rising(self.momentum, clock.fraction))


def covariance_contrast(z: Float[Tensor, "N D"], covariance: Float[Tensor, "D D"], *, beta: float) -> Float[Tensor, ""]:
    """Mean of z_i^T C z_i, with C = beta C' + (1 - beta) mean_i z_i z_i^T; in [0, 1] for vectors of unit length.

    C' is the running covariance before this step. C is taken as it is: no gradient passes through this batch's share.
    """
    now = beta * covariance + (1 - beta) * (z.T @ z).detach() / len(z)
    return ((z @ now) * z).sum(1).mean()
