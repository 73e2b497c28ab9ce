"""The series modality: windows of sensor readings with gaps, whatever the layout."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from selftaught.errors import ConfigError, DataError, UnreadableError
from selftaught.modalities.series import Series
from selftaught.types import Geometry, Photometry, Sample, ViewGroup

PLAN = (ViewGroup(),)
STILL = (Photometry(noise=0.0),)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def fitted(*arrays: np.ndarray, **options) -> tuple[Series, list[Sample]]:
    series = Series(**options)
    samples = [series.from_array(array) for array in arrays]
    series.fit(samples)
    return series, samples


def readings(channels: int, length: int, seed: int = 0) -> np.ndarray:
    return (rng(seed).normal(size=(channels, length)).cumsum(1) + 20).astype(np.float32)


@pytest.mark.parametrize(("channels", "length"), [(1, 150), (6, 100), (3, 17), (1, 9), (2, 5000)])
def test_same_arguments_same_views(channels, length):
    series, (sample,) = fitted(readings(channels, length), layout="nct")
    for seed in range(10):
        first, again = (series.views(sample, rng(seed), PLAN) for _ in range(2))
        x = first.streams["views"]
        assert x.shape == (2, channels, length) and x.dtype == np.float32 and np.isfinite(x).all()
        np.testing.assert_array_equal(x, again.streams["views"])
        box = first.drawn["views"]["box"]
        assert box.shape == (2, 2) and (box[:, 1] - box[:, 0] >= 0.5 - 1e-6).all()
    assert (x[0] != x[1]).any()


def test_recorded_window_cuts_the_same_readings_again():
    """Undisturbed views of a ramp: the first and last values say where the window began and ended."""
    series, (sample,) = fitted(np.arange(400, dtype=np.float32))
    views = series.views(sample, rng(), (ViewGroup(count=8, photometry=STILL),))
    box = views.drawn["views"]["box"].astype(float)
    x = views.streams["views"][:, 0]
    step = (box[:, 1] - box[:, 0])[:, None]
    expected = (box[:, :1] + (np.array([50, 350]) + 0.5) / 400 * step) * 400 - 0.5
    np.testing.assert_allclose(x[:, [50, 350]], expected, atol=1e-2)


def test_time_runs_backwards_only_if_asked():
    x = np.arange(100, dtype=np.float32)
    for mirror in (False, True):
        series, (sample,) = fitted(x, mirror=mirror)
        views = series.views(sample, rng(), (ViewGroup(count=40, photometry=STILL),))
        falls = views.streams["views"][:, 0, 0] > views.streams["views"][:, 0, -1]
        np.testing.assert_array_equal(falls, views.drawn["views"]["flip"])
        assert falls.any() == mirror and not falls.all()


def test_groups_of_one_geometry_share_their_windows():
    series, (sample,) = fitted(readings(2, 64))
    shared = Geometry("shared")
    plan = (
        ViewGroup("a", geometry=shared, photometry=STILL),
        ViewGroup("b", geometry=shared, photometry=STILL),
        ViewGroup("short", size=0.5, photometry=STILL),
    )
    views = series.views(sample, rng(), plan)
    np.testing.assert_array_equal(views.streams["a"], views.streams["b"])
    assert views.streams["short"].shape == (2, 2, 32)
    assert (views.drawn["short"]["box"] != views.drawn["a"]["box"]).any()
    alone = series.views(sample, rng(), plan[:1])
    np.testing.assert_array_equal(alone.streams["a"], views.streams["a"])


def test_missing_values_are_marked_and_become_zero():
    x = readings(3, 80)
    x[1, 20:40] = np.nan
    x[2] = np.nan
    x[2, :3] = 7
    series, (sample,) = fitted(x)
    assert np.isfinite(series.mean).all() and np.isfinite(series.std).all()
    assert sample.observed["series"].sum() == np.isfinite(x).sum()
    batch = series.collate([series.plain(sample)], np.arange(1), np.arange(1))
    observed, z = batch["plain"].observed, series.normalise(batch["plain"].data)
    assert observed is not None
    np.testing.assert_array_equal(observed[0, 0].numpy(), np.isfinite(x))
    assert (z[~observed] == 0).all() and torch.isfinite(z).all()
    for seed in range(20):
        views = series.views(sample, rng(seed), PLAN)
        z = series.normalise(torch.from_numpy(views.streams["views"]))
        assert torch.isfinite(z).all() and (z.numpy()[~views.observed["views"]] == 0).all()


def test_dropped_channels_are_not_observed():
    series, (sample,) = fitted(readings(4, 50), dropout=0.5)
    views = series.views(sample, rng(), (ViewGroup(count=200),))
    gone = ~views.observed["views"].any(2)
    assert 0.4 < gone.mean() < 0.6 and not np.all(gone, axis=1).any()
    still = series.views(sample, rng(), (ViewGroup(count=50, photometry=STILL),))
    assert still.observed["views"].all()


def test_samples_with_and_without_gaps_make_one_batch():
    series, samples = fitted(readings(2, 30), readings(2, 30, 1))
    samples[0].observed = {}  # a source that does not know of gaps
    batch = series.collate([series.plain(sample) for sample in samples], np.arange(2), np.arange(2))
    assert batch["plain"].observed is not None and batch["plain"].observed.all()


def test_fit_and_normalise():
    arrays = [readings(2, 60, seed) for seed in range(5)]
    series, samples = fitted(*arrays)
    flat = np.concatenate(arrays, 1).astype(np.float64)
    np.testing.assert_allclose(series.mean, flat.mean(1), rtol=1e-6)
    np.testing.assert_allclose(series.std, flat.std(1), rtol=1e-6)
    assert series.shape() == (2, 60)
    batch = series.collate([series.plain(sample) for sample in samples], np.arange(5), np.arange(5))
    z = series.normalise(batch["plain"].data)
    assert z.shape == (5, 1, 2, 60)
    expected = (flat.reshape(2, 5, 60).transpose(1, 0, 2) - flat.mean(1)[:, None]) / flat.std(1)[:, None]
    np.testing.assert_allclose(z[:, 0].numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(series.denormalise(z).numpy(), batch["plain"].data.numpy(), rtol=1e-5)
    assert series.normalise(batch["plain"].data, torch.bfloat16).dtype == torch.bfloat16
    assert series.raw(batch).shape == (5, 120)


def test_a_constant_channel_stays_finite():
    x = readings(2, 40)
    x[1] = 3.0
    series, (sample,) = fitted(x)
    z = series.normalise(torch.from_numpy(series.plain(sample).streams["plain"]))
    assert torch.isfinite(z).all() and (z[0, 1] == 0).all()


@pytest.mark.parametrize(
    ("shape", "layout", "expected"),
    [
        ((5, 90), "auto", (1, 90)),
        ((5, 3, 90), "auto", (3, 90)),
        ((5, 90, 3), "auto", (3, 90)),
        ((5, 90, 3), "nct", (90, 3)),
        ((5, 7, 7), "ntc", (7, 7)),
    ],
)
def test_files_in_every_layout(tmp_path, shape, layout, expected):
    data = rng().normal(size=shape).astype(np.float64)
    np.savez(tmp_path / "a.npz", x=data)
    series = Series(layout=layout)
    items = list(series.items(str(tmp_path / "a.npz")))
    assert len(items) == 5 and {item.length for item in items} == {expected[1]}
    x = series.read(items[3]).data
    assert x.shape == expected and x.dtype == np.float32
    row = data[3][None] if data.ndim == 2 else data[3] if x.shape == data[3].shape and layout != "ntc" else data[3].T
    np.testing.assert_allclose(x, row, rtol=1e-6)


def test_lengths_may_differ():
    series, samples = fitted(readings(2, 50), readings(2, 70), readings(2, 61))
    assert series.length == 61
    for sample in samples:
        assert series.plain(sample).streams["plain"].shape == (1, 2, 61)


def test_state_is_json_and_rebuilds_the_modality():
    series, (sample,) = fitted(readings(2, 40), shortest=0.7, mirror=True)
    other = Series()
    other.load_state(json.loads(json.dumps(series.state())))
    assert other.state() == series.state()
    np.testing.assert_array_equal(
        other.views(sample, rng(), PLAN).streams["views"], series.views(sample, rng(), PLAN).streams["views"]
    )


def test_bad_input_gets_a_sentence(tmp_path):
    wrong: list[dict[str, Any]] = [{"length": 3}, {"layout": "tcn"}, {"shortest": 0.0}, {"dropout": 1.0}]
    for options in wrong:
        with pytest.raises(ConfigError, match=f"The {next(iter(options))!r} parameter of Series must be"):
            Series(**options)
    with pytest.raises(DataError):
        Series().fit([])
    with pytest.raises(DataError, match="Call fit|not known"):
        Series().plain(Series().from_array(np.zeros(5)))
    series, _ = fitted(readings(2, 40))
    for array, reason in (
        (np.full(5, np.nan), "not missing"),
        (np.array([1.0, np.inf]), "infinite"),
        (readings(3, 40), "has 3 channels where 2"),
        (np.zeros((3, 3)), "say which by layout"),
        (np.zeros((1, 2, 3, 4)), "is not series"),
        (np.array(["a", "b"]), "not readings"),
    ):
        with pytest.raises(UnreadableError, match=reason):
            series.from_array(array)


def test_picture_shows_a_line_per_channel():
    series, (sample,) = fitted(readings(3, 50))
    shown = series.picture(sample.data)
    assert shown.shape == (96, 192, 3) and shown.dtype == np.uint8
    assert len(np.unique(shown.reshape(-1, 3), axis=0)) > 3 and (shown == 255).all(2).mean() > 0.5


def test_toy_is_two_kinds_that_a_spectrum_tells():
    samples = Series().toy(10)
    peaks = [abs(np.fft.rfft(sample.data[0]))[1:].argmax() + 1 for sample in samples]
    assert [int(peak > 5) for peak in peaks] == [sample.target for sample in samples] == [0, 1] * 5


def test_real_series(shared_data):
    series = Series()
    samples = [series.read(item) for item in series.items(str(shared_data / "basicmotions" / "basicmotions.npz"))]
    series.fit(samples)
    assert series.shape() == (6, 100)
    views = [series.views(sample, rng(n), PLAN) for n, sample in enumerate(samples)]
    z = series.normalise(series.collate(views, *2 * (np.arange(len(views)),))["views"].data)
    assert z.shape == (40, 2, 6, 100) and torch.isfinite(z).all() and 0.7 < z.std() < 1.3
