"""How often each sample is drawn, where not all are drawn alike: by a weight of its own, or so that groups balance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from selftaught.data.index import Index
from selftaught.data.labels import Labels
from selftaught.errors import ConfigError, DataError, must_be, nearest


def weights_of(index: Index, column: str) -> np.ndarray:
    """(N,) float64 from a column of the data. Raises ``DataError`` for what is no weight, or if none is above 0."""
    if column not in index.names:
        hint = nearest(column, index.names) or f"The data have: {', '.join(index.names)}."
        raise DataError(f"The data have no column {column!r} of weights.", hint=hint)
    found = np.empty(len(index))
    for row, said in enumerate(index.column(column)):
        try:
            found[row] = float(said)
        except (TypeError, ValueError):
            found[row] = np.nan
        if not (np.isfinite(found[row]) and found[row] >= 0):
            message = f"The weight of {index.name(row)!r} must be a finite number of at least 0. Got {said!r} instead."
            raise DataError(message)
    if not found.any():
        raise DataError(f"All weights in the column {column!r} are 0.")
    return found


def balanced(values: np.ndarray) -> np.ndarray:
    """(N,) float64: each class is drawn as often as any other; samples without a label (-1) count as one more."""
    counts = np.bincount(values + 1)
    return 1 / counts[values + 1]


def mixed(labels: Labels, wanted: str | Mapping[str, Any]) -> np.ndarray:
    """(N,) float64: each class is drawn as often as ``wanted`` says: ``"wiki=3,news=1"``, or a mapping.

    Raises ``ConfigError`` for what is no such thing, ``DataError`` where a class is not named, or not there.
    """
    given = _read_mix(wanted)
    for name in given:
        if name not in labels.classes:
            hint = nearest(name, labels.classes) or f"There are: {', '.join(labels.classes[:20])}."
            raise DataError(f"No sample is of the kind {name!r}, which is to be mixed in.", hint=hint)
    missed = [f"the kind {name!r}" for name in labels.classes if name not in given]
    missed += [f"{labels.unlabelled:,} samples of no kind"] if labels.unlabelled else []
    if missed:
        raise DataError(f"'mix' says no share of {missed[0]}.", hint="Name every kind; 0 leaves one out.")
    counts, wanted_of = np.bincount(labels.values, minlength=len(labels.classes)), [given[n] for n in labels.classes]
    for name, count, share in zip(labels.classes, counts, wanted_of, strict=True):
        if share and not count:
            raise DataError(f"All samples of the kind {name!r} are held out, so that none can be mixed in.")
    return (np.array(wanted_of) / np.maximum(counts, 1))[labels.values]


def _read_mix(wanted: str | Mapping[str, Any]) -> dict[str, float]:
    pairs = list(wanted.items()) if isinstance(wanted, Mapping) else [one.rpartition("=")[::2] for one in _cut(wanted)]
    found: dict[str, float] = {}
    for name, share in pairs:
        try:
            found[str(name).strip()] = float(share)
        except (TypeError, ValueError):
            found[str(name).strip()] = np.nan
    if len(found) < len(pairs) or "" in found or not all(np.isfinite(share) and share >= 0 for share in found.values()):
        form = "NAME=SHARE,NAME=SHARE,…, each name once, with finite shares of at least 0"
        raise ConfigError(must_be("mix", "pretrain", form, wanted))
    return found


def _cut(text: str) -> list[str]:
    return [each for each in str(text).split(",") if each.strip()]


def shares(parts: Sequence[np.ndarray]) -> np.ndarray | None:
    """Weights multiplied, as shares that sum to 1; None where there are none: all alike."""
    if not parts:
        return None
    product = np.prod(parts, axis=0)
    if not product.any():
        raise DataError("No sample has a weight above 0.")
    return product / product.sum()
