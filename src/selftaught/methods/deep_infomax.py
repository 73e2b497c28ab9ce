"""DeepInfoMax: the vector of a sample is to know as much as possible of its places, and of its middle layer as a whole.

Hjelm, Fedorov, Lavoie-Marchildon, Grewal, Bachman, Trischler & Bengio 2019, "Learning Deep Representations by Mutual
Information Estimation and Maximization", eq. 4 (Jensen-Shannon estimator), 6 (local) and 7 (prior matching).

Where we depart, and why: a view's vector is to know of the places of another view of the sample, as in Bachman, Hjelm
& Buchwalter 2019, "Learning Representations by Maximizing Mutual Information Across Views"; with ``views=1``, which is
the paper's, the encoder stayed below an untrained one in linear accuracy on photographs (docs/log.md), its views of a
sample far apart. Both critics are dot products after a small network each (the paper's encode-and-dot), so that every
sample of the batch serves as a negative; the global one sees the middle layer's mean rather than all of its numbers,
so that it does not grow with the input; a transformer's middle layer already sees everything, so that its places are
its patches before the first; the adversary learns in the same step as the encoder. The weights are those of the
paper's DIM(L), which does best at classifying.

Costs: two views; a batch x batch x places matrix of scores, and an adversary for the prior.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught.methods.base import VIEWS, two_views
from selftaught.nn.batchwise import gather, rank
from selftaught.nn.blocks import frozen
from selftaught.ops.losses import at_least_single
from selftaught.ops.mask import uniform
from selftaught.types import Batch, Clock, Encoders, Method, Needs, Outputs, Terms


class DeepInfoMax(Method):
    """``forward`` gives z (B, V, D), the encoder's vectors; vector and whole (B, V, out_dim), place_vector (B, V,
    out_dim) and places (B, V, N, out_dim), what the critics compare; and the adversary's scores (B, V): drawn, taken
    and fooled.
    """

    family = "mutual information"
    couples = True  # every sample is every other's negative

    def __init__(
        self,
        *,
        views: Annotated[int, "in [1, 2]", "2 = a view is to know of the other's places; 1 = of its own"] = 2,
        whole: Annotated[float, "in [0, inf)", "weight of the middle layer as a whole; alpha"] = 0.0,
        places: Annotated[float, "in [0, inf)", "weight of its places; beta"] = 1.0,
        prior: Annotated[float, "in [0, inf)", "weight of vectors looking uniform to an adversary; gamma"] = 0.1,
        layer: Annotated[int, "in [-64, -1]", "the middle layer, counted from the end"] = -2,
        hidden: Annotated[int, "in [1, inf)", "width of the critics' and the adversary's hidden layers"] = 512,
        out_dim: Annotated[int, "in [1, inf)", "dimensions in which critics compare"] = 256,
        smallest: Annotated[float, "in (0, 1]", "share of the sample that a crop keeps at least"] = 0.2,
        colour: Annotated[float, "in [0, inf)", "strength of colour changes; 1 = SimCLR's"] = 1.0,
    ) -> None:
        super().__init__()
        self.views, self.whole, self.places, self.prior, self.layer = views, whole, places, prior, layer
        self.hidden, self.out_dim, self.smallest, self.colour = hidden, out_dim, smallest, colour

    def needs(self) -> Needs:
        return Needs(
            plan=two_views(smallest=self.smallest, colour=self.colour, blur=0.0, count=self.views), tokens=True
        )

    def build(self, encoders: Encoders) -> None:
        encoder = encoders["encoder"]
        sees_all = "drop" in encoder.hides or encoder.depth < 1
        self.at = None if sees_all else max(-encoder.depth, self.layer)
        middle = _width(encoder, self.at)
        self.of_vector = _critic(encoder.dim, self.hidden, self.out_dim)
        self.of_whole = _critic(middle, self.hidden, self.out_dim)
        self.of_vector_for_places = _critic(encoder.dim, self.hidden, self.out_dim)
        self.of_places = _critic(middle, self.hidden, self.out_dim)
        self.normalise = nn.BatchNorm1d(encoder.dim, affine=False)
        layers = (nn.Linear(encoder.dim, self.hidden), nn.LeakyReLU(0.2), nn.Linear(self.hidden, self.hidden))
        self.adversary = nn.Sequential(*layers, nn.LeakyReLU(0.2), nn.Linear(self.hidden, 1))

    def forward(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        encoder, views = encoders["encoder"], batch[VIEWS].data  # (B, V, C, *space)
        tokens, middle = _with_middle(encoder, views.flatten(0, 1), self.at)
        z = encoder.pool(tokens)
        taken = self.normalise(z).sigmoid()
        drawn = uniform(clock.noise("prior", batch.p, (views.shape[1], z.shape[1]))).to(taken)
        found = {
            "z": z,
            "vector": self.of_vector(z),
            "whole": self.of_whole(middle.mean(1)),
            "place_vector": self.of_vector_for_places(z),
            "places": self.of_places(middle),
            "drawn": self.adversary(drawn.flatten(0, 1))[:, 0],
            "taken": self.adversary(taken.detach())[:, 0],
            "fooled": frozen(self.adversary)(taken)[:, 0],
        }
        return {name: value.unflatten(0, views.shape[:2]) for name, value in found.items()}

    def loss(self, outputs: Outputs, clock: Clock) -> Terms:
        terms: Terms = {}
        for name, weight, vector in (("whole", self.whole, "vector"), ("places", self.places, "place_vector")):
            if weight:
                seen = outputs[name] if name == "places" else outputs[name][:, :, None]
                rows = _across(outputs[vector], seen)
                terms[name] = (weight * rows.sum(), len(rows))
        if self.prior:
            fooled, drawn, taken = (at_least_single(outputs[name]) for name in ("fooled", "drawn", "taken"))
            terms["prior"] = (self.prior * F.softplus(-fooled).sum(), fooled.numel())
            terms["adversary"] = ((F.softplus(-drawn) + F.softplus(taken)).sum(), drawn.numel())
        return terms or {"nothing": (outputs["z"].sum() * 0, 1)}

    def groups(self, encoders: Encoders) -> dict[str, dict[str, Any]]:
        return {"adversary.": {"weight_decay": 0.0}}


def _across(vectors: Float[Tensor, "b V D"], places: Float[Tensor, "b V N D"]) -> Float[Tensor, " rows"]:
    """Each view's vector against the places of the other view, or of its own where there is one."""
    start, views = rank() * len(vectors), vectors.shape[1]
    return torch.cat(
        [jensen_shannon(vectors[:, v], gather(places[:, views - 1 - v]), start=start) for v in range(views)]
    )


