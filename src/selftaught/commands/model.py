"""The encoder of a finished run: saved, loaded, and used on paths and arrays."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from selftaught import catalog
from selftaught.commands import saved
from selftaught.commands.run import Run
from selftaught.errors import RunError, UnreadableError, first_line


class Model:
    """A trained encoder with what it takes to feed it."""

    def __init__(
        self, encoder: Any, modality: Any, folder: Path | None = None, facts: Mapping[str, Any] | None = None
    ) -> None:
        """``facts``: where the encoder comes from, as its run wrote it (method, step)."""
        self.encoder = encoder.eval()
        self.modality = modality
        self.folder = folder
        self.facts = facts or {}

    @property
    def dim(self) -> int:
        """D of the vectors."""
        return self.encoder.dim

    def embed(self, data: Any, *, batch_size: int = 256, workers: int = 0) -> np.ndarray:
        """Vectors of samples, (N, D) float32, in the order of the data: a folder, paths, a manifest, or arrays.

        Raises DataError where the data are not there, UnreadableError where one of the samples cannot be read (the
        command ``embed`` leaves those out and names them).
        """
        from selftaught.commands.samples import read_again

        samples = read_again(data, self.modality, accept_unreadable=True)
        bad = list(samples.index.quarantine)
        vectors = self.embed_index(samples.index, batch_size=batch_size, workers=workers, unreadable=bad)
        if bad:
            more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
            hint = "The command 'selftaught embed' leaves such samples out and names them."
            raise UnreadableError(f"{bad[0][0]} cannot be read: {bad[0][1]}{more}.", hint=hint)
        return vectors

    def embed_index(
        self, index: Any, *, batch_size: int = 256, workers: int = 0, unreadable: list[tuple[str, str]] | None = None
    ) -> np.ndarray:
        """(N, D) float32, one row for each of the index; nan where a sample turned out unreadable, which is named."""
        from selftaught.data.loader import once
        from selftaught.downstream.features import extract

        batches = once(
            index, self.modality, batch_size=batch_size, workers=workers, unreadable=unreadable, accept_unreadable=True
        )
        device = next(self.encoder.parameters()).device
        return extract(self.encoder, batches, self.modality.normalise, rows=len(index), device=device)


def load(run: str | os.PathLike[str], *, encoder: Any = None) -> Model:
    """The model of a finished run: ``st.load("runs/first").embed("pictures/")``. Raises RunError if there is none.

    ``encoder``: your own module, built as it was for training, where the run was given one; it gets the weights.
    """
    folder = Run.open(run).folder / "encoder"
    if not (folder / "config.json").is_file():
        hint = "The same pretrain command again goes on with it."
        raise RunError(f"The run {os.fspath(run)!r} is not finished: it holds no encoder yet.", hint=hint)
    return load_encoder(folder, encoder)


def load_encoder(folder: Path, module: Any = None) -> Model:
    """From a folder that ``save_encoder`` wrote. ``module``: the user's own, for an encoder that was one."""
    from selftaught.encoders import make

    config = saved.read_config(folder)
    preprocessing = saved.read_beside(folder, "preprocessing", config)
    try:
        encoder = make(config["encoder"] if module is None else module, config["encoder"]["shape"])
        modality = load_modality(preprocessing, said_by=folder)
    except (KeyError, TypeError) as error:
        raise RunError(f"The encoder in {folder} lacks what it takes to load it: {first_line(error)}.") from None
    saved.load_weights(encoder, folder, config)
    return Model(encoder, modality, folder, config)


def load_modality(said: Mapping[str, Any], *, said_by: Path | None = None) -> Any:
    """A modality as ``modality_state`` described it; ``said_by``: in which folder, if that must be trusted first."""
    modality = catalog.load("modality", said["name"], said_by=said_by)(**said["options"])
    modality.load_state(said["state"])
    return modality


def modality_state(name: str, options: Mapping[str, Any], modality: Any) -> dict[str, Any]:
    """JSON-able: which modality, how it was configured, what it measured."""
    return {"name": name, "options": dict(options), "state": modality.state()}


def save_encoder(folder: Path, encoder: Any, preprocessing: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """config.json, model.safetensors and preprocessing.json, all or nothing."""
    saved.save_folder(folder, encoder, {"encoder": encoder.config(), **facts}, preprocessing=preprocessing)
