"""Labels: from folders, a column, a CSV file or an array, as numbers with names. They are optional row by row."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from selftaught.data.entries import Source
from selftaught.data.index import Index
from selftaught.data.manifest import SPLITS, is_table, read_table
from selftaught.errors import DataError, nearest
from selftaught.formats import arrays


@dataclass(frozen=True, slots=True)
class Labels:
    """One entry a row of the index."""

    values: np.ndarray  # (N,) int64 into ``classes``; -1 = no label
    classes: tuple[str, ...]  # sorted, numbers by value
    group: np.ndarray | None = None  # (N,) strings: what must stay on one side of a split; None = nothing said
    split: np.ndarray | None = None  # (N,) strings: "train", "validation", "test", or ""; None = nothing said

    @property
    def labelled(self) -> np.ndarray:
        """(N,) bool."""
        return self.values >= 0

    @property
    def unlabelled(self) -> int:
        """How many rows have no label."""
        return int((self.values < 0).sum())

    def refuse_names(self) -> None:
        """Raises ``DataError`` where every labelled sample has a label of its own: those are names, not classes."""
        if (count := int(self.labelled.sum())) == len(self.classes):
            hint = "Labels are classes that several samples share; a column of names or numbers of samples is none."
            raise DataError(f"Each of the {count:,} labelled samples has a label of its own.", hint=hint)


def read_labels(index: Index, spec: Any, source: Source | None = None) -> Labels:
    """Labels for every row of ``index``.

    ``spec``: "folders" (the name of the folder that a file lies in), a column of the manifest, a table (a path: CSV,
    TSV, JSON lines, Parquet) of ``path,label[,split][,group]``, "y" (the labels that came with arrays), a member of the
    ``.npz``, or an array of one label a row. Raises ``DataError`` where there is nothing to learn from: no label, one
    class, no match.
    """
    if not isinstance(spec, str):
        return _finish(index, _from_array(np.asarray(spec), len(index)), spec="the array of labels")
    if spec == "folders":
        return _from_folders(index)
    if is_table(spec):
        return _from_table(index, os.path.expanduser(spec))
    if spec in index.names and (spec != "label" or any(value for value in index.column("label"))):
        return _finish(index, index.column(spec), spec=f"the column {spec!r}")
    if index.facts["kind"] == "arrays":
        return _from_arrays(index, spec)
    return _unknown(index, spec)


def _finish(
    index: Index, raw: Sequence[Any] | np.ndarray, *, spec: str, names: Sequence[str] = (), split=None, group=None
) -> Labels:
    """Raw labels (None or "" = none) to numbers; ``names`` are what the numbers stand for, where the data say so."""
    words = ["" if value is None else str(value) for value in raw]
    if names and all(word.isdecimal() and int(word) < len(names) for word in words if word):
        words = [str(names[int(word)]) if word else "" for word in words]
    classes = sorted({word for word in words if word}, key=_natural)
    if not classes:
        raise DataError(f"None of the {len(words):,} samples has a label in {spec}.")
    if len(classes) == 1:
        raise DataError(f"All labels in {spec} are {classes[0]!r}; at least two classes are needed.")
    _refuse_odd(classes, spec)
    number = {word: value for value, word in enumerate(classes)} | {"": -1}
    values = np.array([number[word] for word in words], np.int64)
    split = index.column("split") if split is None else split
    group = index.column("group") if group is None else group
    splits = [SPLITS.get(str(value or "").lower(), str(value or "")) for value in split]
    return Labels(values, tuple(classes), _if_any(group), _if_any(splits))


def _refuse_odd(classes: Sequence[str], spec: str) -> None:
    """nan and inf among numbers: readings that are missing, no classes. Among words they may be somebody's names."""
    numbers = [value for kind, value, _ in map(_natural, classes) if kind == 0]
    odd = [word for word in classes if _natural(word)[0] == 0 and not math.isfinite(float(word))]
    if odd and len(odd) < len(numbers):
        raise DataError(f"{odd[0]!r} is no class, but a label in {spec}.", hint="Leave it empty where there is none.")


def _natural(word: str) -> tuple[int, float, str]:
    """Numbers first and by value: "2" before "10"."""
    try:
        return 0, float(word), word
    except ValueError:
        return 1, 0.0, word


def _if_any(values: Sequence[Any] | np.ndarray) -> np.ndarray | None:
    words = np.array(["" if value is None else str(value) for value in values], dtype=object)
    return words if any(words) else None


# --- Folders ------------------------------------------------------------------------------------------------------


