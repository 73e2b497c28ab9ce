"""The Python side: the same arguments and the same errors as the command line, vectors in the order of the data."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

import selftaught as st
from selftaught import cli
from selftaught.errors import ConfigError, DataError, EncoderError, RunError, SelftaughtError, UnreadableError

SETTINGS = {
    "encoder": {"name": "small", "width": 4}, "modality": {"size": 16}, "batch_size": 8, "workers": 0, "quiet": True,
}  # fmt: skip


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("SELFTAUGHT_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def arrays():
    """(x, y): 60 pictures of discs and stripes, 24 x 24 x 3 uint8."""
    from selftaught.modalities.image import Image

    toy = Image().toy(60)
    x = np.stack([cv2.resize(np.asarray(one.data), (24, 24)) for one in toy])
    return x, np.array([one.target for one in toy])


@pytest.fixture(scope="module")
def run(arrays, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return st.pretrain(
        arrays[0], out=folder / "run", method={"name": "simclr", "temperature": 0.3}, steps=6, **SETTINGS
    )


def test_vectors_of_arrays_paths_and_folders_are_the_same(run, arrays, tmp_path):
    model = st.load(run)
    vectors = model.embed(arrays[0])
    assert vectors.shape == (60, model.dim) and vectors.dtype == np.float32 and np.isfinite(vectors).all()
    paths = []
    for number in (3, 1, 2):
        paths.append(tmp_path / f"{number}.png")
        cv2.imwrite(str(paths[-1]), arrays[0][number][..., ::-1])
    assert np.allclose(model.embed(paths), vectors[[3, 1, 2]], atol=1e-4)  # in the order given
    assert np.allclose(model.embed(tmp_path), vectors[[1, 2, 3]], atol=1e-4)  # in the order of the names


def test_a_model_has_its_encoder_and_modality(run):
    model = st.load(run.folder)
    assert isinstance(model.encoder, nn.Module) and not model.encoder.training
    assert model.modality.shape() == (3, 16, 16)
    assert run.config["request"]["method"] == {"name": "simclr", "temperature": 0.3}


def test_what_cannot_be_read_is_named(run, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    cv2.imwrite(str(tmp_path / "good.png"), np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(UnreadableError, match="bad.png cannot be read") as caught:
        st.load(run).embed([tmp_path / "bad.png", tmp_path / "good.png"])
    assert "selftaught embed" in caught.value.hint


def test_embed_writes_parquet_and_npy(run, arrays, tmp_path):
    vectors = st.load(run).embed(arrays[0])
    table = pq.read_table(st.embed(run, arrays[0], out=tmp_path / "e.parquet", quiet=True))
    assert table.column_names == ["path", "part", "embedding"] and table.num_rows == 60
    assert np.array_equal(np.stack(table["embedding"].to_numpy()), vectors)
    assert np.array_equal(np.load(st.embed(run, arrays[0], out=tmp_path / "e.npy", quiet=True)), vectors)


def test_errors_are_those_of_the_command_line(arrays, tmp_path, capsys):
    with pytest.raises(ConfigError) as caught:
        st.pretrain(arrays[0], out=tmp_path / "run", method={"name": "simclr", "temperature": 0})
    assert cli.main(
        ["pretrain", "x", "--out", str(tmp_path / "run"), "--method", "simclr", "--method.temperature", "0"]
    )
    assert str(caught.value) in capsys.readouterr().err
    with pytest.raises(ConfigError, match="pretrain has no parameter 'epoch'"):
        st.pretrain(arrays[0], out=tmp_path / "run", epoch=3)  # pyright: ignore[reportCallIssue]
    with pytest.raises(ConfigError, match="The 'out' parameter of pretrain must be given"):
        st.pretrain(arrays[0])  # pyright: ignore[reportCallIssue]
    with pytest.raises(RunError, match="must be the folder of a run"):
        st.load(tmp_path)
    with pytest.raises(DataError):
        st.pretrain(tmp_path, out=tmp_path / "run", **SETTINGS)
    assert issubclass(ConfigError, SelftaughtError)


def test_your_own_module_as_encoder(arrays, tmp_path):
    def mine() -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    run = st.pretrain(arrays[0], out=tmp_path / "run", steps=2, **{**SETTINGS, "encoder": mine()})
    with pytest.raises(EncoderError, match="only you can build"):
        st.load(run)
    model = st.load(run, encoder=mine())
    assert model.embed(arrays[0]).shape == (60, 8)


def test_vectors_do_not_depend_on_the_batch(run, arrays):
    model = st.load(run)
    assert np.allclose(model.embed(arrays[0], batch_size=7), model.embed(arrays[0]), atol=1e-4)
    assert not torch.is_inference(next(model.encoder.parameters()))


@pytest.fixture(scope="module")
def evaluation(run, arrays):
    return st.evaluate(
        run, arrays, labels="y", budgets=("2/class", "all"), seeds=2, epochs=1, least=3, workers=0, quiet=True
    )


def test_evaluate_compares_with_every_control(evaluation, run):
    found = {(row["protocol"], row["features"]) for row in evaluation["summary"]}
    assert found == {
        *((protocol, features) for protocol in ("knn", "linear") for features in ("pretrained", "raw", "random")),
        ("finetune", "pretrained"), ("finetune", "scratch"),
    }  # fmt: skip
    assert evaluation["sentence"] and evaluation["rows"] == run.evaluation["rows"]
    assert all(row["seen"] for row in evaluation["rows"])  # the very pictures of the pre-training: transductive
    assert any("ransductive" in note for note in evaluation["notes"])
    json.dumps(evaluation, allow_nan=False)


def test_evaluate_writes_what_the_report_shows(evaluation, run):
    tables = {path.stem: pq.read_table(path) for path in (run.folder / "tables").glob("*.parquet")}
    assert set(tables) == {"thumbnails", "predictions", "neighbours", "map"}
    assert set(tables["predictions"].column_names) >= {"id", "path", "true", "predicted", "confidence", "protocol"}
    shown = set(tables["thumbnails"]["id"].to_pylist())
    assert set(tables["neighbours"]["neighbour"].to_pylist()) <= shown
    assert tables["map"].num_rows == 60
    page = st.report(run, quiet=True).read_text()
    assert evaluation["sentence"][:30] in page


def test_other_data_to_test_on_are_not_seen(run, arrays):
    from selftaught.modalities.image import Image

    x, y = arrays
    toy = Image().toy(20, seed=9)
    other = np.stack([cv2.resize(np.asarray(one.data), (24, 24)) for one in toy])
    settings = {
        "protocols": ("knn",),
        "controls": ("raw",),
        "budgets": ("all",),
        "seeds": 1,
        "workers": 0,
        "quiet": True,
    }
    found = st.evaluate(run, (x, y), labels="y", test=(other, np.array([one.target for one in toy])), **settings)
    assert {(row["n_train"], row["n_test"], row["seen"]) for row in found["rows"]} == {(60, 20, False)}
