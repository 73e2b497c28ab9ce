"""DCL and DCLW: SimCLR without the positive in the denominator, so that small batches learn as well as large ones.

Yeh, Hong, Hsu, Liu, Chen & LeCun 2022, "Decoupled Contrastive Learning", eq. 4 (DCL) and 6 (DCLW).

``sigma`` > 0 weights every positive pair by how unlike its views are (DCLW). The weights carry gradient, as in the
authors' code (lightly detaches them). Everything else is SimCLR's, with its departures; so is the cost.
"""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor

from selftaught.methods.base import VIEWS, two_views
from selftaught.nn.batchwise import gather, rank
from selftaught.nn.heads import each_view, projection
from selftaught.ops.losses import unit
from selftaught.ops.similarity import log_sum_exp
from selftaught.types import Batch, Clock, Encoders, Method, Needs, Outputs, Terms


class DCL(Method):
    """``forward`` gives z (B, 2, out_dim): projected views, not normalised."""

    family = "contrastive"
    couples = True  # every sample is every other's negative

    def __init__(
        self,
        *,
        temperature: Annotated[float, "in (0, inf)", "softness of the comparison; lower = harder negatives"] = 0.1,
        sigma: Annotated[
            float, "in [0, inf)", "softness of the weights of positives (DCLW: 0.5); 0 = no weights"
        ] = 0.0,
        hidden: Annotated[int, "in [0, inf)", "width of the projection's hidden layer; 0 = the encoder's"] = 0,
        out_dim: Annotated[int, "in [1, inf)", "dimensions in which views are compared"] = 128,
        smallest: Annotated[float, "in (0, 1]", "share of the sample that a crop keeps at least"] = 0.2,
        colour: Annotated[float, "in [0, inf)", "strength of colour changes; 1 = SimCLR's"] = 1.0,
        blur: Annotated[float, "in [0, 1]", "probability of blurring a view"] = 0.5,
    ) -> None:
        super().__init__()
        self.temperature, self.sigma, self.hidden, self.out_dim = temperature, sigma, hidden, out_dim
        self.smallest, self.colour, self.blur = smallest, colour, blur

    def needs(self) -> Needs:
        return Needs(plan=two_views(smallest=self.smallest, colour=self.colour, blur=self.blur))

    def build(self, encoders: Encoders) -> None:
        dim = encoders["encoder"].dim
        self.head = projection(dim, self.hidden or dim, self.out_dim)

    def forward(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        return {"z": each_view(batch[VIEWS].data, encoders["encoder"], self.head)}

    def loss(self, outputs: Outputs, clock: Clock) -> Terms:
        z = outputs["z"]
        rows = decoupled(z, gather(z), start=rank() * len(z), temperature=self.temperature, sigma=self.sigma)
        return {"contrast": (rows.sum(), rows.numel())}


def decoupled(
    local: Float[Tensor, "b 2 D"],
    gathered: Float[Tensor, "B 2 D"],
    *,
    start: int,
    temperature: float,
    sigma: float = 0.0,
) -> Float[Tensor, "b 2"]:
    """-w_i s_i / t + log sum over the 2 (B - 1) views of other samples of exp(s_ik / t), for every anchor (eq. 4, 6).

    ``local`` are samples ``start`` to ``start + b`` of ``gathered``. w_i = 2 - exp(s_i / sigma) / mean of it over the
    batch, or 1 where ``sigma`` is 0. Not bounded below: minus 1 / t is reached by far-apart pairs that agree.
    """
    local, gathered = unit(local), unit(gathered)
    own = 2 * (torch.arange(len(local), device=local.device) + start)
    pair = torch.stack([own, own + 1], dim=1).repeat_interleave(2, 0)  # neither itself nor its positive
    others = log_sum_exp(local.flatten(0, 1), gathered.flatten(0, 1), scale=1 / temperature, skip=pair)
    positive = (local[:, 0] * local[:, 1]).sum(-1)  # (b,)
    weight: Tensor | float = 1.0
    if sigma:
        everyone = (gathered[:, 0] * gathered[:, 1]).sum(-1) / sigma
        weight = 2 - torch.exp(positive / sigma - everyone.logsumexp(0)) * len(gathered)
    return others.view(-1, 2) - (weight * positive / temperature)[:, None]
