"""W-MSE: views agree after the batch was whitened, so that they cannot all agree on one point.

Ermolov, Siarohin, Sangineto & Sebe 2021, "Whitening for Self-Supervised Representation Learning", eq. 4 to 6.

Where we depart, and why: the whole global batch is whitened at once, each view by itself, where the paper whitens
random sub-batches of 128: samples then do not depend on who shares their sub-batch, and the batch should hold at least
twice ``out_dim`` samples, as the paper's sub-batches do. ``shrink`` keeps smaller batches finite.

Costs: one Cholesky decomposition of a D x D matrix per view, in float32.
"""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor

from selftaught.methods.base import VIEWS, two_views
from selftaught.nn.batchwise import gather
from selftaught.nn.heads import each_view, projection
from selftaught.ops.losses import across_views
from selftaught.types import Batch, Clock, Encoders, Method, Needs, Outputs, Terms


class WMSE(Method):
    """``forward`` gives z (B, V, out_dim): projected views."""

    family = "non-contrastive"
    couples = True  # the batch is whitened

    def __init__(
        self,
        *,
        out_dim: Annotated[int, "in [2, inf)", "dimensions in which views are compared"] = 64,
        shrink: Annotated[float, "in [0, 1]", "share of the identity mixed into the covariance"] = 1e-3,
        hidden: Annotated[int, "in [1, inf)", "width of the projection's hidden layer"] = 1024,
        smallest: Annotated[float, "in (0, 1]", "share of the sample that a crop keeps at least"] = 0.2,
        colour: Annotated[float, "in [0, inf)", "strength of colour changes; 0.5 = the paper's"] = 0.5,
        blur: Annotated[float, "in [0, 1]", "probability of blurring a view"] = 0.0,
    ) -> None:
        super().__init__()
        self.out_dim, self.shrink, self.hidden = out_dim, shrink, hidden
        self.smallest, self.colour, self.blur = smallest, colour, blur

    def needs(self) -> Needs:
        return Needs(plan=two_views(smallest=self.smallest, colour=self.colour, blur=self.blur))

    def build(self, encoders: Encoders) -> None:
        self.projector = projection(encoders["encoder"].dim, self.hidden, self.out_dim)

    def forward(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        return {"z": each_view(batch[VIEWS].data, encoders["encoder"], self.projector)}

    def loss(self, outputs: Outputs, clock: Clock) -> Terms:
        """Squared distance of unit vectors after whitening, 2 - 2 cos: in [0, 4]. The same on every rank."""
        z = gather(outputs["z"])
        white = torch.stack([whitened(z[:, view], shrink=self.shrink) for view in range(z.shape[1])], dim=1)
        return {"distance": ((2 - 2 * across_views(white, white)).mean(), 1)}


def whitened(z: Float[Tensor, "B D"], *, shrink: float = 0.0) -> Float[Tensor, "B D"]:
    """z, centred, times W^T with W = L^-1 and L L^T its covariance (Cholesky whitening, eq. 6).

    The covariance of the result is the identity where ``shrink`` is 0; else it was (1 - shrink) S + shrink I. In
    float32 at least. Raises torch.linalg.LinAlgError where the covariance is singular and ``shrink`` is 0.
    """
    z = z.to(torch.promote_types(z.dtype, torch.float32))
    centred = z - z.mean(0)
    covariance = centred.T @ centred / (len(z) - 1)
    eye = torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
    lower = torch.linalg.cholesky((1 - shrink) * covariance + shrink * eye)
    return torch.linalg.solve_triangular(lower, centred.T, upper=False).T
