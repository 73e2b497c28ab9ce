"""A network that follows another one slowly, and gives its targets."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Teacher(nn.Module):
    """Copies of the student's parts whose weights are a moving average of theirs: t <- m t + (1 - m) s.

    Its outputs carry no gradient and its weights are in no optimiser. Batch norm in it normalises by the batch at hand,
    as in the student. The students are known by reference and are no parts of the teacher, so that a checkpoint holds
    every tensor once. Source: Tarvainen & Valpola 2017 (mean teacher, arXiv:1703.01780); He et al. 2020 (MoCo), eq. 2.
    """

    def __init__(self, students: Mapping[str, Any]) -> None:
        """``students``: name -> module; ``teacher[name]`` is its copy."""
        super().__init__()
        self.parts = nn.ModuleDict({name: copy.deepcopy(student) for name, student in students.items()})
        self.parts.requires_grad_(False)
        self._students = dict(students)  # a plain dict: torch registers only modules and ModuleDicts

    def __getitem__(self, name: str) -> Any:
        return self.parts[name]

    @torch.no_grad()
    def follow(self, momentum: float) -> None:
        """One step towards the students. ``momentum`` m in [0, 1]: 1 stays, 0 copies. Buffers are not averaged."""
        move = get_ema_multi_avg_fn(momentum)
        for name, part in self.parts.items():
            student = cast(nn.Module, self._students[name])
            move(list(part.parameters()), [p.detach() for p in student.parameters()], None)


def rising(start: float, fraction: float, end: float = 1.0) -> float:
    """Momentum that rises from ``start`` to ``end`` along half a cosine (Grill et al. 2020, section 3.1).

    ``fraction``: share of the run that is done, in [0, 1].
    """
    return end - (end - start) * (math.cos(math.pi * fraction) + 1) / 2
