"""What a person sees of a training (a bar on a terminal, else plain lines) and the table that stays, metrics.csv."""

from __future__ import annotations

import csv
import io
import math
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, TextIO

from selftaught.train.checkpoint import write_text

COLUMNS = ("step", "epoch", "seconds", "samples", "loss", "lr", "gradient_norm", "samples_per_second", "data_wait")


class Progress(Protocol):
    """Shows how far a training is. ``words`` are health, online kNN and the like, shown as they are."""

    def start(self, done: int, steps: int) -> None: ...
    def update(self, done: int, row: Mapping[str, Any], words: Mapping[str, str]) -> None: ...
    def note(self, text: str) -> None: ...
    def stop(self) -> None: ...


def make_progress(*, quiet: bool = False, stream: TextIO | None = None) -> Progress:
    """A bar where ``stream`` (default: stderr) is a terminal, else lines; few of them when ``quiet``."""
    out: TextIO = sys.stderr if stream is None else stream
    return Lines(out, quiet=quiet) if quiet or not out.isatty() else Bar(out)


class Pace:
    """Seconds per step, of this start, and what is left of the whole job."""

    def __init__(self, done: int, steps: int) -> None:
        self.first, self.steps, self.began = done, steps, time.perf_counter()

    def left(self, done: int) -> float:
        """Seconds until the last step; nan before the first."""
        made = done - self.first
        return (time.perf_counter() - self.began) / made * (self.steps - done) if made else math.nan


class Lines:
    """A plain line every tenth of the job (``quiet``: every fourth), and after at most a minute (``quiet``: ten)."""

    def __init__(self, stream: TextIO, *, quiet: bool = False) -> None:
        self.stream = stream
        self.parts, self.longest = (4, 600.0) if quiet else (10, 60.0)

    def start(self, done: int, steps: int) -> None:
        self.pace, self._part, self._said = Pace(done, steps), done * self.parts // steps, time.perf_counter()

    def update(self, done: int, row: Mapping[str, Any], words: Mapping[str, str]) -> None:
        part = done * self.parts // self.pace.steps
        if part > self._part or time.perf_counter() - self._said > self.longest:
            self._part, self._said = part, time.perf_counter()
            share = f"step {done}/{self.pace.steps} ({done / self.pace.steps:.0%})"
            left = "" if done == self.pace.steps else f"  {_span(self.pace.left(done))} left"
            self.note(f"{share}  {sentence(row, words)}{left}")

    def note(self, text: str) -> None:
        print(text, file=self.stream, flush=True)

    def stop(self) -> None:
        """Nothing is left on the screen."""


class Bar:
    """A bar with the time left of the whole job."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as RichProgress

        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[left]} left  {task.fields[text]}"))
        self._rich = RichProgress(*columns, console=Console(file=stream), transient=False, refresh_per_second=4)

    def start(self, done: int, steps: int) -> None:
        self.pace = Pace(done, steps)
        self._task = self._rich.add_task("", total=steps, completed=done, left="?", text="")
        self._rich.start()

    def update(self, done: int, row: Mapping[str, Any], words: Mapping[str, str]) -> None:
        left = _span(self.pace.left(done))
        self._rich.update(self._task, completed=done, left=left, text=sentence(row, words))

    def note(self, text: str) -> None:
        self._rich.console.print(text, markup=False, highlight=False)

    def stop(self) -> None:
        self._rich.stop()


class MetricsFile:
    """metrics.csv: one row per measured step. The header grows when a callback brings a new column.

    ``tensorboard``: a folder to write event files to as well, where tensorboard is installed.
    """

    def __init__(self, path: str | os.PathLike[str], *, tensorboard: str | os.PathLike[str] | None = None) -> None:
        self.path = Path(path)
        self.columns: list[str] = list(COLUMNS)
        self._board = _open_board(tensorboard)

    def start(self, done: int) -> None:
        """Keeps the rows up to step ``done`` and drops later ones, which the run is about to make again."""
        rows = [row for row in self._read() if int(row["step"]) <= done]
        self.columns += [name for name in (rows[0] if rows else {}) if name not in self.columns]
        self._rewrite(rows)

    def write(self, row: Mapping[str, Any]) -> None:
        """Appends one row; nan where a column is not a number, empty where it was not measured."""
        if new := [name for name in row if name not in self.columns]:
            self.columns += new
            self._rewrite(self._read())
        with open(self.path, "a", newline="") as file:
            csv.DictWriter(file, self.columns, restval="").writerow({k: _short(v) for k, v in row.items()})
        if self._board is not None:
            for name in row.keys() - {"step"}:
                self._board.add_scalar(name, row[name], row["step"])

    def close(self) -> None:
        if self._board is not None:
            self._board.close()

    def _read(self) -> list[dict[str, str]]:
        """Whole rows only: a kill may have torn the last one, and it is made again anyway.

        A file that is no table any more is put aside under another name.
        """
        if not self.path.exists():
            return []
        try:
            text = self.path.read_text(encoding="utf-8")
            rows = list(csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1])))
        except (ValueError, csv.Error):
            self.path.replace(self.path.with_name(f"{self.path.name}.broken"))
            return []
        return [row for row in rows if (row.get("step") or "").isdigit() and None not in row]

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.columns, restval="")
        writer.writeheader()
        writer.writerows({k: "" if v is None else v for k, v in row.items()} for row in rows)
        write_text(self.path, text.getvalue())


def sentence(row: Mapping[str, Any], words: Mapping[str, str]) -> str:
    """``loss 3.212  412 samples/s  wait 3%  rankme 45``."""
    parts = [f"loss {row['loss']:.4g}"] if "loss" in row else []
    if "samples_per_second" in row:
        parts.append(f"{row['samples_per_second']:,.0f} samples/s")
    if "data_wait" in row:
        parts.append(f"wait {row['data_wait']:.0%}")
    if "kept" in row:
        parts.append(f"kept {row['kept']:.0%}")
    return "  ".join(parts + [f"{name} {word}" for name, word in words.items()])


def _short(value: Any) -> Any:
    return f"{value:.7g}" if isinstance(value, float) else value


def _span(seconds: float) -> str:
    if math.isnan(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def _open_board(folder: str | os.PathLike[str] | None) -> Any:
    if folder is None:
        return None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(os.fspath(folder))
