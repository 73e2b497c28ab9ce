"""Pages that are made from the code say what the code says."""

from __future__ import annotations

import runpy
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def test_the_table_of_methods_is_current() -> None:
    made = runpy.run_path(str(DOCS / "make_methods.py"))
    assert made["PAGE"].read_text(encoding="utf-8") == made["page"](), "run: make docs"
