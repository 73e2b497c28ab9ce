"""VICRegL: VICReg on whole views, and on places that match: those nearest in the sample and those nearest in kind.

Bardes, Ponce & LeCun 2022, "VICRegL: Self-Supervised Learning of Local Visual Features", eq. 1 to 6.

Where we depart, and why: two views without small ones; widths of 1,024 (the paper: 2,048 to 8,192 and 512 for places);
each direction keeps the 20 best matches, as the paper's text says (its code keeps 20 one way and 4 the other). The
covariance term is the mean over the two views, as in the code of this paper, and not their sum as in VICReg's.

Costs: two views, one pass, places x places distances for each sample, wide projections.
"""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from selftaught.methods.base import VIEWS, two_views
from selftaught.nn.batchwise import gather
from selftaught.nn.heads import each_view, projection
from selftaught.types import Batch, Clock, Encoders, Method, Needs, Outputs, Terms


class VICRegL(Method):
    """``forward`` gives z (B, 2, out_dim), whole views, dense (B, 2, N, dense_dim), their places, and where (B, 2, N,
    axes), the centres of these in the sample, in [0, 1].
    """

    family = "non-contrastive"
    couples = True  # variance and covariance are those of the batch

    def __init__(
        self,
        *,
        whole: Annotated[float, "in [0, 1]", "weight of whole views against places; alpha"] = 0.75,
        invariance: Annotated[float, "in [0, inf)", "weight of matches being equal"] = 25.0,
        variance: Annotated[float, "in [0, inf)", "weight of every dimension being in use"] = 25.0,
        covariance: Annotated[float, "in [0, inf)", "weight of dimensions being uncorrelated"] = 1.0,
        matches: Annotated[int, "in [1, inf)", "pairs of places that are kept; all where there are fewer"] = 20,
        hidden: Annotated[int, "in [1, inf)", "width of the projections' hidden layers"] = 1024,
        out_dim: Annotated[int, "in [1, inf)", "dimensions in which whole views are compared"] = 1024,
        dense_dim: Annotated[int, "in [1, inf)", "dimensions in which places are compared"] = 256,
        smallest: Annotated[float, "in (0, 1]", "share of the sample that a crop keeps at least"] = 0.2,
        colour: Annotated[float, "in [0, inf)", "strength of colour changes; 0.5 = the paper's"] = 0.5,
    ) -> None:
        super().__init__()
        self.whole, self.matches = whole, matches
        self.weights = {"invariance": invariance, "variance": variance, "covariance": covariance}
        self.hidden, self.out_dim, self.dense_dim = hidden, out_dim, dense_dim
        self.smallest, self.colour = smallest, colour

    def needs(self) -> Needs:
        return Needs(plan=two_views(smallest=self.smallest, colour=self.colour), tokens=True)

    def build(self, encoders: Encoders) -> None:
        encoder = encoders["encoder"]
        self.expander = projection(encoder.dim, self.hidden, self.out_dim, layers=3)
        self.places = projection(encoder.token_dim, self.hidden, self.dense_dim, layers=2)

    def forward(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        stream = batch[VIEWS]
        views: Tensor = stream.data  # (B, 2, C, *space)
        seen = encoders["encoder"](views.flatten(0, 1))
        assert seen.tokens is not None
        z = self.expander(seen.pooled).unflatten(0, views.shape[:2])
        tokens = seen.tokens.unflatten(0, views.shape[:2])  # (B, 2, N, D)
        dense = each_view(tokens.flatten(0, 1), self.places).unflatten(0, views.shape[:2])
        where = centres(stream.drawn["box"].to(dense), stream.drawn["flip"], seen.grid)
        return {"z": z, "dense": dense, "where": where}

    def loss(self, outputs: Outputs, clock: Clock) -> Terms:
        z, dense, where = (gather(outputs[name]) for name in ("z", "dense", "where"))
        z, dense = (each.to(torch.promote_types(each.dtype, torch.float32)) for each in (z, dense))
        terms = {name: (self.whole * value, 1) for name, value in self._weighed(z[:, 0, None], z[:, 1, None]).items()}
        for a, b in ((0, 1), (1, 0)):
            far = {"place": torch.cdist(where[:, a], where[:, b]), "kind": torch.cdist(dense[:, a], dense[:, b])}
            for name, distance in far.items():
                one, other = best_pairs(dense[:, a], dense[:, b], distance.detach(), keep=self.matches)
                value = torch.stack(list(self._weighed(one, other).values())).sum()
                before = terms[name][0] if name in terms else 0.0
                terms[name] = (before + (1 - self.whole) * value / 2, 1)
        return terms  # type: ignore[return-value]

    def _weighed(self, a: Tensor, b: Tensor) -> dict[str, Tensor]:
        found = matched_terms(a, b)
        return {name: self.weights[name] * value for name, value in found.items()}


def centres(box: Float[Tensor, "B V L"], flip: Tensor, grid: tuple[int, ...]) -> Float[Tensor, "B V N axes"]:
    """Where the cells of a view's ``grid`` lie in the sample, in [0, 1] of it along each axis.

    ``box``: lower ends, then upper ends, of the view; ``flip`` (B, V): whether its last axis is mirrored.
    """
    axes = len(grid)
    steps = [(torch.arange(size, device=box.device, dtype=box.dtype) + 0.5) / size for size in grid]
    cells = torch.stack(torch.meshgrid(*steps, indexing="ij"), dim=-1).flatten(0, -2)  # (N, axes)
    cells = cells.expand(*box.shape[:2], -1, -1)
    mirrored = torch.cat([cells[..., :-1], 1 - cells[..., -1:]], dim=-1)
    cells = torch.where(flip.bool()[:, :, None, None], mirrored, cells)
    low, high = box[..., :axes, None].mT, box[..., axes:, None].mT  # (B, V, 1, axes)
    return low + cells * (high - low)


def best_pairs(
    a: Float[Tensor, "B N D"], b: Float[Tensor, "B M D"], distance: Float[Tensor, "B N M"], *, keep: int
) -> tuple[Float[Tensor, "B K D"], Float[Tensor, "B K D"]]:
    """The ``keep`` places of ``a`` whose nearest one in ``b`` is nearest, and these, nearest pairs first."""
    nearest = distance.min(2)
    rows = nearest.values.topk(min(keep, a.shape[1]), dim=1, largest=False).indices  # (B, K)
    columns = nearest.indices.gather(1, rows)
    one, other = (x.gather(1, i[..., None].expand(-1, -1, x.shape[2])) for x, i in ((a, rows), (b, columns)))
    return one, other


def matched_terms(a: Float[Tensor, "B K D"], b: Float[Tensor, "B K D"], *, eps: float = 1e-4) -> dict[str, Tensor]:
    """VICReg's three terms of K pairs a sample, each statistic taken over the batch, pair by pair. Unweighted."""
    batch, _, dim = a.shape
    variance, covariance = [], []
    for x in (a, b):
        centred = x - x.mean(0)
        variance.append(F.relu(1 - (centred.square().sum(0) / (batch - 1) + eps).sqrt()).mean())
        moments = torch.einsum("bkd,bke->kde", centred, centred) / (batch - 1)
        off = moments.square().sum((1, 2)) - moments.diagonal(dim1=1, dim2=2).square().sum(1)
        covariance.append(off.mean() / dim)
    invariance = (a - b).square().mean()
    return {
        "invariance": invariance,
        "variance": torch.stack(variance).mean(),
        "covariance": torch.stack(covariance).mean(),
    }
