"""Split-brain autoencoder: some channels are to be told from the others, and those from the first.

Zhang, Isola & Efros 2017, "Split-Brain Autoencoders: Unsupervised Learning by Cross-Channel Prediction", eq. 3 and 4.

Where we depart, and why: one encoder, which is shown either half, the other half set to the mean (the paper: two
networks half as wide, side by side), so that it stays one encoder; regression (the paper compares it with
classification of colours, which is ``colourisation``); the halves of a colour picture are its brightness and its two
opponent colours, of other data every second channel.

Costs: two passes of one view, and a light decoder. The data must have two channels; the encoder must give tokens.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from selftaught.errors import MethodError, must_be
from selftaught.methods.base import VIEWS, known, one_view
from selftaught.nn.decoder import MapDecoder
from selftaught.ops.losses import squared_error
from selftaught.ops.tokens import map_of
from selftaught.types import Batch, Clock, Encoders, Method, Needs, Outputs, Terms


class SplitBrain(Method):
    """``forward`` gives, in opponent channels, back and target (B, 2, C, *space): told from the first half of the
    channels, and from the second.
    """

    family = "reconstruction"
    small_batches = True
    minimum_batch = 1
    axes: Tensor  # (C, C) orthonormal: channels -> what is split
    first: Tensor  # (C,) bool: which of them are the first half

    def __init__(
        self,
        *,
        width: Annotated[int, "in [8, inf)", "features of the decoder's first stage"] = 128,
        smallest: Annotated[float, "in (0, 1]", "share of the sample that a crop keeps at least"] = 0.2,
    ) -> None:
        super().__init__()
        self.width, self.smallest = width, smallest

    def needs(self) -> Needs:
        return Needs(plan=one_view(smallest=self.smallest), tokens=True)

    def build(self, encoders: Encoders) -> None:
        encoder = encoders["encoder"]
        channels = encoder.shape[0]
        if channels < 2:
            raise MethodError(
                must_be("modality", "SplitBrain", "of data with at least two channels", f"{channels} channel"),
                hint="With one channel, inpainting or denoising ask a like question.",
            )
        axes, first = halves(channels)
        self.register_buffer("axes", axes)
        self.register_buffer("first", first)
        self.decoder = MapDecoder(encoder.token_dim, encoder.shape, encoder.grid(encoder.shape)[1], width=self.width)

    def forward(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        view = batch[VIEWS].data[:, 0]  # (B, C, *space)
        split = torch.einsum("ij,bj...->bi...", self.axes.to(view.dtype), view)
        shown = self.shown(split)  # (B, 2, C, *space)
        found = encoders["encoder"](shown.flatten(0, 1))
        back = self.decoder(map_of(found)).unflatten(0, shown.shape[:2])
        return {"back": back, "target": split[:, None].expand_as(back), **known(batch)}

    def shown(self, split: Tensor) -> Tensor:
        """(B, 2, C, *space): either half alone, in the data's own channels."""
        first = self.first.view(-1, *[1] * (split.ndim - 2))
        both = torch.stack([split.masked_fill(~first, 0.0), split.masked_fill(first, 0.0)], dim=1)
        return torch.einsum("ji,bvj...->bvi...", self.axes.to(split.dtype), both)

    def rows(self, outputs: Outputs) -> dict[str, Tensor]:
        """(B,) the mean squared error of either half as told from the other."""
        back, target, halves = outputs["back"], outputs["target"], (("second", ~self.first), ("first", self.first))
        whole = outputs["observed"].all(1, keepdim=True) if "observed" in outputs else None  # axes mix channels
        return {
            name: squared_error(back[:, half][:, which], target[:, half][:, which], whole)
            for half, (name, which) in enumerate(halves)
        }

    def energy(self, outputs: Outputs, clock: Clock) -> Tensor:
        """The sum over both halves."""
        return torch.stack(list(self.rows(outputs).values())).sum(0)

    def loss(self, outputs: Outputs, clock: Clock) -> Terms:
        return {name: (rows.sum(), len(rows)) for name, rows in self.rows(outputs).items()}

    def show(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        """Each half and what was told from it, with the half itself put back."""
        view, outputs = batch[VIEWS].data[:, 0], self(encoders, batch, clock)
        shown = self.shown(outputs["target"][:, 0])
        first = self.first.view(1, -1, *[1] * (view.ndim - 2))
        columns: Outputs = {"input": view}
        for half, seen in enumerate((first, ~first)):
            whole = torch.where(seen, outputs["target"][:, half], outputs["back"][:, half].to(view.dtype))
            columns[f"seen {half + 1}"] = shown[:, half]
            columns[f"back {half + 1}"] = torch.einsum("ji,bj...->bi...", self.axes.to(view.dtype), whole)
        return columns


def halves(channels: int) -> tuple[Tensor, Tensor]:
    """(C, C) orthonormal axes and (C,) which of them are the first half: brightness, or every second channel."""
    if channels == 3:
        rows = torch.tensor([[1.0, 1.0, 1.0], [1.0, -1.0, 0.0], [1.0, 1.0, -2.0]])
        return rows / rows.norm(dim=1, keepdim=True), torch.tensor([True, False, False])
    return torch.eye(channels), torch.arange(channels) % 2 == 0
