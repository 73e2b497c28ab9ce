"""What the report reads: evaluation.json and the tables of a run, as parquet; each file whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from selftaught.downstream.evaluate import Evaluation
from selftaught.downstream.neighbors import search
from selftaught.errors import RunError

KEYS = {
    "rows": ("data", "task", "protocol", "features", "layer", "budget", "seed", "metric"),
    "summary": ("data", "task", "protocol", "features", "budget", "metric"),
    "gains": ("data", "protocol", "metric", "budget", "against"),
}
SIDE = 64  # pixels of a thumbnail at most
MOST = 2000  # samples on the map and in the neighbours: more than a page can show


def append_rows(run: str | Path, evaluation: Evaluation, *, data: str) -> Path:
    """Adds an evaluation to RUN/evaluation.json; what was measured again (same data, protocol, budget, seed) replaces.

    Raises RunError where the file there is not one of ours.
    """
    path = Path(run) / "evaluation.json"
    new = evaluation.to_json()
    new["gains"] = [{"data": data, **gain} for gain in new["gains"]]
    old = _read(path)
    for part, key in KEYS.items():
        new[part] = _merged(old.get(part, []), new[part], key)
    new["sentence"] = new["sentence"] or old.get("sentence", "")
    _whole(path, lambda draft: draft.write_text(json.dumps(new, indent=1, allow_nan=False) + "\n", encoding="utf-8"))
    return path


def write_predictions(
    run: str | Path, evaluation: Evaluation, *, name: Callable[[int], str], classes: Sequence[str], protocol: str = ""
) -> None:
    """tables/predictions.parquet: id, path, true, predicted (names), confidence, protocol, budget, seed.

    ``name(id)`` is what the page calls a sample.
    """
    columns = evaluation.predictions
    if not columns:
        return
    keep = columns["protocol"] == protocol if protocol else np.ones(len(columns["id"]), bool)
    names = np.asarray(classes, object)
    table = {column: values[keep] for column, values in columns.items()}
    called = {row: name(row) for row in np.unique(table["id"]).tolist()}
    table["path"] = np.array([called[row] for row in table["id"].tolist()], object)
    table["true"], table["predicted"] = names[table["true"]], names[table["predicted"]]
    order = ("id", "path", "true", "predicted", "confidence", "protocol", "budget", "seed")
    _table(run, "predictions", {column: table[column] for column in order})


def write_neighbours(run: str | Path, features: np.ndarray, *, queries: int = 12, k: int = 8) -> list[int]:
    """tables/neighbours.parquet: query, rank (from 1), neighbour, similarity (cosine); ids are rows of ``features``.

    ``queries`` samples spread over the data, against at most ``MOST``. Gives all ids that the table names.
    """
    rows = _some(features)
    asked = rows[np.linspace(0, len(rows) - 1, min(queries, len(rows))).astype(int)]
    index, similarity = search(features[rows], features[asked], k=k + 1)
    made: dict[str, list[Any]] = {"query": [], "rank": [], "neighbour": [], "similarity": []}
    for query, near, close in zip(asked, rows[index], similarity, strict=True):
        others = [(int(n), float(s)) for n, s in zip(near, close, strict=True) if n != query][:k]
        for rank, (neighbour, cosine) in enumerate(others, start=1):
            for name, value in zip(made, (int(query), rank, neighbour, cosine), strict=True):
                made[name].append(value)
    _table(run, "neighbours", made)
    return sorted({*made["query"], *made["neighbour"]})


def write_map(run: str | Path, features: np.ndarray, *, labels: Sequence[str] = (), seed: int = 0) -> None:
    """tables/map.parquet: id, x, y, label: t-SNE (van der Maaten & Hinton 2008) of at most ``MOST`` samples."""
    rows = _some(features)
    place = flat_map(features[rows], seed=seed)
    names = np.asarray(labels, object)[rows] if len(labels) else np.full(len(rows), "", object)
    _table(run, "map", {"id": rows, "x": place[:, 0], "y": place[:, 1], "label": names})


def _some(features: np.ndarray) -> np.ndarray:
    """At most ``MOST`` rows, always the same, of samples that could be read (the others are nan)."""
    finite = np.flatnonzero(np.isfinite(features).all(axis=1))
    return np.sort(np.random.default_rng(0).permutation(finite)[:MOST])


def flat_map(features: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """(N, D) -> (N, 2) float32, neighbours close to each other; by PCA where there are too few samples for t-SNE."""
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    reduced = PCA(min(50, *unit.shape), random_state=seed).fit_transform(unit)
    if len(unit) < 10:
        return np.pad(reduced, ((0, 0), (0, 2)))[:, :2].astype(np.float32)
    perplexity = min(30.0, (len(unit) - 1) / 3)
    return TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(reduced).astype(np.float32)


def write_thumbnails(run: str | Path, pictures: Mapping[int, np.ndarray]) -> None:
    """tables/thumbnails.parquet: id, png. ``pictures``: row of the index -> (Y, X, 3) uint8, RGB."""
    _table(run, "thumbnails", {"id": list(pictures), "png": [_png(picture) for picture in pictures.values()]})


def _png(picture: np.ndarray) -> bytes:
    scale = SIDE / max(picture.shape[:2])
    if scale < 1:
        size = tuple(max(1, round(side * scale)) for side in picture.shape[1::-1])
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return cv2.imencode(".png", np.ascontiguousarray(picture[..., ::-1]))[1].tobytes()


def _merged(old: list[dict[str, Any]], new: list[dict[str, Any]], key: tuple[str, ...]) -> list[dict[str, Any]]:
    """Old rows that were not measured again, then the new ones."""
    again = {tuple(row.get(name) for name in key) for row in new}
    return [row for row in old if tuple(row.get(name) for name in key) not in again] + new


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise RunError(
            f"{path.name} of this run cannot be read.", hint="Move it away; the evaluation is then written anew."
        )
    return found


def _table(run: str | Path, name: str, columns: Mapping[str, Any]) -> None:
    folder = Path(run) / "tables"
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.table({column: pa.array(values) for column, values in columns.items()})
    _whole(folder / f"{name}.parquet", lambda draft: pq.write_table(table, draft))


def _whole(path: Path, write: Callable[[Path], object]) -> None:
    draft = path.with_name(path.name + ".part")
    write(draft)
    os.replace(draft, path)
