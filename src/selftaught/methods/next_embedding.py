"""Next-embedding prediction: patch after patch, the encoder is to tell what the next one is embedded as.

Xu, Huang, Wang, Chen, Yu, Xie, Rao & Yu 2025, "Next-Embedding Prediction Makes Strong Vision Learners" (NEPA,
arXiv:2512.16922), eq. 1: minus the cosine of what is told and the next patch's embedding, whose gradient is stopped; no
decoder, no pixels, no words.

Where we depart, and why: a start of random length that all patches may see (AIM's), so that the encoder can look both
ways afterwards; what is told goes through one linear layer.

Costs: one view, all of it, and nothing besides: the cheapest of the methods for transformers. Embeddings are a linear
map of pixels, so what can be told is mostly what continues. The encoder must be a transformer that can be told who
looks at whom.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn

from selftaught.methods.base import VIEWS, one_view
from selftaught.ops.losses import unit
from selftaught.ops.mask import after_a_start
from selftaught.types import Batch, Clock, Encoders, Method, Needs, Outputs, Terms


class NextEmbedding(Method):
    """``forward`` gives z (B, D), the mean of the embeddings; back and target (B, N, D): from each patch what the next
    one is embedded as, and what it truly is (the last one's is nothing); told (B, N), from which patches it was asked.
    """

    family = "predictive coding"
    small_batches = True

    def __init__(
        self,
        *,
        smallest: Annotated[float, "in (0, 1]", "share of the sample that a crop keeps at least"] = 0.4,
    ) -> None:
        super().__init__()
        self.smallest = smallest

    def needs(self) -> Needs:
        return Needs(plan=one_view(smallest=self.smallest), tokens=True, hides="drop")

    def build(self, encoders: Encoders) -> None:
        self.head = nn.Linear(encoders["encoder"].token_dim, encoders["encoder"].token_dim)

    def forward(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        encoder, view = encoders["encoder"], batch[VIEWS].data[:, 0]  # (B, C, *space)
        tokens = encoder.embed(view)
        noise = clock.noise("start", batch.p, (1,))[:, 0].to(view.device)
        may, told = after_a_start(noise, tokens.values.shape[1])
        seen, _ = encoder.context(tokens, attend=may)
        own = tokens.values.detach()
        target = torch.cat([own[:, 1:], torch.zeros_like(own[:, :1])], dim=1)
        return {"z": own.mean(1), "back": self.head(seen.values), "target": target, "told": told}

    def energy(self, outputs: Outputs, clock: Clock) -> Tensor:
        """One less the mean cosine over the patches that were to be told, in [0, 2]."""
        cosine = (unit(outputs["back"]) * unit(outputs["target"])).sum(-1)
        return 1 - (cosine * outputs["told"]).sum(1) / outputs["told"].sum(1)

    def loss(self, outputs: Outputs, clock: Clock) -> Terms:
        rows = self.energy(outputs, clock)
        return {"next": (rows.sum(), len(rows))}
