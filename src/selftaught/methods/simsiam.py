"""SimSiam: one view predicts the other, and the gradient is stopped on the predicted side; nothing else is needed.

Chen & He 2021, "Exploring Simple Siamese Representation Learning", eq. 1 to 4 and algorithm 1.

Where we depart, and why: projection and prediction are 512 wide (the paper: 2,048 for ResNet-50; for CIFAR-10 it
shortens the projection as well). The predictor learns ten times as fast as the rest (the paper: at a rate that does
not decay), for what keeps this method from collapsing is a predictor that is right for the encoder as it is now (Tian,
Chen & Ganguli 2021, "Understanding Self-supervised Learning Dynamics without Contrastive Pairs"). In 250 steps on
photographs that kept an effective rank of 33 instead of 23 (docs/log.md). Watch the health all the same.

Costs: five linear layers; no second network, no large batch.
"""

from __future__ import annotations

from typing import Annotated, Any

from selftaught.methods.base import VIEWS, two_views
from selftaught.nn.heads import each_view, projection
from selftaught.ops.losses import across_views
from selftaught.types import Batch, Clock, Encoders, Method, Needs, Outputs, Terms


class SimSiam(Method):
    """``forward`` gives z and p (B, V, width): projected and predicted views."""

    family = "non-contrastive"

    def __init__(
        self,
        *,
        width: Annotated[
            int, "in [4, inf)", "dimensions of projection; the predictor's hidden layer has a fourth"
        ] = 512,
        predictor_rate: Annotated[float, "in (0, inf)", "learning rate of the predictor, as a factor"] = 10.0,
        smallest: Annotated[float, "in (0, 1]", "share of the sample that a crop keeps at least"] = 0.2,
        colour: Annotated[float, "in [0, inf)", "strength of colour changes; 0.5 = the paper's"] = 0.5,
        blur: Annotated[float, "in [0, 1]", "probability of blurring a view"] = 0.5,
    ) -> None:
        super().__init__()
        self.width, self.predictor_rate = width, predictor_rate
        self.smallest, self.colour, self.blur = smallest, colour, blur

    def needs(self) -> Needs:
        return Needs(plan=two_views(smallest=self.smallest, colour=self.colour, blur=self.blur))

    def build(self, encoders: Encoders) -> None:
        self.projector = projection(encoders["encoder"].dim, self.width, self.width, layers=3, last_norm=True)
        self.predictor = projection(self.width, self.width // 4, self.width)

    def forward(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        z = each_view(batch[VIEWS].data, encoders["encoder"], self.projector)
        return {"z": z, "p": each_view(z, self.predictor)}

    def loss(self, outputs: Outputs, clock: Clock) -> Terms:
        """The negative cosine similarity, mean over both directions: in [-1, 1]."""
        rows = -across_views(outputs["p"], outputs["z"].detach())
        return {"similarity": (rows.sum(), len(rows))}

    def groups(self, encoders: Encoders) -> dict[str, dict[str, Any]]:
        return {"predictor.": {"rate": self.predictor_rate, "weight_decay": 0.0}}
