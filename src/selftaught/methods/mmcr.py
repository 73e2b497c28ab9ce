"""MMCR: the mean view of every sample should fill as many directions as there are, which makes its views agree.

Yerxa, Kuang, Simoncelli & Chung 2023, "Learning Efficient Coding of Natural Images with Maximum Manifold Capacity
Representations", eq. 5 and 6.

Where we depart, and why: two views (the paper gains from up to eight: ``views``), an output of 128 dimensions (512) and
hidden layers of 1,024 (8,192, 8,192). The loss is divided by the number of samples, so that the learning rate need not
follow the batch. The centroids are those of the global batch: every rank computes the same loss of gathered samples.

Costs: one singular value decomposition of a B x D matrix a step, in float32; no second network.
"""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor

from selftaught.methods.base import VIEWS, two_views
from selftaught.nn.batchwise import gather
from selftaught.nn.heads import each_view, projection
from selftaught.ops.losses import unit
from selftaught.types import Batch, Clock, Encoders, Method, Needs, Outputs, Terms


class MMCR(Method):
    """``forward`` gives z (B, V, out_dim): projected views, not normalised."""

    family = "non-contrastive"
    couples = True  # the centroids are the batch's

    def __init__(
        self,
        *,
        views: Annotated[int, "in [2, 64]", "views of every sample"] = 2,
        within: Annotated[
            float, "in [0, inf)", "weight of the nuclear norm of a sample's views, the paper's lambda"
        ] = 0.0,
        hidden: Annotated[int, "in [1, inf)", "width of the projection's hidden layers"] = 1024,
        out_dim: Annotated[int, "in [1, inf)", "dimensions in which views are compared"] = 128,
        smallest: Annotated[float, "in (0, 1]", "share of the sample that a crop keeps at least"] = 0.2,
        colour: Annotated[float, "in [0, inf)", "strength of colour changes; 0.5 = the paper's"] = 0.5,
        blur: Annotated[float, "in [0, 1]", "probability of blurring a view"] = 0.5,
    ) -> None:
        super().__init__()
        self.views, self.within, self.hidden, self.out_dim = views, within, hidden, out_dim
        self.smallest, self.colour, self.blur = smallest, colour, blur

    def needs(self) -> Needs:
        return Needs(plan=two_views(smallest=self.smallest, colour=self.colour, blur=self.blur, count=self.views))

    def build(self, encoders: Encoders) -> None:
        self.projector = projection(encoders["encoder"].dim, self.hidden, self.out_dim, layers=3)

    def forward(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        return {"z": each_view(batch[VIEWS].data, encoders["encoder"], self.projector)}

    def loss(self, outputs: Outputs, clock: Clock) -> Terms:
        between, within = capacity_terms(gather(outputs["z"]), within=self.within > 0)
        terms: Terms = {"capacity": (-between, 1)}
        return {**terms, "within": (self.within * within, 1)} if self.within else terms


def capacity_terms(z: Float[Tensor, "B V D"], *, within: bool = True) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """(nuclear norm of the B x D matrix of mean views / B, mean nuclear norm of every sample's V x D matrix).

    Views are brought to unit length first. The first lies in (0, sqrt(D / B)] for B >= D, the second in [1, V].
    """
    z = unit(z)
    between = torch.linalg.svdvals(z.mean(1)).sum() / len(z)
    return between, torch.linalg.svdvals(z).sum(1).mean() if within else z.new_zeros(())
