"""Which encoder a training has: by name, the user's own module, that of another run, or one chosen for the data."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from selftaught import catalog
from selftaught.commands import choices
from selftaught.commands.samples import Samples, hold_out, measure
from selftaught.commands.start import Start
from selftaught.encoders import check
from selftaught.encoders.auto import choose
from selftaught.train.devices import find_device
from selftaught.types import Method


class EncoderChoice:
    """The decision, which goes into ``derived`` with its reason."""

    def __init__(
        self, request: dict[str, Any], saved: dict[str, Any], start: Start | None, derived: choices.Derived
    ) -> None:
        """``saved``: configuration of the run that goes on, {} = none. ``start``: what a new one starts from."""
        self.request, self.saved, self.start, self.derived = request, saved, start, derived
        self.asked = request["encoder"]
        self.is_auto = isinstance(self.asked, dict) and self.asked["name"] == "auto"

    def refuse_size(self) -> None:
        """A picture size that the named encoder cannot take, where both were given: before a pixel is decoded."""
        given = _options(self.request["modality"])
        if isinstance(self.asked, dict) and not self.is_auto and given.get("size"):
            shape = (given.get("channels") or 3, given["size"], given["size"])
            check(self.asked["name"], shape, **_options(self.asked))

    def to_come(self, samples: Samples) -> str:
        """The encoder's name, and what "auto" will come to where the method may depend on it; else ""."""
        count, seed = len(samples.index), self.request["seed"]
        if not isinstance(self.asked, dict) or self.start is not None:
            return ""
        if not self.is_auto:
            return self.asked["name"]
        device = find_device()
        if device == "cpu" or count < choices.MANY or samples.modality.default_encoder != "auto":
            return ""
        rows, _ = hold_out(count, seed)
        measure(samples, rows, seed)
        return choose(samples.modality.shape(), len(rows), device=device).name

    def choose(self, samples: Samples, rows: np.ndarray, *, method: Method, device: str) -> None:
        """The encoder where nobody named one, and with it the input size where nobody gave that either.

        ``rows``: those to train on. Where the size changes, ``samples`` get a modality of that size, measured.
        """
        if not self.is_auto:
            return
        modality = samples.modality
        if modality.default_encoder != "auto":
            self.derived.add("encoder", modality.default_encoder, f"the usual one for {modality.name}")
            self.derived.add("encoder_options", {})
            return
        choice = choose(modality.shape(), len(rows), device=device, minutes=self.request["minutes"])
        if method.needs().hides == "drop" and choice.name == "small":
            why = f"{type(method).__name__} drops tokens, which a convnet cannot"
            choice = dataclasses.replace(choice, name="vit_tiny", options={}, reason=why)
        self.derived.add("encoder", choice.name, choice.reason)
        self.derived.add("encoder_options", choice.options)
        given = {key: value for key, value in _options(self.request["modality"]).items() if value}  # 0 = not given
        size, whole = choice.size, choice.whole or choice.size
        as_they_are = tuple(modality.shape()[1:]) == size and tuple(modality.plain_shape()[1:]) == whole
        if not as_they_are and not given.get("size"):
            sizes = {"size": size[0], "whole_size": whole[0]}
            samples.modality = catalog.load("modality", modality.name)(**{**sizes, **given})
            measure(samples, rows, self.request["seed"])

    def named(self) -> tuple[Any, dict[str, Any]]:
        """(name, configuration or module; options): asked for, chosen, or what the run started with."""
        if self.start is not None:
            config = self.start.model.encoder.config()
            self.derived.add("encoder", config["name"], f"that of {self.start.run.folder}, with its weights")
            return config, {}
        if not isinstance(self.asked, dict):
            self.derived.add("encoder", type(self.asked).__name__)
            return self.asked, {}
        if self.saved:
            started = self.saved["derived"]["encoder_config"]
            self.derived.add("encoder", started["name"])
            return started, {}
        if self.is_auto:
            return self.derived.values["encoder"], {**self.derived.values["encoder_options"], **_options(self.asked)}
        self.derived.add("encoder", self.asked["name"])
        return self.asked["name"], _options(self.asked)


def _options(group: dict[str, Any]) -> dict[str, Any]:
    """A group without its name."""
    return {key: value for key, value in group.items() if key != "name"}
