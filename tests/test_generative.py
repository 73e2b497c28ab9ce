"""``generate`` and ``energy``: a run's method put together again, new samples, and what is unlike the rest."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import selftaught as st
from selftaught.commands.painted import apart
from selftaught.commands.parts import load_task
from selftaught.commands.samples import read_again
from selftaught.diagnostics.measures import frechet
from selftaught.errors import ConfigError, MethodError, RunError
from selftaught.modalities.image import Image

SETTINGS = {
    "encoder": {"name": "small", "width": 8}, "modality": {"name": "image", "size": 16}, "batch_size": 16,
    "workers": 0, "quiet": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    for number, sample in enumerate(Image().toy(80)):
        if number % 2 == 0:  # discs alone
            cv2.imwrite(str(root / f"{number:03}.png"), np.asarray(sample.data))
    return root


@pytest.fixture(scope="module")
def vae(pictures, tmp_path_factory):
    method = {"name": "vae", "width": 16, "latent": 8}
    out = tmp_path_factory.mktemp("runs") / "vae"
    return st.pretrain(pictures, out=out, method=method, steps=60, lr=0.02, **SETTINGS)


def test_the_method_comes_back(vae):
    task, again = load_task(vae.folder), load_task(vae.folder)
    assert type(task.method).__name__ == "VAE" and not task.training
    for name, value in task.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])


def test_pictures_of_what_came_back(vae):
    picture = cv2.imread(str(vae.folder / "pictures" / "shown.png"))
    assert picture is not None and picture.shape[1] > 10 * 16  # five columns, twice
    assert cv2.imread(str(vae.folder / "pictures" / "generated.png")) is not None
    page = Path(st.report(vae.folder, quiet=True)).read_text(encoding="utf-8")
    assert "What it made of samples" in page and "What it makes out of noise" in page


def test_series_are_painted_too(tmp_path):
    """With a spike that no picture can show beside the rest."""
    x = np.random.default_rng(0).normal(size=(80, 2, 64)).astype(np.float32)
    x[3, 0, 5], x[4, 1, :9] = 1e6, np.nan
    method = {"name": "vae", "width": 8, "latent": 4}
    run = st.pretrain(
        x, out=tmp_path / "run", method=method, modality="series", steps=4, batch_size=16, workers=0, quiet=True,
        encoder={"name": "small", "width": 8},
    )  # fmt: skip
    for name in ("shown", "generated"):
        assert cv2.imread(str(run.folder / "pictures" / f"{name}.png")) is not None


def test_the_energy_of_a_diffusion_is_of_whole_samples(pictures, tmp_path):
    """Its training takes two crops; asked how well it explains a sample, it gets the sample, twice."""
    from selftaught.commands import energy
    from selftaught.commands.parts import plan_of

    method = {"name": "diffusion", "width": 4, "latent": 4}
    run = st.pretrain(pictures, out=tmp_path / "run", method=method, steps=2, **SETTINGS)
    task, model = load_task(run.folder), st.load(run.folder)
    index = read_again(pictures, model.modality).index
    seen = []
    forward = task.method.forward
    task.method.forward = lambda encoders, batch, clock: (seen.append(batch), forward(encoders, batch, clock))[1]  # type: ignore[method-assign]
    energy.energies(task, model.modality, index, plan_of(run, task.method), draws=1)
    views = seen[0]["views"].data
    assert views.shape[1] == 2 and torch.equal(views[:, 0], views[:, 1])


def test_generate_writes_samples(vae, tmp_path):
    path = st.generate(vae.folder, n=10, out=str(tmp_path / "new.npy"), quiet=True)
    made = np.load(path)
    assert made.shape == (10, 16, 16, 3) and made.dtype == np.uint8 and made.std() > 5
    again = np.load(st.generate(vae.folder, n=10, out=str(tmp_path / "again.npy"), quiet=True))
    other = np.load(st.generate(vae.folder, n=10, seed=1, out=str(tmp_path / "other.npy"), quiet=True))
    assert np.array_equal(made, again) and not np.array_equal(made, other)
    grid = st.generate(vae.folder, n=4, quiet=True)
    assert grid == vae.folder / "pictures" / "generated.png" and cv2.imread(str(grid)) is not None


def test_generate_compares_with_data(vae, pictures, tmp_path, capsys):
    st.generate(vae.folder, n=24, data=pictures)
    assert "Frechet distance of 20 new samples" in capsys.readouterr().out
    page = Path(st.report(vae.folder, quiet=True)).read_text(encoding="utf-8")
    assert "Frechet distance of 20 and 20 samples" in page
    st.generate(vae.folder, n=4, out=str(tmp_path / "few.npy"), data=pictures)
    assert "Too few samples for a Frechet distance" in capsys.readouterr().out


def test_how_far_new_samples_are_apart():
    """As far as other true ones where they are drawn alike, farther where they are not."""
    rng = np.random.default_rng(0)
    true, alike, other = rng.normal(size=(400, 3)), rng.normal(size=(150, 3)), rng.normal(1, 2, (150, 3))
    far, usual, count = apart(alike, true) or (0.0, 0.0, 0)
    assert count == 150 and far == pytest.approx(usual, abs=0.1) and usual < 0.1
    far, again, _ = apart(other, true) or (0.0, 0.0, 0)
    assert far > 3 and again == usual
    assert apart(alike[:15], true) is None and apart(alike, true[:31]) is None
    broken = np.concatenate([np.full((1, 3), np.inf), alike])
    assert apart(broken, true) == apart(alike, true)  # what diverged is left out


def test_energy_finds_what_is_unlike_the_rest(vae, pictures, tmp_path):
    """Noise among discs."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    for path in sorted(pictures.glob("*.png"))[:12]:
        (folder / path.name).write_bytes(path.read_bytes())
    rng = np.random.default_rng(0)
    for number in range(4):
        cv2.imwrite(str(folder / f"noise{number}.png"), rng.integers(0, 256, (40, 40, 3)).astype(np.uint8))
    path = st.energy(vae.folder, folder, out=str(tmp_path / "energy.parquet"), draws=2, quiet=True)
    table = pq.read_table(path).to_pydict()
    order = np.argsort(table["energy"])
    assert all("noise" in Path(table["path"][row]).name for row in order[-4:])


