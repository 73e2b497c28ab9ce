"""The image modality: views that are a pure function of their arguments, whatever the channels, type and shape."""

from __future__ import annotations

import json
import math
import pickle
from typing import Any

import cv2
import numpy as np
import pytest
import simplejpeg
import torch

from selftaught.data.index import build_index
from selftaught.data.keys import generator
from selftaught.data.source import open_source
from selftaught.errors import ConfigError, DataError, MethodError, UnreadableError
from selftaught.formats.pictures import Picture
from selftaught.methods.base import two_views
from selftaught.modalities.image import Image, auto_size
from selftaught.ops import spatial
from selftaught.types import Geometry, Photometry, Sample, ViewGroup

PLAN = (ViewGroup(photometry=(Photometry(solarise=0.2),)),)
QUIET = (Photometry(colour=0.0, gray=0.0, blur=0.0),)
KINDS = [np.uint8, np.uint16, np.float32]


def fitted(*arrays: np.ndarray, size: int = 32, **options: Any) -> tuple[Image, list[Sample]]:
    image = Image(size=size, **options)
    samples = [image.from_array(array) for array in arrays]
    image.fit(samples)
    return image, samples


def noise(shape: tuple[int, ...], kind: type = np.uint8, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    top = {np.uint8: 255, np.uint16: 4095, np.float32: 1}[kind]
    return (rng.random(shape) * top).astype(kind)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("channels", [1, 2, 3, 5, 13])
@pytest.mark.parametrize("kind", KINDS)
def test_same_arguments_same_views_for_any_channels_and_type(channels, kind):
    image, (sample,) = fitted(noise((50, 61, channels), kind))
    for seed in range(8):
        first, again = (image.views(sample, rng(seed), PLAN) for _ in range(2))
        assert first.streams["views"].shape == (2, 32, 32, channels)
        assert first.streams["views"].dtype == kind
        np.testing.assert_array_equal(first.streams["views"], again.streams["views"])
    other = image.views(sample, rng(100), PLAN)
    assert (other.streams["views"] != first.streams["views"]).any()
    assert (first.streams["views"][0] != first.streams["views"][1]).any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (2, 2), (9, 700), (64, 64), (33, 47)])
