"""What a method learned besides the encoder (decoder, words, heads): saved with a run, and put together again."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from selftaught import catalog
from selftaught.commands import saved
from selftaught.commands.model import Model, load
from selftaught.commands.run import Run
from selftaught.commands.views import change_plan
from selftaught.errors import RunError
from selftaught.train.task import Task
from selftaught.types import Plan


def save_method(folder: Path, method: Any, facts: Mapping[str, Any]) -> None:
    """config.json and model.safetensors, all or nothing."""
    saved.save_folder(folder, method, facts)


def method_of(run: Run) -> tuple[str, dict[str, Any]]:
    """Name and options of a run's method, chosen or given."""
    derived, asked = run.config["derived"], run.config["request"]["method"]
    return derived["method"], {
        **derived.get("method_options", {}),
        **{key: value for key, value in asked.items() if key != "name"},
    }


def plan_of(run: Run, method: Any) -> Plan:
    """The views that a run's method asked for, with what was changed for that run."""
    return change_plan(method.needs().plan, **run.config["request"]["views"])


def load_task(run: str | os.PathLike[str], model: Model | None = None) -> Task:
    """Encoder and method of a finished run, with their weights, in eval mode. Raises RunError.

    ``model``: the run's encoder, where it was loaded already.
    """
    opened, model = Run.open(run), model or load(run)
    folder = opened.folder / "parts" / "method"
    if not (folder / "config.json").is_file():
        hint = "It was made by an earlier version, or ended in an alarm. --from RUN goes on with it."
        raise RunError(f"The run {os.fspath(run)!r} holds no weights of its method.", hint=hint)
    name, options = method_of(opened)
    method = catalog.load("method", name, said_by=opened.folder)(**options)
    facts = saved.read_config(folder)
    method.samples, method.pretext = facts["samples"], model.modality.pretext
    encoders: dict[str, Any] = {"encoder": model.encoder}
    if (teacher := opened.config["request"].get("teacher")) is not None:
        from selftaught.commands.teachers import teacher as make_teacher  # which may need a run put together itself

        encoders["teacher"] = make_teacher(os.fspath(teacher), model.modality)
    with torch.random.fork_rng(devices=[]):
        method.build(encoders)
    saved.load_weights(method, folder, facts)
    return Task(encoders, method, model.modality.normalise).eval()
