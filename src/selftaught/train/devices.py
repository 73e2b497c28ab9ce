"""Which device there is, and how many: answered with torch alone, before Lightning takes seconds to load."""

from __future__ import annotations

import os

import torch

from selftaught.errors import ConfigError, must_be


def find_device(accelerator: str = "auto", *, caller: str = "pretrain") -> str:
    """One of "cuda", "mps" and "cpu": the one asked for, or the fastest. Raises ConfigError where it is not there."""
    kinds = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if accelerator == "auto":
        return next(kind for kind, there in kinds.items() if there)
    if accelerator not in kinds:
        raise ConfigError(must_be("accelerator", caller, f"one of auto, {', '.join(kinds)}", accelerator))
    if not kinds[accelerator]:
        raise ConfigError(f"There is no {accelerator} device on this machine.", hint="Leave --accelerator out.")
    return accelerator


def refuse_devices(devices: int, device: str, *, caller: str = "pretrain") -> None:
    """More processes than this machine has devices for. Raises ConfigError."""
    here = torch.cuda.device_count() if device == "cuda" else cores() if device == "cpu" else 1
    if not 1 <= devices <= here:
        word = {"cpu": "processor core", "cuda": "GPU"}.get(device, "device")
        constraint = f"an int in [1, {here}]: this machine has {here} {word}{'s' if here > 1 else ''}"
        raise ConfigError(must_be("devices", caller, constraint, devices), hint=f"Try --devices {here}.")


def launched() -> bool:
    """Whether torchrun or srun may have started this process among others: then they say how many there are."""
    return "LOCAL_WORLD_SIZE" in os.environ or "SLURM_NTASKS" in os.environ


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
