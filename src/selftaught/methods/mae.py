"""MAE: the encoder sees a quarter of the patches, and a light decoder is to give back the pixels of the others.

He, Chen, Xie, Li, Dollar & Girshick 2022, "Masked Autoencoders Are Scalable Vision Learners", section 3: the mean
squared error on hidden patches, each normalised by its own mean and spread.

Where we depart, and why: the decoder is half as wide as the encoder and has 4 blocks (the paper: 512 wide, 8 blocks,
which at ViT-S costs more than the encoder without any mask), its heads are 64 wide. The encoder's positions are its
own, learned ones.

Costs: the encoder works on what it sees, so a step at 75 % costs about a third of one without a mask (ViT-S). What it
learns shows late and after fine-tuning more than in neighbours. The encoder must be able to drop tokens.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from selftaught.methods.base import VIEWS, asked_for, known, one_view
from selftaught.nn.decoder import TokenDecoder
from selftaught.ops.losses import at_least_single, squared_error
from selftaught.ops.mask import hidden_cells
from selftaught.ops.tokens import FEWEST_VALUES, cells, from_cells, keep, normalised, put_back, wave_positions
from selftaught.types import Batch, Clock, Encoders, Method, Needs, Outputs, Terms


class MAE(Method):
    """``forward`` gives back (B, N, P), what the decoder makes of every patch, target (B, N, P), and hidden (B, N)."""

    family = "masked prediction"
    small_batches = True
    minimum_batch = 1

    def __init__(
        self,
        *,
        masked: Annotated[float, "in (0, 1)", "share of the patches that are hidden"] = 0.75,
        mask: Annotated[str, "one of random, patches, grid", "which: anywhere, in patches, evenly"] = "random",
        normalise: Annotated[bool, "", "each patch by its own mean and spread, if it has 8 values or more"] = True,
        depth: Annotated[int, "in [0, 64]", "blocks of the decoder"] = 4,
        width: Annotated[int, "in [0, inf)", "features of the decoder; 0 = half of the encoder's"] = 0,
        heads: Annotated[int, "in [0, 64]", "of the decoder; 0 = one for every 64 features"] = 0,
        smallest: Annotated[float, "in (0, 1]", "share of the sample that a crop keeps at least"] = 0.2,
    ) -> None:
        super().__init__()
        self.masked, self.mask, self.asked = masked, mask, normalise
        self.depth, self.width, self.heads, self.smallest = depth, width, heads, smallest

    def needs(self) -> Needs:
        return Needs(plan=one_view(smallest=self.smallest), tokens=True, hides="drop")

    def build(self, encoders: Encoders) -> None:
        encoder = encoders["encoder"]
        grid = encoder.grid(encoder.shape)[1]
        patch = cells(torch.zeros(1, *encoder.shape), grid).shape[2]
        self.normalise = self.asked and patch >= FEWEST_VALUES
        position = wave_positions(grid, self.width or max(16, encoder.token_dim // 2))
        self.decoder = TokenDecoder(encoder.token_dim, patch, position, depth=self.depth, heads=self.heads)

    def forward(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        encoder, view = encoders["encoder"], batch[VIEWS].data[:, 0]  # (B, C, *space)
        tokens = encoder.embed(view)
        noise = clock.noise("mask", batch.p, (tokens.values.shape[1],)).to(view.device)
        hidden = hidden_cells(self.mask, noise, self.masked, tokens.grid)
        seen, _ = encoder.context(keep(tokens, hidden))
        whole = put_back(seen)
        back = self.decoder(whole, hidden, getattr(seen, "prefix", None))
        return {"back": back, "target": cells(view, tokens.grid), "hidden": hidden, **known(batch, grid=tokens.grid)}

    def energy(self, outputs: Outputs, clock: Clock) -> Tensor:
        """The mean squared error on hidden patches; about 1 if normalised ones are guessed 0."""
        target, asked = at_least_single(outputs["target"]), asked_for(outputs["hidden"][..., None], outputs)
        if self.normalise:
            target, _, _ = normalised(target, outputs.get("observed"))
        return squared_error(outputs["back"], target, asked)

    def loss(self, outputs: Outputs, clock: Clock) -> Terms:
        rows = self.energy(outputs, clock)
        return {"pixels": (rows.sum(), len(rows))}

    def show(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        """What came back has the mean and the spread that the true patches have, where those were taken away."""
        view, outputs = batch[VIEWS].data[:, 0], self(encoders, batch, clock)
        target, hidden = outputs["target"].float(), outputs["hidden"][..., None]
        grid = encoders["encoder"].grid(view.shape[1:])[1]
        back = outputs["back"].float()
        if self.normalise:
            _, mean, spread = normalised(target, outputs.get("observed"))
            back = back * spread + mean
        shown = {"seen": target.masked_fill(hidden, 0.0), "back": torch.where(hidden, back, target)}
        return {"input": view, **{name: from_cells(each, grid, view.shape[1:]) for name, each in shown.items()}}
