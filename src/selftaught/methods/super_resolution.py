"""Super-resolution: a sample is shown coarse, and the details that were averaged away are to be put back.

As a pretext: the generator's first part of Ledig et al. 2017, "Photo-Realistic Single Image Super-Resolution Using a
Generative Adversarial Network" (its features serve the discriminator there), without adversary; the mean absolute error
of Lim et al. 2017 (EDSR, section 3.2).

Where we depart, and why: the coarse view is enlarged again before it is shown, so that the encoder gets the size that
it was made for, and what is asked of the decoder is the difference, which is all that is missing.

Costs: one view, and a light decoder. The encoder must give tokens. Details are the least of what tells kinds apart:
among reconstructions this is the one for textures.
"""

from __future__ import annotations

from typing import Annotated

from torch import Tensor
from torch.nn import functional as F

from selftaught.methods.base import VIEWS, known, one_view
from selftaught.nn.decoder import ADAPTIVE_POOLS, SMOOTH, MapDecoder
from selftaught.ops.losses import absolute_error
from selftaught.ops.tokens import map_of
from selftaught.types import Batch, Clock, Encoders, Method, Needs, Outputs, Terms


class SuperResolution(Method):
    """``forward`` gives coarse, back and target (B, C, *space)."""

    family = "reconstruction"
    small_batches = True
    minimum_batch = 1

    def __init__(
        self,
        *,
        factor: Annotated[int, "in [2, 16]", "how much coarser, along each axis"] = 4,
        width: Annotated[int, "in [8, inf)", "features of the decoder's first stage"] = 128,
        smallest: Annotated[float, "in (0, 1]", "share of the sample that a crop keeps at least"] = 0.2,
    ) -> None:
        super().__init__()
        self.factor, self.width, self.smallest = factor, width, smallest

    def needs(self) -> Needs:
        return Needs(plan=one_view(smallest=self.smallest), tokens=True)

    def build(self, encoders: Encoders) -> None:
        encoder = encoders["encoder"]
        self.decoder = MapDecoder(encoder.token_dim, encoder.shape, encoder.grid(encoder.shape)[1], width=self.width)

    def forward(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        view = batch[VIEWS].data[:, 0]  # (B, C, *space)
        coarse = coarser(view, self.factor)
        found = encoders["encoder"](coarse)
        return {"coarse": coarse, "back": coarse + self.decoder(map_of(found)), "target": view, **known(batch)}

    def energy(self, outputs: Outputs, clock: Clock) -> Tensor:
        """The mean absolute error."""
        return absolute_error(outputs["back"], outputs["target"], outputs.get("observed"))

    def loss(self, outputs: Outputs, clock: Clock) -> Terms:
        rows = self.energy(outputs, clock)
        return {"details": (rows.sum(), len(rows))}

    def show(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        outputs = self(encoders, batch, clock)
        return {"input": outputs["target"], "seen": outputs["coarse"], "back": outputs["back"]}


def coarser(x: Tensor, factor: int) -> Tensor:
    """(B, C, *space) averaged over cells of ``factor`` along each axis and enlarged again, straight lines between."""
    space = x.shape[2:]
    small = ADAPTIVE_POOLS[len(space)](x, [max(1, size // factor) for size in space])
    return F.interpolate(small, tuple(space), mode=SMOOTH[len(space)])
