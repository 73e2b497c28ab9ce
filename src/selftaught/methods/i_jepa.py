"""I-JEPA: from what the encoder makes of a part of a sample, what a teacher makes of other parts is to be told.

Assran, Duval, Misra, Bojanowski, Vincent, Rabbat, LeCun & Ballas 2023, "Self-Supervised Learning from Images with a
Joint-Embedding Predictive Architecture", eq. 1: four target boxes, a context box less the targets, the squared error in
the space of features.

Where we depart, and why: one pass of the predictor tells all places at once (the paper: one for each target box), which
costs a quarter; a predictor half as wide as the encoder with 4 blocks (384 wide, 6 to 12); the teacher's features are
normalised over their dimensions, as in the paper's code; a teacher that follows at 0.99 at first (0.996), for thousands
of samples. The mean over a box's places is taken, not their sum.

Costs: one view; the student sees the context only, the teacher all of it. The encoder must be able to drop tokens.
"""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from selftaught.methods.base import VIEWS, one_view
from selftaught.nn.decoder import TokenDecoder
from selftaught.nn.teacher import Teacher, rising
from selftaught.ops.losses import at_least_single
from selftaught.ops.mask import block, block_size, uniform
from selftaught.ops.tokens import keep, put_back, wave_positions
from selftaught.types import Batch, Clock, Encoders, Method, Needs, Outputs, Terms

NARROWEST = 1e-2  # share of the grid that a context keeps at least


class IJEPA(Method):
    """``forward`` gives z (B, D), the student's pooled context; back and target (B, N, D) at every place; and weight
    (B, N), the share that each place has in the sample's loss, 0 where it is in no target box.
    """

    family = "masked prediction"

    def __init__(
        self,
        *,
        targets: Annotated[int, "in [1, 64]", "boxes that are to be told"] = 4,
        least: Annotated[float, "in (0, 1)", "share of the places that a target box takes, at least"] = 0.15,
        most: Annotated[float, "in (0, 1)", "and at most; one size for a step's boxes"] = 0.2,
        aspect: Annotated[float, "in [1, inf)", "of a target box, from 1 / aspect to aspect"] = 1.5,
        context: Annotated[
            float, "in (0, 1]", "share of the places in the context's box at least, targets included"
        ] = 0.85,
        depth: Annotated[int, "in [1, 64]", "blocks of the predictor"] = 4,
        width: Annotated[int, "in [0, inf)", "features of the predictor; 0 = half of the encoder's"] = 0,
        momentum: Annotated[float, "in [0, 1]", "how slowly the teacher follows at first; rises to 1"] = 0.99,
        smallest: Annotated[float, "in (0, 1]", "share of the sample that a crop keeps at least"] = 0.3,
    ) -> None:
        super().__init__()
        self.targets, self.least, self.most = targets, least, max(least, most)
        self.aspect, self.context = aspect, context
        self.depth, self.width, self.momentum, self.smallest = depth, width, momentum, smallest

    def needs(self) -> Needs:
        return Needs(plan=one_view(smallest=self.smallest), tokens=True, hides="drop")

    def build(self, encoders: Encoders) -> None:
        encoder = encoders["encoder"]
        dim = encoder.token_dim
        position = wave_positions(encoder.grid(encoder.shape)[1], self.width or max(16, dim // 2))
        self.predictor = TokenDecoder(dim, dim, position, depth=self.depth)
        self.teacher = Teacher({"encoder": encoder})

    def forward(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        encoder, view = encoders["encoder"], batch[VIEWS].data[:, 0]  # (B, C, *space)
        tokens = encoder.embed(view)
        boxes, hidden = self.boxes(batch.p, tokens.grid, clock)
        boxes, hidden = boxes.to(view.device), hidden.to(view.device)
        seen, _ = encoder.context(keep(tokens, hidden))
        whole = put_back(seen)
        back = self.predictor(whole, hidden, getattr(seen, "prefix", None))
        with torch.no_grad():
            target = at_least_single(self.teacher["encoder"](view).tokens)
            target = F.layer_norm(target, target.shape[-1:])
        share = boxes / boxes.sum(2, keepdim=True)  # of a place in its box
        return {"z": encoder.pool(seen), "back": back, "target": target, "weight": share.mean(1)}

    def boxes(self, p: Tensor, grid: tuple[int, ...], clock: Clock) -> tuple[Tensor, Tensor]:
        """(B, M, N) places of the target boxes, and (B, N) what the context does not see (True = hidden).

        Sizes are those of the step, places those of the sample. Where the targets leave nothing of the context's box,
        what they leave of the whole grid is the context; where that is nothing either, all but the first box.
        """
        axes = len(grid)
        sizes = uniform(clock.noise("sizes", torch.tensor([clock.step]), (3,)))[0].tolist()
        share = self.least + (self.most - self.least) * sizes[0]
        size = block_size(share, self.aspect ** (2 * sizes[1] - 1), grid)
        around = block_size(self.context + (1 - self.context) * sizes[2], 1.0, grid)
        places = clock.noise("places", p, (self.targets + 1, axes))
        boxes = torch.stack([block(places[:, box], size, grid) for box in range(self.targets)], dim=1)
        told, near = boxes.any(1), block(places[:, -1], around, grid)
        hidden = told | ~near
        fewest = max(1, round(NARROWEST * told.shape[1]))
        for wider in (told, boxes[:, 0]):
            hidden = torch.where(((~hidden).sum(1) < fewest)[:, None], wider, hidden)
        return boxes, hidden

    def energy(self, outputs: Outputs, clock: Clock) -> Tensor:
        """The error in the boxes."""
        return error(outputs["back"], outputs["target"].detach(), outputs["weight"])

    def loss(self, outputs: Outputs, clock: Clock) -> Terms:
        rows = self.energy(outputs, clock)
        return {"boxes": (rows.sum(), len(rows))}

    def after_step(self, outputs: Outputs, clock: Clock) -> None:
        self.teacher.follow(rising(self.momentum, clock.fraction))


def error(
    back: Float[Tensor, "B N D"], target: Float[Tensor, "B N D"], weight: Float[Tensor, "B N"]
) -> Float[Tensor, " B"]:
    """The mean squared error over features, over a box's places and over boxes (eq. 1), in [0, inf)."""
    far = (at_least_single(back) - at_least_single(target)).square().mean(-1)
    return (far * weight.to(far)).sum(1)
