"""Writes docs/methods.md from the methods' own docstrings and signatures: ``make docs``.

With ``--check`` it writes nothing, and says when the page is old (``make check``).
"""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path

from selftaught import catalog

PAGE = Path(__file__).with_name("methods.md")
HEAD = """# Methods

Made by `make docs` from the files in `src/selftaught/methods`; each says there which equations it follows, where it
departs from its paper and why, and what it costs. `selftaught methods NAME` lists the options with their ranges.

Every loss is tested against its equations, and with lightly's where it has the same. What each gave on real pictures in
a minute and a half: [benchmarks.md](benchmarks.md). The defaults are reasoned, hardly tuned on those sets; recipes
(`--config pictures-simclr`) say what they were measured to give.

| name | family | the idea | source | options |
|---|---|---|---|---|
"""


def page() -> str:
    rows = sorted((catalog.constant("method", name, "family", ""), name) for name in catalog.names("method"))
    return HEAD + "".join(_row(name, family) for family, name in rows)


def _row(name: str, family: str) -> str:
    found = importlib.util.find_spec(f"selftaught.methods.{name}")
    assert found is not None and found.origin is not None
    text = ast.get_docstring(ast.parse(Path(found.origin).read_text(encoding="utf-8"))) or ""
    idea, source = (" ".join(part.split()) for part in text.split("\n\n")[:2])
    options = ", ".join(f"`{one.name}`" for one in catalog.signature("method", name))
    return f"| `{name}` | {family} | {idea.partition(': ')[2] or idea} | {source} | {options} |\n"


if __name__ == "__main__":
    if "--check" not in sys.argv:
        PAGE.write_text(page(), encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != page():
        sys.exit("docs/methods.md is older than the methods. Run: make docs")