def test_any_shape_gives_views(shape):
    image, (sample,) = fitted(noise((*shape, 3)), size=24)
    for seed in range(20):
        views = image.views(sample, rng(seed), PLAN)
        assert views.streams["views"].shape == (2, 24, 24, 3)
        box = views.drawn["views"]["box"]
        assert (box[:, 2:] > box[:, :2]).all() and box.min() >= 0 and box.max() <= 1
    assert image.plain(sample).streams["plain"].shape == (1, 24, 24, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_recorded_box_and_flip_cut_the_same_pixels_again(kind):
    array = noise((211, 157, 3), kind)
    image, (sample,) = fitted(array)
    plan = (ViewGroup(count=6, photometry=QUIET),)
    seen = set()
    for seed in range(5):
        views = image.views(sample, rng(seed), plan)
        drawn = views.drawn["views"]
        assert drawn["box"].dtype == np.float32 and drawn["box"].shape == (6, 4)
        edges = np.rint(drawn["box"] * np.array([211, 157, 211, 157])).astype(int)
        for view, box, flip in zip(views.streams["views"], edges, drawn["flip"], strict=True):
            np.testing.assert_array_equal(view, spatial.cut(array, box, size=32, flip=bool(flip)))
            seen.add(bool(flip))
    assert seen == {True, False}


def test_groups_of_one_geometry_share_crop_and_flip_and_others_do_not():
    image, (sample,) = fitted(noise((80, 90, 3)))
    shared = Geometry("shared")
    plan = (
        ViewGroup("a", geometry=shared, photometry=QUIET),
        ViewGroup("b", geometry=shared, photometry=QUIET),
        ViewGroup("c", photometry=QUIET),
        ViewGroup("small", count=1, size=0.5, geometry=shared, photometry=QUIET),
    )
    views = image.views(sample, rng(), plan)
    np.testing.assert_array_equal(views.streams["a"], views.streams["b"])
    np.testing.assert_array_equal(views.drawn["a"]["flip"], views.drawn["b"]["flip"])
    assert (views.drawn["a"]["box"] != views.drawn["c"]["box"]).any()
    assert views.streams["small"].shape == (1, 16, 16, 3)
    np.testing.assert_allclose(views.drawn["small"]["box"], views.drawn["a"]["box"][:1], atol=0.02)
    with pytest.raises(MethodError, match="must be at most 2"):
        image.views(sample, rng(), (*plan, ViewGroup("d", count=3, geometry=shared)))


def test_a_group_more_or_other_photometry_moves_nothing_before_it():
    image, (sample,) = fitted(noise((80, 90, 3)))
    alone = image.views(sample, rng(3), PLAN)
    more = image.views(sample, rng(3), (*PLAN, ViewGroup("more", count=4, size=0.5)))
    np.testing.assert_array_equal(alone.streams["views"], more.streams["views"])
    quiet = image.views(sample, rng(3), (ViewGroup(photometry=QUIET),))
    np.testing.assert_array_equal(alone.drawn["views"]["box"], quiet.drawn["views"]["box"])


def test_each_view_may_have_its_own_photometry():
    """BYOL solarises its second view only: where nothing else changes, that view is the cut, inverted above 128."""
    array = noise((60, 60, 3))
    image, (sample,) = fitted(array)
    quiet, sun = QUIET[0], Photometry(colour=0.0, gray=0.0, blur=0.0, solarise=1.0)
    for seed in range(3):
        views = image.views(sample, rng(seed), (ViewGroup(photometry=(quiet, sun)),)).streams["views"]
        bare = image.views(sample, rng(seed), (ViewGroup(photometry=QUIET),)).streams["views"]
        np.testing.assert_array_equal(views[0], bare[0])
        np.testing.assert_array_equal(views[1], np.where(bare[1] >= 128, 255 - bare[1], bare[1]))


def test_probabilities_are_those_asked_for():
    """Gray views of a colourful picture, and untouched ones, are as frequent as they should be."""
    image, (sample,) = fitted(noise((16, 16, 3)), size=16)
    whole = Geometry(scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0)
    plan = (ViewGroup(count=4000, geometry=whole, photometry=(Photometry(blur=0.0),)),)
    views = image.views(sample, rng(), plan).streams["views"]
    gray = (views == views[..., :1]).all((1, 2, 3))
    assert abs(gray.mean() - 0.2) < 0.02
    untouched = (views == np.asarray(sample.data)).all((1, 2, 3))
    assert abs(untouched.mean() - 0.2 * 0.8) < 0.02


def test_colour_is_for_three_channels_only():
    """With one channel or five, gray and hue change nothing; brightness and contrast are one affine map per channel."""
    whole = Geometry(scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0)
    light = (Photometry(blur=0.0, gray=1.0, colour_p=1.0),)
    for channels in (1, 5):
        array = noise((16, 16, channels), np.float32)
        image, (sample,) = fitted(array, size=16)
        view = image.views(sample, rng(1), (ViewGroup(count=1, geometry=whole, photometry=light),)).streams["views"][0]
        for channel in range(channels):
            slope, offset = np.polyfit(array[..., channel].ravel(), view[..., channel].ravel(), 1)
            assert abs(slope - 1) > 1e-3
            np.testing.assert_allclose(view[..., channel], slope * array[..., channel] + offset, atol=1e-4)


@pytest.mark.parametrize("size", [24, 100, 224])
def test_reduced_decode_never_falls_below_what_the_crops_need(size, monkeypatch):
    photo = cv2.resize(noise((30, 40, 3)), (1000, 700), interpolation=cv2.INTER_CUBIC)
    image = Image(size=size, channels=3)
    decoded = []
    decode = Picture.decode
    monkeypatch.setattr(Picture, "decode", lambda self, share: decoded.append(decode(self, share)) or decoded[-1])
    for seed in range(25):
        sample = Sample({"image": Picture(simplejpeg.encode_jpeg(photo))})
        box = image.views(sample, rng(seed), PLAN).drawn["views"]["box"].astype(float)
        full = np.stack([(box[:, 2] - box[:, 0]) * 700, (box[:, 3] - box[:, 1]) * 1000])
        shape = decoded[-1].shape
        got = np.stack([(box[:, 2] - box[:, 0]) * shape[0], (box[:, 3] - box[:, 1]) * shape[1]])
        assert (got >= np.minimum(full, size) - 2).all()  # a pixel at each edge, from rounding
    scales = {shape.shape[0] / 700 for shape in decoded}
    assert min(scales) < 1 if size < 224 else max(scales) == 1


def test_reduced_decode_shows_the_same_view():
    """Against the view cut from the full decode: the same place and nearly the same pixels."""
    y, x = np.mgrid[:900, :1200] / 100
    photo = (127 + 100 * np.stack([np.sin(x), np.cos(y), np.sin(x + y)], -1)).astype(np.uint8)
    encoded = simplejpeg.encode_jpeg(photo, quality=95)
    image, plan = Image(size=48, channels=3), (ViewGroup(photometry=QUIET),)
    for seed in range(10):
        lazy = image.views(Sample({"image": Picture(encoded)}), rng(seed), plan)
        eager = image.views(Sample({"image": np.asarray(Picture(encoded))}), rng(seed), plan)
        np.testing.assert_allclose(lazy.drawn["views"]["box"], eager.drawn["views"]["box"], atol=0.02)
        difference = abs(lazy.streams["views"].astype(float) - eager.streams["views"].astype(float))
        assert difference.mean() < 4


def test_plain_is_the_centre_and_has_nothing_random():
    array = noise((40, 80, 3))
    image, (sample,) = fitted(array, size=40)
    views = image.plain(sample)
    np.testing.assert_array_equal(views.streams["plain"][0], array[:, 20:60])
    np.testing.assert_allclose(views.drawn["plain"]["box"], [[0, 0.25, 1, 0.75]])


def test_whole_pictures_may_be_larger_than_views():
    array = noise((40, 80, 3))
    image, (sample,) = fitted(array, size=20, whole_size=40)
    np.testing.assert_array_equal(image.plain(sample).streams["plain"][0], array[:, 20:60])
    assert image.views(sample, generator(0, "", 0), two_views()).streams["views"].shape == (2, 20, 20, 3)
    assert image.shape() == (3, 20, 20) and image.plain_shape() == (3, 40, 40)
    other = Image()
    other.load_state(image.state())
    assert other.plain_shape() == (3, 40, 40) and Image(size=20).whole_size == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_fit_learns_what_normalise_needs(kind, channels):
    arrays = [noise((30, 34, channels), kind, seed) for seed in range(6)]
    image, samples = fitted(*arrays, size=32)
    assert image.shape() == (channels, 32, 32) and image.dtype == np.dtype(kind).name
    flat = np.concatenate([array.reshape(-1, channels) for array in arrays]).astype(np.float64)
    np.testing.assert_allclose(image.mean, flat.mean(0), rtol=1e-4)
    np.testing.assert_allclose(image.std, flat.std(0), rtol=1e-4)
    batch = image.collate([image.views(sample, rng(n), PLAN) for n, sample in enumerate(samples)], *2 * (np.arange(6),))
    x = image.normalise(batch["views"].data)
    assert x.shape == (6, 2, channels, 32, 32)
    stored = batch["views"].data.to(torch.float32)
    assert torch.equal(x, ((stored - torch.tensor(image.mean)) / torch.tensor(image.std)).permute(0, 1, 4, 2, 3))
    assert torch.equal(image.normalise(batch["views"].data, torch.bfloat16), x.to(torch.bfloat16))
    back = image.denormalise(x)
    assert back.dtype == batch["views"].data.dtype
    np.testing.assert_allclose(back.numpy(), batch["views"].data.numpy(), rtol=1e-5, atol=1e-5)


def test_normalised_views_are_channels_last_without_a_copy():
    image, (sample,) = fitted(noise((30, 30, 3)))
    batch = image.collate([image.views(sample, rng(), PLAN)] * 4, np.arange(4), np.arange(4))
    x = image.normalise(batch["views"].data, torch.bfloat16)
    flat = x.flatten(0, 1)
    assert flat.shape == (8, 3, 32, 32) and flat.is_contiguous(memory_format=torch.channels_last)
    assert flat.data_ptr() == x.data_ptr()


def test_batches_of_16_bits_travel():
    """uint16 tensors are young in torch: collate, split, move, normalise."""
    image, (sample,) = fitted(noise((30, 30, 1), np.uint16))
    batch = image.collate([image.views(sample, rng(n), PLAN) for n in range(4)], np.arange(4), np.arange(4))
    assert batch["views"].data.dtype == torch.uint16
    parts = [image.normalise(part.to("cpu")["views"].data) for part in batch.split(3)]
    assert torch.equal(torch.cat(parts), image.normalise(batch["views"].data))


def test_raw_keeps_at_most_3072_numbers():
    for channels, size, dim in ((3, 64, 3072), (1, 28, 784), (1, 64, 1024), (13, 64, 13 * 15 * 15)):
        image, (sample,) = fitted(noise((70, 70, channels)), size=size)
        raw = image.raw(image.collate([image.plain(sample)] * 2, np.arange(2), np.arange(2)))
        assert raw.shape == (2, dim) and raw.dtype == torch.float32
    image, (sample,) = fitted(noise((28, 28)), size=28)
    raw = image.raw(image.collate([image.plain(sample)], np.arange(1), np.arange(1)))
    np.testing.assert_allclose(raw[0].numpy(), (noise((28, 28)).ravel() - image.mean[0]) / image.std[0], atol=1e-5)


def test_state_is_json_and_rebuilds_the_modality():
    image, (sample,) = fitted(noise((30, 30, 5), np.uint16))
    other = Image()
    other.load_state(json.loads(json.dumps(image.state())))
    for copy in (other, pickle.loads(pickle.dumps(image))):
        assert copy.state() == image.state()
        np.testing.assert_array_equal(
            copy.views(sample, rng(), PLAN).streams["views"], image.views(sample, rng(), PLAN).streams["views"]
        )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [1, 2, 3, 7])
