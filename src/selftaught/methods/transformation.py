"""Transformation: a view is changed in one of a few ways that the kind of data has; the encoder is to say in which.

After Gidaris, Singh & Komodakis 2018, "Unsupervised Representation Learning by Predicting Image Rotations", eq. 1 to 3,
for anything that a modality can do to a sample: readings forwards or backwards, mirrored, thirds in another order
(Saeed, Ozcelebi & Lukkien 2019, "Multi-task Self-Supervised Learning for Human Activity Detection"); turns of a
picture, for which ``rotation`` is the better known name.

Where we depart, and why: a hidden layer between the encoder and the answer, so that the encoder need not tell the
transformations apart along straight lines; all values of a transformation are as frequent as each other.

Costs: ``views`` views. Data that look the same under the transformation teach nothing: the loss stays at log K.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated

from selftaught.errors import MethodError, must_be
from selftaught.methods.base import VIEWS, one_view
from selftaught.nn.heads import each_view, projection
from selftaught.ops.losses import told_wrong
from selftaught.types import Batch, Clock, Encoders, Method, Needs, Outputs, Terms


class Transformation(Method):
    """``forward`` gives scores (B, V, K) of the K values, and value (B, V), the true ones."""

    family = "pretext transformations"
    small_batches = True

    def __init__(
        self,
        *,
        task: Annotated[
            str, "one of auto, rotation, direction, order, sign", "which; auto = the data's first"
        ] = "auto",
        views: Annotated[int, "in [1, 16]", "changed views of a sample"] = 2,
        hidden: Annotated[int, "in [1, inf)", "width of the hidden layer"] = 256,
        smallest: Annotated[float, "in (0, 1]", "share of the sample that a crop keeps at least"] = 0.3,
    ) -> None:
        super().__init__()
        self.task, self.views, self.hidden, self.smallest = task, views, hidden, smallest

    def needs(self) -> Needs:
        (group,) = one_view(smallest=self.smallest)
        return Needs(plan=(dataclasses.replace(group, count=self.views, pretext=self.task),))

    def build(self, encoders: Encoders) -> None:
        self.name = next(iter(self.pretext)) if self.task == "auto" else self.task
        values = self.pretext[self.name]
        if values < 2:
            raise MethodError(must_be("task", "Transformation", "one with several values", self.name))
        self.head = projection(encoders["encoder"].dim, self.hidden, values)

    def forward(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        scores = each_view(batch[VIEWS].data, encoders["encoder"], self.head)
        return {"scores": scores, "value": batch[VIEWS].drawn[self.name]}

    def loss(self, outputs: Outputs, clock: Clock) -> Terms:
        scores, value = outputs["scores"], outputs["value"]
        return {"transformation": (told_wrong(scores, value), value.numel())}
