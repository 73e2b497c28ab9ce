"""CPC: from the patches above (or before), the one some rows below is to be told from all other patches of the batch.

van den Oord, Li & Vinyals 2018, "Representation Learning with Contrastive Predictive Coding", eq. 3 and 4, on images as
in section 3.3: overlapping patches, each through the encoder by itself.

Where we depart, and why: the context is a convolution along each row and a recurrent unit down the rows (the paper: a
masked convolutional network), which serves series and volumes as well; patches are a third of the view's side, every
sixth of it, so 5 x 5 of them (the paper: 7 x 7 of a quarter, every eighth), for small pictures; up to three rows ahead
(five). The encoder's batch norm sees all patches of the batch (the paper has none).

Costs: patches overlap, so the encoder sees about 2.8 times the pixels of a view (1.7 in a series, 4.6 in a volume); one
view. The encoder must take patches of that size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor, nn

from selftaught.methods.base import VIEWS, two_views
from selftaught.nn.batchwise import gather, rank
from selftaught.ops.losses import told_apart, unit
from selftaught.types import Batch, Clock, Encoders, Method, Needs, Outputs, Terms

CONVOLUTIONS = {2: nn.Conv1d, 3: nn.Conv2d}  # along the axes of a row


class CPC(Method):
    """``forward`` gives z (B, N, out_dim), the patches, first axis slowest, and ahead (B, steps, N, out_dim), what is
    predicted from each for the rows below it.
    """

    family = "mutual information"
    couples = True  # negatives come from the whole batch

    def __init__(
        self,
        *,
        ahead: Annotated[int, "in [1, 16]", "rows that are predicted, at most"] = 3,
        temperature: Annotated[float, "in (0, inf)", "softness of the comparison; lower = harder negatives"] = 0.1,
        out_dim: Annotated[int, "in [1, inf)", "dimensions in which patches are compared"] = 128,
        context: Annotated[int, "in [1, inf)", "width of the context"] = 256,
        across: Annotated[int, "in [2, 32]", "strides that a view's side holds"] = 6,
        patch: Annotated[int, "in [1, 32]", "strides that a patch's side holds"] = 2,
        smallest: Annotated[float, "in (0, 1]", "share of the sample that a crop keeps at least"] = 0.5,
        colour: Annotated[float, "in [0, inf)", "strength of colour changes; 1 = SimCLR's"] = 0.5,
    ) -> None:
        super().__init__()
        self.ahead, self.temperature, self.out_dim, self.width = ahead, temperature, out_dim, context
        self.across, self.patch = across, min(patch, across - 1)
        self.smallest, self.colour = smallest, colour

    def needs(self) -> Needs:
        return Needs(plan=two_views(smallest=self.smallest, colour=self.colour, blur=0.0, count=1))

    def build(self, encoders: Encoders) -> None:
        encoder = encoders["encoder"]
        encoder.grid((encoder.shape[0], *(size for size, _ in self._sizes(encoder.shape[1:]))))  # refuses if it must
        axes = len(encoder.shape) - 1
        self.head = nn.Linear(encoder.dim, self.out_dim)
        self.row = nn.Identity() if axes == 1 else CONVOLUTIONS[axes](self.out_dim, self.out_dim, 3, padding=1)
        self.down = nn.GRU(self.out_dim, self.width, batch_first=True)
        rows = self.across - self.patch + 1
        self.predict = nn.ModuleList(nn.Linear(self.width, self.out_dim) for _ in range(min(self.ahead, rows - 1)))

    def _sizes(self, space: tuple[int, ...]) -> list[tuple[int, int]]:
        """(size, stride) of a patch along each axis, whole cells."""
        strides = [max(1, side // self.across) for side in space]
        return [(min(side, self.patch * stride), stride) for side, stride in zip(space, strides, strict=True)]

    def forward(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        views = batch[VIEWS].data[:, 0]  # (B, C, *space)
        patches, grid = cut(views, self._sizes(views.shape[2:]), most=self.across - self.patch + 1)
        z = self.head(encoders["encoder"](patches.flatten(0, 1)).pooled).unflatten(0, patches.shape[:2])  # (B, N, D)
        context = self._context(z, grid)
        return {"z": z, "ahead": torch.stack([step(context) for step in self.predict], dim=1)}

    def _context(self, z: Tensor, grid: Sequence[int]) -> Tensor:
        """(B, N, width): what is known at each patch from its row and those above."""
        b, n, dim = z.shape
        rows = z.view(b * grid[0], n // grid[0], dim)
        if len(grid) > 1:
            rows = self.row(rows.transpose(1, 2).unflatten(2, grid[1:])).flatten(2).transpose(1, 2)
        columns = rows.reshape(b, grid[0], n // grid[0], dim).transpose(1, 2).flatten(0, 1)
        down = self.down(columns)[0].unflatten(0, (b, n // grid[0]))
        return down.transpose(1, 2).flatten(1, 2)

    def loss(self, outputs: Outputs, clock: Clock) -> Terms:
        z, ahead = outputs["z"], outputs["ahead"]
        b, n, _ = z.shape
        everywhere = unit(gather(z)).flatten(0, 1)  # (B N, D)
        predicted = unit(ahead)
        columns = n // (self.across - self.patch + 1)
        own = (rank() * b + torch.arange(b, device=z.device))[:, None] * n + torch.arange(n, device=z.device)
        terms: Terms = {}
        for step in range(predicted.shape[1]):
            skip = (step + 1) * columns
            asked = predicted[:, step, : n - skip].flatten(0, 1)
            rows = told_apart(asked, everywhere, own[:, skip:].flatten(), temperature=self.temperature)
            terms[f"row_{step + 1}"] = (rows.sum() / predicted.shape[1], len(rows))
        return terms


def cut(
    views: Float[Tensor, "B C *space"], sizes: list[tuple[int, int]], *, most: int
) -> tuple[Float[Tensor, "B N C *patch"], tuple[int, ...]]:
    """Patches of (size, stride) along each axis, the first ``most`` along each, and their grid; no copy until used."""
    patches = views
    for axis, (size, stride) in enumerate(sizes):
        patches = patches.unfold(2 + axis, size, stride).narrow(2 + axis, 0, most)
    axes = len(sizes)
    grid = tuple(patches.shape[2 : 2 + axes])
    order = (0, *range(2, 2 + axes), 1, *range(2 + axes, 2 + 2 * axes))
    return patches.permute(order).flatten(1, axes), grid
