"""data2vec: where places are hidden, the student is to tell what a teacher makes of them, averaged over its layers.

Baevski, Hsu, Xu, Babu, Gu & Auli 2022, "data2vec: A General Framework for Self-Supervised Learning in Speech, Vision
and Language", eq. 1 to 3: the teacher sees the whole of the same view; smooth L1 on its upper blocks, each normalised.

Where we depart, and why: the upper half of the layers (the paper: 6 of 12 for pictures), one layer where layers have
grids of their own (convnets); half of the cells hidden, in patches a few cells wide (60 % in blocks); a teacher that
follows at 0.99 at first and ends at 0.9999 (from 0.998), for thousands of samples rather than a million.

Costs: one view, whole, through student and teacher. The encoder must be able to replace hidden tokens.
"""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught.methods.base import VIEWS, one_view
from selftaught.nn.teacher import Teacher, rising
from selftaught.ops.losses import at_least_single
from selftaught.ops.mask import hidden_cells
from selftaught.types import Batch, Clock, Encoders, Method, Needs, Outputs, Terms


class Data2Vec(Method):
    """``forward`` gives z (B, D), the student's pooled view; back and target (B, N, D), every place; hidden (B, N)."""

    family = "masked prediction"

    def __init__(
        self,
        *,
        masked: Annotated[float, "in (0, 1)", "share of the places that are hidden"] = 0.5,
        mask: Annotated[str, "one of random, patches, grid", "which: anywhere, in patches, evenly"] = "patches",
        layers: Annotated[float, "in (0, 1]", "share of the teacher's layers that are averaged, the last ones"] = 0.5,
        beta: Annotated[float, "in (0, inf)", "error up to which the loss is square, then straight"] = 2.0,
        momentum: Annotated[float, "in [0, 1]", "how slowly the teacher follows at first; rises to 0.9999"] = 0.99,
        smallest: Annotated[float, "in (0, 1]", "share of the sample that a crop keeps at least"] = 0.2,
    ) -> None:
        super().__init__()
        self.masked, self.mask, self.layers, self.beta = masked, mask, layers, beta
        self.momentum, self.smallest = momentum, smallest

    def needs(self) -> Needs:
        return Needs(plan=one_view(smallest=self.smallest), tokens=True, hides="replace")

    def build(self, encoders: Encoders) -> None:
        encoder = encoders["encoder"]
        encoder.learn_mask()
        alike = "drop" in encoder.hides and encoder.depth > 0  # transformers: all layers on one grid, alike wide
        self.averaged = tuple(range(-max(1, round(self.layers * encoder.depth)), 0)) if alike else ()
        self.head = nn.Linear(encoder.token_dim, encoder.token_dim)
        self.teacher = Teacher({"encoder": encoder})

    def forward(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        encoder, view = encoders["encoder"], batch[VIEWS].data[:, 0]  # (B, C, *space)
        target = self.averaged_layers(view)
        noise = clock.noise("mask", batch.p, (target.shape[1],)).to(view.device)
        hidden = hidden_cells(self.mask, noise, self.masked, encoder.grid(view.shape[1:])[1])
        tokens, _ = encoder.context(encoder.embed(view), hidden=hidden)
        return {"z": encoder.pool(tokens), "back": self.head(tokens.values), "target": target, "hidden": hidden}

    @torch.no_grad()
    def averaged_layers(self, view: Tensor) -> Tensor:
        """(B, N, D): the mean of the teacher's upper layers, each place of each normalised over its features."""
        teacher = self.teacher["encoder"]
        tokens, outputs = teacher.context(teacher.embed(view), layers=self.averaged)
        found = [at_least_single(one) for one in outputs or [tokens.values]]
        return torch.stack([F.layer_norm(one, one.shape[-1:]) for one in found]).mean(0)

    def energy(self, outputs: Outputs, clock: Clock) -> Tensor:
        """The error at hidden places."""
        return error(outputs["back"], outputs["target"].detach(), outputs["hidden"], beta=self.beta)

    def loss(self, outputs: Outputs, clock: Clock) -> Terms:
        rows = self.energy(outputs, clock)
        return {"places": (rows.sum(), len(rows))}

    def after_step(self, outputs: Outputs, clock: Clock) -> None:
        self.teacher.follow(rising(self.momentum, clock.fraction, max(self.momentum, 0.9999)))


def error(
    back: Float[Tensor, "B N D"], target: Float[Tensor, "B N D"], hidden: Bool[Tensor, "B N"], *, beta: float
) -> Float[Tensor, " B"]:
    """Smooth L1 over a sample's hidden places (eq. 3): d^2 / (2 beta) up to a distance ``beta``, then d - beta / 2."""
    far = F.smooth_l1_loss(at_least_single(back), at_least_single(target), beta=beta, reduction="none").mean(-1)
    return (far * hidden).sum(1) / hidden.sum(1)
