"""``selftaught report RUN``: everything a run holds on one page."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from selftaught.commands.run import Run
from selftaught.config import command


@command
def report(
    run: Annotated[str | os.PathLike[str], "", "folder of a run"],
    *,
    quiet: Annotated[bool, "", "print nothing but errors"] = False,
) -> Path:
    """Writes RUN/report.html: one self-contained page, pictures first.

    Returns its path. Raises RunError where ``run`` is no run.
    """
    folder = Run.open(run).folder
    from selftaught.report.page import write_report  # matplotlib and pyarrow only once the request is known to be right

    path = write_report(folder)
    if not quiet:
        print(f"The report is {path}")
    return path
