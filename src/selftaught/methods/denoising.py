"""Denoising autoencoder: noise is laid over a sample, more or less of it, and the sample is to come back.

Vincent, Larochelle, Lajoie, Bengio & Manzagol 2010, "Stacked Denoising Autoencoders", section 3.3: Gaussian noise, or
values set to nothing ("masking noise"); the mean squared error.

Where we depart, and why: how much noise is drawn for every sample, between two levels, so that no level has to be
right (the paper: one for all); no layer is learned by itself; the places of the encoder's grid are decoded, not one
vector, so that the encoder learns what is where rather than how to squeeze.

Costs: one view, and a light decoder. The encoder must give tokens.
"""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from selftaught.methods.base import VIEWS, known, one_view
from selftaught.nn.decoder import MapDecoder
from selftaught.ops.losses import squared_error
from selftaught.ops.mask import uniform
from selftaught.ops.tokens import map_of
from selftaught.types import Batch, Clock, Encoders, Method, Needs, Outputs, Terms


class Denoising(Method):
    """``forward`` gives noisy, back and target (B, C, *space)."""

    family = "reconstruction"
    small_batches = True
    minimum_batch = 1

    def __init__(
        self,
        *,
        low: Annotated[float, "in [0, inf)", "least noise, in standard deviations of the data"] = 0.2,
        high: Annotated[float, "in [0, inf)", "most noise"] = 1.0,
        dropped: Annotated[float, "in [0, 1)", "share of places set to the mean besides"] = 0.0,
        width: Annotated[int, "in [8, inf)", "features of the decoder's first stage"] = 128,
        smallest: Annotated[float, "in (0, 1]", "share of the sample that a crop keeps at least"] = 0.2,
    ) -> None:
        super().__init__()
        self.low, self.high, self.dropped = low, max(low, high), dropped
        self.width, self.smallest = width, smallest

    def needs(self) -> Needs:
        return Needs(plan=one_view(smallest=self.smallest), tokens=True)

    def build(self, encoders: Encoders) -> None:
        encoder = encoders["encoder"]
        self.decoder = MapDecoder(encoder.token_dim, encoder.shape, encoder.grid(encoder.shape)[1], width=self.width)

    def forward(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        view = batch[VIEWS].data[:, 0]  # (B, C, *space)
        noisy = self.spoilt(view, batch.p, clock)
        found = encoders["encoder"](noisy)
        return {"noisy": noisy, "back": self.decoder(map_of(found)), "target": view, **known(batch)}

    def spoilt(self, view: Tensor, p: Tensor, clock: Clock) -> Tensor:
        """The view under noise, of a level drawn for each sample, and with places of all channels set to 0."""
        level = self.low + (self.high - self.low) * uniform(clock.noise("level", p, (1,)))
        noise = level.view(-1, *[1] * (view.ndim - 1)) * clock.noise("noise", p, view.shape[1:])
        noisy = view + noise.to(view)
        if self.dropped:
            gone = uniform(clock.noise("dropped", p, (1, *view.shape[2:]))) < self.dropped
            noisy = noisy.masked_fill(gone.to(view.device), 0.0)
        return noisy

    def energy(self, outputs: Outputs, clock: Clock) -> Tensor:
        """The mean squared error."""
        return squared_error(outputs["back"], outputs["target"], outputs.get("observed"))

    def loss(self, outputs: Outputs, clock: Clock) -> Terms:
        rows = self.energy(outputs, clock)
        return {"input": (rows.sum(), len(rows))}

    def show(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        outputs = self(encoders, batch, clock)
        return {"input": outputs["target"], "noisy": outputs["noisy"], "back": outputs["back"]}
