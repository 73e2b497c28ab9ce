"""Barlow Twins: the correlations between the dimensions of two views become the identity.

Zbontar, Jing, Misra, LeCun & Deny 2021, "Barlow Twins: Self-Supervised Learning via Redundancy Reduction", eq. 1 and 2.

Where we depart, and why: the projection is 1,024 wide (the paper: 8,192), which a laptop can afford; views are
SimCLR's with the paper's strength of colours. The statistics are those of the global batch: every rank computes the
same loss of the gathered samples.

Costs: three linear layers and one D x D matrix, D the projection's width.
"""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor

from selftaught.methods.base import VIEWS, unlike_views
from selftaught.nn.batchwise import gather
from selftaught.nn.heads import each_view, projection
from selftaught.types import Batch, Clock, Encoders, Method, Needs, Outputs, Terms


class BarlowTwins(Method):
    """``forward`` gives z (B, 2, width): projected views."""

    family = "non-contrastive"
    couples = True  # the statistics are the batch's

    def __init__(
        self,
        *,
        redundancy: Annotated[float, "in [0, inf)", "weight of decorrelating dimensions, the paper's lambda"] = 5e-3,
        width: Annotated[int, "in [1, inf)", "dimensions of the projection, hidden layers included"] = 1024,
        smallest: Annotated[float, "in (0, 1]", "share of the sample that a crop keeps at least"] = 0.2,
        colour: Annotated[float, "in [0, inf)", "strength of colour changes; 0.5 = the paper's"] = 0.5,
    ) -> None:
        super().__init__()
        self.redundancy, self.width, self.smallest, self.colour = redundancy, width, smallest, colour

    def needs(self) -> Needs:
        return Needs(plan=unlike_views(smallest=self.smallest, colour=self.colour))

    def build(self, encoders: Encoders) -> None:
        self.projector = projection(encoders["encoder"].dim, self.width, self.width, layers=3)

    def forward(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        return {"z": each_view(batch[VIEWS].data, encoders["encoder"], self.projector)}

    def loss(self, outputs: Outputs, clock: Clock) -> Terms:
        z = gather(outputs["z"])
        same, others = barlow_terms(z[:, 0], z[:, 1])
        return {"invariance": (same, 1), "redundancy": (self.redundancy * others, 1)}


def barlow_terms(
    a: Float[Tensor, "B D"], b: Float[Tensor, "B D"], *, eps: float = 1e-5
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """(sum_i (1 - C_ii)^2, sum_{i != j} C_ij^2), C the cross-correlation of two views over the batch (eq. 1 and 2).

    Both in [0, inf). Every dimension is centred and divided by its standard deviation over the batch (the biased one,
    with ``eps`` under the root, as batch norm in the paper's code).
    """
    correlation = _standard(a, eps).T @ _standard(b, eps) / len(a)
    diagonal = correlation.diagonal()
    return (1 - diagonal).square().sum(), correlation.square().sum() - diagonal.square().sum()


def _standard(z: Tensor, eps: float) -> Tensor:
    z = z.to(torch.promote_types(z.dtype, torch.float32))
    centred = z - z.mean(0)
    return centred * (centred.square().mean(0) + eps).rsqrt()
