"""BiGAN: one network paints samples out of noise, the encoder goes the other way, and an adversary sees both ends.

Donahue, Krahenbuhl & Darrell 2017, "Adversarial Feature Learning", eq. 2 and 3; Dumoulin et al. 2017, "Adversarially
Learned Inference". Where no adversary can tell (sample, encoded) from (painted, noise), the encoder inverts the
painter.

Where we depart, and why: what is painted from a sample's own numbers is asked to be the sample (Li et al. 2017,
"ALICE", section 3.2, here with the squared error; ``cycle`` 0 = the paper's objective), for an adversary alone tells
a young encoder next to nothing. The hinge loss instead of the logarithm, an adversary whose layers stretch nothing
(spectral norm: Miyato et al. 2018) and learns four times as fast (two time scales: Heusel et al. 2017), as is usual
since.

Costs: one view, a painter and an adversary that sees every sample four times. Adversarial training wanders: look at
what it paints. Paints new samples: ``selftaught generate``.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught.methods.base import VIEWS, known, one_view
from selftaught.nn.blocks import frozen
from selftaught.nn.decoder import CONVOLUTIONS, VectorDecoder
from selftaught.nn.spectral import Spectral, refresh
from selftaught.ops.losses import at_least_single, squared_error
from selftaught.types import Batch, Clock, Encoders, Method, Needs, Outputs, Terms


class BiGAN(Method):
    """``forward`` gives z (B, latent), the encoded samples; what the adversary says (B,): of real and painted pairs,
    real and painted, and of the same with a gradient to encoder and painter, real_fooled and painted_fooled; cycle
    (B,), how far what is painted from z is from the sample.
    """

    family = "generative"
    small_batches = True

    def __init__(
        self,
        *,
        latent: Annotated[int, "in [1, inf)", "numbers that a sample is painted from"] = 64,
        width: Annotated[int, "in [8, inf)", "features of the painter's first stage"] = 128,
        judge: Annotated[int, "in [4, inf)", "features of the adversary's first stage"] = 32,
        judge_rate: Annotated[float, "in (0, inf)", "how fast the adversary learns, as a factor"] = 4.0,
        cycle: Annotated[float, "in [0, inf)", "weight of painting the sample from its own numbers"] = 10.0,
        smallest: Annotated[float, "in (0, 1]", "share of the sample that a crop keeps at least"] = 0.5,
    ) -> None:
        super().__init__()
        self.latent, self.width, self.smallest = latent, width, smallest
        self.judge, self.judge_rate, self.cycle = judge, judge_rate, cycle

    def needs(self) -> Needs:
        return Needs(plan=one_view(smallest=self.smallest))

    def build(self, encoders: Encoders) -> None:
        encoder = encoders["encoder"]
        self.enter = nn.Linear(encoder.dim, self.latent)
        self.painter = VectorDecoder(self.latent, encoder.shape, width=self.width)
        self.adversary = Judge(encoder.shape, self.latent, width=self.judge)

    def forward(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        view = batch[VIEWS].data[:, 0]  # (B, C, *space)
        z = self.enter(encoders["encoder"](view).pooled)
        noise = clock.noise("latent", batch.p, (self.latent,)).to(z)
        painted = self.painter(noise)
        cycle = (
            squared_error(self.painter(z), view, known(batch).get("observed")) if self.cycle else z.new_zeros(len(z))
        )
        still = frozen(self.adversary)  # as it is now: gradient to encoder and painter, not to itself
        return {
            "z": z,
            "real": self.adversary((view, z.detach())),
            "painted": self.adversary((painted.detach(), noise)),
            "real_fooled": still((view, z)),  # type: ignore[arg-type]
            "painted_fooled": still((painted, noise)),  # type: ignore[arg-type]
            "cycle": cycle,
        }

    def loss(self, outputs: Outputs, clock: Clock) -> Terms:
        said = {name: at_least_single(outputs[name]) for name in ("real", "painted", "real_fooled", "painted_fooled")}
        count = len(said["real"])
        adversary = F.relu(1 - said["real"]) + F.relu(1 + said["painted"])
        fooled = said["real_fooled"] - said["painted_fooled"]
        terms: Terms = {"adversary": (adversary.sum(), count), "fooled": (fooled.sum(), count)}
        if self.cycle:
            terms["cycle"] = (self.cycle * outputs["cycle"].sum(), count)
        return terms

    def after_step(self, outputs: Outputs, clock: Clock) -> None:
        refresh(self.adversary)

    def energy(self, outputs: Outputs, clock: Clock) -> Tensor:
        """Minus what the adversary says of the sample and its numbers: high where the pair does not look real."""
        return -at_least_single(outputs["real"])

    def show(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        view = batch[VIEWS].data[:, 0]
        z = self.enter(encoders["encoder"](view).pooled)
        halfway = self.painter(z.lerp(z.roll(-1, 0), 0.5))
        new = self.generate(encoders, batch.p, clock)
        return {"input": view, "back": self.painter(z), "1/2 to next": halfway, "new": new}

    def generate(self, encoders: Encoders, p: Tensor, clock: Clock) -> Tensor:
        return self.painter(clock.noise("generate", p, (self.latent,)).to(self.enter.weight))

    def groups(self, encoders: Encoders) -> dict[str, dict[str, Any]]:
        calm = {"betas": (0.0, 0.99), "weight_decay": 0.0}  # momentum makes the two run after each other
        return {"adversary.": {**calm, "rate": self.judge_rate}, "painter.": calm}


class Judge(nn.Module):
    """(sample (B, C, *space), numbers (B, D)) -> (B,): how real the pair looks.

    Convolutions that halve the grid down to four cells along each axis, then both ends together.
    """

    def __init__(self, shape: tuple[int, ...], latent: int, *, width: int) -> None:
        super().__init__()
        conv, space = CONVOLUTIONS[len(shape) - 1], list(shape[1:])
        layers: list[nn.Module] = []
        before, after = shape[0], width
        while max(space) > 4:
            stride: Any = tuple(2 if size > 4 else 1 for size in space)
            layers += [Spectral(conv(before, after, 3, stride=stride, padding=1)), nn.LeakyReLU(0.2)]
            space = [-(-size // step) for size, step in zip(space, stride, strict=True)]
            before, after = after, min(2 * after, 8 * width)
        self.body = nn.Sequential(*layers, nn.Flatten())
        both = Spectral(nn.Linear(before * math.prod(space) + 2 * width, 4 * width))
        self.numbers = nn.Sequential(Spectral(nn.Linear(latent, 2 * width)), nn.LeakyReLU(0.2))
        self.end = nn.Sequential(both, nn.LeakyReLU(0.2), Spectral(nn.Linear(4 * width, 1)))

    def forward(self, pair: tuple[Tensor, Tensor]) -> Tensor:
        sample, numbers = pair
        return self.end(torch.cat([self.body(sample), self.numbers(numbers)], dim=1))[:, 0]
