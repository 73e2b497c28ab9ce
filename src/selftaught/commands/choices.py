"""What "auto" comes to: every derived value with the reason that is printed and saved."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from selftaught import catalog
from selftaught.errors import ConfigError, DataError, must_be

EPOCHS = 100  # where no length is given
BATCH = {"cpu": 128, "cuda": 256, "mps": 128}
SMALL_BATCH = {**BATCH, "cpu": 64}  # of methods that compare nothing: more steps in the same time, where time is short
FEW_NEGATIVES = 8  # samples of a batch; SimCLR was as good as MoCo with 16 and 8 (docs/log.md), fewer were not tried
TRANSFORMERS = ("vit", "deit", "eva", "beit", "xcit")  # how their names begin, here and in timm
MANY = 100_000  # samples; Caron et al. 2021, table 2: ViT-S on ImageNet, above SwAV, BYOL and MoCo v2
PRECISIONS = {"auto": "auto", "fp32": "32-true", "bf16": "bf16-mixed"}


@dataclass
class Derived:
    """Values by name, and why each is what it is where nobody asked for it."""

    values: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, value: Any, reason: str = "") -> Any:
        self.values[name] = value
        if reason:
            self.reasons[name] = reason
        return value

    def lines(self) -> list[str]:
        """One line for each value that was chosen for the user."""
        return [f"{name}: {_short(self.values[name])} ({reason})" for name, reason in self.reasons.items()]


def method(
    usual: str, *, before: str, encoder: str, count: int, batch_size: int | None, teacher: bool
) -> tuple[str, str]:
    """The method where nobody named one, and why.

    ``usual``: the modality's own. ``before``: that of the run to go on from, "" = none. ``encoder``: its name, "" = any
    other than a transformer. ``count`` of samples. ``batch_size``: as asked for.
    """
    if teacher:
        return "distill", "there is a teacher to learn from"
    if before:
        return before, "that of the run it goes on from, so that its heads go on as well"
    if batch_size is not None and batch_size < FEW_NEGATIVES:
        return "moco", f"a batch of {batch_size} holds few samples to be told from; MoCo keeps a queue of them"
    if encoder.startswith(TRANSFORMERS) and count >= MANY:
        return "dino", f"as published, best for transformers on many samples, and {count:,} are many"
    return usual, "the usual one for these data"


def batch_size(
    asked: int | None,
    count: int,
    *,
    device: str,
    devices: int,
    accumulate: int,
    smallest: int = 2,
    small: bool = False,
) -> int:
    """Samples per step. Raises ConfigError where it exceeds the data, DataError where these are too few.

    ``smallest``: the fewest that the method can learn from. ``small``: it compares nothing, so small batches do.
    """
    usual = (SMALL_BATCH if small else BATCH)[device]
    pieces = devices * accumulate
    if count < max(smallest, pieces):
        few = f"{count} sample{'' if count == 1 else 's'}"
        raise DataError(
            f"There {'is' if count == 1 else 'are'} {few} to train on; at least {max(smallest, 2)} are needed."
        )
    if asked is None:
        wanted = min(usual, 1 << max(1, (count // 4).bit_length() - 1), count)
        return max(wanted // pieces * pieces, pieces * smallest if pieces * smallest <= count else smallest)
    if asked > count:
        wrong = must_be(
            "batch_size", "pretrain", f"an int in [{smallest}, {count}], the number of training samples", asked
        )
        raise ConfigError(wrong, hint=f"Try --batch-size {min(usual, count)}.")
    return asked


def refuse_batch(asked: int | None, method: str) -> None:
    """A batch that the method cannot learn from, before torch loads or any data are read."""
    known = "simclr" if method == "auto" else method  # every modality's own method compares samples
    smallest = catalog.constant("method", known, "minimum_batch", 2)
    if asked is not None and asked < smallest:
        title = catalog.title("method", known)
        hint = f"{title} compares samples of one batch." if smallest == 2 else ""
        raise ConfigError(must_be("batch_size", title, f"an int in [{smallest}, inf)", asked), hint=hint)


def steps_of(epochs: float | None, steps: int | None, steps_per_epoch: int) -> tuple[int, str]:
    """Optimiser steps of the run, and why."""
    if steps is not None:
        return steps, ""
    if epochs is not None:
        return max(1, round(epochs * steps_per_epoch)), f"{epochs:g} epochs of {steps_per_epoch} steps"
    return EPOCHS * steps_per_epoch, f"{EPOCHS} epochs of {steps_per_epoch} steps, as no length was given"


def workers(asked: int | None, device: str, devices: int) -> tuple[int, str]:
    """Processes that read data, per training process."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if asked is not None:
        return asked, ""
    if device == "cpu":
        return max(1, min(8, max(2, cores // 4), cores) // devices), f"{cores} cores; they give way to the model"
    return max(1, min(16, cores // devices)), f"{cores} cores for {devices} device{'s' if devices > 1 else ''}"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
