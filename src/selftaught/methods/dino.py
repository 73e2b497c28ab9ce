"""DINO: small and large views predict how a teacher, who sees large ones only, sorts the sample into prototypes.

Caron, Touvron, Misra, Jegou, Mairal, Bojanowski & Joulin 2021, "Emerging Properties in Self-Supervised Vision
Transformers", eq. 1 to 4 and algorithm 1. ``centring: sinkhorn`` is DINOv2's (Oquab et al. 2023, section 4).

Where we depart, and why: 1,024 prototypes (the paper: 65,536), hidden layers of 1,024 (2,048), four small views (8 to
10), a teacher that follows at 0.99 at first (0.996): for thousands of samples rather than a million. Batch norm in the
head (the paper's has none): without it views of all samples were sorted alike within 35 steps on digits. Weight decay
and the teacher's temperature stay as they are (the paper raises them, from 0.04 to 0.4 and to 0.07).

Costs: two large views through the teacher, two large and ``small`` small ones through the student. What keeps it from
collapsing is the balance of centring and sharpening: watch the health.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor

from selftaught.methods.base import SMALL, VIEWS, multi_crop
from selftaught.nn.batchwise import gather, rank
from selftaught.nn.centre import Centre
from selftaught.nn.heads import Bottleneck, Prototypes, each_view
from selftaught.nn.teacher import Teacher, rising
from selftaught.ops.assignment import sinkhorn
from selftaught.ops.losses import swapped
from selftaught.types import Batch, Clock, Encoders, Method, Needs, Outputs, Photometry, Terms


class DINO(Method):
    """``forward`` gives z (B, V, bottleneck) and scores (B, V, K) of all views, target (B, 2, K) of the teacher."""

    family = "self-distillation"
    couples = True  # Sinkhorn balances the batch

    def __init__(
        self,
        *,
        prototypes: Annotated[int, "in [2, inf)", "directions that samples are sorted into"] = 1024,
        temperature: Annotated[float, "in (0, inf)", "softness of the student"] = 0.1,
        teacher_temperature: Annotated[float, "in (0, inf)", "softness of the teacher; lower = sharper"] = 0.04,
        centring: Annotated[str, "one of mean, sinkhorn", "what keeps prototypes in use"] = "mean",
        centre_momentum: Annotated[float, "in [0, 1)", "how slowly the centre follows"] = 0.9,
        momentum: Annotated[float, "in [0, 1]", "how slowly the teacher follows at first; rises to 1"] = 0.99,
        hidden: Annotated[int, "in [1, inf)", "width of the head's hidden layers"] = 1024,
        bottleneck: Annotated[int, "in [1, inf)", "dimensions of the prototypes"] = 256,
        norm: Annotated[bool, "", "batch norm in the head; the paper's has none"] = True,
        small: Annotated[int, "in [0, 64]", "small views besides the two large ones"] = 4,
        smallest: Annotated[float, "in (0, 1]", "share of the sample that a large view keeps at least"] = 0.25,
        colour: Annotated[float, "in [0, inf)", "strength of colour changes; 0.5 = the paper's"] = 0.5,
        head_first: Annotated[float, "in [0, 1)", "share of the run in which prototypes stay as they are"] = 0.01,
    ) -> None:
        super().__init__()
        self.count, self.temperature, self.teacher_temperature = prototypes, temperature, teacher_temperature
        self.centring, self.centre_momentum, self.momentum = centring, centre_momentum, momentum
        self.hidden, self.bottleneck, self.norm, self.head_first = hidden, bottleneck, norm, head_first
        self.small, self.smallest, self.colour = small, smallest, colour

    def needs(self) -> Needs:
        large = Photometry(colour=self.colour, blur=1.0), Photometry(colour=self.colour, blur=0.1, solarise=0.2)
        return Needs(plan=multi_crop(small=self.small, smallest=self.smallest, colour=self.colour, large=large))

    def build(self, encoders: Encoders) -> None:
        self.head = Bottleneck(encoders["encoder"].dim, self.hidden, self.bottleneck, norm=self.norm)
        self.prototypes = Prototypes(self.bottleneck, self.count)
        students = {"encoder": encoders["encoder"], "head": self.head, "prototypes": self.prototypes}
        self.teacher = Teacher(students)
        self.centre = Centre(self.count)

    def forward(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        sizes = (VIEWS, SMALL)[: 2 if self.small else 1]  # one pass for each
        z = torch.cat([each_view(batch[name].data, encoders["encoder"], self.head) for name in sizes], dim=1)
        with torch.no_grad():
            target = each_view(batch[VIEWS].data, *(self.teacher[part] for part in ("encoder", "head", "prototypes")))
        return {"z": z, "scores": self.prototypes(z), "target": target}

    def loss(self, outputs: Outputs, clock: Clock) -> Terms:
        target = self._sharpened(outputs["target"].detach())  # (b, 2, K)
        rows = swapped(outputs["scores"], target, temperature=self.temperature)
        return {"distillation": (rows.sum(), len(rows) * 2 * (outputs["scores"].shape[1] - 1))}

    def _sharpened(self, target: Tensor) -> Tensor:
        if self.centring == "mean":
            return self.centre.sharpen(target, temperature=self.teacher_temperature)
        everyone = gather(target)
        codes = [sinkhorn(everyone[:, view], epsilon=self.teacher_temperature) for view in (0, 1)]
        return torch.stack(codes, dim=1)[rank() * len(target) :][: len(target)]

    def after_step(self, outputs: Outputs, clock: Clock) -> None:
        self.centre.follow(outputs["target"], momentum=self.centre_momentum)
        self.teacher.follow(rising(self.momentum, clock.fraction))

    def groups(self, encoders: Encoders) -> dict[str, dict[str, Any]]:
        return {"prototypes.": {"frozen_until": self.head_first}}
