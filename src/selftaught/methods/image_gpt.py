"""Image GPT: patch after patch, the encoder is to tell the colours of the next one from those before it.

Chen, Radford, Child, Wu, Jun, Luan & Sutskever 2020, "Generative Pretraining from Pixels", section 2 (the
autoregressive objective): the cross-entropy of colours out of a palette, which is made by sorting the data's own
colours (k-means), on a sample of few cells.

Where we depart, and why: the encoder reads patches, as it will afterwards, not single cells, whose number a transformer
pays for squared; so the cells of a patch are told at once, from the patches before it, by a head of one hidden layer. A
start of random length may be seen by all (El-Nouby et al. 2024, AIM), so that the encoder can later look both ways. The
palette is sorted as the training goes; in a series a "colour" is what all channels read at one moment.

Costs: one view, all of it. The encoder must be a transformer that can be told who looks at whom.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught.methods.base import VIEWS, known, one_view
from selftaught.nn.codebook import Codebook
from selftaught.nn.decoder import ADAPTIVE_POOLS
from selftaught.ops.losses import at_least_single, mean_where
from selftaught.ops.mask import after_a_start
from selftaught.ops.tokens import cell_widths, cells, from_cells, to_tokens
from selftaught.types import Batch, Clock, Encoders, Method, Needs, Outputs, Terms


class ImageGPT(Method):
    """``forward`` gives scores (B, N, M, K): from each patch, which of K colours each of the next one's M cells has;
    colour (B, N, M), which a patch's own cells truly have; told (B, N), from which patches it was asked; place
    (B, N, M, C), the cells.
    """

    family = "predictive coding"
    small_batches = True
    minimum_batch = 1

    def __init__(
        self,
        *,
        colours: Annotated[int, "in [2, inf)", "of the palette"] = 64,
        side: Annotated[int, "in [1, inf)", "cells of a patch along each axis, at most"] = 4,
        hidden: Annotated[int, "in [0, inf)", "width of the head's hidden layer; 0 = four times the encoder's"] = 0,
        decay: Annotated[float, "in [0, 1)", "how slowly colours follow the cells that have them"] = 0.99,
        smallest: Annotated[float, "in (0, 1]", "share of the sample that a crop keeps at least"] = 0.4,
    ) -> None:
        super().__init__()
        self.colours, self.side, self.hidden, self.decay, self.smallest = colours, side, hidden, decay, smallest

    def needs(self) -> Needs:
        return Needs(plan=one_view(smallest=self.smallest), tokens=True, hides="drop")

    def build(self, encoders: Encoders) -> None:
        encoder = encoders["encoder"]
        dim = encoder.token_dim
        self.widths = cell_widths(encoder.shape[1:], encoder.grid(encoder.shape)[1])
        self.sides = [min(self.side, width) for width in self.widths]
        self.palette = Codebook(self.colours, encoder.shape[0])
        width, across = self.hidden or 4 * dim, math.prod(self.sides)
        self.head = nn.Sequential(nn.Linear(dim, width), nn.GELU(), nn.Linear(width, across * self.colours))

    def forward(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        encoder, view = encoders["encoder"], batch[VIEWS].data[:, 0]  # (B, C, *space)
        tokens = encoder.embed(view)
        noise = clock.noise("start", batch.p, (1,))[:, 0].to(view.device)
        may, told = after_a_start(noise, tokens.values.shape[1])
        seen, _ = encoder.context(tokens, attend=may)
        scores = self.head(seen.values).unflatten(2, (-1, self.colours))
        place = self.coarse(view, tokens.grid)
        whole = {name: self.coarse(one.to(view), tokens.grid).amin(3) == 1 for name, one in known(batch).items()}
        return {"scores": scores, "colour": self.palette.nearest(place), "told": told, "place": place, **whole}

    def coarse(self, view: Tensor, grid: tuple[int, ...]) -> Tensor:
        """(B, N, M, C): each patch as a few cells, the means of what they cover."""
        patches = cells(view, grid).unflatten(2, (*self.widths, view.shape[1]))
        few = ADAPTIVE_POOLS[len(grid)](patches.flatten(0, 1).movedim(-1, 1), self.sides)  # type: ignore[arg-type]
        return to_tokens(few).unflatten(0, (len(view), -1))

    def energy(self, outputs: Outputs, clock: Clock) -> Tensor:
        """The mean cross-entropy over the cells that were to be told, in [0, inf)."""
        scores, following = at_least_single(outputs["scores"][:, :-1]), outputs["colour"][:, 1:]
        rows = F.cross_entropy(scores.flatten(0, 2), following.flatten(), reduction="none").view(following.shape)
        asked = outputs["told"][:, :-1, None]
        return mean_where(rows, asked & outputs["observed"][:, 1:] if "observed" in outputs else asked)

    def loss(self, outputs: Outputs, clock: Clock) -> Terms:
        rows = self.energy(outputs, clock)
        return {"next": (rows.sum(), len(rows))}

    def after_step(self, outputs: Outputs, clock: Clock) -> None:
        place, colour = outputs["place"].flatten(1, 2), outputs["colour"].flatten(1)
        self.palette.follow(place, colour, decay=self.decay, first=clock.step == 0)

    def show(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        """The sample in colours of the palette, what was seen of it from the start, and each later patch as told from
        those before it (the mean of what it may be).
        """
        view, outputs = batch[VIEWS].data[:, 0], self(encoders, batch, clock)
        true, told = self.palette(outputs["colour"]), outputs["told"].roll(1, 1)[..., None, None]
        back = (outputs["scores"].float().softmax(-1) @ self.palette.words).roll(1, 1)
        shown = {"palette": true, "start": true.masked_fill(told, 0.0), "told": torch.where(told, back, true)}
        return {"input": view, **{name: self._painted(each, view) for name, each in shown.items()}}

    def _painted(self, colours: Tensor, view: Tensor) -> Tensor:
        """(B, N, M, C) -> (B, C, *space)."""
        space = view.shape[2:]
        grid = [-(-size // width) for size, width in zip(space, self.widths, strict=True)]
        coarse = [side * count for side, count in zip(self.sides, grid, strict=True)]
        whole = [width * count for width, count in zip(self.widths, grid, strict=True)]
        painted = F.interpolate(from_cells(colours.flatten(2), grid, (view.shape[1], *coarse)), whole)
        return painted[(slice(None), slice(None), *(slice(size) for size in space))]
