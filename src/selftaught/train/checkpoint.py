"""Checkpoints that survive what happens to them: a kill in the middle of a write, a full disk, a flipped bit.

One checkpoint is two files: ``00000120.safetensors`` (every tensor by name, contiguous, shared ones once) and
``00000120.json`` (everything else, and the SHA-256 of the first). Each is written beside its place, synced and renamed,
the JSON last: where it stands, the tensors stand. Two are kept, so a torn or altered one costs one interval, not the
run. No pickle anywhere: loading runs no code.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from selftaught.errors import CheckpointError, RunError

VERSION = 1
KEPT = 2


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What ``Store.save`` was given. ``notes`` name newer checkpoints that could not be used, and why."""

    step: int
    tensors: dict[str, Tensor]
    facts: dict[str, Any]
    notes: tuple[str, ...] = field(default=())


class Store:
    """The checkpoints of one run, in ``folder``. Only the holder of the run's lock may save."""

    def __init__(self, folder: str | os.PathLike[str], *, keep: int = KEPT) -> None:
        self.folder = Path(folder)
        self.keep = keep

    def save(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], *, step: int) -> None:
        """Writes one checkpoint and removes all but the last ``keep``. On CheckpointError older ones still stand."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._clean()
            self._write(tensors, facts, step)
            for old in self.steps()[: -self.keep]:
                self._remove(old)
        except (OSError, SafetensorError) as error:
            with contextlib.suppress(OSError):
                self._clean()
            raise CheckpointError(
                f"The checkpoint of step {step} cannot be written to {str(self.folder)!r}: {error}",
                hint="The last good checkpoint stands. Make room or grant permission, then start it again.",
            ) from error

    def steps(self) -> list[int]:
        """The steps that have a checkpoint, ascending; whether it is whole is not checked."""
        return sorted(int(path.stem) for path in self.folder.glob("*.json") if path.stem.isdigit())

    def load_latest(self, *, discard: bool = False) -> Checkpoint | None:
        """The newest checkpoint that is whole, or None where there is none at all.

        ``discard``: removes newer ones that are not (only for the holder of the lock). Raises CheckpointError where
        there are checkpoints and none of them can be used.
        """
        notes: list[str] = []
        for step in reversed(self.steps()):
            try:
                found = self._read(step)
            except (OSError, ValueError, KeyError, SafetensorError) as error:
                notes.append(f"The checkpoint of step {step} cannot be used ({error}); the one before it is taken.")
            else:
                for broken in [other for other in self.steps() if other > step] if discard else []:
                    self._remove(broken)
                return Checkpoint(step, *found, tuple(notes))
        if notes:
            raise CheckpointError(
                f"None of the {len(notes)} checkpoints in {str(self.folder)!r} can be used. {notes[0]}",
                hint="Delete the folder to start the run again from step 0.",
            )
        return None

    def _write(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], step: int) -> None:
        own, tied = _tied_once(tensors)
        target = self.folder / f"{step:08d}.safetensors"
        partial = target.with_suffix(".safetensors.partial")
        save_file(own, partial)
        digest = _digest(partial)
        _settle(partial, target)
        text = {"version": VERSION, "step": step, "sha256": digest, "tied": tied, "facts": dict(facts)}
        text["sha256_facts"] = _digest_of_facts(text)
        partial = target.with_suffix(".json.partial")
        partial.write_text(json.dumps(text, indent=1))
        _settle(partial, target.with_suffix(".json"))

    def _read(self, step: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
        path = self.folder / f"{step:08d}.json"
        text = json.loads(path.read_text())
        if text["version"] != VERSION:
            raise ValueError(f"it has format {text['version']}, this selftaught reads {VERSION}")
        if text.pop("sha256_facts") != _digest_of_facts(text):
            raise ValueError("its facts have been altered")
        path = path.with_suffix(".safetensors")
        if _digest(path) != text["sha256"]:
            raise ValueError("its tensors are torn or have been altered")
        tensors = load_file(path)
        tensors |= {name: tensors[first] for name, first in text["tied"].items()}
        return tensors, text["facts"]

    def _remove(self, step: int) -> None:
        for suffix in (".json", ".safetensors"):  # this order: what has no JSON is no checkpoint
            (self.folder / f"{step:08d}{suffix}").unlink(missing_ok=True)

    def _clean(self) -> None:
        """Removes what a killed writer left: half files, and tensors whose JSON was never written."""
        for path in self.folder.glob("*.partial"):
            path.unlink(missing_ok=True)
        for path in self.folder.glob("*.safetensors"):
            if not path.with_suffix(".json").exists():
                path.unlink(missing_ok=True)


@contextlib.contextmanager
def lock(run: str | os.PathLike[str]) -> Iterator[None]:
    """Holds the run for this process; the kernel lets go when the process ends, however it ends.

    Makes the folder if it is not there. Raises RunError where another process holds it or it cannot be written.
    """
    path = Path(run) / "lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+")  # noqa: SIM115 - closed below; "a" leaves the holder's pid readable
    except OSError as error:
        raise RunError(f"The run {str(run)!r} cannot be written: {error}.", hint="Choose another --out.") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise RunError(
                f"The run {str(run)!r} is in use by process {holder}.",
                hint="Wait for it or stop it; another --out starts another run.",
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Puts ``text`` into a file atomically: after a kill there is the old content or the new, never half of it."""
    target = Path(path)
    partial = target.with_name(f"{target.name}.partial")
    try:
        partial.write_text(text)
        _settle(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def _settle(partial: Path, target: Path) -> None:
    """Content to disk, then the name, then the directory that holds the name."""
    _sync(partial)
    partial.replace(target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _tied_once(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Contiguous tensors on the CPU, and {name: earlier name} for those that are one and the same memory."""
    own: dict[str, Tensor] = {}
    tied: dict[str, str] = {}
    seen: dict[tuple[Any, ...], str] = {}
    for name, tensor in tensors.items():
        key = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if tensor.numel() and key in seen:
            tied[name] = seen[key]
            continue
        seen[key] = name
        own[name] = tensor.detach().to("cpu", memory_format=torch.contiguous_format).contiguous()
    storages: set[int] = set()
    for name, tensor in own.items():  # views of one memory that are not the same tensor: safetensors wants them apart
        if tensor.untyped_storage().data_ptr() in storages or tensor.untyped_storage().nbytes() != tensor.nbytes:
            own[name] = tensor.clone()
        storages.add(own[name].untyped_storage().data_ptr())
    return own, tied


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_of_facts(text: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(text, sort_keys=True).encode()).hexdigest()
