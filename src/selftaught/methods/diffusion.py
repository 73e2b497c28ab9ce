"""Diffusion autoencoder: a small network takes noise away from a sample, and the encoder tells it what the sample is.

Preechakul, Chatthee, Wizadwongsa & Suwajanakorn 2022, "Diffusion Autoencoders: Toward a Meaningful and Decodable
Representation", eq. 6 and 7: the encoder's vector conditions a denoiser, which is trained by the squared error; samples
are made without noise on the way (Song et al. 2021, DDIM, eq. 12).

Where we depart, and why: the encoder sees another crop of the sample than the one that is spoilt (Hudson et al. 2024,
"SODA"; ``other_view`` off = the paper's own), so that it must say what the sample is, not what lies where. The denoiser
is asked for v = signal noise - spoilt sample (Salimans & Ho 2022, section 4 and appendix D), not for the noise (Ho et
al. 2020, eq. 14), which at much noise says next to nothing of the sample: an error in it is divided by the little
signal there is. A U-Net of two halvings, for small pictures; levels of noise are drawn anywhere between none and all,
along a cosine (Nichol & Dhariwal 2021, eq. 17); new samples start from a Gaussian fitted to the training's own vectors
(the paper: a second diffusion model). Little noise can be taken away without the encoder; much of it is what the
encoder is for.

Costs: two views, the encoder on one, and the U-Net, which is most of a step. ``selftaught generate`` makes new samples,
in ``steps`` passes each.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor, nn

from selftaught.methods.base import VIEWS, known, one_view
from selftaught.nn.batchwise import total
from selftaught.nn.unet import UNet
from selftaught.ops.losses import squared_error
from selftaught.ops.mask import uniform
from selftaught.types import Batch, Clock, Encoders, Method, Needs, Outputs, Terms

LEAST = 1e-3  # share of the way to all noise at which levels begin and, from the other end, stop


class Diffusion(Method):
    """``forward`` gives z (B, latent), what the denoiser is told; back and target (B, C, *space), v."""

    family = "generative"
    small_batches = True
    mean: Tensor  # (latent,) of z over the last steps
    square: Tensor  # (latent, latent) mean of z z^T

    def __init__(
        self,
        *,
        latent: Annotated[int, "in [1, inf)", "numbers that the denoiser is told of a sample"] = 128,
        width: Annotated[int, "in [4, inf)", "features of the denoiser's first stage"] = 32,
        steps: Annotated[int, "in [1, 1000]", "passes in which a sample is made"] = 20,
        other_view: Annotated[bool, "", "the encoder sees another view of the sample than the denoiser"] = True,
        smallest: Annotated[float, "in (0, 1]", "share of the sample that a crop keeps at least"] = 0.5,
    ) -> None:
        super().__init__()
        self.latent, self.width, self.steps = latent, width, steps
        self.other_view, self.smallest = other_view, smallest

    def needs(self) -> Needs:
        return Needs(plan=one_view(smallest=self.smallest, count=1 + self.other_view))

    def build(self, encoders: Encoders) -> None:
        encoder = encoders["encoder"]
        self.enter = nn.Linear(encoder.dim, self.latent)
        self.denoiser = UNet(encoder.shape, self.latent, width=self.width)
        self.register_buffer("mean", torch.zeros(self.latent))
        self.register_buffer("square", torch.eye(self.latent))

    def forward(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        views = batch[VIEWS].data  # (B, V, C, *space)
        seen, view = views[:, 0], views[:, -1]
        z = self.enter(encoders["encoder"](seen).pooled)
        level = uniform(clock.noise("level", batch.p, (1,)))[:, 0].to(view.device)
        noise = clock.noise("noise", batch.p, view.shape[1:]).to(view)
        spoilt, target = turned(view, noise, level)
        return {"z": z, "back": self.denoiser(spoilt, level, z), "target": target, **known(batch, view=-1)}

    def energy(self, outputs: Outputs, clock: Clock) -> Tensor:
        """The mean squared error of v, at the level that was drawn."""
        return squared_error(outputs["back"], outputs["target"], outputs.get("observed"))

    def loss(self, outputs: Outputs, clock: Clock) -> Terms:
        rows = self.energy(outputs, clock)
        return {"velocity": (rows.sum(), len(rows))}

    def after_step(self, outputs: Outputs, clock: Clock) -> None:
        z = outputs["z"].to(self.mean)
        sums = total(torch.cat([z.T @ z, z.sum(0)[None], z.new_full((1, self.latent), len(z))]))
        speed = max(0.01, 1 / (clock.step + 1))
        self.square.lerp_(sums[:-2] / sums[-1, 0], speed)
        self.mean.lerp_(sums[-2] / sums[-1, 0], speed)

    def made(self, z: Tensor, noise: Tensor) -> Tensor:
        """Samples (B, C, *space) out of noise and what the denoiser is told (DDIM, without noise on the way)."""
        x = noise
        levels = torch.linspace(1 - LEAST, LEAST, self.steps + 1, device=x.device)
        for now, after in zip(levels, levels[1:], strict=False):
            told = self.denoiser(x, now.expand(len(x)), z)
            signal, spoilt = shares(now)
            clean, left = signal * x - spoilt * told, spoilt * x + signal * told
            signal, spoilt = shares(after)
            x = signal * clean + spoilt * left
        return x

    def generate(self, encoders: Encoders, p: Tensor, clock: Clock) -> Tensor:
        covariance = self.square - self.mean[:, None] * self.mean + 1e-5 * torch.eye(self.latent).to(self.mean)
        values, vectors = torch.linalg.eigh(covariance)
        drawn = clock.noise("vector", p, (self.latent,)).to(self.mean)
        z = self.mean + (drawn * values.clamp(min=0).sqrt()) @ vectors.T
        shape = encoders["encoder"].shape
        return self.made(z, clock.noise("generate", p, shape).to(z))

    def show(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        """Input, two samples out of other noise that are told the same, halfway to the next, and a new one."""
        view = batch[VIEWS].data[:, 0]
        z = self.enter(encoders["encoder"](view).pooled)
        first, second = (clock.noise(name, batch.p, view.shape[1:]).to(z) for name in ("first", "second"))
        halfway = z.lerp(z.roll(-1, 0), 0.5)
        back = {"back": self.made(z, first), "again": self.made(z, second), "1/2 to next": self.made(halfway, first)}
        return {"input": view, **back, "new": self.generate(encoders, batch.p, clock)}


def shares(level: Tensor) -> tuple[Tensor, Tensor]:
    """How much of the sample and of noise there is at a level in [0, 1]: their squares sum to 1."""
    angle = level.clamp(LEAST, 1 - LEAST) * math.pi / 2
    return angle.cos(), angle.sin()


def turned(x: Tensor, noise: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
    """Samples (B, C, *space) with noise of a level (B,) each (Ho et al. 2020, eq. 4), and v, their change with it."""
    signal, spoilt = (share.view(-1, *[1] * (x.ndim - 1)).to(x) for share in shares(level))
    return signal * x + spoilt * noise, signal * noise - spoilt * x
