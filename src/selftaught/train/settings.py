"""What a training is asked for: how long, how large, how random."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from selftaught.errors import ConfigError, must_be
from selftaught.train.optim import Recipe


@dataclass(frozen=True, slots=True)
class Settings:
    """Exactly one of ``steps`` and ``minutes`` is given. Checked on construction; raises ConfigError."""

    batch_size: int  # samples per optimiser step, over all ranks and micro-batches
    steps: int | None = None  # optimiser steps of the whole run
    minutes: float | None = None  # wall clock; turned into steps before step 0 and never changed
    spent: float = 0.0  # seconds of ``minutes`` that are gone already (start-up, scanning the data)
    reserve: float = 0.0  # seconds of ``minutes`` that what comes after the training will need
    steps_per_epoch: int | None = None  # floor(samples / batch_size); None = the run is one epoch
    seed: int = 0
    accumulate: int = 1  # micro-batches per step and rank
    optimiser: Recipe = field(default_factory=Recipe)
    save_every: float | None = None  # seconds between checkpoints; 0 = every step; None = the rule in saving.py
    compile: bool = False  # torch.compile the encoders; on accelerators only
    groups: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # as Method.groups, which is laid over it
    caller: str = "pretrain"  # who is named in error messages

    def __post_init__(self) -> None:
        for name, fine, constraint in (
            ("batch_size", self.batch_size >= 1, "an int in [1, inf)"),
            ("steps", self.steps is None or self.steps >= 1, "an int in [1, inf)"),
            ("minutes", self.minutes is None or self.minutes > 0, "a float in (0, inf)"),
            ("accumulate", 1 <= self.accumulate <= self.batch_size, f"an int in [1, batch_size={self.batch_size}]"),
            ("steps_per_epoch", self.steps_per_epoch is None or self.steps_per_epoch >= 1, "an int in [1, inf)"),
            ("save_every", self.save_every is None or self.save_every >= 0, "a float in [0, inf)"),
        ):
            if not fine:
                raise ConfigError(must_be(name, self.caller, constraint, getattr(self, name)))
        if (self.steps is None) == (self.minutes is None):
            raise ConfigError(f"{self.caller} needs one of 'steps' and 'minutes', not both and not neither.")

    def share(self, world: int) -> int:
        """Samples per rank and step. Raises ConfigError where the batch cannot be dealt out evenly."""
        if self.batch_size % (world * self.accumulate):
            pieces = world * self.accumulate
            raise ConfigError(
                must_be("batch_size", self.caller, f"a multiple of devices x accumulate = {pieces}", self.batch_size),
                hint=f"Try --batch-size {max(1, round(self.batch_size / pieces)) * pieces}.",
            )
        return self.batch_size // world
