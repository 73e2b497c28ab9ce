"""Nobody's code runs because a folder names it: runs are data, unless the user says that they trust one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

import selftaught as st
from selftaught import catalog, cli, encoders
from selftaught.errors import EncoderError, RunError

pytestmark = pytest.mark.usefixtures("cache")

CODE = """
from pathlib import Path
from selftaught.{module} import {base}

Path({mark!r}).write_text("ran")

class Mine({base}):
    pass
"""


@pytest.fixture(autouse=True)
def nothing_is_trusted(monkeypatch) -> None:
    monkeypatch.delenv(catalog.TRUST, raising=False)


@pytest.fixture
def run(tmp_path) -> Any:
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for number in range(40):
        cv2.imwrite(str(tmp_path / "photos" / f"{number}.png"), rng.integers(0, 256, (20, 20, 3), dtype=np.uint8))
    settings: dict[str, Any] = {"encoder": {"name": "small", "width": 8}, "modality": {"name": "image", "size": 16}}
    return st.pretrain(
        tmp_path / "photos",
        out=tmp_path / "run",
        method="vae",
        steps=1,
        batch_size=8,
        workers=0,
        quiet=True,
        **settings,
    )


def theirs(folder: Path, module: str, base: str) -> tuple[str, Path]:
    """(name of a class in a file that leaves a mark when it is imported, the mark)."""
    mark = folder / "ran"
    path = folder / "evil.py"
    path.write_text(CODE.format(module=module, base=base, mark=str(mark)))
    return f"{path}:Mine", mark


def test_a_method_that_a_run_names_is_not_run(run, tmp_path, monkeypatch, capsys):
    name, mark = theirs(tmp_path, "methods.vae", "VAE")
    config = yaml.safe_load((run.folder / "run.yaml").read_text())
    config["derived"]["method"] = config["request"]["method"]["name"] = name
    (run.folder / "run.yaml").write_text(yaml.safe_dump(config))
    photos, out = str(tmp_path / "photos"), str(tmp_path / "out.csv")
    for words in (
        ["generate", str(run.folder)],
        ["energy", str(run.folder), photos, "--out", out],
        ["pretrain", photos, "--out", str(tmp_path / "next"), "--from", str(run.folder), "--steps", "1"],
        ["pretrain", photos, "--out", str(tmp_path / "taught"), "--teacher", str(run.folder), "--steps", "1"],
    ):
        assert cli.main([*words, "--quiet"]) == 2, words
        assert "needs code of its own" in capsys.readouterr().err and not mark.exists(), words
    assert cli.main(["outliers", str(run.folder), photos, "--out", out]) == 0  # the other scores are the encoder's
    assert "needs code of its own" in capsys.readouterr().out and not mark.exists()
    monkeypatch.setenv(catalog.TRUST, "0")  # so that it is set back after --trust
    assert cli.main(["generate", str(run.folder), "--n", "2", "--quiet", "--trust"]) == 0 and mark.exists()


def test_a_modality_that_a_run_names_is_not_run(run, tmp_path):
    name, mark = theirs(tmp_path, "modalities.image", "Image")
    path = run.folder / "encoder" / "preprocessing.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "name": name}))
    with pytest.raises(RunError, match="has been altered"):
        st.load(run.folder)
    config = path.with_name("config.json")  # whoever means harm leaves the checksums out
    said = json.loads(config.read_text())
    config.write_text(json.dumps({key: value for key, value in said.items() if not key.startswith("sha256")}))
    with pytest.raises(RunError, match="needs code of its own"):
        st.load(run.folder)
    assert not mark.exists()


def test_what_the_user_names_is_run(tmp_path, run):
    name, mark = theirs(tmp_path, "methods.vae", "VAE")
    settings: dict[str, Any] = {"encoder": {"name": "small", "width": 8}, "modality": {"name": "image", "size": 16}}
    own = st.pretrain(
        tmp_path / "photos", out=tmp_path / "own", method=name, steps=1, batch_size=8, workers=0, quiet=True, **settings
    )
    assert own.finished and mark.exists()


def test_a_saved_encoder_names_no_pickle():
    config = {"name": "resnet18", "shape": [3, 32, 32], "options": {"checkpoint_path": "evil.pth"}}
    with pytest.raises(EncoderError, match="'checkpoint_path' parameter of resnet18 must be left out"):
        encoders.make(config)