def test_picture_is_for_people(kind, channels):
    array = noise((12, 12, channels), kind)
    image, _ = fitted(array)
    shown = image.picture(array)
    assert shown.shape == (12, 12, 3) and shown.dtype == np.uint8
    if kind != np.uint8:
        assert shown.max() >= 250  # stretched from the data's range
    if channels == 1:
        assert (shown == shown[..., :1]).all()


def test_files_and_rows_of_arrays(tmp_path):
    picture = noise((20, 30, 3))
    cv2.imwrite(str(tmp_path / "a.png"), picture[..., ::-1])
    np.save(tmp_path / "gray.npy", noise((5, 28, 28)))
    np.savez(tmp_path / "first.npz", images=noise((4, 3, 20, 24)))
    np.savez_compressed(tmp_path / "last.npz", x=noise((4, 20, 24, 5)))
    image = Image(size=16)
    (item,) = image.items(str(tmp_path / "a.png"))
    np.testing.assert_array_equal(np.asarray(image.read(item).data), picture)
    for name, rows, shape in (
        ("gray.npy", 5, (28, 28, 1)),
        ("first.npz", 4, (20, 24, 3)),
        ("last.npz", 4, (20, 24, 5)),
    ):
        items = list(image.items(str(tmp_path / name)))
        assert [item.part for item in items] == list(range(rows))
        assert image.read(items[-1]).data.shape == shape
    expected = np.load(tmp_path / "first.npz")["images"][2].transpose(1, 2, 0)
    np.testing.assert_array_equal(image.read(list(image.items(str(tmp_path / "first.npz")))[2]).data, expected)