def _from_folders(index: Index) -> Labels:
    parts = [path.split("/")[:-1] for path in index.column("path")]
    raw = [folders[-1] if folders and folders[-1].lower() not in SPLITS else None for folders in parts]
    if not any(raw):
        hint = "Put each class into a sub-folder, or give --labels a column name or a CSV of path,label."
        raise DataError(f"The files in {index.root!r} do not lie in sub-folders that could name classes.", hint=hint)
    first = [folders[0].lower() if folders else "" for folders in parts]
    split = [SPLITS.get(name, "") for name in first] if any(name in SPLITS for name in first) else None
    return _finish(index, raw, spec="the folder names", split=split)


# --- Tables -------------------------------------------------------------------------------------------------------


def _from_table(index: Index, path: str) -> Labels:
    if not os.path.exists(path):
        raise DataError(f"There is no label file {path!r}.")
    columns, name = read_table(path).columns, os.path.basename(path)
    for needed in ("path", "label"):
        if needed not in columns:
            raise _no_column(needed, list(columns), name)
    row_of = _match(index, columns["path"], os.path.dirname(os.path.abspath(path)))
    if (row_of < 0).all():
        here, there = index.column("path")[0], columns["path"][0]
        raise DataError(f"None of the labels in {name} matches a file: it says {there!r}, the data have {here!r}.")

    def pick(column: str) -> list[str] | None:
        return [columns[column][row] if row >= 0 else "" for row in row_of] if column in columns else None

    return _finish(index, pick("label") or [], spec=name, split=pick("split"), group=pick("group"))


def _match(index: Index, said: Sequence[str], folder: str) -> np.ndarray:
    """(N,) int64: which row of the CSV speaks of each sample, -1 for none; by path, then by unique file name."""
    full = {
        os.path.normpath(os.path.join(base, path)): row
        for base in (folder, index.root)
        for row, path in enumerate(said)
    }
    paths = [os.path.normpath(os.path.join(index.root, path)) for path in index.column("path")]
    rows = np.array([full.get(path, -1) for path in paths], np.int64)
    if (rows >= 0).any():
        return rows
    short = [os.path.basename(path) for path in said]
    unique = {name: row for row, name in enumerate(short)} if len(set(short)) == len(short) else {}
    return np.array([unique.get(os.path.basename(path), -1) for path in paths], np.int64)


def _no_column(name: str, names: Sequence[str], where: str) -> DataError:
    return DataError(f"{where} has no column {name!r}.", hint=nearest(name, names) or f"It has: {', '.join(names)}.")


# --- Arrays -------------------------------------------------------------------------------------------------------


def _from_arrays(index: Index, spec: str) -> Labels:
    paths, parts = index.column("path"), index.column("part")
    raw = np.empty(len(index), object)
    names: Sequence[str] = ()
    for path in dict.fromkeys(paths):
        full = os.path.join(index.root, path)
        here = paths == path
        raw[here] = _labels_of(full, spec)[parts[here]]
        if "classes" in arrays.keys(full):
            names = [str(name) for name in arrays.open_array(full, "classes")]
    return _finish(index, raw, spec=f"the array {spec!r}", names=names)


def _labels_of(path: str, spec: str) -> np.ndarray:
    """(rows,) labels of one file: its partner for "y", else the member called ``spec``."""
    members = arrays.keys(path)
    if spec in members:
        found = arrays.open_array(path, spec)
    else:
        names = arrays.LABELS if spec == "y" else (spec,)
        where = arrays.partner(path, names)
        if where is None:
            hint = nearest(spec, members) or (f"It holds: {', '.join(members)}." if members else "Give (x, y) arrays.")
            raise DataError(f"{os.path.basename(path)} holds no labels {spec!r} for its samples.", hint=hint)
        found = arrays.open_array(where)
    return _from_array(np.asarray(found), arrays.rows(path))


def _from_array(values: np.ndarray, rows: int) -> np.ndarray:
    values = values.reshape(-1) if values.size == len(values) else values
    if values.shape != (rows,):
        raise DataError(
            f"The labels must be one value for each of the {rows:,} samples. Got shape {values.shape} instead."
        )
    if values.dtype.kind == "f":
        if (real := values[~(np.isfinite(values) & (values == np.floor(values)))]).size:
            raise DataError(f"The labels must be classes. Got real numbers such as {real[0]} instead.")
        values = values.astype(np.int64)
    return values.astype(object)


def _unknown(index: Index, spec: str) -> Labels:
    hidden = {"path", "inside", "part", "length", "size", "mtime_ns", "entity", "label", "group", "split"}
    columns = [name for name in index.names if name not in hidden or name == "label" and any(index.column("label"))]
    known = ["folders", *columns]
    raise DataError(
        f"The 'labels' parameter must be 'folders', a column, or a CSV file of path,label. Got {spec!r} instead.",
        hint=nearest(spec, known) or f"Known here: {', '.join(known)}.",
    )
