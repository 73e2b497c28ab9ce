"""What the report shows of an evaluation, written beside the run; and the table for the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from selftaught.commands.pictures import cell_of
from selftaught.data.index import Index
from selftaught.data.labels import Labels
from selftaught.data.loader import once
from selftaught.downstream import tables
from selftaught.downstream.evaluate import Evaluation

WORST = 200  # wrong predictions that get a thumbnail


def write_tables(
    run: Path, index: Index, modality: Any, vectors: np.ndarray, labels: Labels, result: Evaluation
) -> None:
    """``id`` is the row of the evaluated index everywhere."""
    names = [labels.classes[value] if value >= 0 else "" for value in labels.values]
    shown = tables.write_neighbours(run, vectors)
    tables.write_map(run, vectors, labels=names)
    tables.write_predictions(run, result, name=index.name, classes=labels.classes)
    rows = sorted({*shown, *_worst(result.predictions)})
    tables.write_thumbnails(run, _pictures(index, modality, rows))


def _worst(predictions: dict[str, np.ndarray]) -> list[int]:
    """Samples that were taken for something else with the most confidence."""
    if not predictions:
        return []
    wrong = np.flatnonzero(predictions["true"] != predictions["predicted"])
    order = np.argsort(-predictions["confidence"][wrong], kind="stable")
    return predictions["id"][wrong[order[:WORST]]].tolist()


def _pictures(index: Index, modality: Any, rows: list[int]) -> dict[int, np.ndarray]:
    found: dict[int, np.ndarray] = {}
    for batch in once(index, modality, indices=np.array(rows, np.int64), accept_unreadable=True):
        views = batch["plain"].data[:, 0].numpy()
        found |= {row: cell_of(modality, view) for row, view in zip(batch.index.tolist(), views, strict=True)}
    return found


def print_summary(result: Evaluation) -> None:
    """The table, what had to be said, and the sentence."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console()
    budgets = list(dict.fromkeys(row["budget"] for row in result.summary))
    title = "Accuracy in %, with 95 % intervals, by labels used"
    table = Table(
        "protocol", "features", *budgets, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), title=title, title_justify="left"
    )
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
