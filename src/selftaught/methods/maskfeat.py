"""MaskFeat: some places are hidden, and which way edges run there is to be told (a histogram of oriented gradients).

Wei, Fan, Xie, Wu, Yuille & Feichtenhofer 2022, "Masked Feature Prediction for Self-Supervised Visual Pre-Training",
section 3: HOG of nine directions, normalised locally; the squared error on hidden places, through one linear layer.

Where we depart, and why: two by two histograms for each token, whatever its size (the paper: cells of 8 pixels, which
is the same at patches of 16); half of the cells hidden, in patches a few cells wide (40 % in blocks). In a series the
directions are up and down, in a volume the 13 axes through a cube's corners, edges and faces.

Costs: one view, the whole grid through the encoder; nothing else is learned but one layer. Edges forgive brightness and
colour, which pixels do not. Works with convnets too: the encoder must be able to replace hidden tokens.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn

from selftaught.methods.base import VIEWS, one_view
from selftaught.ops.gradients import drawn_edges, edge_histograms
from selftaught.ops.losses import squared_error
from selftaught.ops.mask import hidden_cells
from selftaught.ops.tokens import cells, from_cells
from selftaught.types import Batch, Clock, Encoders, Method, Needs, Outputs, Terms


class MaskFeat(Method):
    """``forward`` gives back and target (B, N, F), the histograms of every cell, and hidden (B, N)."""

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
        self.head = nn.Linear(encoder.token_dim, edge_histograms(torch.zeros(1, *encoder.shape), grid).shape[2])

    def forward(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        encoder, view = encoders["encoder"], batch[VIEWS].data[:, 0]  # (B, C, *space)
        grid = encoder.grid(view.shape[1:])[1]
        target = edge_histograms(view, grid)
        noise = clock.noise("mask", batch.p, (target.shape[1],)).to(view.device)
        hidden = hidden_cells(self.mask, noise, self.masked, grid)
        tokens, _ = encoder.context(encoder.embed(view), hidden=hidden)
        return {"back": self.head(tokens.values), "target": target, "hidden": hidden}

    def energy(self, outputs: Outputs, clock: Clock) -> Tensor:
        """The mean squared error on hidden cells."""
        return squared_error(outputs["back"], outputs["target"], outputs["hidden"][..., None])

    def loss(self, outputs: Outputs, clock: Clock) -> Terms:
        rows = self.energy(outputs, clock)
        return {"edges": (rows.sum(), len(rows))}

    def show(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        """Edges as strokes, as strong as their share."""
        view, outputs = batch[VIEWS].data[:, 0], self(encoders, batch, clock)
        grid, shape = encoders["encoder"].grid(view.shape[1:])[1], view.shape[1:]
        patches, hidden = cells(view, grid), outputs["hidden"][..., None]
        told = torch.where(hidden, outputs["back"].float(), outputs["target"].float())
        return {
            "input": view,
            "seen": from_cells(patches.masked_fill(hidden, 0.0), grid, shape),
            "edges": drawn_edges(outputs["target"].float(), grid, shape),
            "told": drawn_edges(told, grid, shape),
        }
