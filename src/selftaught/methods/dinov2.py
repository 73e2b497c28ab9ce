"""DINOv2: DINO on views and iBOT on places with heads of their own, Sinkhorn targets, and embeddings spread out.

Oquab, Darcet, Moutakanni et al. 2023, "DINOv2: Learning Robust Visual Features without Supervision", section 4. The
regulariser is that of Sablayrolles, Douze, Schmid & Jegou 2019, "Spreading Vectors for Similarity Search" (KoLeo).
The last stage at high resolution is a second run: ``--from RUN --modality.size 96 --epochs 10``.

Where we depart, and why: 1,024 prototypes in each head (the paper: 65,536 and 131,072), four small views (8), patches
made from smoothed noise (rectangles), a teacher that follows at 0.99 at first (0.992): for thousands of samples rather
than 142 million. KoLeo is taken over the samples of all ranks, not rank by rank. Batch norm in the heads
(none). Registers are the encoder's: ``--encoder.registers 4``.

Costs: as iBOT, and a matrix of similarities of the batch. The encoder must be able to replace hidden tokens.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import torch
from jaxtyping import Float
from torch import Tensor

from selftaught.methods.base import SMALL, VIEWS, multi_crop
from selftaught.nn.batchwise import gather, rank
from selftaught.nn.heads import Bottleneck, Prototypes, each_view
from selftaught.nn.teacher import Teacher, rising
from selftaught.ops.assignment import sinkhorn
from selftaught.ops.losses import log_shares, swapped, unit
from selftaught.ops.mask import patches_in_some, picked
from selftaught.types import Batch, Clock, Encoders, Method, Needs, Outputs, Photometry, Terms


class DINOv2(Method):
    """``forward`` gives, of all views, z (B, V, bottleneck) and scores (B, V, K); of large ones pooled (B, 2, D) and
    the teacher's target (B, 2, K); of up to M places that may be hidden place and place_target (B, 2, M, K), and hidden
    (B, 2, M), which are.
    """

    family = "self-distillation"
    couples = True  # Sinkhorn and KoLeo look at the whole batch

    def __init__(
        self,
        *,
        prototypes: Annotated[
            int, "in [2, inf)", "directions that views, and as many that places, are sorted into"
        ] = 1024,
        temperature: Annotated[float, "in (0, inf)", "softness of the student"] = 0.1,
        teacher_temperature: Annotated[float, "in (0, inf)", "softness of the teacher; lower = sharper"] = 0.05,
        momentum: Annotated[float, "in [0, 1]", "how slowly the teacher follows at first; rises to 1"] = 0.99,
        places: Annotated[float, "in [0, inf)", "weight of places against views"] = 1.0,
        koleo: Annotated[float, "in [0, inf)", "weight of embeddings keeping their distance"] = 0.1,
        masked: Annotated[float, "in (0, 1]", "share of the large views in which places are hidden"] = 0.5,
        least: Annotated[float, "in (0, 1)", "share of the places that are hidden there, at least"] = 0.1,
        most: Annotated[float, "in (0, 1)", "and at most"] = 0.5,
        hidden: Annotated[int, "in [1, inf)", "width of the heads' hidden layers"] = 1024,
        bottleneck: Annotated[int, "in [1, inf)", "dimensions of the prototypes"] = 256,
        norm: Annotated[bool, "", "batch norm in the head; the paper's has none"] = True,
        small: Annotated[int, "in [0, 64]", "small views besides the two large ones"] = 4,
        smallest: Annotated[float, "in (0, 1]", "share of the sample that a large view keeps at least"] = 0.32,
        colour: Annotated[float, "in [0, inf)", "strength of colour changes; 0.5 = the paper's"] = 0.5,
        head_first: Annotated[float, "in [0, 1)", "share of the run in which prototypes stay as they are"] = 0.01,
    ) -> None:
        super().__init__()
        self.count, self.temperature, self.teacher_temperature = prototypes, temperature, teacher_temperature
        self.momentum, self.weight, self.koleo_weight = momentum, places, koleo
        self.masked, self.least, self.most = masked, least, max(least, most)
        self.hidden, self.bottleneck, self.norm, self.head_first = hidden, bottleneck, norm, head_first
        self.small, self.smallest, self.colour = small, smallest, colour

    def needs(self) -> Needs:
        large = Photometry(colour=self.colour, blur=1.0), Photometry(colour=self.colour, blur=0.1, solarise=0.2)
        plan = multi_crop(small=self.small, smallest=self.smallest, colour=self.colour, large=large)
        return Needs(plan=plan, tokens=True, hides="replace")

    def build(self, encoders: Encoders) -> None:
        encoder = encoders["encoder"]
        encoder.learn_mask()
        self.heads = torch.nn.ModuleDict()
        for name, dim in (("view", encoder.dim), ("place", encoder.token_dim)):
            prototypes = Prototypes(self.bottleneck, self.count)
            self.heads[name] = torch.nn.Sequential(
                Bottleneck(dim, self.hidden, self.bottleneck, norm=self.norm), prototypes
            )
        self.teacher = Teacher({"encoder": encoder, "heads": self.heads})

    def forward(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        encoder, large = encoders["encoder"], batch[VIEWS].data
        shape, flat = large.shape[:2], large.flatten(0, 1)
        grid = encoder.grid(flat.shape[1:])[1]
        noise = clock.noise("mask", batch.p, (shape[1], math.prod(grid) + 2)).to(flat.device).flatten(0, 1)
        hidden = patches_in_some(noise, grid, some=self.masked, low=self.least, high=self.most)  # (B 2, N)
        tokens, _ = encoder.context(encoder.embed(flat), hidden=hidden)
        pooled = encoder.pool(tokens).unflatten(0, shape)
        small = [each_view(batch[SMALL].data, encoder)] if self.small else []
        head, prototypes = self.heads["view"]  # type: ignore[misc]
        z = each_view(torch.cat([pooled, *small], dim=1), head)
        most = max(1, round(self.most * hidden.shape[1]))
        where = hidden.byte().argsort(dim=1, descending=True, stable=True)[:, :most]
        with torch.no_grad():
            seen = self.teacher["encoder"](flat)
            target = self.teacher["heads"]["view"](seen.pooled).unflatten(0, shape)
            theirs = self.teacher["heads"]["place"](picked(seen.tokens, where)).unflatten(0, shape)
        return {
            "z": z,
            "scores": prototypes(z),
            "pooled": pooled,
            "target": target,
            "place": self.heads["place"](picked(tokens.values, where)).unflatten(0, shape),
            "place_target": theirs,
            "hidden": hidden.gather(1, where).unflatten(0, shape),
        }

    def loss(self, outputs: Outputs, clock: Clock) -> Terms:
        scores, target = outputs["scores"], outputs["target"].detach()
        own = slice(rank() * len(target), (rank() + 1) * len(target))
        everyone = gather(target)
        codes = [sinkhorn(everyone[:, view], epsilon=self.teacher_temperature)[own] for view in (0, 1)]
        rows = swapped(scores, torch.stack(codes, dim=1), temperature=self.temperature)
        terms: Terms = {"views": (rows.sum(), len(rows) * 2 * (scores.shape[1] - 1))}
        terms["places"] = self._places(outputs, own)
        if self.koleo_weight:
            pooled = gather(outputs["pooled"])
            spread = torch.stack([koleo(pooled[:, view]) for view in (0, 1)]).sum(0)[own]
            terms["koleo"] = (self.koleo_weight * spread.sum(), len(spread))
        return terms

    def _places(self, outputs: Outputs, own: slice) -> tuple[Tensor, Tensor]:
        """Cross-entropy at the hidden places, mean over those of a view, with its number of views that have any."""
        hidden, everywhere = outputs["hidden"], gather(outputs["hidden"])
        codes = outputs["place_target"].new_zeros(everywhere.shape + (self.count,))
        codes = codes.to(torch.promote_types(codes.dtype, torch.float32))
        if everywhere.any():
            codes[everywhere] = sinkhorn(
                gather(outputs["place_target"].detach())[everywhere], epsilon=self.teacher_temperature
            ).to(codes.dtype)
        loss = -(codes[own] * log_shares(outputs["place"], temperature=self.temperature)).sum(-1)  # (b, 2, M)
        weight = hidden.to(loss.dtype)
        rows = (loss * weight).sum(-1) / weight.sum(-1).clamp(min=1)
        return self.weight * rows.sum(), hidden.any(-1).sum()

    def after_step(self, outputs: Outputs, clock: Clock) -> None:
        self.teacher.follow(rising(self.momentum, clock.fraction))

    def groups(self, encoders: Encoders) -> dict[str, dict[str, Any]]:
        return {f"heads.{name}.1.": {"frozen_until": self.head_first} for name in ("view", "place")}


def koleo(x: Float[Tensor, "B D"], *, eps: float = 1e-8) -> Float[Tensor, " B"]:
    """Minus the logarithm of the distance to the nearest other sample, on the unit sphere; in [-log 2, inf)."""
    x = unit(x)
    with torch.no_grad():
        similarity = x @ x.T
        similarity.fill_diagonal_(-2)
        nearest = similarity.argmax(1)
    return -((x - x[nearest]).square().sum(1) + eps**2).sqrt().add(eps).log()