def test_gray_among_colour_becomes_colour_and_16_bits_join_8():
    arrays = [noise((20, 20, 3)), noise((20, 20, 1)), noise((20, 20, 3), seed=1)]
    image, samples = fitted(*arrays, size=20)
    assert image.channels == 3
    np.testing.assert_array_equal(image.plain(samples[1]).streams["plain"][0], arrays[1].repeat(3, 2))
    deep = image.from_array(np.full((20, 20, 3), 65535, np.uint16))
    assert (image.plain(deep).streams["plain"] == 255).all()
    with pytest.raises(UnreadableError, match="4 channels where 3"):
        image.plain(image.from_array(np.zeros((20, 20, 4), np.uint8)))


def test_bad_input_gets_a_sentence():
    with pytest.raises(ConfigError, match="The 'size' parameter of Image must be an int in"):
        Image(size=4)
    with pytest.raises(ConfigError, match="The 'whole_size' parameter of Image must be an int in .* or 0 .as size"):
        Image(whole_size=-1)
    with pytest.raises(ConfigError, match="'layout'"):
        Image(layout="xyc")
    with pytest.raises(DataError):
        Image().fit([])
    with pytest.raises(DataError, match="size"):
        Image().plain(Image().toy(1)[0])
    with pytest.raises(UnreadableError, match="finite"):
        image = Image(size=8)
        image.plain(image.from_array(np.full((9, 9), np.nan)))
    with pytest.raises(UnreadableError, match="no pixels"):
        Image().from_array(np.zeros((0, 4, 3), np.uint8))
    with pytest.raises(UnreadableError):
        Image().from_array(np.zeros(4))


