"""Colourisation: a picture is shown without its colour, and the colour is to be told for every place.

Zhang, Isola & Efros 2016, "Colorful Image Colorization", eq. 2 to 5: colours in Lab are sorted into classes 10 units
wide, each place's target spread over the five nearest, and rare classes weigh more.

Where we depart, and why: how frequent classes are is measured as the training goes (the paper: on ImageNet before it);
colours are told at a quarter of the view's resolution, through a light decoder; ``regression`` tells a and b themselves
by the squared error (eq. 1), to which the paper compares.

Costs: one view, and some 260 classes for a sixteenth of its pixels. The data must be colour pictures, and the encoder
must give tokens. A picture whose colours say nothing (a stain, false colours) teaches little.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from selftaught.methods.base import VIEWS, one_view
from selftaught.nn.batchwise import total
from selftaught.nn.decoder import MapDecoder
from selftaught.ops.colour import classes, mean_colour, nearest, soft, to_rgb
from selftaught.ops.losses import at_least_single, squared_error
from selftaught.ops.tokens import map_of
from selftaught.types import Batch, Clock, Encoders, Method, Needs, Outputs, Terms

SPAN = 110.0  # of a and b, about


class Colourisation(Method):
    """``forward`` gives back (B, Q, Y, X), scores of the classes, or (B, 2, Y, X), a and b by ``SPAN``; and ab
    (B, 2, Y, X), the true colours, at a quarter of the view's resolution.
    """

    family = "pretext transformations"
    small_batches = True
    minimum_batch = 1
    middles: Tensor  # (Q, 2)
    frequency: Tensor  # (Q,)

    def __init__(
        self,
        *,
        regression: Annotated[bool, "", "a and b by the squared error, instead of classes"] = False,
        uniform: Annotated[float, "in [0, 1]", "how much rare colours weigh: 0 = most, 1 = all alike; lambda"] = 0.5,
        width: Annotated[int, "in [8, inf)", "features of the decoder's first stage"] = 128,
        smallest: Annotated[float, "in (0, 1]", "share of the sample that a crop keeps at least"] = 0.2,
    ) -> None:
        super().__init__()
        self.regression, self.uniform, self.width, self.smallest = regression, uniform, width, smallest

    def needs(self) -> Needs:
        (group,) = one_view(smallest=self.smallest)
        return Needs(plan=(dataclasses.replace(group, pretext="colour"),), tokens=True)

    def build(self, encoders: Encoders) -> None:
        encoder = encoders["encoder"]
        self.register_buffer("middles", torch.from_numpy(classes().copy()))
        count = len(self.middles)
        self.register_buffer("frequency", torch.full((count,), 1 / count))
        shape = (2 if self.regression else count, *(max(1, size // 4) for size in encoder.shape[1:]))
        self.decoder = MapDecoder(encoder.token_dim, shape, encoder.grid(encoder.shape)[1], width=self.width)

    def forward(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        view = batch[VIEWS]
        found = encoders["encoder"](view.data[:, 0])
        back = self.decoder(map_of(found))
        return {"back": back, "ab": F.adaptive_avg_pool2d(colours(view.drawn["colour"][:, 0]).to(back), back.shape[2:])}

    def loss(self, outputs: Outputs, clock: Clock) -> Terms:
        back, ab = outputs["back"], at_least_single(outputs["ab"])
        if self.regression:
            rows = squared_error(back, ab / SPAN)
            return {"colour": (rows.sum(), len(rows))}
        places = ab.flatten(2).transpose(1, 2)  # (b, N, 2)
        which, share = soft(places, self.middles.to(ab))
        logs = at_least_single(back).flatten(2).transpose(1, 2).log_softmax(-1)
        weight = self.weights().to(logs)[which[..., 0]]  # of each place's nearest class
        rows = -weight * (share * logs.gather(2, which)).sum(-1)
        return {"colour": (rows.sum(), rows.numel())}

    def weights(self) -> Tensor:
        """(Q,) of the classes (eq. 4): 1 on the average over colours as frequent as they are."""
        mixed = (1 - self.uniform) * self.frequency + self.uniform / len(self.frequency)
        return 1 / mixed / (self.frequency / mixed).sum()

    @torch.no_grad()
    def after_step(self, outputs: Outputs, clock: Clock) -> None:
        """How frequent colours are: over all steps at first, then over the last hundred or so."""
        if self.regression:
            return
        found = nearest(outputs["ab"].to(self.middles), self.middles).flatten()
        counts = total(torch.bincount(found, minlength=len(self.middles)).to(self.frequency))
        self.frequency.lerp_(counts / counts.sum(), max(0.01, 1 / (clock.step + 1)))

    def show(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        """The colours told, under the true brightness."""
        outputs, truth = self(encoders, batch, clock), batch[VIEWS].drawn["colour"][:, 0]
        back = outputs["back"].float()
        told = SPAN * back if self.regression else mean_colour(back, self.middles)
        lightness = truth[..., 0].float() * 100 / 255
        wide = F.interpolate(told, lightness.shape[1:], mode="bilinear")
        seen = to_rgb(lightness, torch.zeros_like(wide))
        return {"input": to_rgb(lightness, colours(truth).to(wide)), "seen": seen, "back": to_rgb(lightness, wide)}


def colours(lab: Tensor) -> Tensor:
    """(B, Y, X, 3) uint8 Lab as OpenCV stores it -> (B, 2, Y, X) float32 a and b."""
    return lab[..., 1:].movedim(-1, 1).float() - 128
