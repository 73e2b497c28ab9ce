"""Arrays in memory, written once to files that every process can map; their names are the digest of what they hold."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from selftaught.data.place import write_atomically
from selftaught.errors import DataError


def spool(data: Any, folder: Path) -> tuple[Path, str, str]:
    """(folder, file name, digest) of an array, ``(x, y)`` or ``{"x": …, "y": …}``; ``y`` goes to ``NAME.y.npy`` beside.

    Raises ``DataError`` for rows that do not match, Python objects, no rows, and a folder that cannot be written to.
    """
    named = _named(data)
    digest = hashlib.sha256()
    for name, array in named.items():
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    content = digest.hexdigest()
    for name, array in named.items():
        _write(folder / (f"{content[:32]}.npy" if name == "x" else f"{content[:32]}.{name}.npy"), array)
    return folder, f"{content[:32]}.npy", content


def _named(data: Any) -> dict[str, np.ndarray]:
    if not isinstance(data, Mapping):
        data = dict(zip("xy", data, strict=True)) if isinstance(data, tuple) else {"x": data}
    named = {str(name): np.asarray(array) for name, array in data.items()}
    if "x" not in named:
        raise DataError("A dictionary of arrays must hold the samples as 'x'.", hint=f"It holds: {', '.join(named)}.")
    for name, array in named.items():
        if array.dtype.hasobject:
            raise DataError(f"The array {name!r} holds Python objects; numbers or strings of one type can be used.")
        if array.ndim == 0 or named["x"].ndim == 0 or len(array) != len(named["x"]):
            raise DataError(f"The array {name!r} has the shape {array.shape}, 'x' has {named['x'].shape}.")
    if not len(named["x"]):
        raise DataError("The array of samples is empty.")
    return named


def _write(path: Path, array: np.ndarray) -> None:
    def save(temporary: str) -> None:
        with open(temporary, "wb") as file:
            np.save(file, array, allow_pickle=False)

    if not path.exists():
        write_atomically(path, "arrays", save)