def test_unreadable_pictures_do_not_stop_fit():
    whole = simplejpeg.encode_jpeg(noise((40, 40, 3)))
    image = Image()
    cut = Sample({"image": Picture(whole[: len(whole) // 2])})
    image.fit([Sample({"image": Picture(whole)}), cut])
    assert image.shape() == (3, 32, 32)
    with pytest.raises(UnreadableError):
        image.views(cut, rng(), PLAN)
    with pytest.raises(DataError):
        Image().fit([cut])


@pytest.mark.parametrize(("sides", "size"), [([8, 8], 8), ([28], 28), ([5], 8), ([100, 120, 90], 96), ([1200], 224)])
def test_auto_size(sides, size):
    assert auto_size(sides) == size


def test_toy_is_two_kinds():
    samples = Image().toy(10, seed=1)
    assert [sample.target for sample in samples] == [0, 1] * 5
    again = Image().toy(10, seed=1)
    assert all((a.data == b.data).all() for a, b in zip(samples, again, strict=True))
    image = Image(size=32)
    image.fit(samples)
    batch = image.collate([image.plain(sample) for sample in samples], np.arange(10), np.arange(10))
    assert batch.target is not None and batch.target.tolist() == [0, 1] * 5
    # stripes cross the middle row and column more often than a disc does, in any colours
    edges = [
        math.log1p(abs(np.diff(np.asarray(sample.data, float).mean(2), axis=a)).mean())
        for sample in samples
        for a in (0, 1)
    ]
    totals = np.array(edges).reshape(10, 2).sum(1)
    assert totals[1::2].min() > totals[0::2].max()


def test_real_photographs(shared_data):
    files = sorted((shared_data / "clothing112" / "train").rglob("*.jpg"))[:24]
    image = Image()
    samples = [image.read(item) for file in files for item in image.items(str(file))]
    image.fit(samples)
    assert image.channels == 3 and 64 <= image.size <= 224
    batch = image.collate(
        [image.views(s, rng(n), PLAN) for n, s in enumerate(samples)], *2 * (np.arange(len(samples)),)
    )
    x = image.normalise(batch["views"].data)
    assert torch.isfinite(x).all() and abs(x.mean()) < 0.6 and 0.5 < x.std() < 1.6


def test_advice_where_pictures_are_far_larger_than_views():
    """A 3,000-pixel picture at 224: the sentence says how much is lost, and crops that lose nothing."""
    image, _ = fitted(noise((900, 1000, 1)), size=32)
    (told,) = image.advice(PLAN[:1])
    assert "about 900 pixels wide" in told and "8 % to 100 % " not in told and "tiles" in told
    assert "--views.scale 0.0013,0.01" in told  # (32 / 900)^2 of the area is 32 pixels of it
    near = (ViewGroup(geometry=Geometry(scale=(0.0013, 0.01))),)
    assert image.advice(near) == []
    small, _ = fitted(noise((64, 64, 1)), size=32)
    assert small.advice(PLAN[:1]) == []


def test_a_state_of_an_earlier_version_is_read():
    image, _ = fitted(noise((40, 40, 3)))
    saved = image.state()
    saved.pop("side")
    other = Image()
    other.load_state(saved)
    assert other.shape() == image.shape() and other.advice(PLAN[:1]) == []


@pytest.mark.parametrize(("layout", "shape"), [("cyx", (13, 30, 40)), ("yxc", (30, 40, 13))])
def test_files_of_arrays_are_pictures_of_many_channels_where_the_layout_says_so(tmp_path, layout, shape):
    """As satellites' and microscopes' tools save them, one picture a file."""
    rng, image = np.random.default_rng(0), Image(layout=layout)
    stored = [rng.integers(0, 4000, shape, dtype=np.uint16) for _ in range(3)]
    for number, array in enumerate(stored):
        np.save(tmp_path / f"{number}.npy", array)
    index = build_index(open_source(tmp_path, image.extensions), image, tmp_path / "cache")
    assert len(index) == 3
    samples = [image.read(index.item(row)) for row in range(3)]
    expected = stored[1] if layout == "yxc" else stored[1].transpose(1, 2, 0)
    assert np.array_equal(samples[1].data, expected)
    image.fit(samples)
    assert image.channels == 13 and image.dtype == "uint16"
    plain = build_index(open_source(tmp_path, image.extensions), Image(), tmp_path / "cache")
    assert len(plain) == 3 * shape[0], "another layout is another index"
