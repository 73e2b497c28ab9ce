"""LeJEPA: views agree with their mean, and the embeddings are kept a standard normal cloud, direction by direction.

Balestriero & LeCun 2025, "LeJEPA: Provable and Scalable Self-Supervised Learning Without the Heuristics", SIGReg and
LeJEPA (arXiv:2511.08544). No teacher, no stopped gradient, no negatives, one weight.

SIGReg draws random directions anew each step, projects the batch on them, and measures by the Epps-Pulley statistic how
far each projection is from a standard normal one: the weighted squared distance of characteristic functions.

Where we depart, and why: two views by default (the paper: 2 large and 6 small ones). The directions are keyed by the
step, so that every rank and every resumed run draws the same ones; the statistic is that of the global batch.

Costs: B x V x ``directions`` x 17 sines and cosines a step.
"""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor

from selftaught.methods.base import VIEWS, two_views
from selftaught.nn.batchwise import gather
from selftaught.nn.heads import each_view, projection
from selftaught.types import Batch, Clock, Encoders, Method, Needs, Outputs, Terms

KNOTS, LARGEST = 17, 3.0  # frequencies at which characteristic functions are compared: 0 to 3, the paper's code


class LeJEPA(Method):
    """``forward`` gives z (B, V, out_dim): projected views."""

    family = "non-contrastive"
    couples = True  # the statistic is the batch's

    def __init__(
        self,
        *,
        weight: Annotated[float, "in [0, 1]", "share of the regulariser in the loss, the paper's lambda"] = 0.05,
        directions: Annotated[int, "in [1, inf)", "random directions a step"] = 256,
        views: Annotated[int, "in [2, 64]", "views of every sample"] = 2,
        hidden: Annotated[int, "in [1, inf)", "width of the projection's hidden layers"] = 1024,
        out_dim: Annotated[int, "in [1, inf)", "dimensions in which views are compared"] = 64,
        smallest: Annotated[float, "in (0, 1]", "share of the sample that a crop keeps at least"] = 0.2,
        colour: Annotated[float, "in [0, inf)", "strength of colour changes; 0.5 = BYOL's"] = 0.5,
        blur: Annotated[float, "in [0, 1]", "probability of blurring a view"] = 0.5,
    ) -> None:
        super().__init__()
        self.weight, self.directions, self.views = weight, directions, views
        self.hidden, self.out_dim = hidden, out_dim
        self.smallest, self.colour, self.blur = smallest, colour, blur

    def needs(self) -> Needs:
        return Needs(plan=two_views(smallest=self.smallest, colour=self.colour, blur=self.blur, count=self.views))

    def build(self, encoders: Encoders) -> None:
        self.projector = projection(encoders["encoder"].dim, self.hidden, self.out_dim, layers=3)

    def forward(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        return {"z": each_view(batch[VIEWS].data, encoders["encoder"], self.projector)}

    def loss(self, outputs: Outputs, clock: Clock) -> Terms:
        z = gather(outputs["z"])
        z = z.to(torch.promote_types(z.dtype, torch.float32))
        step = torch.tensor([clock.step], device=z.device)
        directions = clock.noise("directions", step, (z.shape[2], self.directions))[0].to(z)
        agreement = (z - z.mean(1, keepdim=True)).square().mean()
        normality = torch.stack([sigreg(z[:, view], directions) for view in range(z.shape[1])]).mean()
        return {"agreement": ((1 - self.weight) * agreement, 1), "normality": (self.weight * normality, 1)}


def sigreg(z: Float[Tensor, "B D"], directions: Float[Tensor, "D M"]) -> Float[Tensor, ""]:
    """Epps-Pulley statistic of every direction's projections against N(0, 1), mean over the directions; in [0, inf).

        B * integral from -3 to 3 of |mean_b exp(i t x_b) - exp(-t^2 / 2)|^2 exp(-t^2 / 2) dt

    by the trapezoid rule at 17 knots from 0 to 3, doubled, for the integrand is even. ``directions`` need no unit
    length.
    """
    t = torch.linspace(0, LARGEST, KNOTS, dtype=z.dtype, device=z.device)
    normal = torch.exp(-t.square() / 2)
    angle = (z @ (directions / directions.norm(dim=0)))[..., None] * t  # (B, M, T)
    distance = (angle.cos().mean(0) - normal).square() + angle.sin().mean(0).square()
    return 2 * len(z) * torch.trapezoid(distance * normal, t, dim=1).mean()
