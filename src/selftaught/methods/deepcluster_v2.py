"""DeepClusterV2: every view is to say which cluster its sample fell into, clusters being found anew each epoch.

Caron, Misra, Mairal, Goyal, Bojanowski & Joulin 2020 (SwAV), appendix C, "DeepCluster-v2"; after Caron, Bojanowski,
Joulin & Douze 2018, "Deep Clustering for Unsupervised Learning of Visual Features".

Where we depart, and why: three clusterings into 256 (the paper: three into 3,000), at most half as many as there are
samples; four small views (6). What is clustered is the mean of a sample's two large views of the last epoch, which
costs no pass over the data; before the first epoch it is the untrained encoder's view of the whole samples.

Costs: two large and ``small`` small views, one pass; samples x out_dim numbers of memory; k-means once an epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated

import torch
from torch import Tensor

from selftaught.methods.base import SMALL, VIEWS, multi_crop
from selftaught.nn.batchwise import from_first
from selftaught.nn.heads import each_view, projection
from selftaught.nn.memory import Bank
from selftaught.ops.assignment import spherical_kmeans
from selftaught.ops.losses import log_shares, unit
from selftaught.types import Batch, Clock, Encoders, Method, Needs, Outputs, Terms

PLAIN = "plain"  # whole samples, in a sweep


class DeepClusterV2(Method):
    """``forward`` gives z (B, V, out_dim), projected views, large ones first, and index (B,), their samples."""

    remembers = True

    family = "clustering"
    assigned: Tensor  # (clusterings, samples) int64
    centroids: Tensor  # (clusterings, K, out_dim), of unit length

    def __init__(
        self,
        *,
        clusters: Annotated[int, "in [2, inf)", "groups that samples are sorted into"] = 256,
        clusterings: Annotated[int, "in [1, 64]", "how many times over"] = 3,
        temperature: Annotated[float, "in (0, inf)", "softness of the prediction"] = 0.1,
        hidden: Annotated[int, "in [1, inf)", "width of the projection's hidden layer"] = 1024,
        out_dim: Annotated[int, "in [1, inf)", "dimensions of the clusters"] = 128,
        small: Annotated[int, "in [0, 64]", "small views besides the two large ones"] = 4,
        smallest: Annotated[float, "in (0, 1]", "share of the sample that a large view keeps at least"] = 0.25,
        colour: Annotated[float, "in [0, inf)", "strength of colour changes; 1 = SimCLR's"] = 1.0,
    ) -> None:
        super().__init__()
        self.clusters, self.clusterings, self.temperature = clusters, clusterings, temperature
        self.hidden, self.out_dim = hidden, out_dim
        self.small, self.smallest, self.colour = small, smallest, colour

    def needs(self) -> Needs:
        return Needs(plan=multi_crop(small=self.small, smallest=self.smallest, colour=self.colour))

    def build(self, encoders: Encoders) -> None:
        self.projector = projection(encoders["encoder"].dim, self.hidden, self.out_dim)
        self.bank = Bank(self.samples, self.out_dim)
        count = max(2, min(self.clusters, self.samples // 2))
        self.register_buffer("centroids", unit(torch.randn(self.clusterings, count, self.out_dim)))
        self.register_buffer("assigned", (torch.arange(self.samples) % count).repeat(self.clusterings, 1))

    def forward(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        whole = (PLAIN,) if PLAIN in batch.streams else ()
        sizes = whole or (VIEWS, SMALL)[: 2 if self.small else 1]
        z = torch.cat([each_view(batch[name].data, encoders["encoder"], self.projector) for name in sizes], dim=1)
        return {"z": z, "index": batch.index}

    def loss(self, outputs: Outputs, clock: Clock) -> Terms:
        z, label = unit(outputs["z"]), self.assigned[:, outputs["index"]]  # (b, V, D), (H, b)
        rows = []
        for centroids, own in zip(self.centroids.to(z.dtype), label, strict=True):
            log_share = log_shares(z @ centroids.T, temperature=self.temperature)  # (b, V, K)
            rows.append(-log_share.gather(2, own[:, None, None].expand(-1, z.shape[1], 1)))
        return {"clusters": (torch.stack(rows).sum(), len(rows) * z.shape[0] * z.shape[1])}

    def after_step(self, outputs: Outputs, clock: Clock) -> None:
        self.bank.put(outputs["index"], unit(outputs["z"][:, :2]).mean(1))

    @torch.no_grad()
    def before_epoch(self, sweep: Callable[[], Iterable[tuple[Tensor, Outputs]]], clock: Clock) -> None:
        if clock.step == 0:
            for index, outputs in sweep():
                rows = index.to(self.bank.vectors.device)
                self.bank.vectors[rows] = unit(outputs["z"][:, 0]).to(self.bank.vectors.dtype)
        for number, (centroids, assigned) in enumerate(zip(self.centroids, self.assigned, strict=True)):
            key = torch.tensor([clock.step * self.clusterings + number])
            start = clock.noise("clusters", key, (len(self.bank),))[0].topk(len(centroids)).indices
            found, nearest = spherical_kmeans(self.bank.vectors, start.to(centroids.device))
            centroids.copy_(found)
            assigned.copy_(nearest)
        from_first(self.centroids)
        from_first(self.assigned)
