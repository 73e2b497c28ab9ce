"""NPID: every sample is a class of its own, told from all others by what a memory bank remembers of them.

Wu, Xiong, Yu & Lin 2018, "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", eq. 2, with the
Monte Carlo normaliser of section 3.2 and the proximal term of section 3.3.

Where we depart, and why: the softmax over 4,096 drawn samples takes the place of noise-contrastive estimation against
as many (nothing to estimate, and with fewer samples than that it is eq. 2 exactly); the bank follows at 0.5 as in the
authors' code.

Costs: one view and one pass, samples x out_dim numbers of memory. Small batches will do; a sample's memory is an epoch
old when it is compared with, so it is slow to start on large data.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor

from selftaught.methods.base import VIEWS, two_views
from selftaught.nn.heads import each_view
from selftaught.nn.memory import Bank
from selftaught.ops.losses import unit
from selftaught.ops.mask import uniform
from selftaught.types import Batch, Clock, Encoders, Method, Needs, Outputs, Terms


class NPID(Method):
    """``forward`` gives z (B, 1, out_dim), one projected view, and index (B,), which sample it is of."""

    remembers = True

    family = "contrastive"

    def __init__(
        self,
        *,
        temperature: Annotated[float, "in (0, inf)", "softness of the comparison; lower = harder negatives"] = 0.07,
        negatives: Annotated[
            int, "in [1, inf)", "remembered samples to compare with; all where there are fewer"
        ] = 4096,
        momentum: Annotated[float, "in [0, 1)", "how much of what is remembered stays"] = 0.5,
        proximal: Annotated[float, "in [0, inf)", "weight of staying near what is remembered of oneself"] = 0.0,
        out_dim: Annotated[int, "in [1, inf)", "dimensions in which samples are compared"] = 128,
        smallest: Annotated[float, "in (0, 1]", "share of the sample that a crop keeps at least"] = 0.2,
        colour: Annotated[float, "in [0, inf)", "strength of colour changes; 0.5 = the paper's"] = 0.5,
    ) -> None:
        super().__init__()
        self.temperature, self.negatives, self.momentum, self.proximal = temperature, negatives, momentum, proximal
        self.out_dim, self.smallest, self.colour = out_dim, smallest, colour

    def needs(self) -> Needs:
        return Needs(plan=two_views(smallest=self.smallest, colour=self.colour, blur=0.0, count=1))

    def build(self, encoders: Encoders) -> None:
        self.head = torch.nn.Linear(encoders["encoder"].dim, self.out_dim)
        self.bank = Bank(self.samples, self.out_dim)

    def forward(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        return {"z": each_view(batch[VIEWS].data, encoders["encoder"], self.head), "index": batch.index}

    def loss(self, outputs: Outputs, clock: Clock) -> Terms:
        z, own = unit(outputs["z"][:, 0]), outputs["index"]
        bank = self.bank.vectors.to(z.dtype)
        remembered = bank[own]
        if len(bank) <= self.negatives:
            logits = z @ bank.T / self.temperature
            rows = logits.logsumexp(1)
        else:
            drawn = self._drawn(clock, len(bank), z)
            logits = (z @ bank[drawn].T / self.temperature).masked_fill(drawn == own[:, None], -torch.inf)
            others = (logits + math.log((len(bank) - 1) / self.negatives)).logsumexp(1)
            rows = torch.logaddexp(others, (z * remembered).sum(1) / self.temperature)
        terms: Terms = {"instance": ((rows - (z * remembered).sum(1) / self.temperature).sum(), len(rows))}
        if self.proximal:
            terms["proximal"] = (self.proximal * (z - remembered).square().sum(), len(rows))
        return terms

    def _drawn(self, clock: Clock, count: int, like: Tensor) -> Tensor:
        """(negatives,) rows of the bank, the same for the whole batch, drawn anew each step."""
        step = torch.tensor([clock.step], device=like.device)
        return (uniform(clock.noise("negatives", step, (self.negatives,))[0].to(like)) * count).long()

    def after_step(self, outputs: Outputs, clock: Clock) -> None:
        self.bank.put(outputs["index"], outputs["z"][:, 0], momentum=self.momentum)