def jensen_shannon(vectors: Float[Tensor, "b D"], places: Float[Tensor, "B N D"], *, start: int) -> Float[Tensor, " b"]:
    """Minus the Jensen-Shannon estimate of the mutual information of each sample and its own places (eq. 4).

    softplus(-score), mean over the sample's own places, plus softplus(score), mean over all places of all others.
    ``vectors`` are samples ``start`` to ``start + b`` of ``places``. In [0, inf); 2 log 2 where scores are 0.
    """
    vectors, places = at_least_single(vectors), at_least_single(places)
    scores = torch.einsum("bd,ond->bon", vectors, places) / vectors.shape[1] ** 0.5
    row = torch.arange(len(vectors), device=vectors.device)
    own = scores[row, start + row]  # (b, N)
    every = F.softplus(scores).sum((1, 2)) - F.softplus(own).sum(1)
    return F.softplus(-own).mean(1) + every / max(1, (places.shape[0] - 1) * places.shape[1])


def _critic(before: int, hidden: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(before, hidden), nn.ReLU(), nn.Linear(hidden, after))


def _with_middle(encoder: Any, x: Tensor, layer: int | None) -> tuple[Any, Tensor]:
    """Tokens at the end, and (B, N, D) of the middle layer; None = what ``embed`` gives."""
    start = encoder.embed(x)
    tokens, outputs = encoder.context(start, layers=() if layer is None else (layer,))
    return tokens, (outputs or [start.values])[0]


@torch.no_grad()
def _width(encoder: Any, layer: int | None) -> int:
    """Features of a layer, from one sample of zeros; batch norms stay as they are."""
    training = encoder.training
    weight = next(encoder.parameters())
    sample = torch.zeros(1, *encoder.shape, dtype=weight.dtype, device=weight.device)
    encoder.eval()
    _, middle = _with_middle(encoder, sample, layer)
    encoder.train(training)
    return middle.shape[2]
