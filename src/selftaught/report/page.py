"""One run folder -> one page that a person can read, keep and send on: ``RUN/report.html``.

Pictures first, numbers with their intervals after, everything needed to repeat the run at the end. The page is one
file: no script, no network (a content security policy forbids both), curves as inline SVG, pictures inlined. It is made
from the files of the run alone, so it can be made again at any time, also of a run that was interrupted, or is still
going on.
"""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

from selftaught.errors import RunError, must_be
from selftaught.report import facts, samples, scores, training
from selftaught.report.markup import Html, join, tag
from selftaught.report.read import Run, is_run, read_run

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"  # nothing from anywhere, no script at all


def write_report(run: str | Path) -> Path:
    """Writes ``RUN/report.html`` from the files of a run and returns its path.

    Missing files become one line that says which command makes them; torn or odd ones are used as far as they can be
    read, and what was left out is listed on the page. Raises ``RunError`` where ``run`` is no run folder or cannot be
    written to.
    """
    folder = Path(run)
    if not is_run(folder):
        hint = "A run folder is made by: selftaught pretrain DATA --out RUN"
        raise RunError(must_be("run", "report", "the folder of a run", str(run)), hint=hint)
    text = render(read_run(folder))
    return write(folder / "report.html", text)


def render(run: Run) -> str:
    """The whole page as text."""
    parts = (
        training.pictures(run),
        training.curves(run),
        scores.worth(run),
        samples.confusion(run),
        samples.neighbours(run),
        samples.map_(run),
        samples.mistakes(run),
        facts.quarantine(run),
        facts.configuration(run),
        facts.environment(run),
        facts.reading(run),
    )
    body = tag("body", facts.header(run), tag("main", *parts), facts.footer(run))
    return "<!doctype html>\n" + tag("html", head(f"{run.name} · selftaught report"), body, lang="en")


def head(title: str) -> Html:
    """What every page starts with: its style, its title, and that it loads nothing."""
    style = resources.files("selftaught.report").joinpath("style.css").read_text("utf-8")
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        join([Html("<style>"), Html(style), Html("</style>")]),
    )


def write(path: Path, text: str) -> Path:
    """Whole or not at all: a browser that reloads while a run goes on never sees half a page. Raises RunError."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_bytes(text.encode("utf-8", "replace"))
        os.replace(partial, path)
    except OSError as error:
        raise RunError(f"The page {str(path)!r} cannot be written: {error.strerror}.") from error
    finally:
        partial.unlink(missing_ok=True)
    return path
