"""Autoencoder: a sample goes through a few numbers and is to come back.

Hinton & Salakhutdinov 2006, "Reducing the Dimensionality of Data with Neural Networks": the mean squared error, with
noise of the input left out (that is ``denoising``).

Where we depart, and why: the encoder is anybody's and gives one vector, from which a linear layer makes the code; the
decoder is a light convnet; nothing is learned layer by layer. The view that is to come back is a crop.

Costs: one view, and the decoder. Numbers that serve to paint a sample are not those that tell kinds apart: expect less
than from methods that compare views, and look at ``--method.code`` first.
"""

from __future__ import annotations

from typing import Annotated

from torch import Tensor, nn

from selftaught.methods.base import VIEWS, known, one_view
from selftaught.nn.decoder import VectorDecoder
from selftaught.ops.losses import squared_error
from selftaught.types import Batch, Clock, Encoders, Method, Needs, Outputs, Terms


class Autoencoder(Method):
    """``forward`` gives z (B, code), the numbers; back and target (B, C, *space)."""

    family = "reconstruction"
    small_batches = True
    minimum_batch = 1

    def __init__(
        self,
        *,
        code: Annotated[int, "in [1, inf)", "numbers that a sample goes through"] = 128,
        width: Annotated[int, "in [8, inf)", "features of the decoder's first stage"] = 128,
        smallest: Annotated[float, "in (0, 1]", "share of the sample that a crop keeps at least"] = 0.5,
    ) -> None:
        super().__init__()
        self.code, self.width, self.smallest = code, width, smallest

    def needs(self) -> Needs:
        return Needs(plan=one_view(smallest=self.smallest))

    def build(self, encoders: Encoders) -> None:
        encoder = encoders["encoder"]
        self.enter = nn.Linear(encoder.dim, self.code)
        self.decoder = VectorDecoder(self.code, encoder.shape, width=self.width)

    def forward(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        view = batch[VIEWS].data[:, 0]  # (B, C, *space)
        z = self.enter(encoders["encoder"](view).pooled)
        return {"z": z, "back": self.decoder(z), "target": view, **known(batch)}

    def energy(self, outputs: Outputs, clock: Clock) -> Tensor:
        """The mean squared error."""
        return squared_error(outputs["back"], outputs["target"], outputs.get("observed"))

    def loss(self, outputs: Outputs, clock: Clock) -> Terms:
        rows = self.energy(outputs, clock)
        return {"input": (rows.sum(), len(rows))}

    def show(self, encoders: Encoders, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        outputs = self(encoders, batch, clock)
        return {"input": outputs["target"], "back": outputs["back"]}
