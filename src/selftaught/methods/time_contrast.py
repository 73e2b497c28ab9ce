"""TimeContrast: what lies next to each other in time belongs together; everything else in the batch does not.

After Sermanet, Lynch, Chebotar, Hsu, Jang, Schaal & Levine 2018, "Time-Contrastive Networks" (single view), and
Tonekaboni, Eytan & Goldenberg 2021, "Unsupervised Representation Learning for Time Series with Temporal Neighborhood
Coding".

Where we depart, and why: the normalised temperature-scaled cross-entropy over the batch (Chen et al. 2020, eq. 1) takes
the place of their triplets and of the discriminator, since many negatives cost nothing; a neighbour is the sample
before or after in the same file and group, so rows of an array, or frames of a recording, must be in the order of time.
Samples farther away in the same recording count as negatives, also where nothing has changed: batches from long data
rarely hold two of them. A sample without neighbours (one picture a file) is its own, which makes this SimCLR.

Costs: two views, one pass, a second read.
"""

from __future__ import annotations

from typing import Annotated

import torch

from selftaught.methods.base import VIEWS
from selftaught.nn.batchwise import gather, rank
from selftaught.nn.heads import each_view, projection
from selftaught.ops.losses import nt_xent
from selftaught.types import Batch, Clock, Encoders, Geometry, Method, Needs, Outputs, Photometry, Terms, ViewGroup

BESIDE = "beside"  # the view of the neighbour


class TimeContrast(Method):
    """``forward`` gives z (B, 2, out_dim): a view of the sample and one of its neighbour in time, projected."""

    family = "contrastive"
    couples = True  # every sample is every other's negative

    def __init__(
        self,
        *,
        temperature: Annotated[float, "in (0, inf)", "softness of the comparison; lower = harder negatives"] = 0.2,
        hidden: Annotated[int, "in [0, inf)", "width of the projection's hidden layer; 0 = the encoder's"] = 0,
        out_dim: Annotated[int, "in [1, inf)", "dimensions in which views are compared"] = 128,
        smallest: Annotated[float, "in (0, 1]", "share of the sample that a crop keeps at least"] = 0.5,
        colour: Annotated[float, "in [0, inf)", "strength of colour changes; 1 = SimCLR's"] = 0.5,
        noise: Annotated[float, "in [0, inf)", "strength of what sensors do: jitter, scaling, drift"] = 1.0,
    ) -> None:
        super().__init__()
        self.temperature, self.hidden, self.out_dim = temperature, hidden, out_dim
        self.smallest, self.colour, self.noise = smallest, colour, noise

    def needs(self) -> Needs:
        light = (Photometry(colour=self.colour, noise=self.noise),)
        here, there = (Geometry(name, scale=(self.smallest, 1.0)) for name in ("here", "there"))
        beside = ViewGroup(BESIDE, 1, 1.0, there, light, companion="neighbour")
        return Needs(plan=(ViewGroup(VIEWS, 1, 1.0, here, light), beside))

    def build(self, encoders: Encoders) -> None:
        dim = encoders["encoder"].dim
        self.head = projection(dim, self.hidden or dim, self.out_dim)

    def forward(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        views = torch.cat([batch[VIEWS].data, batch[BESIDE].data], dim=1)
        return {"z": each_view(views, encoders["encoder"], self.head)}

    def loss(self, outputs: Outputs, clock: Clock) -> Terms:
        z = outputs["z"]
        rows = nt_xent(z, gather(z), start=rank() * len(z), temperature=self.temperature)
        return {"contrast": (rows.sum(), rows.numel())}
