"""Windows, resampling with gaps, and disturbances of signals."""

from __future__ import annotations

import numpy as np
import pytest

from selftaught.ops import signal


def everything(x: np.ndarray) -> np.ndarray:
    return np.ones(x.shape, bool)


def test_windows_keep_the_share_and_stay_inside():
    windows = signal.draw_windows(np.random.default_rng(0), 20_000, scale=(0.1, 0.9), floor=0.5)
    share = windows[:, 1] - windows[:, 0]
    assert windows.min() >= 0 and windows.max() <= 1
    assert 0.5 <= share.min() < 0.51 and 0.89 < share.max() <= 0.9
    assert abs(share.mean() - 0.7) < 0.01
    whole = signal.draw_windows(np.random.default_rng(0), 5, scale=(1.0, 1.0))
    np.testing.assert_allclose(whole, np.tile([0.0, 1.0], (5, 1)))


@pytest.mark.parametrize("length", [1, 2, 7, 50, 64])
def test_resampling_at_its_own_length_is_the_identity(length):
    x = np.random.default_rng(0).normal(size=(3, length)).astype(np.float32)
    out, seen = signal.resample(x, everything(x), window=(0.0, 1.0), length=length)
    np.testing.assert_allclose(out, x, atol=1e-6)
    assert seen.all()


@pytest.mark.parametrize(("readings", "length"), [(64, 100), (101, 50), (101, 24), (1000, 30), (513, 64), (5, 64)])
@pytest.mark.parametrize("window", [(0.0, 1.0), (0.21, 0.83)])
def test_a_straight_line_stays_where_it_is(readings, length, window):
    """Reading t covers [t, t + 1): its middle is t + 0.5, whatever the number of halvings on the way."""
    x = (np.arange(readings) + 0.5).astype(np.float32)[None]
    out, _ = signal.resample(x, everything(x), window=window, length=length)
    expected = (window[0] + (np.arange(length) + 0.5) / length * (window[1] - window[0])) * readings
    end = max(0.5, readings / length)  # before the first middle and after the last, values are held, not continued
    inside = (expected > end) & (expected < readings - end)
    np.testing.assert_allclose(out[0][inside], expected[inside], rtol=1e-4)


def test_fast_wiggles_do_not_turn_into_slow_ones():
    x = np.sin(np.pi * np.arange(1024)).astype(np.float32)[None] + np.tile([1.0, -1.0], 512).astype(np.float32)
    out, _ = signal.resample(x, everything(x), window=(0.0, 0.99), length=100)
    assert abs(out).max() < 0.05 < abs(x).max()


def test_gaps_are_found_and_never_leak():
    x = np.arange(20, dtype=np.float32)[None].repeat(2, 0)
    x[0, 5:9] = np.nan
    out, seen = signal.resample(x, ~np.isnan(x), window=(0.0, 1.0), length=40)
    assert np.isfinite(out).all()
    assert seen[1].all() and not seen[0, 11:17].any() and seen[0, :9].all() and seen[0, 19:].all()
    np.testing.assert_allclose(out[0, seen[0]], out[1, seen[0]], atol=0.51)  # half a reading: from one neighbour alone
    assert (out[~seen] == 0).all()
    for filler in (np.nan, 1e9):
        other = np.where(np.isnan(x), filler, x)
        np.testing.assert_array_equal(signal.resample(other, ~np.isnan(x), window=(0.0, 1.0), length=7)[0],
                                      signal.resample(x, ~np.isnan(x), window=(0.0, 1.0), length=7)[0])  # fmt: skip


def test_disturbances_have_their_strengths():
    mean, std = np.array([5.0, -2.0], np.float32), np.array([2.0, 10.0], np.float32)
    x = np.repeat(mean[:, None], 400, 1)
    made = np.stack([signal.disturb(x, np.random.default_rng(n), strength=1.0, mean=mean, std=std) for n in range(300)])
    spread = (made - x) / std[:, None]  # at the mean, scaling changes nothing: jitter and drift remain
    assert abs(np.diff(spread, axis=2).std() / np.sqrt(2) - signal.JITTER) < 0.005
    knots = spread[:, :, [0, -1]].std()
    assert abs(knots - np.hypot(signal.DRIFT, signal.JITTER)) < 0.02
    apart = [
        signal.disturb(x + 1000 * std[:, None], np.random.default_rng(n), strength=1.0, mean=mean, std=std)
        for n in range(500)
    ]
    factors = ((np.stack(apart) - x).mean(2) / (1000 * std)).std()
    assert abs(factors - signal.SCALING) < 0.01


def test_strength_zero_changes_nothing_and_takes_the_same_numbers():
    x, mean, std = np.random.default_rng(0).normal(size=(2, 50)).astype(np.float32), np.zeros(2), np.ones(2)
    left = []
    for strength in (0.0, 2.0):
        rng = np.random.default_rng(1)
        out = signal.disturb(x, rng, strength=strength, mean=mean, std=std)
        left.append(rng.random())
        assert (abs(out - x).max() < 1e-6) == (strength == 0)
    assert left[0] == left[1]


def test_channels_are_dropped_at_the_rate_and_never_all():
    rng = np.random.default_rng(0)
    dropped = np.stack([signal.draw_dropped(rng, 6, p=0.3) for _ in range(5000)])
    assert abs(dropped.mean() - 0.3) < 0.01
    assert not np.stack([signal.draw_dropped(rng, 2, p=0.99) for _ in range(500)]).all(1).any()
    assert not any(signal.draw_dropped(rng, 1, p=0.99).any() for _ in range(100))