def test_energy_of_methods_that_compare_views(pictures, tmp_path):
    run = st.pretrain(pictures, out=tmp_path / "run", method="simclr", steps=4, **SETTINGS)
    for suffix in (".csv", ".npy"):
        path = st.energy(run.folder, pictures, out=str(tmp_path / f"energy{suffix}"), draws=2, quiet=True)
        assert path.stat().st_size > 0
    values = np.load(tmp_path / "energy.npy")
    assert values.shape == (40,) and (values >= 0).all() and (values <= 2).all()
    with pytest.raises(MethodError, match="cannot make new samples") as refused:
        st.generate(run.folder, quiet=True)
    assert refused.value.hint == "These can: bigan, diffusion, vae."


def test_what_cannot_be_done_is_said(vae, pictures, tmp_path):
    with pytest.raises(ConfigError, match="ending in"):
        st.energy(vae.folder, pictures, out=str(tmp_path / "energy.txt"), quiet=True)
    with pytest.raises(ConfigError, match="ending in"):
        st.generate(vae.folder, out=str(tmp_path / "new.jpg"), quiet=True)
    run = st.pretrain(pictures, out=tmp_path / "turned", method="rotation", steps=2, **SETTINGS)
    with pytest.raises(MethodError, match="does not say how well"):
        st.energy(run.folder, pictures, out=str(tmp_path / "energy.csv"), quiet=True)
    for path in (run.folder / "parts" / "method").iterdir():
        path.unlink()
    with pytest.raises(RunError, match="no weights of its method"):
        st.energy(run.folder, pictures, out=str(tmp_path / "energy.csv"), quiet=True)


def test_words_of_a_run_are_targets(pictures, tmp_path):
    """A VQ-VAE names places; BEiT learns its words."""
    method = {"name": "vq_vae", "width": 8, "words": 8}
    teacher = st.pretrain(pictures, out=tmp_path / "words", method=method, steps=10, **SETTINGS)
    run = st.pretrain(pictures, out=tmp_path / "beit", method="beit", teacher=teacher.folder, steps=3, **SETTINGS)
    task = load_task(run.folder)
    assert task.method.head.out_features == 8 and task.method.codebook is None  # type: ignore[union-attr]


def test_the_frechet_distance_of_gaussians():
    """Against the closed form for diagonal covariances; 0 with itself, the same both ways."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(200_000, 3, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 2.0, 0.5])
    b = torch.randn(200_000, 3, generator=generator, dtype=torch.float64) * torch.tensor([2.0, 1.0, 0.5]) + 1
    assert frechet(a, b) == pytest.approx(3 + 1 + 1, rel=0.02)
    assert frechet(a, a) == pytest.approx(0, abs=1e-9) and frechet(a, b) == pytest.approx(frechet(b, a))


def test_health_says_how_much_is_left_unexplained(vae):
    """Measured on held-out samples at every check; falls as the painting gets better."""
    checks = vae.health["measures"]
    assert all({"held_out_loss", "unexplained"} <= check.keys() for check in checks)
    assert 0 < checks[-1]["unexplained"] < checks[0]["unexplained"]
    assert "held_out_loss" in (vae.folder / "metrics.csv").read_text(encoding="utf-8").splitlines()[0]


def test_energy_sees_the_views_that_the_run_saw(pictures, tmp_path):
    """A run whose views were not mirrored is not asked about mirrored ones."""
    from selftaught.commands.parts import plan_of

    run = st.pretrain(pictures, out=tmp_path / "run", method="simclr", steps=2, views={"flip": 0.0}, **SETTINGS)
    task = load_task(run.folder)
    assert task.method.needs().plan[0].geometry.flip == 0.5  # type: ignore[union-attr, operator]
    assert plan_of(st.Run.open(run.folder), task.method)[0].geometry.flip == 0.0
