"""The page: one file, nothing from the network, everything escaped, and never a crash over what a run folder holds."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.datasets import load_digits

import selftaught as st
from selftaught.errors import RunError
from selftaught.report.page import write_report

SECTIONS = ["pictures", "training", "worth", "confusion", "neighbours", "map", "mistakes", "quarantine"]
EVIL = "<script>alert('é')</script>"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real run, short, evaluated without fine-tuning: the files are those that the commands write."""
    digits: Any = load_digits()
    x = (digits.images * 15.9).astype(np.uint8)[:400]
    run = tmp_path_factory.mktemp("report") / "run"
    options: dict[str, Any] = {
        "encoder": {"name": "small", "width": 8},
        "modality": {"name": "image", "size": 8},
        "quiet": True,
    }
    st.pretrain(x, out=str(run), steps=4, batch_size=32, workers=0, **options)
    data = (x, digits.target[:400])
    choice: dict[str, Any] = {
        "protocols": ("knn", "linear"),
        "budgets": ("2/class", "all"),
        "controls": ("raw", "random"),
    }
    st.evaluate(str(run), data, labels="y", seeds=2, workers=0, quiet=True, **choice)
    return run


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


def page(run: Path) -> str:
    return write_report(run).read_text(encoding="utf-8")


def test_a_real_run_fills_every_section_in_order(run: Path) -> None:
    text = page(run)
    places = [text.index(f'<section id="{name}"') for name in [*SECTIONS, "configuration", "reading"]]
    assert places == sorted(places)
    assert json.loads((run / "evaluation.json").read_text())["sentence"][:40] in text
    assert text.count('<img src="data:image/png;base64,') > 20
    assert "Every file that was found could be read." in text
    assert "untrained" in text and "raw input" in text and "95 %" in text
    assert "selftaught evaluate" not in re.sub(r"(?s)<section id=.configuration.*", "", text)  # nothing is missing


def test_nothing_comes_from_elsewhere(run: Path) -> None:
    text = page(run)
    assert "<script" not in text and "<link" not in text and "@import" not in text
    assert not re.findall(r"(?:src|href)=[\"'](?!data:|#)", text)
    assert "default-src &#x27;none&#x27;" in text or "default-src 'none'" in text


def test_what_users_wrote_is_escaped(run: Path) -> None:
    for name, column in (("predictions", "path"), ("predictions", "predicted"), ("map", "label")):
        path = run / "tables" / f"{name}.parquet"
        table = pq.read_table(path)
        place = table.column_names.index(column)
        pq.write_table(table.set_column(place, column, pa.array([EVIL] * len(table))), path)
    (run / "quarantine.csv").write_text(f'path,reason\n"{EVIL}","{EVIL}"\n', encoding="utf-8")
    for name in ("environment.json", "health.json"):
        facts: dict[str, Any] = json.loads((run / name).read_text())
        facts["command"] = EVIL
        facts["verdicts"] = [{"step": 1, "level": "alarm", "name": EVIL, "sentence": EVIL}]
        (run / name).write_text(json.dumps(facts))
    config = (run / "run.yaml").read_text(encoding="utf-8")
    (run / "run.yaml").write_text(config + f'note: "{EVIL}"\n', encoding="utf-8")
    text = page(run)
    assert "<script" not in text and "&lt;script&gt;" in text


@pytest.mark.parametrize(
    ("gone", "command"),
    [
        ("evaluation.json", "selftaught evaluate"),
        ("tables/predictions.parquet", "selftaught evaluate"),
        ("tables/neighbours.parquet", "selftaught evaluate"),
        ("tables/map.parquet", "selftaught evaluate"),
        ("tables/thumbnails.parquet", ""),
        ("pictures/views.png", "selftaught pretrain"),
        ("metrics.csv", ""),
        ("health.json", ""),
        ("environment.json", ""),
        ("quarantine.csv", ""),
    ],
)
def test_what_is_missing_is_said_with_the_command_that_makes_it(run: Path, gone: str, command: str) -> None:
    (run / gone).unlink(missing_ok=True)
    text = page(run)
    assert command in text
    assert [text.count(f'<section id="{name}"') for name in SECTIONS] == [1] * len(SECTIONS)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.csv", "step,epoch,seconds,loss\n1,0,0.1,5.0\n2,0,0.2,4."),  # torn last line
        ("metrics.csv", "step,loss\n1,nan\n2,inf\n"),
        ("metrics.csv", "step,loss\n1,3.0\n"),  # one row
        ("metrics.csv", "loss\n3.0\n2.0\n"),  # no steps
        ("metrics.csv", ""),
        ("health.json", '{"measures": [{"step": 1'),
        ("health.json", '{"measures": [{"step": null, "rankme": "x"}], "verdicts": [{"level": 3}]}'),
        ("evaluation.json", "[]"),
        ("evaluation.json", '{"summary": [{"budget": "all", "mean": null}], "rows": [{}], "sentence": 3}'),
        ("environment.json", "null"),
        ("run.yaml", "- a list\n"),
        ("quarantine.csv", "path\nalone\n"),
        ("tables/predictions.parquet", "not parquet"),
        ("pictures/samples.png", ""),
    ],
)
def test_torn_and_odd_files_do_not_stop_the_page(run: Path, name: str, content: str) -> None:
    (run / name).write_text(content, encoding="utf-8")
    assert page(run).endswith("</html>")


@pytest.mark.parametrize("classes", [1, 2, 200])
@pytest.mark.parametrize("wrong", [False, True])
def test_any_number_of_classes_and_of_mistakes(run: Path, classes: int, wrong: bool) -> None:
    true = [f"class {i % classes}" for i in range(400)]
    predicted = [f"class {(i + wrong) % classes}" for i in range(400)]
    columns = {"id": list(range(400)), "path": [f"{i}.png" for i in range(400)], "true": true, "predicted": predicted}
    columns |= {"confidence": [0.9] * 400, "protocol": ["knn"] * 400, "budget": ["all"] * 400, "seed": [0] * 400}
    pq.write_table(pa.table(columns), run / "tables" / "predictions.parquet")
    assert page(run).endswith("</html>")


def test_many_points_keep_the_page_small(run: Path) -> None:
    rng = np.random.default_rng(0)
    columns = {"id": np.arange(10_000), "x": rng.normal(size=10_000), "y": rng.normal(size=10_000)}
    labels = pa.array([f"class {i % 12}" for i in range(10_000)])
    pq.write_table(pa.table({**columns, "label": labels}), run / "tables" / "map.parquet")
    write_report(run)
    assert (run / "report.html").stat().st_size < 8_000_000


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="must be the folder of a run"):
        write_report(tmp_path)
    assert not list(tmp_path.iterdir())
