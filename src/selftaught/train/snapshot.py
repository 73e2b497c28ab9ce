"""Everything that decides how a training goes on, as named tensors and plain facts, and back.

Tensors: the task's parameters and buffers (teachers, queues and targets are buffers of their method), and the
optimiser's state as ``<parameter>::<key>``. Facts: the step, the groups of the optimiser, the callbacks' state, and
what bits depend on: threads, instruction set, versions.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from selftaught.errors import CheckpointError
from selftaught.nn import batchwise

MARK = "::"
_TUPLES = ("betas",)  # JSON has no tuples, and optimisers compare and unpack these


def tensors_of(task: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Parameters, buffers and the optimiser's state by name; the tensors themselves, no copies."""
    tensors = dict(task.state_dict())
    for name, parameter in _trained(optimiser):
        for key, value in optimiser.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"{name}{MARK}{key}"] = value
    return tensors


def restore(tensors: Mapping[str, Tensor], task: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    """The counterpart of ``tensors_of``, in place. Raises CheckpointError where names or shapes do not fit."""
    own = {name: value for name, value in tensors.items() if MARK not in name}
    try:
        task.load_state_dict(own)
    except RuntimeError as error:
        raise CheckpointError(f"The checkpoint holds another model: {str(error).splitlines()[-1].strip()}") from error
    optimiser.state.clear()
    states: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if MARK in name:
            parameter, key = name.split(MARK)
            states.setdefault(parameter, {})[key] = value
    for name, parameter in _trained(optimiser):
        if name in states:
            optimiser.state[parameter] = {key: _like(parameter, value) for key, value in states[name].items()}


def groups_of(optimiser: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """Every group without its tensors, JSON-able."""
    return [{key: value for key, value in group.items() if key != "params"} for group in optimiser.param_groups]


def restore_groups(groups: Iterable[Mapping[str, Any]], optimiser: torch.optim.Optimizer) -> None:
    """Raises CheckpointError where the groups hold other parameters."""
    groups = list(groups)
    if [group["names"] for group in groups] != [group["names"] for group in optimiser.param_groups]:
        raise CheckpointError("The checkpoint's parameter groups are not those of this method and optimiser.")
    for group, saved in zip(optimiser.param_groups, groups, strict=True):
        group.update({key: tuple(value) if key in _TUPLES else value for key, value in saved.items()})


def surroundings(task: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """What the bits of a result depend on besides (seed, t)."""
    device = next((parameter.device.type for parameter in task.parameters()), "cpu")
    return {
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "device": device,
        "optimiser": type(optimiser).__name__,
        "world": batchwise.world(),
    }


def adopt(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Takes over the saved thread count, and says what else differs: the run goes on, but not bit for bit."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    notes = []
    if saved["threads"] != now["threads"]:
        torch.set_num_threads(saved["threads"])
        if saved["threads"] > here:
            notes.append(f"The run was started with {saved['threads']} threads and keeps them; there are {here} cores.")
    words = {"instructions": "instruction set", "torch": "torch", "device": "device", "world": "number of processes"}
    for key, word in words.items():
        if saved[key] != now[key]:
            notes.append(f"The {word} changed from {saved[key]} to {now[key]}: the run goes on, but not bit for bit.")
    return notes


def _trained(optimiser: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
    for group in optimiser.param_groups:
        yield from zip(group["names"], group["params"], strict=True)


def _like(parameter: Tensor, value: Tensor) -> Tensor:
    """``value`` with the parameter's place and strides: fused optimisers walk memory, and safetensors keeps no strides.

    Scalars (AdamW's step) stay where fused optimisers want them: on the parameter's device, in float32.
    """
    if value.shape != parameter.shape:
        return value.to(parameter.device, copy=True)
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)
