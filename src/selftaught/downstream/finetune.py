"""Fine-tuning: the encoder and a linear head learn from the labels, in the same loop as pre-training.

``Finetune`` is a Method, so that loop, schedule, optimiser and reproducibility are those of pre-training. Training from
scratch is the same call with an untrained encoder: the same number of steps, the same augmentation. It has the
learning rate that suits it (twice as high), and no time in which the head alone learns, for an untrained encoder has
nothing to protect (Kumar et al., "Fine-tuning can distort pretrained features and underperform out-of-distribution",
ICLR 2022).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from selftaught.data.loader import Loader, Order, once
from selftaught.downstream.features import extract
from selftaught.train.loop import Settings, Task, fit
from selftaught.train.optim import Recipe
from selftaught.types import (
    Batch,
    Clock,
    Encoders,
    Geometry,
    Method,
    Modality,
    Needs,
    Outputs,
    Photometry,
    Plan,
    Terms,
    ViewGroup,
)

if TYPE_CHECKING:
    from selftaught.data.index import Index
    from selftaught.downstream.evaluate import Request

VIEWS = "views"
RATE = 2e-3  # AdamW's peak at a batch of 256, for a pre-trained encoder (digits, docs/log.md)
RATE_FROM_SCRATCH = 4e-3  # for an untrained one; at lower rates the control would be a straw man


def light_views(*, smallest: float = 0.5, flip: float = 0.5, colour: float = 0.4) -> Plan:
    """One view per sample: a crop of at least half, a flip, weak colour. Labels survive it, unlike stronger ones."""
    light = Photometry(colour=colour, colour_p=0.8, gray=0.0, blur=0.0, noise=0.5)
    return (ViewGroup(VIEWS, 1, 1.0, Geometry(scale=(smallest, 1.0), flip=flip), (light,)),)


class Finetune(Method):
    """``forward`` gives logits (B, K) and the batch's targets (B,); the loss is cross-entropy over labelled samples."""

    family = "supervised"

    def __init__(
        self,
        *,
        classes: Annotated[int, "in [2, inf)", "number of classes"] = 2,
        head_first: Annotated[float, "in [0, 1)", "share of the steps in which the head alone learns"] = 0.1,
        layer_decay: Annotated[float, "in (0, 1]", "factor of the rate, layer by layer downwards; 1 = off"] = 1.0,
        smoothing: Annotated[float, "in [0, 1)", "label smoothing"] = 0.0,
        smallest: Annotated[float, "in (0, 1]", "share of the sample that a crop keeps at least"] = 0.5,
        flip: Annotated[float, "in [0, 1]", "probability of mirroring; 0 where left and right mean something"] = 0.5,
        colour: Annotated[float, "in [0, inf)", "strength of colour changes"] = 0.4,
    ) -> None:
        super().__init__()
        self.classes, self.head_first, self.layer_decay, self.smoothing = classes, head_first, layer_decay, smoothing
        self.plan = light_views(smallest=smallest, flip=flip, colour=colour)

    def needs(self) -> Needs:
        return Needs(plan=self.plan, labels=True)

    def build(self, encoders: Encoders) -> None:
        self.head = nn.Linear(encoders["encoder"].dim, self.classes)
        nn.init.zeros_(
            self.head.weight
        )  # all classes equal: the first gradients come from the features, not from noise
        nn.init.zeros_(self.head.bias)

    def forward(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        assert batch.target is not None
        logits = self.head(encoders["encoder"](batch[VIEWS].data.flatten(0, 1)).pooled)
        return {"logits": logits, "target": batch.target}

    def loss(self, outputs: Outputs, clock: Clock) -> Terms:
        logits, target = outputs["logits"].float(), outputs["target"].long()
        rows = F.cross_entropy(logits, target, ignore_index=-1, reduction="none", label_smoothing=self.smoothing)
        return {"cross_entropy": (rows.sum(), (target >= 0).sum())}

    def groups(self, encoders: Encoders) -> dict[str, dict[str, Any]]:
        frozen = {"frozen_until": self.head_first}
        encoder = encoders["encoder"]
        assert isinstance(encoder, nn.Module)
        names = [name for name, parameter in encoder.named_parameters() if parameter.requires_grad]
        if self.layer_decay == 1.0:
            return {"encoder.": frozen} if names else {}
        layers = {name: _layer(name) for name in names}
        top = max(layers.values()) + 1
        return {
            f"encoder.{name}": {**frozen, "rate": self.layer_decay ** (top - min(layer, top))}
            for name, layer in layers.items()
        }


def _layer(name: str) -> int:
    """0 for the stem, 1 + n for what lies in a numbered block, and as the last block for norms after all blocks."""
    found = re.search(r"(?:blocks|stages|layers?)[._]?(\d+)", name)
    if found:
        return 1 + int(found[1])
    return 10**6 if re.search(r"(^|\.)(norm|fc_norm|head)\.", name) else 0


def finetune(
    encoder: nn.Module,
    index: Index,
    modality: Modality,
    *,
    rows: np.ndarray,
    target: np.ndarray,
    classes: int,
    method: Finetune | None = None,
    steps: int,
    batch_size: int = 64,
    recipe: Recipe | None = None,
    seed: int = 0,
    workers: int = 0,
    fabric: Any = None,
) -> Task:
    """Trains ``encoder`` (in place) and a new head on ``rows`` of the index with class numbers ``target``.

    ``fabric`` is a launched one of ``train.fabric``; None = made for this machine.
    Gives the trained Task, in eval mode: the state after the last step, never the best of several.
    """
    method = method or Finetune(classes=classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        method.build({"encoder": encoder})  # type: ignore[dict-item]
    labelled, order = index.select(rows), Order(len(rows), min(batch_size, len(rows)), seed, stream="finetune")

    def batches(start: int, stop: int) -> Loader:
        plan = method.needs().plan
        return Loader(labelled, modality, plan, order, workers=workers, start=start, stop=stop, targets=target)

    task = Task({"encoder": encoder}, method, modality.normalise)
    settings = Settings(
        batch_size=order.batch_size,
        steps=steps,
        steps_per_epoch=order.steps_per_epoch,
        seed=seed,
        optimiser=recipe or Recipe(lr=RATE, warmup=0.1),
        caller="finetune",
    )
    fit(task, batches, settings, fabric=fabric)
    return task


def classify(
    task: Task, index: Index, modality: Modality, *, rows: np.ndarray, batch_size: int = 256, workers: int = 0
) -> np.ndarray:
    """Class probabilities (M, K) of untouched samples, in the order of ``rows``; nan where one cannot be read."""
    place = next(task.parameters()).device
    plain = once(index.select(rows), modality, batch_size=batch_size, workers=workers)
    z = extract(task.encoders["encoder"], plain, modality.normalise, rows=len(rows), device=place)
    with torch.inference_mode():
        logits = task.method.head(torch.from_numpy(z).to(place))  # type: ignore[operator]
    return logits.softmax(dim=1).double().cpu().numpy()


def trainer(
    make_encoder: Callable[[int], nn.Module],
    index: Index,
    modality: Modality,
    *,
    pretrained: bool,
    epochs: int = 30,
    least: int = 100,
    most: int = 2000,
    batch_size: int = 64,
    workers: int = 0,
    fabric: Any = None,
    **options: Any,
) -> Callable[[Request], np.ndarray]:
    """A trainer for ``evaluate``. ``make_encoder(seed)`` gives a fresh copy: pre-trained, or untrained by that seed.

    ``epochs`` passes over the labels, but at least ``least`` and at most ``most`` steps (few labels make short epochs);
    the same for pre-trained and scratch. ``options`` are those of ``Finetune``.
    """
    options = options if pretrained else {**options, "head_first": 0.0, "layer_decay": 1.0}
    recipe = Recipe(lr=RATE if pretrained else RATE_FROM_SCRATCH, warmup=0.1)

    def train(request: Request) -> np.ndarray:
        task = finetune(
            make_encoder(request.seed),
            index,
            modality,
            rows=request.train,
            target=request.target,
            classes=request.classes,
            method=Finetune(classes=request.classes, **options),
            steps=steps_for(len(request.train), epochs, batch_size, least=least, most=most),
            batch_size=batch_size,
            recipe=recipe,
            seed=request.seed,
            workers=workers,
            fabric=fabric,
        )
        return classify(task, index, modality, rows=request.test, workers=workers)

    return train


def steps_for(labels: int, epochs: int, batch_size: int, *, least: int, most: int) -> int:
    """Optimiser steps for so many labels: whole epochs within the bounds."""
    return int(np.clip(epochs * max(1, labels // min(batch_size, labels)), least, most))
