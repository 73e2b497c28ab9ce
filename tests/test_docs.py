"""Pages that are made from the code: every method has its row, with its idea, its source and its options."""

from __future__ import annotations

import runpy
from pathlib import Path

from selftaught import catalog

DOCS = Path(__file__).parents[1] / "docs"


def test_every_method_has_a_row() -> None:
    """Of the page as it would be made now; ``make check`` says when the one that is there is old."""
    rows = [line.split(" | ") for line in runpy.run_path(str(DOCS / "make_methods.py"))["page"]().splitlines()]
    found = {cells[0].strip("| `"): cells[1:] for cells in rows if cells[0].startswith("| `")}
    assert found.keys() == set(catalog.names("method"))
    for name, (family, idea, source, options) in found.items():
        assert family and len(idea) > 20 and any(year in source for year in ("19", "20")), name
        assert all(f"`{one.name}`" in options for one in catalog.signature("method", name)), name
