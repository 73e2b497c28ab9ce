"""ReSSL: a strongly changed view should be as similar to earlier samples as the teacher finds a weakly changed one.

Zheng, You, Wang, Qian, Zhang, Wang & Xu 2021, "ReSSL: Relational Self-Supervised Learning with Weak Augmentation",
eq. 3 to 5.

Where we depart, and why: the queue holds 4,096 samples (the paper: 131,072) and the teacher follows at 0.99 (0.999 on
ImageNet, 0.99 on small data), for thousands of samples rather than a million.

Costs: one view through each network, a second copy of the encoder, queue x out_dim numbers. Small batches will do.
"""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor

from selftaught.methods.base import VIEWS
from selftaught.nn.heads import projection
from selftaught.nn.memory import Queue
from selftaught.nn.teacher import Teacher
from selftaught.ops.losses import unit
from selftaught.types import Batch, Clock, Encoders, Geometry, Method, Needs, Outputs, Photometry, Terms, ViewGroup


class ReSSL(Method):
    """``forward`` gives z (B, 1, out_dim), the strongly changed view, and key (B, out_dim), the teacher's weak one."""

    family = "contrastive"

    def __init__(
        self,
        *,
        temperature: Annotated[float, "in (0, inf)", "softness of the student's similarities"] = 0.1,
        teacher_temperature: Annotated[float, "in (0, inf)", "softness of the teacher's; sharper than that"] = 0.04,
        queue: Annotated[int, "in [1, inf)", "earlier samples to be similar to"] = 4096,
        momentum: Annotated[float, "in [0, 1]", "how slowly the teacher follows"] = 0.99,
        hidden: Annotated[int, "in [1, inf)", "width of the projection's hidden layer"] = 1024,
        out_dim: Annotated[int, "in [1, inf)", "dimensions in which views are compared"] = 256,
        smallest: Annotated[float, "in (0, 1]", "share of the sample that a crop keeps at least"] = 0.2,
        colour: Annotated[
            float, "in [0, inf)", "strength of the strong view's colour changes; 0.5 = the paper's"
        ] = 0.5,
    ) -> None:
        super().__init__()
        self.temperature, self.teacher_temperature = temperature, teacher_temperature
        self.queue_size, self.momentum, self.hidden, self.out_dim = queue, momentum, hidden, out_dim
        self.smallest, self.colour = smallest, colour

    def needs(self) -> Needs:
        weak = Photometry(colour=0.0, gray=0.0, blur=0.0, noise=0.0)
        lights = (Photometry(colour=self.colour), weak)
        return Needs(plan=(ViewGroup(VIEWS, 2, 1.0, Geometry(scale=(self.smallest, 1.0)), lights),))

    def build(self, encoders: Encoders) -> None:
        self.head = projection(encoders["encoder"].dim, self.hidden, self.out_dim)
        self.teacher = Teacher({"encoder": encoders["encoder"], "head": self.head})
        self.queue = Queue(self.queue_size, self.out_dim)

    def forward(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        views: Tensor = batch[VIEWS].data  # (B, 2, C, *space): strong, weak
        z = self.head(encoders["encoder"](views[:, 0]).pooled)
        with torch.no_grad():
            key = self.teacher["head"](self.teacher["encoder"](views[:, 1]).pooled)
        return {"z": z[:, None], "key": key}

    def loss(self, outputs: Outputs, clock: Clock) -> Terms:
        z, key = unit(outputs["z"][:, 0]), unit(outputs["key"].detach())
        queue = self.queue.vectors.to(z.dtype)
        rows = relation(z, key, queue, student=self.temperature, teacher=self.teacher_temperature)
        return {"relation": (rows.sum(), len(rows))}

    def after_step(self, outputs: Outputs, clock: Clock) -> None:
        self.teacher.follow(self.momentum)
        self.queue.push(outputs["key"])


def relation(
    z: Float[Tensor, "b D"],
    key: Float[Tensor, "b D"],
    others: Float[Tensor, "K D"],
    *,
    student: float,
    teacher: float,
) -> Float[Tensor, " b"]:
    """Cross-entropy between the teacher's and the student's distributions of similarity over ``others``, in [0, inf).

    All of unit length; ``student`` and ``teacher`` are temperatures (eq. 3 to 5).
    """
    wanted = (key @ others.T / teacher).softmax(1)
    return -(wanted * (z @ others.T / student).log_softmax(1)).sum(1)
