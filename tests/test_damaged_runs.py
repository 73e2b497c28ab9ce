"""A run that was half copied, altered, or made by another version: one sentence that names the file, and a way out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import selftaught as st
from selftaught import cli
from selftaught.errors import RunError
from tests.test_bad_input import SMALL, write_pictures


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"), 24)


@pytest.fixture(scope="module")
def whole(pictures, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "run"
    assert cli.main(["pretrain", str(pictures), "--out", str(run), *SMALL, "--steps", "2", "--batch-size", "8"]) == 0
    return run


@pytest.fixture
def run(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _lines(path: Path) -> None:
    """The first half of its lines."""
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[: len(lines) // 2]))


def _noise(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(300))


def _gone(path: Path) -> None:
    path.unlink()


def _bit(path: Path) -> None:
    """The last byte but one: a weight, or a digit of a mean."""
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)


def _list(path: Path) -> None:
    path.write_text("[1, 2]")


def _newer(path: Path) -> None:
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 7').replace("schema: 1", "schema: 7"))


def _older(path: Path) -> None:
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 0').replace("schema: 1", "schema: 0"))


LOADED = [  # file, what happens to it, what the sentence says
    ("encoder/config.json", _empty, "encoder/config.json is broken: Expecting value"),
    ("encoder/config.json", _half, "encoder/config.json is broken"),
    ("encoder/config.json", _noise, "encoder/config.json is broken"),
    ("encoder/config.json", _gone, "is not finished: it holds no encoder yet"),
    ("encoder/config.json", _list, "encoder/config.json is broken: it holds no names with values"),
    ("encoder/config.json", _newer, "written by a newer selftaught (schema 7, not 1)"),
    ("encoder/config.json", _older, "written by another version of selftaught (schema 0, not 1)"),
    ("encoder/config.json", _bit, "encoder/config.json"),
    ("encoder/model.safetensors", _empty, "model.safetensors is torn or has been altered: its checksum is another"),
    ("encoder/model.safetensors", _half, "model.safetensors is torn or has been altered"),
    ("encoder/model.safetensors", _noise, "model.safetensors is torn or has been altered"),
    ("encoder/model.safetensors", _bit, "model.safetensors is torn or has been altered"),
    ("encoder/model.safetensors", _gone, "model.safetensors cannot be read: No such file or directory"),
    ("encoder/preprocessing.json", _empty, "preprocessing.json is broken"),
    ("encoder/preprocessing.json", _half, "preprocessing.json is broken"),
    ("encoder/preprocessing.json", _gone, "preprocessing.json cannot be read: No such file or directory"),
    ("encoder/preprocessing.json", _list, "preprocessing.json is broken: it holds no names with values"),
    ("encoder/preprocessing.json", _bit, "preprocessing.json"),
]


@pytest.mark.parametrize(("name", "damage", "sentence"), LOADED)
def test_an_encoder_that_is_not_as_it_was_written_is_refused(run, name, damage, sentence):
    damage(run / name)
    with pytest.raises(RunError) as refused:
        st.load(run)
    assert sentence in str(refused.value) and "\n" not in str(refused.value)
    assert refused.value.hint or damage is _older


COMMANDS = [  # command, file, what happens to it, what the sentence says
    ("diagnose", "health.json", _empty, "health.json is broken"),
    ("diagnose", "health.json", _half, "health.json is broken"),
    ("diagnose", "health.json", _noise, "health.json is broken"),
    ("diagnose", "health.json", _gone, "has no measures of health yet"),
    ("diagnose", "run.yaml", _gone, "must be the folder of a run"),
    ("energy", "run.yaml", _lines, "run.yaml is incomplete: it lacks"),
    ("pretrain", "run.yaml", _empty, "must be a file of 'key: value' lines"),
    ("pretrain", "run.yaml", _lines, "run.yaml is incomplete: it lacks preprocessing, fingerprint"),
    ("pretrain", "run.yaml", _half, "run.yaml is"),
    ("pretrain", "run.yaml", _noise, "run.yaml is not valid YAML"),
    ("pretrain", "run.yaml", _gone, "is not empty and holds no run"),
    ("pretrain", "run.yaml", _newer, "written by a newer selftaught (schema 7, not 1). Upgrade: pip install"),
    ("pretrain", "run.yaml", _older, "written by another version of selftaught (schema 0, not 1)"),
    ("energy", "parts/method/config.json", _empty, "parts/method/config.json is broken"),
    ("energy", "parts/method/config.json", _newer, "written by a newer selftaught"),
    ("energy", "parts/method/config.json", _gone, "holds no weights of its method"),
    ("energy", "parts/method/model.safetensors", _half, "parts/method/model.safetensors is torn or has been altered"),
    ("energy", "parts/method/model.safetensors", _bit, "parts/method/model.safetensors is torn or has been altered"),
    ("energy", "parts/method/model.safetensors", _gone, "parts/method/model.safetensors cannot be read"),
    ("evaluate", "index.arrow", _half, "The index file"),
    ("evaluate", "index.arrow", _gone, "is not there"),
    ("evaluate", "evaluation.json", _noise, "evaluation.json of this run cannot be read. Move it away"),
]


@pytest.mark.parametrize(("command", "name", "damage", "sentence"), COMMANDS)
def test_commands_name_what_is_broken(run, pictures, tmp_path, capsys, command, name, damage, sentence):
    if name == "evaluation.json":
        (run / name).write_text("{}")
    damage(run / name)
    (labels := tmp_path / "labels.csv").write_text(
        "path,label\n" + "".join(f"{number:03}.png,{'ab'[number % 2]}\n" for number in range(24))
    )
    one, two = str(run), str(pictures)
    words = {
        "diagnose": [one],
        "embed": [one, two, "--out", str(tmp_path / "vectors.npy")],
        "energy": [one, two, "--out", str(tmp_path / "energy.csv")],
        "evaluate": [one, two, "--labels", str(labels), "--protocols", "knn", "--seeds", "1", "--budgets", "all"],
        "pretrain": [two, "--out", one, *SMALL, "--steps", "2", "--batch-size", "8"],
    }
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "lock"}
    code = cli.main([command, *words[command]])
    said = capsys.readouterr()
    assert code in (1, 2) and sentence in said.err, said.err
    assert said.err.count("\n") == 1 and "Traceback" not in said.err and "Unexpected" not in said.err
    after = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "lock"}
    assert {path: content for path, content in after.items() if path in before} == before, "nothing is lost"


@pytest.mark.parametrize("damage", [_empty, _half, _noise, _gone])
@pytest.mark.parametrize("name", ["metrics.csv", "environment.json", "index.arrow", "checkpoints/00000002.json"])
def test_a_run_goes_on_whatever_happened_to_what_can_be_made_again(run, pictures, name, damage):
    shutil.rmtree(run / "encoder")
    damage(run / name)
    assert cli.main(["pretrain", str(pictures), "--out", str(run), *SMALL, "--steps", "2", "--batch-size", "8"]) == 0
    assert np.isfinite(st.load(run).embed(pictures)).all()
    if (name, damage) == ("metrics.csv", _noise):
        assert (run / "metrics.csv.broken").is_file(), "what is no table is put aside, not thrown away"


def test_a_deleted_encoder_is_made_again_from_the_last_checkpoint(run, pictures):
    """As the hint says."""
    before = st.load(run).embed(pictures)
    _bit(run / "encoder" / "model.safetensors")
    with pytest.raises(RunError) as refused:
        st.load(run)
    assert f"delete {run / 'encoder'} and give its pretrain command again" in refused.value.hint
    shutil.rmtree(run / "encoder")
    assert cli.main(["pretrain", str(pictures), "--out", str(run), *SMALL, "--steps", "2", "--batch-size", "8"]) == 0
    assert np.array_equal(st.load(run).embed(pictures), before)


def test_runs_of_before_had_no_checksums(run, pictures):
    path = run / "encoder" / "config.json"
    config = json.loads(path.read_text())
    del config["sha256"], config["sha256_config"]
    path.write_text(json.dumps(config))
    assert len(st.load(run).embed(pictures)) == 24


def test_the_report_shows_what_it_can_of_a_broken_run(run, capsys):
    for path in sorted(run.rglob("*")):
        if path.suffix in (".json", ".csv", ".yaml", ".parquet") and "checkpoints" not in path.parts:
            _noise(path)
    assert cli.main(["report", str(run)]) == 0
    page = (run / "report.html").read_text()
    assert "health.json is not valid JSON" in page and "quarantine.csv" in page
