"""Context encoder: a box is cut out of a sample, and what stood there is to be filled in.

Pathak, Krahenbuhl, Donahue, Darrell & Efros 2016, "Context Encoders: Feature Learning by Inpainting", eq. 1: the mean
squared error inside the box.

Where we depart, and why: a box of a quarter of the view anywhere in it (the paper: its centre, or blocks at random);
no adversary, which sharpens the picture: the paper learns its features without one, too.

Costs: one view, and a light decoder. The encoder must give tokens.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from selftaught.methods.base import VIEWS, asked_for, known, one_view
from selftaught.nn.decoder import MapDecoder
from selftaught.ops.losses import squared_error
from selftaught.ops.mask import block, block_size, uniform
from selftaught.ops.tokens import map_of
from selftaught.types import Batch, Clock, Encoders, Method, Needs, Outputs, Terms


class Inpainting(Method):
    """``forward`` gives back and target (B, C, *space), and hidden (B, 1, *space), True in the box."""

    family = "reconstruction"
    small_batches = True
    minimum_batch = 1

    def __init__(
        self,
        *,
        share: Annotated[float, "in (0, 1)", "of the view that the box takes"] = 0.25,
        aspect: Annotated[float, "in [1, inf)", "of the box, drawn anew each step from 1 / aspect to aspect"] = 2.0,
        width: Annotated[int, "in [8, inf)", "features of the decoder's first stage"] = 128,
        smallest: Annotated[float, "in (0, 1]", "share of the sample that a crop keeps at least"] = 0.2,
    ) -> None:
        super().__init__()
        self.share, self.aspect, self.width, self.smallest = share, aspect, width, smallest

    def needs(self) -> Needs:
        return Needs(plan=one_view(smallest=self.smallest), tokens=True)

    def build(self, encoders: Encoders) -> None:
        encoder = encoders["encoder"]
        self.decoder = MapDecoder(encoder.token_dim, encoder.shape, encoder.grid(encoder.shape)[1], width=self.width)

    def forward(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        view = batch[VIEWS].data[:, 0]  # (B, C, *space)
        hidden = self.box(view, batch.p, clock)
        found = encoders["encoder"](view.masked_fill(hidden, 0.0))
        return {"back": self.decoder(map_of(found)), "target": view, "hidden": hidden, **known(batch)}

    def box(self, view: Tensor, p: Tensor, clock: Clock) -> Tensor:
        """(B, 1, *space): the same size for all samples of a step, another place for each."""
        space = tuple(view.shape[2:])
        drawn = uniform(clock.noise("aspect", torch.tensor([clock.step]), (1,)))
        size = block_size(self.share, self.aspect ** (2 * float(drawn) - 1), space)
        places = clock.noise("box", p, (len(space),)).to(view.device)
        return block(places, size, space).view(len(view), 1, *space)

    def energy(self, outputs: Outputs, clock: Clock) -> Tensor:
        """The mean squared error in the box."""
        return squared_error(outputs["back"], outputs["target"], asked_for(outputs["hidden"], outputs))

    def loss(self, outputs: Outputs, clock: Clock) -> Terms:
        rows = self.energy(outputs, clock)
        return {"box": (rows.sum(), len(rows))}

    def show(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        outputs = self(encoders, batch, clock)
        view, hidden = outputs["target"], outputs["hidden"]
        back = torch.where(hidden, outputs["back"].to(view.dtype), view)
        return {"input": view, "seen": view.masked_fill(hidden, 0.0), "back": back}
