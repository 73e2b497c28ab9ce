"""SimMIM: some patches are replaced by a learned vector, and one linear layer is to give back their pixels.

Xie, Zhang, Cao, Lin, Bao, Yao, Dai & Hu 2022, "SimMIM: A Simple Framework for Masked Image Modeling", section 3: the
mean absolute error on hidden pixels.

Where we depart, and why: half of the cells are hidden, in patches a few cells wide (the paper: 60 % of squares of 32
pixels), for grids of few cells. Convnets see the mask vector behind their stem, whose neighbours still show a hidden
cell's border.

Costs: one view, the whole grid through the encoder; nothing else is learned but one layer. Works with convnets too: the
encoder must be able to replace hidden tokens.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn

from selftaught.methods.base import VIEWS, asked_for, known, one_view
from selftaught.ops.losses import absolute_error
from selftaught.ops.mask import hidden_cells
from selftaught.ops.tokens import cells, from_cells
from selftaught.types import Batch, Clock, Encoders, Method, Needs, Outputs, Terms


class SimMIM(Method):
    """``forward`` gives back and target (B, N, P), the pixels of every cell of the grid, and hidden (B, N)."""

    family = "masked prediction"
    small_batches = True
    minimum_batch = 1

    def __init__(
        self,
        *,
        masked: Annotated[float, "in (0, 1)", "share of the cells that are hidden"] = 0.5,
        mask: Annotated[str, "one of random, patches, grid", "which: anywhere, in patches, evenly"] = "patches",
        smallest: Annotated[float, "in (0, 1]", "share of the sample that a crop keeps at least"] = 0.2,
    ) -> None:
        super().__init__()
        self.masked, self.mask, self.smallest = masked, mask, smallest

    def needs(self) -> Needs:
        return Needs(plan=one_view(smallest=self.smallest), tokens=True, hides="replace")

    def build(self, encoders: Encoders) -> None:
        encoder = encoders["encoder"]
        encoder.learn_mask()
        grid = encoder.grid(encoder.shape)[1]
        self.head = nn.Linear(encoder.token_dim, cells(torch.zeros(1, *encoder.shape), grid).shape[2])

    def forward(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        encoder, view = encoders["encoder"], batch[VIEWS].data[:, 0]  # (B, C, *space)
        grid = encoder.grid(view.shape[1:])[1]
        target = cells(view, grid)
        noise = clock.noise("mask", batch.p, (target.shape[1],)).to(view.device)
        hidden = hidden_cells(self.mask, noise, self.masked, grid)
        tokens, _ = encoder.context(encoder.embed(view), hidden=hidden)
        return {"back": self.head(tokens.values), "target": target, "hidden": hidden, **known(batch, grid=grid)}

    def energy(self, outputs: Outputs, clock: Clock) -> Tensor:
        """The mean absolute error on hidden cells."""
        asked = asked_for(outputs["hidden"][..., None], outputs)
        return absolute_error(outputs["back"], outputs["target"], asked)

    def loss(self, outputs: Outputs, clock: Clock) -> Terms:
        rows = self.energy(outputs, clock)
        return {"pixels": (rows.sum(), len(rows))}

    def show(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        view, outputs = batch[VIEWS].data[:, 0], self(encoders, batch, clock)
        target, hidden = outputs["target"].float(), outputs["hidden"][..., None]
        shown = {"seen": target.masked_fill(hidden, 0.0), "back": torch.where(hidden, outputs["back"].float(), target)}
        grid = encoders["encoder"].grid(view.shape[1:])[1]
        return {"input": view, **{name: from_cells(each, grid, view.shape[1:]) for name, each in shown.items()}}
