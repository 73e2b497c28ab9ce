"""AIM: patch after patch, the encoder is to tell the pixels of the next one from those before it.

El-Nouby, Klein, Zhai, Bautista, Toshev, Shankar, Susskind & Joulin 2024, "Scalable Pre-training of Large Autoregressive
Image Models", eq. 2 and section 3.2: the squared error on patches normalised by themselves, in raster order, and a
start of random length that all patches may see, so that the encoder can later look both ways. After Chen et al. 2020
(image GPT), which tells single pixels out of a palette.

Where we depart, and why: a head of one hidden layer (the paper: 12 blocks), for encoders of millions rather than
billions of weights; a class token is kept apart and tells nothing.

Costs: one view, all of it. What it learns shows late, as with all methods that give pixels back. The encoder must be a
transformer that can be told who looks at whom.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn

from selftaught.methods.base import VIEWS, asked_for, known, one_view
from selftaught.ops.losses import at_least_single, squared_error
from selftaught.ops.mask import after_a_start
from selftaught.ops.tokens import FEWEST_VALUES, cells, from_cells, normalised
from selftaught.types import Batch, Clock, Encoders, Method, Needs, Outputs, Terms


class AIM(Method):
    """``forward`` gives back and target (B, N, P): from each patch what the next one is, and what it truly is (the last
    one's is nothing); told (B, N), from which patches it was asked.
    """

    family = "predictive coding"
    small_batches = True
    minimum_batch = 1

    def __init__(
        self,
        *,
        normalise: Annotated[bool, "", "each patch by its own mean and spread, if it has 8 values or more"] = True,
        hidden: Annotated[int, "in [0, inf)", "width of the head's hidden layer; 0 = four times the encoder's"] = 0,
        smallest: Annotated[float, "in (0, 1]", "share of the sample that a crop keeps at least"] = 0.4,
    ) -> None:
        super().__init__()
        self.asked, self.hidden, self.smallest = normalise, hidden, smallest

    def needs(self) -> Needs:
        return Needs(plan=one_view(smallest=self.smallest), tokens=True, hides="drop")

    def build(self, encoders: Encoders) -> None:
        encoder = encoders["encoder"]
        dim = encoder.token_dim
        patch = cells(torch.zeros(1, *encoder.shape), encoder.grid(encoder.shape)[1]).shape[2]
        self.normalise = self.asked and patch >= FEWEST_VALUES
        width = self.hidden or 4 * dim
        self.head = nn.Sequential(nn.Linear(dim, width), nn.GELU(), nn.Linear(width, patch))

    def forward(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        encoder, view = encoders["encoder"], batch[VIEWS].data[:, 0]  # (B, C, *space)
        tokens = encoder.embed(view)
        noise = clock.noise("start", batch.p, (1,))[:, 0].to(view.device)
        may, told = after_a_start(noise, tokens.values.shape[1])
        seen, _ = encoder.context(tokens, attend=may)
        true = {"target": cells(view, tokens.grid), **known(batch, grid=tokens.grid)}
        following = {name: torch.cat([one[:, 1:], torch.zeros_like(one[:, :1])], dim=1) for name, one in true.items()}
        return {"back": self.head(seen.values), "told": told, **following}

    def energy(self, outputs: Outputs, clock: Clock) -> Tensor:
        """The mean squared error over the patches that were to be told."""
        target, asked = at_least_single(outputs["target"]), asked_for(outputs["told"][..., None], outputs)
        if self.normalise:
            target, _, _ = normalised(target, outputs.get("observed"))
        return squared_error(outputs["back"], target, asked)

    def loss(self, outputs: Outputs, clock: Clock) -> Terms:
        rows = self.energy(outputs, clock)
        return {"next": (rows.sum(), len(rows))}

    def show(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        """What was seen from the start, and each later patch as told from those before it."""
        view, outputs = batch[VIEWS].data[:, 0], self(encoders, batch, clock)
        grid = encoders["encoder"].grid(view.shape[1:])[1]
        target = cells(view, grid).float()
        back, told = (outputs[name].roll(1, 1) for name in ("back", "told"))
        back = back.float()
        if self.normalise:
            _, mean, spread = normalised(target, known(batch, grid=grid).get("observed"))
            back = back * spread + mean
        shown = {"start": target.masked_fill(told[..., None], 0.0), "told": torch.where(told[..., None], back, target)}
        return {"input": view, **{name: from_cells(each, grid, view.shape[1:]) for name, each in shown.items()}}
