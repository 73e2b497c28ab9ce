"""Boxes, whole pixels and cuts, over shapes from one pixel to very long."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from selftaught.ops import spatial

SHAPES = [(1, 1), (1, 500), (500, 1), (7, 3), (28, 28), (256, 256), (375, 500), (1200, 1600), (30, 4000)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [(0.08, 1.0), (1.0, 1.0), (0.001, 0.01)])
def test_boxes_lie_within_any_picture(shape, scale):
    boxes = spatial.draw_boxes(np.random.default_rng(0), 200, shape=shape, scale=scale)
    assert boxes.shape == (200, 4)
    assert (boxes >= 0).all() and (boxes <= 1 + 1e-12).all()
    assert (boxes[:, 2] > boxes[:, 0]).all() and (boxes[:, 3] > boxes[:, 1]).all()
    pixels = spatial.snap(boxes, 16, shape=shape)
    assert (pixels[:, :2] >= 0).all() and (pixels[:, 2] <= shape[0]).all() and (pixels[:, 3] <= shape[1]).all()
    assert (pixels[:, 2:] - pixels[:, :2] >= 1).all()


def test_area_is_uniform_and_aspect_log_uniform():
    """In a picture where every proposal fits, the two marginals are those of the definition."""
    boxes = spatial.draw_boxes(np.random.default_rng(1), 20_000, shape=(1000, 1000), scale=(0.1, 0.5))
    height, width = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    area, aspect = height * width, np.log(width / height)
    for values, low, high in ((area, 0.1, 0.5), (aspect, np.log(3 / 4), np.log(4 / 3))):
        assert low - 1e-9 <= values.min() and values.max() <= high + 1e-9
        quartiles = (np.quantile(values, [0.25, 0.5, 0.75]) - low) / (high - low)
        np.testing.assert_allclose(quartiles, [0.25, 0.5, 0.75], atol=0.02)


def test_fallback_is_the_largest_centred_box_of_an_allowed_aspect():
    (box,) = spatial.draw_boxes(np.random.default_rng(0), 1, shape=(100, 1000), scale=(1.0, 1.0))
    np.testing.assert_allclose(box, [0, 0.5 - 0.2 / 3, 1, 0.5 + 0.2 / 3])  # 100 by 133 pixels


def test_boxes_take_the_same_numbers_whatever_happens():
    left = []
    for shape in SHAPES:
        rng = np.random.default_rng(3)
        spatial.draw_boxes(rng, 5, shape=shape)
        left.append(rng.random())
    assert len(set(left)) == 1


def test_flip_probability():
    flips = spatial.draw_flips(np.random.default_rng(0), 20_000, p=0.3)
    assert abs(flips.mean() - 0.3) < 0.01
    assert not spatial.draw_flips(np.random.default_rng(0), 100, p=0.0).any()


def test_share_needed_keeps_the_smallest_box_at_the_size():
    boxes = np.array([[0, 0, 0.5, 1.0], [0, 0, 1.0, 0.25]])  # of 1200 x 1600: 600 x 1600 and 1200 x 400
    assert spatial.share_needed(boxes, 224, shape=(1200, 1600)) == 224 / 400
    assert spatial.share_needed(boxes, 500, shape=(1200, 1600)) == 1.0


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 9, 130])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_cut_treats_channels_alike(channels, kind):
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, (60, 50, channels)).astype(kind)
    box = spatial.snap(np.array([[0.1, 0.2, 0.9, 0.95]]), 16, shape=(60, 50))[0]
    together = spatial.cut(picture, box, size=16, flip=True)
    assert together.shape == (16, 16, channels) and together.dtype == kind
    for channel in range(channels):
        alone = spatial.cut(np.ascontiguousarray(picture[:, :, channel : channel + 1]), box, size=16, flip=True)
        difference = abs(together[:, :, channel].astype(float) - alone[:, :, 0].astype(float)).max()
        assert difference <= (1e-3 if kind == np.float32 else 1)  # OpenCV rounds half differently by channel count


def test_cut_of_the_whole_at_its_own_size_is_the_picture():
    picture = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)
    np.testing.assert_array_equal(spatial.cut(picture, np.array([0, 0, 24, 24]), size=24), picture)
    np.testing.assert_array_equal(spatial.cut(picture, np.array([0, 0, 24, 24]), size=24, flip=True), picture[:, ::-1])


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_whole_halvings_are_exact_block_means(factor):
    picture = np.random.default_rng(0).random((16 * factor, 16 * factor, 3), np.float32)
    small = spatial.cut(picture, np.array([0, 0, 16 * factor, 16 * factor]), size=16)
    means = picture.reshape(16, factor, 16, factor, 3).mean((1, 3))
    np.testing.assert_allclose(small, means, atol=1e-6)


def test_shrinking_does_not_alias_a_fine_grating():
    """A grating finer than the view can hold turns to gray; nearest or bare linear sampling would show a coarse one."""
    grating = np.zeros((512, 512, 1), np.uint8)
    grating[:, ::2] = 255
    small = spatial.cut(grating, np.array([0, 0, 510, 510]), size=100)
    bare = cv2.resize(grating[:510, :510], (100, 100), interpolation=cv2.INTER_LINEAR)
    assert small.std() < 2 < bare.std()


def test_snapped_box_says_exactly_what_is_cut():
    """Boxes that are halved have even sides, so that no row is left out unsaid."""
    boxes = spatial.draw_boxes(np.random.default_rng(0), 300, shape=(733, 911))
    for y0, x0, y1, x1 in spatial.snap(boxes, 32, shape=(733, 911)):
        step = 2 ** max(0, int(np.log2(min(y1 - y0, x1 - x0) / 32)))
        assert (y1 - y0) % step == 0 and (x1 - x0) % step == 0


def test_centre_box():
    np.testing.assert_allclose(spatial.centre_box((100, 200)), [0, 0.25, 1, 0.75])
    np.testing.assert_allclose(spatial.centre_box((1, 1)), [0, 0, 1, 1])
