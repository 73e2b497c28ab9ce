"""SupCon: views of samples with the same label belong together, and so do the views of one sample without any label.

Khosla, Teterwak, Wang, Sarna, Tian, Isola, Maschinot, Liu & Krishnan 2020, "Supervised Contrastive Learning", eq. 2
(L_out).

Where we depart, and why: a sample without a label has its own views for positives alone, so that a few labels among
many samples serve (with none at all this is SimCLR); crops keep 20 % at least, as in all our contrastive methods.

Costs: two views, one pass; needs labels (``--labels``), of the training samples only. A large batch has more positives.
"""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Float, Int
from torch import Tensor

from selftaught.errors import MethodError
from selftaught.methods.base import VIEWS, two_views
from selftaught.nn.batchwise import gather, rank
from selftaught.nn.heads import each_view, projection
from selftaught.ops.losses import unit
from selftaught.ops.similarity import log_sum_exp
from selftaught.types import Batch, Clock, Encoders, Method, Needs, Outputs, Terms


class SupCon(Method):
    """``forward`` gives z (B, V, out_dim), projected views, and label (B,) int64, -1 = none."""

    family = "contrastive"
    couples = True  # every sample is another's positive or negative

    def __init__(
        self,
        *,
        temperature: Annotated[float, "in (0, inf)", "softness of the comparison; lower = harder negatives"] = 0.1,
        hidden: Annotated[int, "in [0, inf)", "width of the projection's hidden layer; 0 = the encoder's"] = 0,
        out_dim: Annotated[int, "in [1, inf)", "dimensions in which views are compared"] = 128,
        smallest: Annotated[float, "in (0, 1]", "share of the sample that a crop keeps at least"] = 0.2,
        colour: Annotated[float, "in [0, inf)", "strength of colour changes; 0.5 = the paper's"] = 0.5,
    ) -> None:
        super().__init__()
        self.temperature, self.hidden, self.out_dim = temperature, hidden, out_dim
        self.smallest, self.colour = smallest, colour

    def needs(self) -> Needs:
        return Needs(plan=two_views(smallest=self.smallest, colour=self.colour), labels=True)

    def build(self, encoders: Encoders) -> None:
        dim = encoders["encoder"].dim
        self.head = projection(dim, self.hidden or dim, self.out_dim)

    def forward(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        if batch.target is None:
            raise MethodError("SupCon learns from labels, and there are none.", hint="Give --labels.")
        return {"z": each_view(batch[VIEWS].data, encoders["encoder"], self.head), "label": batch.target.long()}

    def loss(self, outputs: Outputs, clock: Clock) -> Terms:
        z, label = outputs["z"], outputs["label"]
        rows = same_label_contrast(
            z, gather(z), label, gather(label), start=rank() * len(z), temperature=self.temperature
        )
        return {"contrast": (rows.sum(), rows.numel())}


def same_label_contrast(
    local: Float[Tensor, "b V D"],
    gathered: Float[Tensor, "B V D"],
    label: Int[Tensor, " b"],
    labels: Int[Tensor, " B"],
    *,
    start: int,
    temperature: float,
) -> Float[Tensor, "b V"]:
    """Minus the mean log-share of an anchor's positives among all other views (eq. 2), in [0, inf).

    ``local`` are samples ``start`` to ``start + b`` of ``gathered``. Positives: the other views of the sample, and all
    views of samples with the same label, -1 being no label.
    """
    local, gathered = unit(local), unit(gathered)
    b, views, _ = local.shape
    itself = torch.arange(b * views, device=local.device)[:, None] + start * views
    every = log_sum_exp(local.flatten(0, 1), gathered.flatten(0, 1), scale=1 / temperature, skip=itself)
    alone = -1 - torch.arange(len(labels), device=labels.device)  # a sample without a label is a kind of its own
    kinds, kind = torch.where(labels >= 0, labels, alone).unique(return_inverse=True)
    sums = gathered.new_zeros(len(kinds), gathered.shape[2]).index_add(0, kind, gathered.sum(1))
    own = kind[start : start + b]
    positives = torch.bincount(kind, minlength=len(kinds))[own] * views - 1
    agreement = (local * sums[own][:, None]).sum(-1) - local.square().sum(-1)  # (b, V), itself taken out
    return every.view(b, views) - agreement / temperature / positives[:, None]
