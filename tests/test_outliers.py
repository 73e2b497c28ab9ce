"""``outliers``: each score finds what is unlike the rest, the scores themselves, and what cannot be done is said."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

import selftaught as st
from selftaught.downstream import outliers
from selftaught.errors import ConfigError, DataError, MethodError
from selftaught.modalities.image import Image

SETTINGS = {
    "encoder": {"name": "small", "width": 8}, "modality": {"name": "image", "size": 16}, "batch_size": 16,
    "workers": 0, "quiet": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> Path:
    """Forty discs and four pictures of noise, by folder."""
    root = tmp_path_factory.mktemp("mixed")
    (root / "disc").mkdir()
    (root / "noise").mkdir()
    for number, sample in enumerate(Image().toy(80)[::2]):
        cv2.imwrite(str(root / "disc" / f"{number:03}.png"), np.asarray(sample.data))
    rng = np.random.default_rng(0)
    for number in range(4):
        cv2.imwrite(str(root / "noise" / f"{number}.png"), rng.integers(0, 256, (40, 40, 3)).astype(np.uint8))
    return root


@pytest.fixture(scope="module")
def run(mixed, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    return st.pretrain(mixed / "disc", out=out, method="denoising", steps=40, lr=0.01, **SETTINGS)


@pytest.mark.parametrize("usual", [True, False], ids=["among usual ones", "by itself"])
def test_every_score_finds_noise_among_discs(run, mixed, tmp_path, capsys, usual):
    given = {"usual": mixed / "disc"} if usual else {}
    path = st.outliers(run, mixed, out=str(tmp_path / "o.csv"), labels="folders", unusual=("noise",), draws=2, **given)
    table = csv.read_csv(path).to_pydict()
    assert list(table) == ["path", "part", "energy", "knn", "mahalanobis", "forest"] and len(table["path"]) == 44
    truth = [name.startswith("noise") for name in table["path"]]
    said = capsys.readouterr().out
    for score in ("energy", "knn", "mahalanobis", "forest"):
        area = roc_auc_score(truth, table[score])
        assert area > (0.9 if usual else 0.8), score  # a tenth of what counts as usual is not
        assert f"{score:12} AUROC {area:.3f}  least usual: " in said


def test_some_scores_alone(run, mixed, tmp_path):
    path = st.outliers(run, mixed, out=str(tmp_path / "o.parquet"), scores=("knn",), quiet=True)
    assert pq.read_table(path).column_names == ["path", "part", "knn"]


def test_a_method_without_an_energy_is_left_out_and_named(mixed, tmp_path, capsys):
    turned = st.pretrain(mixed / "disc", out=tmp_path / "run", method="rotation", steps=2, **SETTINGS)
    path = st.outliers(turned, mixed, out=str(tmp_path / "o.csv"))
    assert csv.read_csv(path).column_names == ["path", "part", "knn", "mahalanobis", "forest"]
    assert "no energy: Rotation does not say how well it explains a sample" in capsys.readouterr().out
    with pytest.raises(MethodError, match="does not say how well"):
        st.outliers(turned, mixed, out=str(tmp_path / "o.csv"), scores=("energy",))


def test_what_cannot_be_done_is_said(run, mixed, tmp_path):
    out = str(tmp_path / "o.csv")
    with pytest.raises(ConfigError, match="go together"):
        st.outliers(run, mixed, out=out, labels="folders")
    with pytest.raises(ConfigError, match=r"a label of the data \(disc, noise\). Got 'nois' instead") as refused:
        st.outliers(run, mixed, out=out, labels="folders", unusual=("nois",))
    assert "Did you mean 'noise'" in refused.value.hint
    with pytest.raises(ConfigError, match=r"ending in \.csv or \.parquet"):
        st.outliers(run, mixed, out=str(tmp_path / "o.npy"))
    with pytest.raises(ConfigError, match="folder that can be written to"):
        st.outliers(run, mixed, out=str(tmp_path / "nowhere" / "o.csv"))
    with pytest.raises(DataError, match="There are 4 usual samples"):
        st.outliers(run, mixed, usual=mixed / "noise", out=out)
    assert not Path(out).exists()


def test_knn_is_the_mean_cosine_distance():
    rng = np.random.default_rng(0)
    usual, asked = rng.normal(size=(20, 4)), rng.normal(size=(3, 4))
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)  # noqa: E731
    far = np.sort(1 - unit(asked) @ unit(usual).T, axis=1)
    np.testing.assert_allclose(outliers.knn(usual, asked, k=3), far[:, :3].mean(1), atol=1e-6)
    own = np.sort(1 - unit(usual) @ unit(usual).T, axis=1)[:, 1:]  # less oneself
    np.testing.assert_allclose(outliers.knn(usual, usual, k=3, same=True), own[:, :3].mean(1), atol=1e-6)


def test_mahalanobis_is_in_units_of_the_spread():
    """Many samples: the covariance is shrunk next to nothing, and 3 spreads away is 9 anywhere."""
    rng = np.random.default_rng(0)
    spread = np.array([1.0, 1.5, 0.7])
    usual = rng.normal(size=(100_000, 3)) * spread + 5
    np.testing.assert_allclose(outliers.mahalanobis(usual, 5 + 3 * np.diag(spread)), 9, rtol=0.05)
    few = outliers.mahalanobis(usual[:10], usual[:10])  # fewer than dimensions would need without shrinking
    assert np.isfinite(few).all()


def test_a_forest_sets_far_samples_apart():
    rng = np.random.default_rng(0)
    usual = rng.normal(size=(300, 3))
    near, far = outliers.forest(usual, np.array([[0.0, 0, 0], [9, 9, 9]]))
    assert far > near + 0.2 and np.array_equal(outliers.forest(usual, usual), outliers.forest(usual, usual))
