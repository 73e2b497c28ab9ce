"""SeLa: samples are labelled by optimal transport, equally many to each label, and views are to say their sample's.

Asano, Rupprecht & Vedaldi 2020, "Self-Labelling via Simultaneous Clustering and Representation Learning", eq. 3 to 6.

Where we depart, and why: four heads of 128 labels (the paper: ten of 3,000), labelled anew every epoch (80 times in the
run), from whole samples; 50 iterations, with the smoothness of 0.05 on cosine similarities that SwAV uses in place of
their 1/25 on scores without bound.

Costs: two views, one pass, and one pass over all whole samples each epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated

import torch
from torch import Tensor

from selftaught.methods.base import VIEWS, two_views
from selftaught.nn.batchwise import from_first
from selftaught.nn.heads import Prototypes, each_view, projection
from selftaught.ops.assignment import sinkhorn
from selftaught.ops.losses import log_shares
from selftaught.types import Batch, Clock, Encoders, Method, Needs, Outputs, Terms

PLAIN = "plain"  # whole samples, in a sweep


class SeLa(Method):
    """``forward`` gives z (B, V, out_dim), scores (B, V, heads, K), and index (B,), which samples they are of."""

    remembers = True

    family = "clustering"
    labels: Tensor  # (heads, samples) int64

    def __init__(
        self,
        *,
        classes: Annotated[int, "in [2, inf)", "labels of each head"] = 128,
        heads: Annotated[int, "in [1, 64]", "labellings side by side"] = 4,
        temperature: Annotated[float, "in (0, inf)", "softness of the prediction"] = 0.1,
        epsilon: Annotated[float, "in (0, inf)", "smoothness of the transport"] = 0.05,
        hidden: Annotated[int, "in [1, inf)", "width of the projection's hidden layer"] = 1024,
        out_dim: Annotated[int, "in [1, inf)", "dimensions of the labels' directions"] = 128,
        smallest: Annotated[float, "in (0, 1]", "share of the sample that a crop keeps at least"] = 0.2,
        colour: Annotated[float, "in [0, inf)", "strength of colour changes; 1 = SimCLR's"] = 1.0,
    ) -> None:
        super().__init__()
        self.classes, self.heads, self.temperature, self.epsilon = classes, heads, temperature, epsilon
        self.hidden, self.out_dim, self.smallest, self.colour = hidden, out_dim, smallest, colour

    def needs(self) -> Needs:
        return Needs(plan=two_views(smallest=self.smallest, colour=self.colour))

    def build(self, encoders: Encoders) -> None:
        self.projector = projection(encoders["encoder"].dim, self.hidden, self.out_dim)
        self.count = max(2, min(self.classes, self.samples // 2))
        self.prototypes = Prototypes(self.out_dim, self.heads * self.count)
        drawn = torch.stack([torch.randperm(self.samples) for _ in range(self.heads)])
        self.register_buffer("labels", drawn % self.count)

    def forward(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        views = batch[PLAIN if PLAIN in batch.streams else VIEWS].data
        z = each_view(views, encoders["encoder"], self.projector)
        return {"z": z, "scores": self.prototypes(z).unflatten(2, (self.heads, self.count)), "index": batch.index}

    def loss(self, outputs: Outputs, clock: Clock) -> Terms:
        log_share = log_shares(outputs["scores"], temperature=self.temperature)  # (b, V, heads, K)
        own = self.labels[:, outputs["index"]].T[:, None, :, None].expand(-1, log_share.shape[1], -1, -1)
        rows = -log_share.gather(3, own)
        return {"labels": (rows.sum(), rows.numel())}

    @torch.no_grad()
    def before_epoch(self, sweep: Callable[[], Iterable[tuple[Tensor, Outputs]]], clock: Clock) -> None:
        """Equal labels for all; a sample that could not be read keeps the label it had."""
        found = [(index, outputs["scores"][:, 0]) for index, outputs in sweep()]
        rows = torch.cat([index for index, _ in found]).to(self.labels.device)
        scores = torch.cat([one for _, one in found])  # (N, heads, K)
        for head, labels in enumerate(self.labels):
            labels[rows] = sinkhorn(scores[:, head], epsilon=self.epsilon, iterations=50).argmax(1)
        from_first(self.labels)
