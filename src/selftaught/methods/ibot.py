"""iBOT: DINO on whole views, and the same for places: what the teacher makes of a place that the student cannot see.

Zhou, Wei, Wang, Shen, Xie, Yuille & Kong 2022, "iBOT: Image BERT Pre-Training with Online Tokenizer", eq. 1 to 3.

Where we depart, and why: 1,024 prototypes for both, in one head (the paper: 8,192); hidden places form patches made
from smoothed noise, with exactly the share that was drawn (the paper draws rectangles until there are enough); four
small views (10), a teacher that follows at 0.99 at first (0.996), for thousands of samples rather than a million. The
teacher's temperatures stay as they are (the paper raises them). Batch norm in the head (the paper's has none).

Costs: as DINO, and prototypes for up to half of the places. The encoder must be able to replace hidden tokens.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import torch

from selftaught.methods.base import SMALL, VIEWS, multi_crop
from selftaught.nn.centre import Centre
from selftaught.nn.heads import Bottleneck, Prototypes, each_view
from selftaught.nn.teacher import Teacher, rising
from selftaught.ops.losses import log_shares, swapped
from selftaught.ops.mask import patches_in_some, picked
from selftaught.types import Batch, Clock, Encoders, Method, Needs, Outputs, Photometry, Terms


class IBOT(Method):
    """``forward`` gives, of all views, z (B, V, bottleneck) and scores (B, V, K); of the teacher's large ones target
    (B, 2, K); of up to M places that may be hidden place and place_target (B, 2, M, K), and hidden (B, 2, M).
    """

    family = "self-distillation"

    def __init__(
        self,
        *,
        prototypes: Annotated[int, "in [2, inf)", "directions that views and places are sorted into"] = 1024,
        temperature: Annotated[float, "in (0, inf)", "softness of the student"] = 0.1,
        teacher_temperature: Annotated[
            float, "in (0, inf)", "softness of the teacher on views; lower = sharper"
        ] = 0.04,
        place_temperature: Annotated[float, "in (0, inf)", "softness of the teacher on places"] = 0.07,
        centre_momentum: Annotated[float, "in [0, 1)", "how slowly the centres follow"] = 0.9,
        momentum: Annotated[float, "in [0, 1]", "how slowly the teacher follows at first; rises to 1"] = 0.99,
        places: Annotated[float, "in [0, inf)", "weight of places against views"] = 1.0,
        masked: Annotated[float, "in (0, 1]", "share of the large views in which places are hidden"] = 0.5,
        least: Annotated[float, "in (0, 1)", "share of the places that are hidden there, at least"] = 0.1,
        most: Annotated[float, "in (0, 1)", "and at most"] = 0.5,
        hidden: Annotated[int, "in [1, inf)", "width of the head's hidden layers"] = 1024,
        bottleneck: Annotated[int, "in [1, inf)", "dimensions of the prototypes"] = 256,
        norm: Annotated[bool, "", "batch norm in the head; the paper's has none"] = True,
        small: Annotated[int, "in [0, 64]", "small views besides the two large ones"] = 4,
        smallest: Annotated[float, "in (0, 1]", "share of the sample that a large view keeps at least"] = 0.25,
        colour: Annotated[float, "in [0, inf)", "strength of colour changes; 0.5 = the paper's"] = 0.5,
        head_first: Annotated[float, "in [0, 1)", "share of the run in which prototypes stay as they are"] = 0.01,
    ) -> None:
        super().__init__()
        self.count, self.temperature, self.teacher_temperature = prototypes, temperature, teacher_temperature
        self.place_temperature, self.centre_momentum, self.momentum = place_temperature, centre_momentum, momentum
        self.weight, self.masked, self.least, self.most = places, masked, least, max(least, most)
        self.hidden, self.bottleneck, self.norm, self.head_first = hidden, bottleneck, norm, head_first
        self.small, self.smallest, self.colour = small, smallest, colour

    def needs(self) -> Needs:
        large = Photometry(colour=self.colour, blur=1.0), Photometry(colour=self.colour, blur=0.1, solarise=0.2)
        plan = multi_crop(small=self.small, smallest=self.smallest, colour=self.colour, large=large)
        return Needs(plan=plan, tokens=True, hides="replace")

    def build(self, encoders: Encoders) -> None:
        encoder = encoders["encoder"]
        encoder.learn_mask()
        self.head = Bottleneck(encoder.dim, self.hidden, self.bottleneck, norm=self.norm)
        self.prototypes = Prototypes(self.bottleneck, self.count)
        self.teacher = Teacher({"encoder": encoder, "head": self.head, "prototypes": self.prototypes})
        self.centre, self.place_centre = Centre(self.count), Centre(self.count)

    def forward(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        encoder, large = encoders["encoder"], batch[VIEWS].data
        shape, flat = large.shape[:2], large.flatten(0, 1)
        grid = encoder.grid(flat.shape[1:])[1]
        noise = clock.noise("mask", batch.p, (shape[1], math.prod(grid) + 2)).to(flat.device).flatten(0, 1)
        hidden = patches_in_some(noise, grid, some=self.masked, low=self.least, high=self.most)  # (B 2, N)
        tokens, _ = encoder.context(encoder.embed(flat), hidden=hidden)
        z = [self.head(encoder.pool(tokens)).unflatten(0, shape)]
        if self.small:
            z.append(each_view(batch[SMALL].data, encoder, self.head))
        most = max(1, round(self.most * hidden.shape[1]))
        where = hidden.byte().argsort(dim=1, descending=True, stable=True)[:, :most]
        with torch.no_grad():
            seen = self.teacher["encoder"](flat)
            target = self.teacher["prototypes"](self.teacher["head"](seen.pooled)).unflatten(0, shape)
            theirs = self.teacher["prototypes"](self.teacher["head"](picked(seen.tokens, where)))
        ours = self.prototypes(self.head(picked(tokens.values, where)))
        everything = torch.cat(z, dim=1)
        return {
            "z": everything,
            "scores": self.prototypes(everything),
            "target": target,
            "place": ours.unflatten(0, shape),
            "place_target": theirs.unflatten(0, shape),
            "hidden": hidden.gather(1, where).unflatten(0, shape),
        }

    def loss(self, outputs: Outputs, clock: Clock) -> Terms:
        target = self.centre.sharpen(outputs["target"].detach(), temperature=self.teacher_temperature)
        rows = swapped(outputs["scores"], target, temperature=self.temperature)
        views = (rows.sum(), len(rows) * 2 * (outputs["scores"].shape[1] - 1))
        target = self.place_centre.sharpen(outputs["place_target"].detach(), temperature=self.place_temperature)
        loss = -(target * log_shares(outputs["place"], temperature=self.temperature)).sum(-1)  # (b, 2, M)
        hidden = outputs["hidden"].to(loss.dtype)
        rows = (loss * hidden).sum(-1) / hidden.sum(-1).clamp(min=1)
        return {"views": views, "places": (self.weight * rows.sum(), hidden.any(-1).sum())}

    def after_step(self, outputs: Outputs, clock: Clock) -> None:
        self.centre.follow(outputs["target"], momentum=self.centre_momentum)
        self.place_centre.follow(outputs["place_target"], momentum=self.centre_momentum, weight=outputs["hidden"])
        self.teacher.follow(rising(self.momentum, clock.fraction))

    def groups(self, encoders: Encoders) -> dict[str, dict[str, Any]]:
        return {"prototypes.": {"frozen_until": self.head_first}}
