"""What a training starts from besides its data: the encoder of another run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from selftaught import catalog
from selftaught.commands.model import load, load_modality, modality_state
from selftaught.commands.parts import method_of
from selftaught.commands.run import Run
from selftaught.errors import ModalityError, must_be
from selftaught.train.checkpoint import Store
from selftaught.types import Method

HEAD_FIRST = 0.1  # share of the run in which only what is new learns, where heads are new
LAYER_DECAY = 0.75  # of the rate from layer to layer towards the input
GENTLE = 0.2  # of the usual rate: what was learned at a low rate at the end is lost at a high one


class Start:
    """A finished run that another one goes on from: its encoder, how it reads data, its method's weights."""

    def __init__(self, run: Any, encoder: Any = None) -> None:
        """``encoder``: the user's own module, where the run was given one. Raises RunError."""
        self.run = Run.open(run)
        self.model = load(run, encoder=encoder)

    def modality(self, asked: Mapping[str, Any]) -> Any:
        """As the run read its data, statistics included, for the encoder knows them; but for options that are given."""
        own = self.model.modality
        name, given = asked["name"], {key: value for key, value in asked.items() if key != "name"}
        if name not in ("auto", own.name):
            raise ModalityError(must_be("modality", f"a training from {self.run.folder}", own.name, name))
        if not given:
            return own
        catalog.load("modality", own.name)(**given)  # refuses what is out of range
        saved = modality_state(own.name, {}, own)
        return load_modality({**saved, "state": {**saved["state"], **given}})

    def method(self, *, labels: bool) -> tuple[str, dict[str, Any]] | None:
        """Name and options of the run's method; None where it learns from a teacher, or from labels and has none."""
        name, options = method_of(self.run)
        needs = catalog.load("method", name, said_by=self.run.folder)(**options).needs()
        if "teacher" in needs.encoders or (needs.labels and not labels):
            return None
        return name, options

    def encoder(self) -> Any:
        """With the run's weights."""
        return self.model.encoder

    @torch.no_grad()
    def adopt(self, method: Method, name: str) -> bool:
        """Gives ``method`` the weights that it had at the run's end; False where there are none that fit.

        All that learns must fit, and belong to the encoder's step; what is kept of samples (banks, queues, assignments)
        is taken where its shape is.
        """
        if self.run.config["derived"].get("method") != name:
            return False
        found = Store(self.run.folder / "checkpoints").load_latest()
        if found is None or found.step != self.model.facts.get("step"):
            return False
        mark = "method."
        saved = {key.removeprefix(mark): value for key, value in found.tensors.items() if key.startswith(mark)}
        own = method.state_dict()
        fits = {key: value for key, value in saved.items() if key in own and own[key].shape == value.shape}
        if any(key not in fits for key, _ in method.named_parameters()):
            return False
        method.load_state_dict(fits, strict=False)
        return True


def defaults(adopted: bool) -> list[tuple[str, float, str]]:
    """(name, value, why) of what makes a beginning gentle. ``adopted``: the heads are not new either."""
    new = (HEAD_FIRST, "of the run: new heads learn before the encoder does")
    first, why = (0.0, "heads go on as well") if adopted else new
    slower = "of the rate, from layer to layer towards the input"
    return [("head_first", first, why), ("layer_decay", LAYER_DECAY, slower)]


def rates(encoder: Any, *, head_first: float, layer_decay: float) -> dict[str, dict[str, float]]:
    """Parameter groups of an encoder that is not new: later than its head, and the slower the nearer to the input."""
    names = [name for name, parameter in encoder.named_parameters() if parameter.requires_grad]
    layers = encoder.layers() if hasattr(encoder, "layers") else {}
    deepest = max(layers.values(), default=0)
    return {
        f"encoder.{name}": {
            "rate": layer_decay ** (deepest - layers.get(name, deepest)),
            "frozen_until": head_first,
        }
        for name in names
    }
