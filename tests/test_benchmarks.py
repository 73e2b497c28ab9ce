"""The scripts in benchmarks/ open and say what they take, and the page made of their rows is current."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "benchmarks").glob("*.py"))
PEERS = {"lightly_simclr", "parity"}  # need lightly, which only the environment of a comparison has


def opened(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"benchmark_{path.stem}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_each_opens_and_refuses_what_it_does_not_know(path: Path, monkeypatch, capsys) -> None:
    """Every name that it imports is there; an unknown flag, which is all that is asked here, ends with its usage."""
    if path.stem in PEERS:
        pytest.importorskip("lightly", reason="lightly is not installed")
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))  # as when it is run
    module = opened(path)
    assert (module.__doc__ or "").strip() and callable(getattr(module, "main", None))
    if "argparse" in vars(module):
        monkeypatch.setattr(sys, "argv", [path.name, "--no-such-flag"])
        with pytest.raises(SystemExit) as ended:
            module.main()
        assert ended.value.code == 2 and "usage:" in capsys.readouterr().err


def test_a_table_of_few_labels() -> None:
    """With the pre-training / without, the mean over seeds, and what it brings with each; not measured is a dash."""
    tables = opened(ROOT / "docs" / "benchmark_tables.py")

    def row(seed: int, values: dict[str, float]) -> dict:
        scores = [
            {"protocol": "linear", "features": features, "budget": 10, "metric": "auroc", "value": value}
            for features, value in values.items()
        ]
        return {"set": "xrays", "method": "simclr", "seed": seed, "epochs": 10, "scores": scores}

    rows = [row(0, {"pretrained": 0.8, "random": 0.6}), row(1, {"pretrained": 0.9, "random": 0.6})]
    last = "| xrays | `simclr` | linear | AUROC | 85.0 / 60.0 (+20.0 to +30.0) | – | – |"
    assert tables.few_labels(rows).splitlines()[-1] == last and tables.few_labels([]) == ""


def test_a_table_of_outliers() -> None:
    tables = opened(ROOT / "docs" / "benchmark_tables.py")
    rows = [
        {"set": "mnist10k", "fold": str(fold), "method": method, "epochs": 5, "knn": area, **more}
        for fold, area in ((0, 0.8), (1, 0.9))
        for method, more in (("raw", {}), ("vae", {"energy": 0.5}))
    ]
    *_, energy, nearest, _, _ = tables.outliers(rows).rstrip().splitlines()
    assert energy == "| energy | – | 50.0 (50 to 50) |" and nearest == "| kNN | 85.0 (80 to 90) | 85.0 (80 to 90) |"


def test_the_page_is_made_of_the_rows() -> None:
    """docs/benchmarks.md says what the rows say: ``make docs`` was run after they changed."""
    page = opened(ROOT / "docs" / "make_benchmarks.py")
    assert page.PAGE.read_text(encoding="utf-8") == page.page(), "run make docs"
