"""How often each sample is drawn, where not all are drawn alike: by a weight of its own, or so that groups balance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from selftaught.data.index import Index
from selftaught.data.labels import Labels
from selftaught.errors import DataError, nearest


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


def balanced(labels: Labels) -> np.ndarray:
    """(N,) float64: each class is drawn as often as any other; samples without a label count as one more."""
    counts = np.bincount(labels.values + 1)
    return 1 / counts[labels.values + 1]


def shares(parts: Sequence[np.ndarray]) -> np.ndarray | None:
    """Weights multiplied, as shares that sum to 1; None where there are none: all alike."""
    if not parts:
        return None
    product = np.prod(parts, axis=0)
    if not product.any():
        raise DataError("No sample has a weight above 0.")
    return product / product.sum()
