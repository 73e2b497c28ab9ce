"""VAE and beta-VAE: a sample goes through a few uncertain numbers, kept as near to plain noise as the painting allows.

Kingma & Welling 2014, "Auto-Encoding Variational Bayes", eq. 10 (the evidence lower bound with a Gaussian prior and
posterior); Higgins et al. 2017, "beta-VAE", eq. 4 (``beta`` above 1 asks for fewer, less tangled numbers).

Where we depart, and why: pixels are Gaussian about what is painted with a spread of ``spread`` of the data's own (the
paper: a learned one, or black and white pixels), which says how exact the painting must be; the bound is taken by
pixel, so that rates and weights mean the same at every size. The encoder is anybody's and gives one vector.

Costs: one view, and the decoder. Paints new samples: ``selftaught generate``.
"""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor, nn

from selftaught.methods.base import VIEWS, known, one_view
from selftaught.nn.decoder import VectorDecoder
from selftaught.ops.losses import at_least_single, squared_error
from selftaught.types import Batch, Clock, Encoders, Method, Needs, Outputs, Terms


class VAE(Method):
    """``forward`` gives z (B, latent), the means; log_variance (B, latent); back and target (B, C, *space)."""

    family = "generative"
    small_batches = True
    minimum_batch = 1

    def __init__(
        self,
        *,
        latent: Annotated[int, "in [1, inf)", "uncertain numbers that a sample goes through"] = 64,
        beta: Annotated[float, "in [0, inf)", "weight of being near to noise; 1 = the evidence lower bound"] = 1.0,
        spread: Annotated[float, "in (0, inf)", "of pixels about what is painted, in spreads of the data"] = 0.3,
        width: Annotated[int, "in [8, inf)", "features of the decoder's first stage"] = 128,
        smallest: Annotated[float, "in (0, 1]", "share of the sample that a crop keeps at least"] = 0.5,
    ) -> None:
        super().__init__()
        self.latent, self.beta, self.spread = latent, beta, spread
        self.width, self.smallest = width, smallest

    def needs(self) -> Needs:
        return Needs(plan=one_view(smallest=self.smallest))

    def build(self, encoders: Encoders) -> None:
        encoder = encoders["encoder"]
        self.enter = nn.Linear(encoder.dim, 2 * self.latent)
        self.decoder = VectorDecoder(self.latent, encoder.shape, width=self.width)

    def forward(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        view = batch[VIEWS].data[:, 0]  # (B, C, *space)
        mean, log_variance = self.posterior(encoders["encoder"](view).pooled)
        noise = clock.noise("latent", batch.p, (self.latent,)).to(mean)
        drawn = mean + (log_variance / 2).exp() * noise
        return {"z": mean, "log_variance": log_variance, "back": self.decoder(drawn), "target": view, **known(batch)}

    def posterior(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance; the latter in [-10, 10], beyond which neither noise nor painting changes."""
        mean, log_variance = at_least_single(self.enter(pooled)).chunk(2, dim=1)
        return mean, 10 * torch.tanh(log_variance / 10)

    def energy(self, outputs: Outputs, clock: Clock) -> Tensor:
        """Minus the evidence lower bound by pixel, without constants."""
        return self.painting(outputs) + self.divergence(outputs)

    def painting(self, outputs: Outputs) -> Tensor:
        return squared_error(outputs["back"], outputs["target"], outputs.get("observed")) / (2 * self.spread**2)

    def divergence(self, outputs: Outputs) -> Tensor:
        """By pixel, so that it weighs against ``painting`` as in the bound."""
        return divergence(outputs["z"], outputs["log_variance"]) / outputs["target"][0].numel()

    def loss(self, outputs: Outputs, clock: Clock) -> Terms:
        painting, divergence = self.painting(outputs), self.divergence(outputs)
        count = len(painting)
        return {"painting": (painting.sum(), count), "divergence": (self.beta * divergence.sum(), count)}

    def show(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        """Input, what came back, two steps on the way to the next sample, and a sample out of noise."""
        view = batch[VIEWS].data[:, 0]
        mean, _ = self.posterior(encoders["encoder"](view).pooled)
        steps = {
            name: self.decoder(mean.lerp(mean.roll(-1, 0), at)) for name, at in (("1/3 to next", 1 / 3), ("2/3", 2 / 3))
        }
        return {"input": view, "back": self.decoder(mean), **steps, "new": self.generate(encoders, batch.p, clock)}

    def generate(self, encoders: Encoders, p: Tensor, clock: Clock) -> Tensor:
        weight = self.enter.weight
        return self.decoder(clock.noise("generate", p, (self.latent,)).to(weight))


def divergence(mean: Float[Tensor, "B D"], log_variance: Float[Tensor, "B D"]) -> Float[Tensor, " B"]:
    """Of N(mean, variance) from N(0, 1), summed over dimensions (Kingma & Welling, appendix B), in [0, inf)."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
