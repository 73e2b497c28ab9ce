"""CAPI: places of a teacher are sorted into clusters, and the student is to tell the clusters of places it cannot see.

Darcet, Baldassarre, Oquab, Mairal & Bojanowski 2025, "Cluster and Predict Latent Patches for Improved Masked Image
Modeling", eq. 1 to 3: clusters are learned as the teacher's places are balanced over them; only visible places go
through the student, and a predictor tells the rest.

Where we depart, and why: 256 clusters (the paper: 16,384), balanced over all places of the batch (place by place, which
takes batches of thousands); the predictor is a light transformer over the whole grid (cross-attention of the hidden
places to the visible ones); hidden places form patches (inverse blocks); a teacher that follows at 0.99 at first.

Costs: one view; the student sees a third of it, the teacher all. The encoder must be able to drop tokens.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor

from selftaught.methods.base import VIEWS, one_view
from selftaught.nn.batchwise import gather, rank
from selftaught.nn.decoder import TokenDecoder
from selftaught.nn.heads import Prototypes
from selftaught.nn.teacher import Teacher, rising
from selftaught.ops.assignment import sinkhorn
from selftaught.ops.losses import log_shares
from selftaught.ops.mask import hidden_cells
from selftaught.ops.tokens import keep, put_back, wave_positions
from selftaught.types import Batch, Clock, Encoders, Method, Needs, Outputs, Terms


class CAPI(Method):
    """``forward`` gives z (B, D), what the student makes of what it sees; place (B, N, K), the teacher's places by
    cluster; told (B, N, K), the student's guesses; hidden (B, N).
    """

    family = "masked prediction"
    couples = True  # clusters are balanced over the batch

    def __init__(
        self,
        *,
        clusters: Annotated[int, "in [2, inf)", "that places are sorted into"] = 256,
        masked: Annotated[float, "in (0, 1)", "share of the places that are hidden"] = 0.65,
        mask: Annotated[str, "one of random, patches, grid", "which: anywhere, in patches, evenly"] = "patches",
        temperature: Annotated[float, "in (0, inf)", "softness of the guesses and of the clusters"] = 0.12,
        epsilon: Annotated[float, "in (0, inf)", "softness of the balanced clusters, which are the targets"] = 0.06,
        depth: Annotated[int, "in [1, 64]", "blocks of the predictor"] = 4,
        width: Annotated[int, "in [0, inf)", "features of the predictor; 0 = half of the encoder's"] = 0,
        momentum: Annotated[float, "in [0, 1]", "how slowly the teacher follows at first; rises to 1"] = 0.99,
        smallest: Annotated[float, "in (0, 1]", "share of the sample that a crop keeps at least"] = 0.3,
    ) -> None:
        super().__init__()
        self.clusters, self.masked, self.mask = clusters, masked, mask
        self.temperature, self.epsilon, self.momentum = temperature, epsilon, momentum
        self.depth, self.width, self.smallest = depth, width, smallest

    def needs(self) -> Needs:
        return Needs(plan=one_view(smallest=self.smallest), tokens=True, hides="drop")

    def build(self, encoders: Encoders) -> None:
        encoder = encoders["encoder"]
        dim = encoder.token_dim
        position = wave_positions(encoder.grid(encoder.shape)[1], self.width or max(16, dim // 2))
        self.predictor = TokenDecoder(dim, dim, position, depth=self.depth)
        self.guesses = Prototypes(dim, self.clusters)
        self.sorted_by = Prototypes(dim, self.clusters)
        self.teacher = Teacher({"encoder": encoder})

    def forward(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        encoder, view = encoders["encoder"], batch[VIEWS].data[:, 0]  # (B, C, *space)
        tokens = encoder.embed(view)
        noise = clock.noise("mask", batch.p, (tokens.values.shape[1],)).to(view.device)
        hidden = hidden_cells(self.mask, noise, self.masked, tokens.grid)
        seen, _ = encoder.context(keep(tokens, hidden))
        whole = put_back(seen)
        told = self.guesses(self.predictor(whole, hidden, getattr(seen, "prefix", None)))
        with torch.no_grad():
            places = self.teacher["encoder"](view).tokens
        return {"z": encoder.pool(seen), "place": self.sorted_by(places.detach()), "told": told, "hidden": hidden}

    def loss(self, outputs: Outputs, clock: Clock) -> Terms:
        target = self.balanced(outputs["place"])
        sorting = -(target * log_shares(outputs["place"], temperature=self.temperature)).sum(-1)
        guesses = -(target * log_shares(outputs["told"], temperature=self.temperature)).sum(-1)
        hidden = outputs["hidden"].to(guesses.dtype)
        rows = (guesses * hidden).sum(1) / hidden.sum(1)
        return {"clusters": (sorting.sum(), sorting.numel()), "places": (rows.sum(), len(rows))}

    @torch.no_grad()
    def balanced(self, place: Tensor) -> Tensor:
        """(b, N, K) shares of this rank's places, each cluster as heavy as any other over the global batch."""
        everywhere = gather(place.detach())
        start = rank() * place.shape[0] * place.shape[1]
        codes = sinkhorn(everywhere.flatten(0, 1), epsilon=self.epsilon)
        return codes[start:][: place.shape[0] * place.shape[1]].unflatten(0, place.shape[:2])

    def after_step(self, outputs: Outputs, clock: Clock) -> None:
        self.teacher.follow(rising(self.momentum, clock.fraction))

    def groups(self, encoders: Encoders) -> dict[str, dict[str, Any]]:
        return {"guesses.": {"weight_decay": 0.0}, "sorted_by.": {"weight_decay": 0.0, "rate": 0.5}}
