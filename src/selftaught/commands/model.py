"""The encoder of a finished run: saved, loaded, and used on paths and arrays."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from selftaught import catalog
from selftaught.commands.run import Run
from selftaught.errors import RunError, UnreadableError

SCHEMA = 1  # of encoder/config.json


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
    from safetensors.torch import load_file

    from selftaught.encoders import make

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    encoder = make(config["encoder"] if module is None else module, config["encoder"]["shape"])
    encoder.load_state_dict(load_file(folder / "model.safetensors"))
    saved = json.loads((folder / "preprocessing.json").read_text(encoding="utf-8"))
    return Model(encoder, load_modality(saved, said_by=folder), folder, config)


def load_modality(saved: Mapping[str, Any], *, said_by: Path | None = None) -> Any:
    """A modality as ``modality_state`` described it; ``said_by``: in which folder, if that must be trusted first."""
    modality = catalog.load("modality", saved["name"], said_by=said_by)(**saved["options"])
    modality.load_state(saved["state"])
    return modality


def modality_state(name: str, options: Mapping[str, Any], modality: Any) -> dict[str, Any]:
    """JSON-able: which modality, how it was configured, what it measured."""
    return {"name": name, "options": dict(options), "state": modality.state()}


def save_encoder(folder: Path, encoder: Any, preprocessing: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """config.json, model.safetensors and preprocessing.json, all or nothing: the folder gets its name last."""
    from safetensors.torch import save_file

    fresh = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    config = {"schema": SCHEMA, "encoder": encoder.config(), **facts}
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in encoder.state_dict().items()}
    save_file(tensors, fresh / "model.safetensors", metadata={"format": "pt"})
    (fresh / "preprocessing.json").write_text(json.dumps(preprocessing, indent=1), encoding="utf-8")
    (fresh / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    fresh.replace(folder)
