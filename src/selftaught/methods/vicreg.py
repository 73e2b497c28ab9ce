"""VICReg: views of one sample agree, while every dimension keeps its variance and no two dimensions say the same.

Bardes, Ponce & LeCun 2022, "VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning", eq. 6.
It needs no negatives, no teacher and no large batch: what prevents the collapse is in the loss, term by term.

Where we depart, and why: the expander is 1,024 wide (the paper: 8,192 for ResNet-50 on ImageNet), which costs little on
a laptop; the terms' constants are those of the paper's code, to which its weights belong (``ops.losses.vicreg_terms``).
The statistics are those of the global batch: every rank computes the same loss of the gathered samples.

Costs: three linear layers and D x D covariances per view, D the expander's width.
"""

from __future__ import annotations

from typing import Annotated

from selftaught.methods.base import VIEWS, two_views
from selftaught.nn.batchwise import gather
from selftaught.nn.heads import each_view, projection
from selftaught.ops.losses import vicreg_terms
from selftaught.types import Batch, Clock, Encoders, Method, Needs, Outputs, Terms


class VICReg(Method):
    """``forward`` gives z (B, V, width): expanded views."""

    family = "non-contrastive"
    couples = True  # the statistics are the batch's

    def __init__(
        self,
        *,
        invariance: Annotated[float, "in [0, inf)", "weight of the distance between views of one sample"] = 25.0,
        variance: Annotated[float, "in [0, inf)", "weight of keeping every dimension's spread at 1"] = 25.0,
        covariance: Annotated[float, "in [0, inf)", "weight of decorrelating dimensions"] = 1.0,
        width: Annotated[int, "in [1, inf)", "dimensions of the expander, hidden layers included"] = 1024,
        smallest: Annotated[float, "in (0, 1]", "share of the sample that a crop keeps at least"] = 0.2,
        colour: Annotated[float, "in [0, inf)", "strength of colour changes; 1 = SimCLR's"] = 0.5,
        blur: Annotated[float, "in [0, 1]", "probability of blurring a view"] = 0.5,
    ) -> None:
        super().__init__()
        self.weights = {"invariance": invariance, "variance": variance, "covariance": covariance}
        self.width, self.smallest, self.colour, self.blur = width, smallest, colour, blur

    def needs(self) -> Needs:
        return Needs(plan=two_views(smallest=self.smallest, colour=self.colour, blur=self.blur))

    def build(self, encoders: Encoders) -> None:
        self.expander = projection(encoders["encoder"].dim, self.width, self.width, layers=3)

    def forward(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        return {"z": each_view(batch[VIEWS].data, encoders["encoder"], self.expander)}

    def loss(self, outputs: Outputs, clock: Clock) -> Terms:
        terms = vicreg_terms(gather(outputs["z"]))
        return {name: (self.weights[name] * value, 1) for name, value in terms.items()}
