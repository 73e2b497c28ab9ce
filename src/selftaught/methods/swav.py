"""SwAV: a view predicts to which prototypes another view of its sample belongs, prototypes being used equally often.

Caron, Misra, Mairal, Goyal, Bojanowski & Joulin 2020, "Unsupervised Learning of Visual Features by Contrasting Cluster
Assignments", eq. 1 to 5, with multi-crop and the queue of section 4.

Where we depart, and why: 256 prototypes (the paper: 3,000) and four small views (6) suit thousands of samples rather
than a million; the queue holds 1,024 earlier samples from the tenth part of the run on (3,840 from epoch 15 of 200 on),
so that assignments are balanced over more than a small batch; prototypes are normalised where they are used, and learn
from the first step but for the first hundredth of the run.

Costs: two large and ``small`` small views; no second network. Assignments are those of the global batch.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor

from selftaught.methods.base import SMALL, VIEWS, multi_crop
from selftaught.nn.batchwise import gather, rank
from selftaught.nn.heads import Prototypes, each_view, projection
from selftaught.nn.memory import Queue
from selftaught.ops.assignment import sinkhorn
from selftaught.ops.losses import swapped
from selftaught.types import Batch, Clock, Encoders, Method, Needs, Outputs, Terms


class SwAV(Method):
    """``forward`` gives z (B, 2 + small, out_dim): projected views, the two large ones first, and their scores."""

    family = "clustering"
    couples = True  # assignments are balanced over the batch

    def __init__(
        self,
        *,
        prototypes: Annotated[int, "in [2, inf)", "directions that samples are assigned to"] = 256,
        temperature: Annotated[float, "in (0, inf)", "softness of the prediction"] = 0.1,
        epsilon: Annotated[float, "in (0, inf)", "softness of the assignment"] = 0.05,
        queue: Annotated[int, "in [0, inf)", "earlier samples that are assigned along; 0 = none"] = 1024,
        queue_from: Annotated[float, "in [0, 1]", "share of the run after which they are"] = 0.1,
        hidden: Annotated[int, "in [1, inf)", "width of the projection's hidden layer"] = 1024,
        out_dim: Annotated[int, "in [1, inf)", "dimensions of the prototypes"] = 128,
        small: Annotated[int, "in [0, 64]", "small views besides the two large ones"] = 4,
        smallest: Annotated[float, "in (0, 1]", "share of the sample that a large view keeps at least"] = 0.25,
        colour: Annotated[float, "in [0, inf)", "strength of colour changes; 1 = SimCLR's"] = 1.0,
    ) -> None:
        super().__init__()
        self.count, self.temperature, self.epsilon = prototypes, temperature, epsilon
        self.queue_size, self.queue_from, self.hidden, self.out_dim = queue, queue_from, hidden, out_dim
        self.small, self.smallest, self.colour = small, smallest, colour

    def needs(self) -> Needs:
        return Needs(plan=multi_crop(small=self.small, smallest=self.smallest, colour=self.colour))

    def build(self, encoders: Encoders) -> None:
        self.projector = projection(encoders["encoder"].dim, self.hidden, self.out_dim)
        self.prototypes = Prototypes(self.out_dim, self.count)
        self.queues = torch.nn.ModuleList([Queue(self.queue_size, self.out_dim) for _ in range(2)])

    def forward(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        sizes = (VIEWS, SMALL)[: 2 if self.small else 1]  # one pass for each
        z = torch.cat([each_view(batch[name].data, encoders["encoder"], self.projector) for name in sizes], dim=1)
        return {"z": z, "scores": self.prototypes(z)}

    def loss(self, outputs: Outputs, clock: Clock) -> Terms:
        scores = outputs["scores"]  # (b, V, K)
        codes = torch.stack([self._assign(scores.detach()[:, view], view, clock) for view in (0, 1)], dim=1)
        rows = swapped(scores, codes, temperature=self.temperature)
        return {"swap": (rows.sum(), len(rows) * 2 * (scores.shape[1] - 1))}

    def _assign(self, scores: Tensor, view: int, clock: Clock) -> Tensor:
        """This rank's rows of the assignment of the global batch, and of the queue where it is in use."""
        everyone, queue = gather(scores), self.queues[view]
        if len(queue) and clock.fraction >= self.queue_from:  # type: ignore[arg-type]
            everyone = torch.cat([everyone, self.prototypes(queue.vectors).detach().to(everyone.dtype)])
        return sinkhorn(everyone, epsilon=self.epsilon)[rank() * len(scores) :][: len(scores)]

    def after_step(self, outputs: Outputs, clock: Clock) -> None:
        for view, queue in enumerate(self.queues if self.queue_size else ()):
            queue.push(outputs["z"][:, view])  # type: ignore[operator]

    def groups(self, encoders: Encoders) -> dict[str, dict[str, Any]]:
        return {"prototypes.": {"frozen_until": 0.01}}
