"""SimCLR: two views of one sample are pulled together, views of different samples pushed apart.

Chen, Kornblith, Norouzi & Hinton 2020, "A Simple Framework for Contrastive Learning of Visual Representations", eq. 1.

Where we depart, and why: temperature 0.2 (the paper: 0.1 for ImageNet, 0.5 for CIFAR-10 with long training; with small
batches and short runs the harder comparison learns faster), crops of at least 20 % (the paper: 8 %).
As in the paper's code, both views go through the encoder in one forward pass, so batch norm sees all 2 B views at once;
lightly's examples make two passes. One pass saves about a tenth of the step (ResNet-18, 96 pixels, on a CPU).

Costs: B V x B V similarities in float32 (64 MB at a batch of 2,048), large batches help. Two views at least.
"""

from __future__ import annotations

from typing import Annotated

from selftaught.methods.base import VIEWS, two_views
from selftaught.nn.batchwise import gather, rank
from selftaught.nn.heads import each_view, projection
from selftaught.ops.losses import nt_xent
from selftaught.types import Batch, Clock, Encoders, Method, Needs, Outputs, Terms


class SimCLR(Method):
    """``forward`` gives z (B, V, out_dim): projected views, not normalised."""

    family = "contrastive"
    couples = True  # every sample is every other's negative

    def __init__(
        self,
        *,
        temperature: Annotated[float, "in (0, inf)", "softness of the comparison; lower = harder negatives"] = 0.2,
        hidden: Annotated[int, "in [0, inf)", "width of the projection's hidden layer; 0 = the encoder's"] = 0,
        out_dim: Annotated[int, "in [1, inf)", "dimensions in which views are compared"] = 128,
        smallest: Annotated[float, "in (0, 1]", "share of the sample that a crop keeps at least"] = 0.2,
        colour: Annotated[float, "in [0, inf)", "strength of colour changes; 1 = the paper's"] = 1.0,
        blur: Annotated[float, "in [0, 1]", "probability of blurring a view"] = 0.5,
    ) -> None:
        super().__init__()
        self.temperature, self.hidden, self.out_dim = temperature, hidden, out_dim
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
        rows = nt_xent(z, gather(z), start=rank() * len(z), temperature=self.temperature)
        return {"contrast": (rows.sum(), rows.numel())}
