"""Which parameters move, how far, and when: parameter groups, three optimisers and one schedule.

- Biases, norms and every other parameter of at most one axis get no weight decay (Goyal et al. 2017, section 5.3).
- Rates are stated for a global batch of 256 and scaled to the batch at hand: linearly for SGD and LARS
  (Goyal et al. 2017; You et al. 2017), by the square root for AdamW (Malladi et al. 2022, "On the SDEs and Scaling
  Rules for Adaptive Gradient Algorithms").
- The schedule is a pure function of the step, so a resumed run needs no memory of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from selftaught.errors import ConfigError, MethodError, must_be, nearest
from selftaught.train.lars import LARS

REFERENCE_BATCH = 256
DEFAULT_LR = {"adamw": 1e-3, "sgd": 0.06, "lars": 0.3}
DEFAULT_WEIGHT_DECAY = {"adamw": 0.05, "sgd": 5e-4, "lars": 1e-6}


@dataclass(frozen=True, slots=True)
class Recipe:
    """How parameters move. ``None`` = the optimiser's own default (tables above)."""

    name: str = "adamw"  # one of adamw, sgd, lars
    lr: float | None = None  # peak rate at a global batch of 256 samples, in (0, inf)
    weight_decay: float | None = None  # in [0, inf)
    momentum: float = 0.9  # SGD and LARS, in [0, 1)
    betas: tuple[float, float] = (0.9, 0.95)  # AdamW
    warmup: float = 0.05  # share of the steps with a rising rate, in [0, 1)
    final: float = 0.0  # rate at the last step as a share of the peak, in [0, 1]
    clip: float = 0.0  # largest norm of the whole gradient; 0 = no clipping
    scale: bool = True  # False = ``lr`` is the rate itself, whatever the batch

    def __post_init__(self) -> None:
        checks = {
            "optimiser": (self.name in DEFAULT_LR, "one of adamw, sgd, lars", self.name),
            "lr": (self.lr is None or 0 < self.lr < math.inf, "a float in (0, inf)", self.lr),
            "weight_decay": (
                self.weight_decay is None or 0 <= self.weight_decay < math.inf,
                "a float in [0, inf)",
                self.weight_decay,
            ),
            "momentum": (0 <= self.momentum < 1, "a float in [0, 1)", self.momentum),
            "warmup": (0 <= self.warmup < 1, "a float in [0, 1)", self.warmup),
            "final": (0 <= self.final <= 1, "a float in [0, 1]", self.final),
            "clip": (0 <= self.clip < math.inf, "a float in [0, inf)", self.clip),
        }
        for name, (fine, constraint, got) in checks.items():
            if not fine:
                hint = nearest(str(got), DEFAULT_LR) if name == "optimiser" else ""
                raise ConfigError(must_be(name, "the optimiser", constraint, got), hint=hint)

    def peak(self, batch_size: int) -> float:
        """The highest rate of the run, for a global batch of ``batch_size`` samples."""
        lr = DEFAULT_LR[self.name] if self.lr is None else self.lr
        ratio = batch_size / REFERENCE_BATCH
        if not self.scale:
            return lr
        return lr * (math.sqrt(ratio) if self.name == "adamw" else ratio)


@dataclass(frozen=True, slots=True)
class Schedule:
    """Linear warm-up, then half a cosine down to ``final`` (Loshchilov & Hutter 2017); a function of the step."""

    steps: int
    warmup: float = 0.05
    final: float = 0.0

    def factor(self, step: int) -> float:
        """Share of the peak rate at ``step`` in [0, steps); in (0, 1]."""
        rising = round(self.warmup * self.steps)
        if step < rising:
            return (step + 1) / rising
        progress = (step - rising) / max(1, self.steps - rising)
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def build_optimiser(
    module: nn.Module, recipe: Recipe, *, batch_size: int, groups: Mapping[str, Mapping[str, Any]] | None = None
) -> torch.optim.Optimizer:
    """The optimiser over every parameter of ``module`` that takes gradients, in groups.

    ``groups`` is what ``Method.groups`` gives: prefix of a parameter's name -> ``rate`` (factor), ``weight_decay``,
    ``betas``, ``frozen_until`` (share of the run). A prefix may leave out the leading ``encoders.`` or ``method.``;
    the longest that fits counts. Raises MethodError where a prefix names no parameter.
    """
    peak = recipe.peak(batch_size)
    table = [_group(recipe, peak, key, names) for key, names in _sorted_into_groups(module, recipe, groups or {})]
    if not table:
        raise MethodError("There is nothing to train: no parameter takes a gradient.")
    if recipe.name == "lars":
        return LARS(table, lr=peak, momentum=recipe.momentum)
    if recipe.name == "sgd":
        return torch.optim.SGD(table, lr=peak, momentum=recipe.momentum, fused=True)
    return torch.optim.AdamW(table, lr=peak, betas=recipe.betas, fused=True)


def set_rates(optimiser: torch.optim.Optimizer, *, factor: float, fraction: float) -> float:
    """Sets every group's rate for one step, and drops the gradients of groups that are still frozen.

    Called between backward and step. ``factor`` is the schedule's, ``fraction`` the share of the run that is done.
    Gives the rate of the first group, as is shown to the user.
    """
    for group in optimiser.param_groups:
        group["lr"] = group["peak"] * group["rate"] * factor
        if fraction < group["frozen_until"]:
            for parameter in group["params"]:
                parameter.grad = None  # no gradient, no state, no decay: exactly untouched
    return float(optimiser.param_groups[0]["peak"] * factor)


def _sorted_into_groups(
    module: nn.Module, recipe: Recipe, wanted: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[dict[str, Any], dict[str, Tensor]]]:
    """(settings, {name: parameter}) for every distinct combination of settings, in order of first appearance."""
    default = DEFAULT_WEIGHT_DECAY[recipe.name] if recipe.weight_decay is None else recipe.weight_decay
    used: set[str] = set()
    sorted_: dict[str, tuple[dict[str, Any], dict[str, Tensor]]] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        prefix = _longest_prefix(name, wanted)
        used.add(prefix)
        own = dict(wanted.get(prefix, {}))
        decay = own.pop("weight_decay", default)
        own["weight_decay"] = 0.0 if parameter.ndim <= 1 else decay
        sorted_.setdefault(repr(sorted(own.items())), (own, {}))[1][name] = parameter
    if unknown := sorted(set(wanted) - used):
        raise MethodError(f"The parameter group {unknown[0]!r} names no trainable parameter.")
    yield from sorted_.values()


def _longest_prefix(name: str, wanted: Mapping[str, Any]) -> str:
    spellings = (name, name.removeprefix("encoders."), name.removeprefix("method."))
    return max((p for p in wanted if any(s.startswith(p) for s in spellings)), key=len, default="")


def _group(recipe: Recipe, peak: float, own: dict[str, Any], named: dict[str, Tensor]) -> dict[str, Any]:
    group = {"params": list(named.values()), "names": list(named), "peak": peak, "lr": peak}
    group |= {"rate": own.get("rate", 1.0), "weight_decay": own["weight_decay"]}
    group["frozen_until"] = own.get("frozen_until", 0.0)
    if recipe.name == "adamw":
        group["betas"] = tuple(own.get("betas", recipe.betas))
    return group
