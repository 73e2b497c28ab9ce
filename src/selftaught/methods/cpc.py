"""CPC: from the patches above (or before), the one some rows below is to be told from all other patches of the batch.

van den Oord, Li & Vinyals 2018, "Representation Learning with Contrastive Predictive Coding", eq. 3 and 4, on images as
in section 3.3: overlapping patches, each through the encoder by itself. ``directions=4`` asks from below and from both
sides as well, as Henaff et al. 2020, "Data-Efficient Image Recognition with Contrastive Predictive Coding" (v2).

Where we depart, and why: the context is a convolution along each row and a recurrent unit down the rows (the paper: a
masked convolutional network), which serves series and volumes as well; patches are a third of the view's side, every
sixth of it, so 5 x 5 of them (the paper: 7 x 7 of a quarter, every eighth), for small pictures; up to three rows ahead
(five). The encoder's batch norm sees all patches of the batch (the paper has none; v2 has layer norm). One context and
one set of predictions serve all directions (v2: one each).

Costs: patches overlap, so the encoder sees about 2.8 times the pixels of a view (1.7 in a series, 4.6 in a volume); one
view. The encoder must take patches of that size.
"""

from __future__ import annotations

import math
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
    """``forward`` gives z (B, N, out_dim), the patches, first axis slowest, and ahead (B, directions, steps, N,
    out_dim), what is predicted from each for the rows below it, or whichever way a direction goes.
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
        directions: Annotated[int, "in [1, 6]", "from above; 2 and below; 4 and both sides; 6 all of a volume's"] = 1,
        smallest: Annotated[float, "in (0, 1]", "share of the sample that a crop keeps at least"] = 0.5,
        colour: Annotated[float, "in [0, inf)", "strength of colour changes; 1 = SimCLR's"] = 0.5,
    ) -> None:
        super().__init__()
        self.ahead, self.temperature, self.out_dim, self.width = ahead, temperature, out_dim, context
        self.across, self.patch, self.directions = across, min(patch, across - 1), directions
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
        self.asked = min(self.directions, 2 * axes)

    def _sizes(self, space: tuple[int, ...]) -> list[tuple[int, int]]:
        """(size, stride) of a patch along each axis, whole cells."""
        strides = [max(1, side // self.across) for side in space]
        return [(min(side, self.patch * stride), stride) for side, stride in zip(space, strides, strict=True)]

    def forward(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        views = batch[VIEWS].data[:, 0]  # (B, C, *space)
        patches, grid = cut(views, self._sizes(views.shape[2:]), most=self.across - self.patch + 1)
        z = self.head(encoders["encoder"](patches.flatten(0, 1)).pooled).unflatten(0, patches.shape[:2])  # (B, N, D)
        ahead = []
        for direction in range(self.asked):
            turned, back = turns(grid, direction)
            context = self._context(z[:, turned], grid)
            ahead.append(torch.stack([step(context) for step in self.predict], dim=1)[:, :, back])
        return {"z": z, "ahead": torch.stack(ahead, dim=1)}  # (B, directions, steps, N, D)

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
        rows = self.across - self.patch + 1
        grid = (rows,) * round(math.log(n, rows))
        own = (rank() * b + torch.arange(b, device=z.device))[:, None] * n + torch.arange(n, device=z.device)
        terms: Terms = {}
        for direction in range(ahead.shape[1]):
            turned, _ = turns(grid, direction)
            for step in range(ahead.shape[2]):
                skip = (step + 1) * (n // rows)  # patches between a row and the one that is told, in the turned order
                asked = predicted[:, direction, step][:, turned[: n - skip]].flatten(0, 1)
                found = told_apart(asked, everywhere, own[:, turned[skip:]].flatten(), temperature=self.temperature)
                name = f"row_{step + 1}" if direction == 0 else f"row_{step + 1}_{direction + 1}"
                terms[name] = (found.sum() / ahead.shape[1] / ahead.shape[2], len(found))
        return terms


def turns(grid: Sequence[int], direction: int) -> tuple[Tensor, Tensor]:
    """(N,) the order in which a direction goes through a grid's places, rows first, and the way back.

    Direction 0 goes along the first axis, 1 against it, 2 along the second, and so on.
    """
    axis, against = divmod(direction, 2)
    places = torch.arange(math.prod(grid)).view(*grid).transpose(0, axis)
    order = (places.flip(0) if against else places).flatten()
    return order, order.argsort()


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
