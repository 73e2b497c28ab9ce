"""Dataset objects: kept as what they gave, known by content, warned about where chance has a part in them."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pictures
from torch.utils.data import Dataset, TensorDataset

import selftaught as st
from selftaught.data.fingerprint import fingerprint_of
from selftaught.data.index import Index, build_index
from selftaught.data.labels import read_labels
from selftaught.data.source import open_source
from selftaught.errors import DataError
from selftaught.modalities.image import Image
from selftaught.modalities.series import Series

pytestmark = pytest.mark.usefixtures("cache")


class Listed(Dataset):
    """What it is given, by number."""

    def __init__(self, samples: list[Any]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, number: int) -> Any:
        return self.samples[number]


RNG = np.random.default_rng(0)
PIXELS = [RNG.integers(0, 256, (20 + number, 30, 3), dtype=np.uint8) for number in range(12)]


def index_of(data: Any) -> Index:
    return build_index(open_source(data, Image.extensions), Image())


def read(index: Index, row: int) -> np.ndarray:
    return np.asarray(Image().read(index.item(row)).data)


FORMS = {
    "pil": [Pictures.fromarray(each) for each in PIXELS],
    "array": PIXELS,
    "tensor": [torch.from_numpy(each).permute(2, 0, 1) for each in PIXELS],
    "pair": [(Pictures.fromarray(each), number % 2) for number, each in enumerate(PIXELS)],
    "mapping": [{"image": each, "y": str(number % 2), "boxes": [1]} for number, each in enumerate(PIXELS)],
}


@pytest.mark.parametrize("form", FORMS)
def test_pictures_are_kept_bit_for_bit(form):
    index = index_of(Listed(FORMS[form]))
    assert len(index) == 12 and index.name(3) == "03.png"
    assert all(np.array_equal(read(index, row), PIXELS[row]) for row in range(12))
    if form in ("pair", "mapping"):
        assert read_labels(index, "y").values.tolist() == [0, 1] * 6


def test_depth_transparency_and_palettes():
    deep = RNG.integers(0, 65536, (9, 10), dtype=np.uint16)
    clear = np.full((8, 8, 4), 255, np.uint8)
    clear[0, 0, 3] = 0
    samples = [deep, np.eye(9, dtype=bool), Pictures.fromarray(PIXELS[0]).convert("P"), clear]
    index = index_of(Listed(samples))
    assert np.array_equal(read(index, 0)[..., 0], deep) and read(index, 1).max() == 255
    assert read(index, 2).shape == (20, 30, 3) and read(index, 3).tolist() == [[[255] * 3] * 8] * 8


def test_arrays_of_numbers_become_one_array():
    x, y = torch.randn(30, 2, 50, generator=torch.Generator().manual_seed(0)), torch.arange(30) % 3
    index = build_index(open_source(TensorDataset(x, y), Series.extensions), Series())
    assert len(index) == 30 and np.array_equal(Series().read(index.item(7)).data, x[7].numpy())
    assert read_labels(index, "y").values.tolist() == y.tolist()


def test_it_is_known_by_content(cache):
    one, again = (fingerprint_of(open_source(Listed(FORMS["pair"]), Image.extensions)) for _ in range(2))
    other = fingerprint_of(open_source(Listed(FORMS["pair"][::-1]), Image.extensions))
    relabelled = [(picture, 1 - label) for picture, label in FORMS["pair"]]
    assert one == again and len({one, other, fingerprint_of(open_source(Listed(relabelled), Image.extensions))}) == 3
    assert not list(cache.rglob("*.tmp"))


def test_data_that_differ_in_shape_or_labels_alone_are_other_data():
    """They are kept side by side: neither takes the other's place."""
    x = torch.arange(48, dtype=torch.float32)
    sets = [
        TensorDataset(x.view(6, 8), torch.arange(6) % 2),
        TensorDataset(x.view(6, 8), torch.arange(6) % 3),
        TensorDataset(x.view(3, 16), torch.arange(3) % 2),
    ]
    found = [build_index(open_source(each, Series.extensions), Series()) for each in sets]
    assert [len(index) for index in found] == [6, 6, 3] and len({index.fingerprint for index in found}) == 3
    assert read_labels(found[0], "y").values.tolist() == [0, 1] * 3
    assert read_labels(found[1], "y").values.tolist() == [0, 1, 2] * 2
    assert Series().read(found[2].item(2)).data.tolist() == [x[32:].tolist()]


class Jittered(Listed):
    def __getitem__(self, number: int) -> Any:
        return self.samples[number] + np.random.default_rng().integers(0, 5, dtype=np.uint8)


def test_chance_is_warned_about_and_frozen():
    with pytest.warns(UserWarning, match="differently each time"):
        open_source(Jittered(PIXELS), Image.extensions)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_source(Listed(PIXELS), Image.extensions)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([], "The dataset is empty"),
        ([{"label": 1}], "has none of image"),
        (["a.jpg"], "Sample 0 of the dataset is str"),
        ([PIXELS[0], np.zeros(5)], "the first is a picture"),
        ([np.zeros(5), np.zeros(6)], "Sample 1 of the dataset has the shape"),
    ],
)
def test_what_cannot_be_kept_is_one_sentence(samples, message, cache):
    with pytest.raises(DataError, match=message):
        open_source(Listed(samples), Image.extensions)
    assert not list(cache.rglob("*.tmp"))


def test_a_training_on_a_dataset_goes_on_and_is_evaluated(tmp_path):
    settings: dict[str, Any] = {"encoder": {"name": "small", "width": 8}, "modality": {"name": "image", "size": 16}}
    data = Listed([(each, number % 2) for number, each in enumerate(PIXELS * 4)])
    for _ in range(2):  # the second time it is finished
        run = st.pretrain(data, out=tmp_path / "run", steps=2, batch_size=8, workers=1, quiet=True, **settings)
    assert run.finished and st.load(run.folder).embed(data).shape[0] == 48
