"""Somebody's dataset object (torch's ``Dataset``, Hugging Face's) as files: read once, from first to last, and kept.

What is kept is what ``dataset[i]`` gave: pictures of 8 or 16 bits as PNG, all others as one array. So the training
knows it by its content, any worker reads any sample, and a run goes on exactly; a dataset that changes its samples at
random is frozen at what it gave, which is said. A process reads one dataset once.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import warnings
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import cv2
import numpy as np

from selftaught.errors import DataError
from selftaught.formats import files

LOOKED_AT = 4  # samples that are read twice, to see whether they stay what they are
SAMPLES = ("image", "img", "picture", "x", "audio", "series", "data", "pixel_values")  # key of the sample in a mapping


class Kept(NamedTuple):
    """Where the samples are now, as ``Source`` has it."""

    root: Path
    kind: str
    paths: tuple[str, ...]
    columns: dict[str, tuple[str, ...]]
    inside: tuple[str, ...]
    content: str


_REMEMBERED: weakref.WeakKeyDictionary[Any, Kept] = weakref.WeakKeyDictionary()


def is_dataset(data: Any) -> bool:
    """Something with a length and samples by number that is neither a list nor an array."""
    plain = isinstance(data, str | bytes | Mapping | Sequence | np.ndarray | os.PathLike) or hasattr(data, "__array__")
    return not plain and hasattr(data, "__getitem__") and hasattr(data, "__len__")


def keep(dataset: Any, folder: Path) -> Kept:
    """Reads and keeps all samples below ``folder``. Raises ``DataError`` for what cannot be kept."""
    with contextlib.suppress(TypeError, KeyError):  # not every object can be remembered
        kept = _REMEMBERED[dataset]
        if kept.root == folder:
            return kept
    kept = _keep(dataset, folder)
    with contextlib.suppress(TypeError):
        _REMEMBERED[dataset] = kept
    return kept


def _keep(dataset: Any, folder: Path) -> Kept:
    count = len(dataset)
    if not count:
        raise DataError("The dataset is empty.")
    first, _ = _parts(dataset[0], 0)
    _warn_of_chance(dataset, min(LOOKED_AT, count))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _as_pictures(dataset, count, folder) if _is_picture(first) else _as_array(dataset, count, folder, first)
    except OSError as error:
        hint = "Set SELFTAUGHT_CACHE to a folder that can be written to."
        raise DataError(f"The dataset cannot be kept in {str(folder)!r}: {error.strerror}.", hint=hint) from None


def _parts(sample: Any, number: int) -> tuple[np.ndarray, dict[str, str]]:
    """(the sample as an array, what is said of it by name) of whatever ``dataset[i]`` gives."""
    if isinstance(sample, Mapping):
        name = next((key for key in SAMPLES if key in sample), None)
        if name is None:
            raise DataError(
                f"Sample {number} of the dataset has none of {', '.join(SAMPLES)}; it has {', '.join(sample)}."
            )
        said = {str(key): _text(value) for key, value in sample.items() if key != name and _is_plain(value)}
        return _array(sample[name], number), said
    if isinstance(sample, tuple | list) and sample:
        value, *more = sample
        said = {"y": _text(more[0])} if more and _is_plain(more[0]) else {}
        return _array(value, number), said
    return _array(sample, number), {}


def _array(value: Any, number: int) -> np.ndarray:
    """Pictures (Y, X[, C]): PIL's as they are shown, torch's with the channels last; others as they are."""
    if hasattr(value, "getbands"):  # a PIL picture
        value = value.convert("RGB") if value.mode in ("P", "CMYK", "YCbCr", "LAB", "HSV") else value
        return np.asarray(value)
    array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    if array.dtype.hasobject or array.dtype.kind not in "biuf":
        raise DataError(
            f"Sample {number} of the dataset is {type(value).__name__}, not a picture or an array of numbers."
        )
    if hasattr(value, "detach") and array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.dtype.kind == "u":
        array = np.moveaxis(array, 0, -1)
    return array


def _is_picture(array: np.ndarray) -> bool:
    colours = array.ndim == 2 or array.ndim == 3 and array.shape[2] in (1, 3, 4)
    return colours and array.dtype in (np.uint8, np.uint16, np.bool_)


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | np.generic) or getattr(value, "ndim", None) == 0


def _text(value: Any) -> str:
    return "" if value is None else str(value.item() if hasattr(value, "item") else value)


def _warn_of_chance(dataset: Any, count: int) -> None:
    for number in range(count):
        one, other = (_parts(dataset[number], number)[0] for _ in range(2))
        if one.shape != other.shape or not np.array_equal(one, other, equal_nan=one.dtype.kind == "f"):
            message = "The dataset gives its samples differently each time; what it gave now is kept for the whole run."
            warnings.warn(f"{message} Leave its random transforms out: views are made here.", stacklevel=2)
            return


def _as_pictures(dataset: Any, count: int, folder: Path) -> Kept:
    unfinished = folder / f"dataset.{os.getpid()}.tmp"
    try:
        with open(unfinished, "wb") as heap:
            names, sizes, columns, content = _written(dataset, count, heap)
        path = folder / f"{content[:32]}.bytes"
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    starts = np.cumsum([0, *sizes[:-1]]).tolist()
    inside = (str(files.Part(path.name, at, size)) for at, size in zip(starts, sizes, strict=True))
    return Kept(folder, "archives", tuple(names), columns, tuple(inside), content)


def _written(dataset: Any, count: int, heap: BinaryIO) -> tuple[list[str], list[int], dict[str, tuple[str, ...]], str]:
    names, sizes, rows, digest = [], [], [], hashlib.sha256()
    for number, array, said in _all(dataset, count):
        if not _is_picture(array):
            raise DataError(
                f"Sample {number} of the dataset is {array.dtype} of shape {array.shape}, the first is a picture."
            )
        data = _png(array)
        digest.update(data)
        heap.write(data)
        names.append(f"{number:0{len(str(count))}}.png")
        sizes.append(len(data))
        rows.append(said)
    columns = _columns(rows)
    digest.update(repr(columns).encode())
    return names, sizes, columns, digest.hexdigest()


def _png(array: np.ndarray) -> bytes:
    pixels = array.astype(np.uint8) * 255 if array.dtype == np.bool_ else array
    if pixels.ndim == 3 and pixels.shape[2] > 1:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR if pixels.shape[2] == 3 else cv2.COLOR_RGBA2BGRA)
    return cv2.imencode(".png", pixels)[1].tobytes()


def _as_array(dataset: Any, count: int, folder: Path, first: np.ndarray) -> Kept:
    unfinished, rows = folder / f"dataset.{os.getpid()}.tmp", []
    digest = hashlib.sha256(f"{first.dtype.str} {(count, *first.shape)}".encode())
    try:
        stored = np.lib.format.open_memmap(unfinished, mode="w+", dtype=first.dtype, shape=(count, *first.shape))
        for number, array, said in _all(dataset, count):
            if array.shape != first.shape:
                hint = "Arrays of different shapes can be given as files, one each, or as a list of pictures."
                message = f"Sample {number} of the dataset has the shape {array.shape}, the first {first.shape}."
                raise DataError(message, hint=hint)
            stored[number] = array
            digest.update(np.ascontiguousarray(array).tobytes())
            rows.append(said)
        stored.flush()
        labels = _columns(rows).get("y")
        digest.update(repr(labels).encode())  # the same samples with other labels are other data
        name = digest.hexdigest()[:32]
        if labels is not None:
            np.save(folder / f"{name}.y.npy", np.array(labels), allow_pickle=False)
        os.replace(unfinished, folder / f"{name}.npy")
    finally:
        unfinished.unlink(missing_ok=True)
    return Kept(folder, "arrays", (f"{name}.npy",), {}, (), digest.hexdigest())


def _all(dataset: Any, count: int) -> Iterator[tuple[int, np.ndarray, dict[str, str]]]:
    for number in range(count):
        yield number, *_parts(dataset[number], number)


def _columns(rows: Sequence[Mapping[str, str]]) -> dict[str, tuple[str, ...]]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: tuple(row.get(name, "") for row in rows) for name in names}
