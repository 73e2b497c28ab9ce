"""Weights with what is said of them, in a folder of its own: written whole or not at all, and refused where altered.

``model.safetensors`` holds the tensors, ``config.json`` what they are and the SHA-256 of every file, itself included;
other JSON files may lie beside. A flipped bit in a weight, or in a mean that pixels are standardised by, would change
every vector without a word, so it is looked for.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selftaught.errors import RunError, first_line

SCHEMA = 1  # of config.json
WEIGHTS = "model.safetensors"


def save_folder(folder: Path, module: Any, config: Mapping[str, Any], **beside: Mapping[str, Any]) -> None:
    """A module's weights, ``config`` and ``NAME.json`` for every other keyword: the folder gets its name last."""
    from safetensors.torch import save_file

    fresh = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        tensors = {name: value.detach().cpu().contiguous().clone() for name, value in module.state_dict().items()}
        save_file(tensors, fresh / WEIGHTS, metadata={"format": "pt"})
        for name, text in beside.items():
            (fresh / f"{name}.json").write_text(json.dumps(text, indent=1), encoding="utf-8")
        digests = {path.name: _digest(path) for path in sorted(fresh.iterdir())}
        said = {"schema": SCHEMA, **config, "sha256": digests}
        text = json.dumps({**said, "sha256_config": _digest_of(said)}, indent=1)
        (fresh / "config.json").write_text(text, encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        fresh.replace(folder)
    except BaseException:  # a full disk is made no fuller
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def read_config(folder: Path) -> dict[str, Any]:
    """config.json, of a version that is known here and as it was written. Raises RunError."""
    path = folder / "config.json"
    config = read_json(path)
    refuse_version(path, config.get("schema"), SCHEMA)
    said = config.pop("sha256_config", None)  # runs of before have none
    if said is not None and said != _digest_of(config):
        raise RunError(f"{path} has been altered: its checksum is another.", hint=_way_out(path))
    return config


def read_beside(folder: Path, name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """``NAME.json`` as it was written. Raises RunError."""
    path = folder / f"{name}.json"
    found = read_json(path)
    _refuse_altered(path, config)
    return found


def load_weights(module: Any, folder: Path, config: Mapping[str, Any]) -> None:
    """Puts the saved weights into ``module``. Raises RunError where they are altered, or another module's."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / WEIGHTS
    try:
        _refuse_altered(path, config)
        module.load_state_dict(load_file(path))
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror or error}.", hint=_way_out(path)) from None
    except SafetensorError as error:
        raise RunError(f"{path} is broken: {first_line(error)}.", hint=_way_out(path)) from None
    except RuntimeError as error:
        missed = str(error).splitlines()[-1].strip()[:200]
        raise RunError(f"{path} holds the weights of another module: {missed}", hint=_way_out(path)) from None


def read_json(path: Path) -> dict[str, Any]:
    """Raises RunError where the file is not there or holds something else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}.", hint=_way_out(path)) from None
    except (ValueError, RecursionError) as error:  # no JSON, or no text at all
        raise RunError(f"{path} is broken: {first_line(error)}.", hint=_way_out(path)) from None
    if not isinstance(found, dict):
        raise RunError(f"{path} is broken: it holds no names with values.", hint=_way_out(path))
    return found


def refuse_version(path: Path, found: Any, known: int) -> None:
    """Raises RunError where a file was written by another version of selftaught, and says by which."""
    if found == known:
        return
    if isinstance(found, int) and found > known:
        hint = "Upgrade: pip install --upgrade selftaught"
        raise RunError(f"{path} was written by a newer selftaught (schema {found}, not {known}).", hint=hint)
    raise RunError(f"{path} was written by another version of selftaught (schema {found}, not {known}).")


def _way_out(path: Path) -> str:
    """What to do about a broken file of a run."""
    run = next((one for one in path.parents if (one / "run.yaml").is_file()), None)
    again = "Copy the run again from where it was made"
    if run is None or not any((run / "checkpoints").glob("*.json")):
        return f"{again}, or train again."
    return (
        f"{again}, or delete {run / 'encoder'} and give its pretrain command again: it ends from its last checkpoint."
    )


def _refuse_altered(path: Path, config: Mapping[str, Any]) -> None:
    said = config.get("sha256", {}).get(path.name)
    if said is not None and _digest(path) != said:
        raise RunError(f"{path} is torn or has been altered: its checksum is another.", hint=_way_out(path))


def _digest_of(config: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
