"""Colour, blur and solarise against sequential float64 references; types, channels and the network's input."""

from __future__ import annotations

import colorsys
import math

import cv2
import numpy as np
import pytest
import torch

from selftaught.errors import UnreadableError
from selftaught.ops import photo, pixels

LUMA = np.array([0.299, 0.587, 0.114])


def sequential(x: np.ndarray, one: photo.Jitter, gray: bool, low: float = 0.0) -> np.ndarray:
    """The operations one after the other in float64, written from their definitions, nothing clipped."""
    yiq = np.array([LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
    for name in one.order:
        if name == "brightness":
            x = low + one.brightness * (x - low)
        elif name == "contrast":
            middle = (x @ LUMA).mean()
            x = middle + one.contrast * (x - middle)
        elif name == "saturation":
            luma = (x @ LUMA)[..., None]
            x = luma + one.saturation * (x - luma)
        else:
            chroma = x @ yiq.T
            turned = (chroma[..., 1] + 1j * chroma[..., 2]) * np.exp(-2j * math.pi * one.hue)
            x = np.stack([chroma[..., 0], turned.real, turned.imag], -1) @ np.linalg.inv(yiq).T
    return np.repeat((x @ LUMA)[..., None], 3, -1) if gray else x


@pytest.mark.parametrize("seed", range(12))
def test_one_matrix_is_the_sequence_of_operations(seed):
    rng = np.random.default_rng(seed)
    view = rng.uniform(-3, 8, (9, 11, 3)).astype(np.float32)
    one, low = photo.jitter(1.0, rng.random(5).tolist()), float(seed % 3)
    gray = seed % 4 == 0
    matrix = photo.colour_matrix(one, mean=photo.mean_of(view), gray=gray, low=low)
    np.testing.assert_allclose(
        photo.recolour(view, matrix), sequential(view.astype(np.float64), one, gray, low), atol=2e-5, rtol=1e-5
    )


@pytest.mark.parametrize(("kind", "top"), [(np.uint8, 255), (np.uint16, 65535)])
def test_integers_are_rounded_and_saturate(kind, top):
    rng = np.random.default_rng(0)
    view = rng.integers(0, top + 1, (16, 16, 3)).astype(kind)
    for _ in range(20):
        one = photo.jitter(1.0, rng.random(5).tolist())
        made = photo.recolour(view, photo.colour_matrix(one, mean=photo.mean_of(view)))
        expected = sequential(view.astype(np.float64), one, False).clip(0, top)
        assert made.dtype == kind
        # for bytes OpenCV rounds the matrix to 10 bits: at most 3 x 255 / 2048 more than the rounding of the result
        assert abs(made.astype(np.float64) - expected).max() <= 0.5 + (0.38 if top == 255 else 0.1)


@pytest.mark.parametrize("strength", [0.5, 1.0, 2.0])
def test_jitter_has_the_strengths_of_the_paper(strength):
    rng = np.random.default_rng(0)
    drawn = [photo.jitter(strength, rng.random(5).tolist()) for _ in range(20_000)]
    low, high = max(0.0, 1 - 0.8 * strength), 1 + 0.8 * strength
    for name in ("brightness", "contrast", "saturation"):
        values = np.array([getattr(one, name) for one in drawn])
        assert low <= values.min() < low + 0.01 and high - 0.01 < values.max() <= high
        assert abs(values.mean() - (low + high) / 2) < 0.02
    hue, reach = np.array([one.hue for one in drawn]), min(0.5, 0.2 * strength)
    assert -reach <= hue.min() < -0.99 * reach and 0.99 * reach < hue.max() <= reach
    orders, counts = np.unique(["".join(one.order) for one in drawn], return_counts=True)
    assert len(orders) == 24 and counts.min() > 20_000 / 24 * 0.8


def test_gray_stays_gray_and_luma_is_kept_by_chroma_operations():
    one = photo.Jitter(saturation=1.7, hue=0.13)
    gray = np.full((4, 4, 3), 100, np.uint8)
    np.testing.assert_array_equal(photo.recolour(gray, photo.colour_matrix(one, mean=photo.mean_of(gray))), gray)
    view = np.random.default_rng(0).random((8, 8, 3), np.float32)
    changed = photo.recolour(view, photo.colour_matrix(one, mean=photo.mean_of(view)))
    np.testing.assert_allclose(changed @ LUMA, view @ LUMA, atol=1e-5)


def test_hue_turns_the_way_hsv_does():
    """A third of a turn takes red to where green is the largest channel, as in HSV."""
    red = np.array([[[1.0, 0, 0]]], np.float32)
    turned = photo.recolour(red, photo.colour_matrix(photo.Jitter(hue=1 / 3), mean=np.array([1.0, 0, 0])))
    assert turned[0, 0].argmax() == np.argmax(colorsys.hsv_to_rgb(1 / 3, 1, 1)) == 1


@pytest.mark.parametrize("channels", [1, 2, 4, 5, 12])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_gains_follow_the_sequence_without_colour(channels, kind):
    rng = np.random.default_rng(channels)
    view = rng.integers(0, 200, (10, 12, channels)).astype(kind)
    one = photo.jitter(1.0, rng.random(5).tolist())
    expected = view.astype(np.float64)
    for name in one.order:
        if name == "brightness":
            expected = expected * one.brightness
        elif name == "contrast":
            middle = expected.mean((0, 1))
            expected = middle + one.contrast * (expected - middle)
    made = photo.recolour(view, photo.gain_matrix(one, mean=photo.mean_of(view)))
    assert made.shape == view.shape and made.dtype == kind
    if kind != np.float32:
        expected = expected.clip(0, np.iinfo(kind).max)
    assert abs(made - expected).max() <= (1e-3 if kind == np.float32 else 0.502)


@pytest.mark.parametrize("channels", [1, 3, 6])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_blur_is_the_gaussian(channels, kind):
    view = np.zeros((31, 31, channels), kind)
    view[15, 15] = 200
    blurred = photo.blur(view, 1.5)
    assert blurred.shape == view.shape and blurred.dtype == kind
    at = np.exp(-((np.arange(-5, 6)) ** 2) / (2 * 1.5**2))
    expected = 200 * np.outer(at / at.sum(), at / at.sum())
    assert abs(blurred[10:21, 10:21, -1].astype(float) - expected).max() <= (1e-3 if kind == np.float32 else 0.6)
    assert blurred[15, 9].max() == 0  # 2 ceil(3 sigma) + 1 = 11 taps


def test_blur_scales_with_the_view():
    assert photo.blur_sigma(0.0, 224) == 0.1 and photo.blur_sigma(1.0, 224) == 2.0
    assert photo.blur_sigma(1.0, 112) == 1.0


def test_solarise_at_128_and_at_the_middle_of_other_ranges():
    values = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    expected = np.where(values >= 128, 255 - values, values)
    np.testing.assert_array_equal(photo.solarise(values), expected)
    deep = (values.astype(np.uint16) * 257).repeat(5, 2)
    made = photo.solarise(deep, low=0.0, high=65535.0)
    assert made.dtype == np.uint16
    np.testing.assert_array_equal(made, np.where(deep >= 32768, 65535 - deep, deep))
    floats = np.linspace(-1, 1, 16, dtype=np.float32).reshape(4, 4, 1)
    np.testing.assert_allclose(photo.solarise(floats, low=-1.0, high=1.0), -abs(floats), atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "layout", "expected"),
    [
        ((28, 30), "auto", (True, None)),
        ((100, 28, 28), "auto", (False, None)),
        ((64, 48, 3), "auto", (True, 2)),
        ((10, 64, 48, 3), "auto", (False, 2)),
        ((10, 5, 64, 48), "auto", (False, 0)),
        ((10, 1, 28, 28), "auto", (False, 0)),
        ((10, 1, 300, 3), "auto", (False, 2)),
        ((10, 8, 8, 8), "cyx", (False, 0)),
        ((10, 8, 8, 8), "yxc", (False, 2)),
        ((13, 28, 28), "cyx", (True, 0)),
        ((64, 48, 13), "yxc", (True, 2)),
        ((64, 48, 3), "nyx", (False, None)),
        ((10, 64, 48, 3), "nyx", (False, 2)),
    ],
)
def test_axes_of_arrays(shape, layout, expected):
    assert pixels.picture_axes(shape, layout) == expected


@pytest.mark.parametrize("shape", [(10, 8, 9, 8), (5,), (1, 2, 3, 4, 5)])
def test_axes_that_cannot_be_told_are_refused(shape):
    with pytest.raises(UnreadableError):
        pixels.picture_axes(shape)


def test_types_and_channels_agree_or_say_why_not():
    gray = np.random.default_rng(0).integers(0, 256, (4, 5, 1)).astype(np.uint8)
    assert (pixels.as_channels(gray, 3) == gray).all()
    np.testing.assert_array_equal(pixels.as_channels(pixels.as_channels(gray, 3), 1), gray)
    np.testing.assert_array_equal(pixels.as_type(pixels.as_type(gray, "uint16"), "uint8"), gray)
    assert pixels.as_type(np.full((1, 1, 1), 255, np.uint8), "uint16").item() == 65535
    np.testing.assert_array_equal(pixels.as_stored(gray > 128), np.where(gray > 128, 255, 0))
    assert pixels.as_stored(gray.astype(np.int64)).dtype == np.float32
    for wrong in (lambda: pixels.as_channels(gray.repeat(4, 2), 3), lambda: pixels.as_type(gray, "float32")):
        with pytest.raises(UnreadableError):
            wrong()
    for wrong in (np.full((2, 2, 1), np.nan), np.full((2, 2, 1), "a")):
        with pytest.raises(UnreadableError):
            pixels.as_stored(wrong)


@pytest.mark.parametrize(
    "shape", [(2, 2, 5, 7, 3), (3, 1, 40, 300, 1), (1, 2, 2, 9000, 5), (0, 2, 4, 4, 3), (64, 2, 96, 96, 3)]
)
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_standardise_is_exact_in_float32_and_rounded_once_in_bf16(shape, kind):
    rng = np.random.default_rng(0)
    data = torch.from_numpy(rng.integers(0, 256, shape).astype(kind))
    mean, std = rng.uniform(80, 150, shape[-1]).tolist(), rng.uniform(20, 70, shape[-1]).tolist()
    expected = (data.to(torch.float32) - torch.tensor(mean)) / torch.tensor(std)
    assert torch.equal(pixels.standardise(data, mean, std, torch.float32), expected)
    assert torch.equal(pixels.standardise(data, mean, std, torch.bfloat16), expected.to(torch.bfloat16))


def test_standardised_batches_do_not_share_memory():
    """A convolution keeps its input for the gradient of its weights: a buffer used again would corrupt it."""
    data = torch.randint(0, 256, (2, 2, 8, 8, 3), dtype=torch.uint8)
    first = pixels.standardise(data, [100.0] * 3, [50.0] * 3, torch.bfloat16)
    kept = first.clone()
    pixels.standardise(255 - data, [100.0] * 3, [50.0] * 3, torch.bfloat16)
    assert torch.equal(first, kept)


def test_opencv_is_as_assumed():
    """What the code relies on in OpenCV: a channel axis of one is dropped, four channels go through everywhere."""
    assert cv2.resize(np.zeros((4, 4, 1), np.uint8), (2, 2)).ndim == 2
    assert cv2.transform(np.zeros((4, 4, 4), np.uint16), np.eye(4, 5, dtype=np.float32)).shape == (4, 4, 4)
