"""The files of a run, as far as they can be read.

A run may be going on, interrupted, half copied or made by another version: every file may be missing, torn, or lack a
column. Reading never fails; what was left out is said in ``Run.notes``, which the page prints.
"""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

_PICTURES = ("samples", "views", "shown", "generated")
_MARKS = ("run.yaml", "metrics.csv", "health.json", "evaluation.json", "environment.json", "checkpoints", "encoder")
_TABLES = {
    "thumbnails": ("id", "png"),
    "predictions": ("id", "true", "predicted", "confidence"),
    "neighbours": ("query", "rank", "neighbour"),
    "map": ("id", "x", "y"),
}


@dataclass
class Run:
    """What the files of one run hold. Empty containers where a file is missing or unreadable."""

    folder: Path
    config_text: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    health: dict[str, Any] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)
    generated: dict[str, Any] = field(default_factory=dict)  # how far new samples are from true ones
    metrics: dict[str, list[float]] = field(default_factory=dict)  # column -> values; NaN where nothing was measured
    quarantine: list[tuple[str, str]] | None = None  # (path, reason); None = no file
    pictures: dict[str, bytes] = field(default_factory=dict)  # stem -> bytes
    tables: dict[str, pa.Table] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)  # one sentence for everything that could not be read

    @property
    def name(self) -> str:
        return self.folder.resolve().name or str(self.folder)

    def fact(self, *names: str) -> Any:
        """The first of ``names`` found in the configuration, then in the environment, at any depth; else None."""
        for name in names:
            for source in (self.config, self.environment):
                found = _find(source, name)
                if found is not None:
                    return found
        return None


def is_run(folder: Path) -> bool:
    """A folder that holds at least one file that only a run has."""
    return folder.is_dir() and any((folder / mark).exists() for mark in _MARKS)


def read_run(folder: Path) -> Run:
    """Everything on the page, read once."""
    run = Run(folder)
    run.config_text = _text(run, "run.yaml")
    run.config = _yaml(run, run.config_text)
    run.environment = _json(run, "environment.json")
    run.health = _json(run, "health.json")
    run.evaluation = _json(run, "evaluation.json")
    run.generated = _json(run, "pictures/generated.json")
    run.metrics = _metrics(run)
    run.quarantine = _quarantine(run)
    run.pictures = {name: data for name in _PICTURES if (data := _bytes(run, f"pictures/{name}.png"))}
    for name, columns in _TABLES.items():
        found = _table(run, name, columns)
        if found is not None:
            run.tables[name] = found
    return run


def records(value: Any) -> list[dict[str, Any]]:
    """The dictionaries of a list read from JSON; anything else is left out."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def real(value: Any) -> float:
    """A finite float, or NaN for None, text that is no number, and infinities."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
    return number if math.isfinite(number) else math.nan


def _bytes(run: Run, name: str) -> bytes:
    try:
        return (run.folder / name).read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        run.notes.append(f"{name} cannot be read: {error.strerror}.")
        return b""


def _text(run: Run, name: str) -> str:
    return _bytes(run, name).decode("utf-8", "replace").replace("\x00", "\ufffd")


def _json(run: Run, name: str) -> dict[str, Any]:
    text = _text(run, name)
    try:
        value = json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError) as error:
        run.notes.append(f"{name} is not valid JSON: {error}.")
        return {}
    if not isinstance(value, dict):
        run.notes.append(f"{name} holds a {type(value).__name__}, not an object.")
        return {}
    return value


def _yaml(run: Run, text: str) -> dict[str, Any]:
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        run.notes.append(f"run.yaml is not valid YAML: {str(error).splitlines()[0]}.")
        return {}
    return value if isinstance(value, dict) else {}


def _metrics(run: Run) -> dict[str, list[float]]:
    """Columns of numbers. The last line counts only once its line end is written: half a number is a wrong number."""
    text = _text(run, "metrics.csv")
    lines, torn = text[: text.rfind("\n") + 1], text[text.rfind("\n") + 1 :]
    if torn:
        run.notes.append("metrics.csv: the last line is torn and was left out.")
    reader = csv.reader(io.StringIO(lines))
    header = next(reader, [])
    rows = [row for row in reader if row]
    whole = [row for row in rows if len(row) == len(header)]
    if len(whole) < len(rows):
        run.notes.append(f"metrics.csv: {len(rows) - len(whole)} lines with too few or too many values were left out.")
    return {name: [real(row[place]) for row in whole] for place, name in enumerate(header)}


def _quarantine(run: Run) -> list[tuple[str, str]] | None:
    if not (run.folder / "quarantine.csv").exists():
        return None
    try:
        header, *rows = [row for row in csv.reader(io.StringIO(_text(run, "quarantine.csv"))) if row] or [[]]
    except csv.Error as error:
        run.notes.append(f"quarantine.csv is no table: {error}.")
        return []
    if "path" not in header:
        run.notes.append("quarantine.csv has no 'path' column.")
        return []
    path, reason = header.index("path"), header.index("reason") if "reason" in header else -1
    return [(row[path], row[reason] if 0 <= reason < len(row) else "") for row in rows if len(row) > path]


def _table(run: Run, name: str, columns: tuple[str, ...]) -> pa.Table | None:
    path = run.folder / "tables" / f"{name}.parquet"
    if not path.exists():
        return None
    try:
        found = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        run.notes.append(f"tables/{name}.parquet cannot be read: {str(error).splitlines()[0]}")
        return None
    lacking = [column for column in columns if column not in found.column_names]
    if lacking:
        run.notes.append(f"tables/{name}.parquet lacks the columns {', '.join(lacking)}.")
        return None
    return found


def _find(tree: Any, name: str) -> Any:
    """Breadth first: the outermost value of that name."""
    level = [tree]
    while level:
        level = [one for one in level if isinstance(one, dict)]
        for one in level:
            if one.get(name) not in (None, ""):
                return one[name]
        level = [value for one in level for value in one.values()]
    return None
