"""What the report shows of an evaluation: thumbnails, predictions, neighbours and a map, as Parquet; and the table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from selftaught.commands.pictures import cell_of
from selftaught.data.index import Index
from selftaught.data.labels import Labels
from selftaught.data.loader import once
from selftaught.downstream.evaluate import Evaluation
from selftaught.downstream.neighbors import search

MAPPED = 2000  # samples on the map, and in the neighbours' bank
QUERIES = 12  # samples whose neighbours are shown
NEIGHBOURS = 6


def write_tables(
    folder: Path, index: Index, modality: Any, vectors: np.ndarray, labels: Labels, predictions: dict[str, np.ndarray]
) -> None:
    """``id`` is the row of the evaluated index everywhere."""
    folder.mkdir(parents=True, exist_ok=True)
    usable = np.flatnonzero(np.isfinite(vectors).all(axis=1))
    some = np.sort(np.random.default_rng(0).permutation(usable)[:MAPPED])
    near = _neighbours(vectors, some)
    _save(folder / "neighbours.parquet", near)
    _save(folder / "map.parquet", _map(vectors, some, labels))
    shown = {*near["query"], *near["neighbour"]}
    if predictions:
        columns = _named(predictions, index, labels)
        _save(folder / "predictions.parquet", columns)
        shown |= _worst(columns)
    _save(folder / "thumbnails.parquet", _thumbnails(index, modality, sorted(shown)))


def _neighbours(vectors: np.ndarray, some: np.ndarray) -> dict[str, list[Any]]:
    """The nearest samples of a few, spread over the data."""
    queries = np.linspace(0, len(some) - 1, min(QUERIES, len(some))).astype(int)
    found, similarity = search(vectors[some], vectors[some[queries]], k=NEIGHBOURS + 1)
    columns: dict[str, list[Any]] = {"query": [], "rank": [], "neighbour": [], "similarity": []}
    for query, places, scores in zip(queries, found, similarity, strict=True):
        others = [(one, score) for one, score in zip(places, scores, strict=True) if one != query]
        for rank, (one, score) in enumerate(others[:NEIGHBOURS]):
            row = (int(some[query]), rank, int(some[one]), float(score))
            for name, value in zip(columns, row, strict=True):
                columns[name].append(value)
    return columns


def _map(vectors: np.ndarray, some: np.ndarray, labels: Labels) -> dict[str, Any]:
    """Two dimensions by t-SNE after PCA (van der Maaten & Hinton 2008); by PCA alone where samples are few."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    x = vectors[some] / np.maximum(np.linalg.norm(vectors[some], axis=1, keepdims=True), 1e-12)
    place = np.zeros((len(some), 2))
    if len(some) > 2:
        reduced = PCA(min(32, *x.shape), random_state=0).fit_transform(x)
        perplexity = min(30.0, (len(some) - 1) / 3)
        few = len(some) < 50
        place = (
            reduced[:, :2] if few else TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(reduced)
        )
    names = [labels.classes[value] if value >= 0 else "" for value in labels.values[some]]
    return {"id": some.tolist(), "x": place[:, 0].tolist(), "y": place[:, -1].tolist(), "label": names}


def _named(predictions: dict[str, np.ndarray], index: Index, labels: Labels) -> dict[str, Any]:
    classes = np.array(labels.classes, object)
    columns: dict[str, Any] = {name: values.tolist() for name, values in predictions.items()}
    names = {row: index.name(row) for row in set(columns["id"])}
    columns["path"] = [names[row] for row in columns["id"]]
    for column in ("true", "predicted"):
        columns[column] = classes[predictions[column]].tolist()
    return columns


def _worst(columns: dict[str, Any], most: int = 200) -> set[int]:
    """Samples that were taken for something else with the most confidence."""
    wrong = [
        at for at, (one, other) in enumerate(zip(columns["true"], columns["predicted"], strict=True)) if one != other
    ]
    wrong.sort(key=lambda at: -columns["confidence"][at])
    return {columns["id"][at] for at in wrong[:most]}


def _thumbnails(index: Index, modality: Any, rows: list[int]) -> dict[str, Any]:
    found: dict[str, list[Any]] = {"id": [], "png": []}
    for batch in once(index, modality, indices=np.array(rows, np.int64), accept_unreadable=True):
        for row, view in zip(batch.index.tolist(), batch["plain"].data[:, 0].numpy(), strict=True):
            found["id"].append(row)
            found["png"].append(cv2.imencode(".png", cell_of(modality, view)[..., ::-1])[1].tobytes())
    return found


def _save(path: Path, columns: dict[str, Any]) -> None:
    fresh = path.with_name(f".{path.name}")
    pq.write_table(pa.table(columns), fresh)
    fresh.replace(path)


def print_summary(result: Evaluation) -> None:
    """The table, what had to be said, and the sentence."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console()
    budgets = list(dict.fromkeys(row["budget"] for row in result.summary))
    title = "Accuracy in %, with 95 % intervals, by labels used"
    table = Table("protocol", "features", *budgets, box=SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    cells = {
        (row["protocol"], row["features"], row["budget"]): row for row in result.summary if row["metric"] == "accuracy"
    }
    for protocol, features in dict.fromkeys((protocol, features) for protocol, features, _ in cells):
        line = [_percent(cells.get((protocol, features, budget))) for budget in budgets]
        table.add_row(protocol, features, *line, style="bold" if features == "pretrained" else None)
    console.print(table)
    for note in result.notes:
        console.print(f"Note: {note}", markup=False, highlight=False)
    console.print(result.sentence, markup=False, highlight=False)


def _percent(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    interval = "" if row["low"] is None else f" ({100 * row['low']:.0f}–{100 * row['high']:.0f})"
    return f"{100 * row['mean']:.1f}{interval}"
