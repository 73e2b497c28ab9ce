"""HDF5 and Zarr: rows are read one by one, labels and groups come along, nothing outside of the file is read."""

from __future__ import annotations

import multiprocessing
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr

import selftaught as st
from selftaught.data.fingerprint import fingerprint_of
from selftaught.data.index import Index, build_index
from selftaught.data.labels import read_labels
from selftaught.data.source import open_source
from selftaught.errors import DataError, UnreadableError
from selftaught.formats import arrays
from selftaught.modalities.image import Image
from selftaught.modalities.series import Series

pytestmark = pytest.mark.usefixtures("cache")


def hdf5(path: Path, members: dict[str, Any]) -> Path:
    with h5py.File(path, "w") as file:
        for name, array in members.items():
            file.create_dataset(name, data=array, chunks=True, compression="gzip" if np.ndim(array) > 1 else None)
    return path


def zarred(path: Path, members: dict[str, Any]) -> Path:
    group = zarr.open_group(path, mode="w")
    for name, array in members.items():
        values = np.asarray(array)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # how texts are written may change, says zarr
            group.create_array(name, data=values.astype("U4") if values.dtype.kind == "O" else values, chunks="auto")
    return path


WRITERS = {"a.h5": hdf5, "a.HDF5": hdf5, "a.zarr": zarred}
PICTURES = np.random.default_rng(0).integers(0, 256, (12, 9, 10, 3), dtype=np.uint8)
WORDS = np.array(["cat", "dog"] * 6, dtype=object)
each_kind = pytest.mark.parametrize("name", WRITERS)


def index_of(path: str | Path) -> Index:
    return build_index(open_source(path, Image.extensions), Image())


@each_kind
def test_rows_are_samples_with_labels_and_groups(tmp_path, name):
    path = WRITERS[name](tmp_path / name, {"images": PICTURES, "labels": WORDS, "group": np.arange(12) // 3})
    index = index_of(path)
    assert len(index) == 12 and index.item(7).group == "2"
    assert np.array_equal(Image().read(index.item(7)).data, PICTURES[7])
    labels = read_labels(index, "y")
    assert labels.classes == ("cat", "dog") and labels.values.tolist() == [0, 1] * 6
    assert len(index_of(tmp_path)) == 12  # a folder that holds it


@each_kind
def test_members_of_groups_are_named_with_slashes(tmp_path, name):
    members = {"train/images": PICTURES, "train/labels": WORDS, "test/images": PICTURES[:4], "test/labels": WORDS[:4]}
    path = WRITERS[name](tmp_path / name, members)
    with pytest.raises(DataError, match="does not say which of its arrays") as unclear:
        open_source(path, Image.extensions)
    assert "test/images" in unclear.value.hint
    index = index_of(f"{path}::train/images")
    assert len(index) == 12 and read_labels(index, "y").values.tolist() == [0, 1] * 6
    assert len(build_index(open_source([f"{path}::test/images"], Image.extensions), Image())) == 4
    with pytest.raises(DataError, match="holds no array named 'train/image'") as misspelt:
        open_source(f"{path}::train/image", Image.extensions)
    assert "train/images" in misspelt.value.hint


def test_a_zarr_folder_may_be_one_array(tmp_path):
    zarr.save_array(tmp_path / "x.zarr", PICTURES)  # type: ignore[arg-type]
    index = index_of(tmp_path / "x.zarr")
    assert len(index) == 12 and np.array_equal(Image().read(index.item(3)).data, PICTURES[3])


@each_kind
def test_series_too(tmp_path, name):
    x = np.random.default_rng(0).normal(size=(6, 2, 40)).astype(np.float32)
    index = build_index(open_source(WRITERS[name](tmp_path / name, {"x": x}), Series.extensions), Series())
    assert np.array_equal(Series().read(index.item(5)).data, x[5])


@each_kind
def test_a_change_is_noticed(tmp_path, name):
    path = WRITERS[name](tmp_path / name, {"x": PICTURES})
    before = fingerprint_of(open_source(path, Image.extensions))
    assert fingerprint_of(open_source(path, Image.extensions)) == before
    if name == "a.zarr":
        group: Any = zarr.open_group(path, mode="r+")
        group["x"][3] = 0  # one chunk, rewritten in place: the folder itself stays as it was
    else:
        path.unlink()
        hdf5(path, {"x": PICTURES + 1})
    assert fingerprint_of(open_source(path, Image.extensions)) != before


def read_elsewhere(read: Callable[[], Any], queue: Any) -> None:
    queue.put(read())


@each_kind
def test_a_forked_process_reads_what_its_parent_has_open(tmp_path, name):
    path = str(WRITERS[name](tmp_path / name, {"x": PICTURES}))
    assert np.array_equal(arrays.open_array(path)[2], PICTURES[2])
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=read_elsewhere, args=(lambda: np.asarray(arrays.open_array(path)[5]), queue))
    child.start()
    assert np.array_equal(queue.get(timeout=60), PICTURES[5])
    child.join(60)
    assert child.exitcode == 0 and np.array_equal(arrays.open_array(path)[6], PICTURES[6])


def test_what_would_read_other_files_is_refused(tmp_path):
    """Links to other files, virtual datasets and data kept outside may all point anywhere."""
    secret = hdf5(tmp_path / "secret.h5", {"x": PICTURES})
    (tmp_path / "outside.raw").write_bytes(bytes(120))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["linked"] = h5py.ExternalLink(str(secret), "x")
        layout = h5py.VirtualLayout(PICTURES.shape, np.uint8)
        layout[...] = h5py.VirtualSource(str(secret), "x", shape=PICTURES.shape)
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("outside", (12, 10), np.uint8, external=[(str(tmp_path / "outside.raw"), 0, 120)])
        file["own"] = PICTURES
        file["again"] = h5py.SoftLink("/")  # a loop
    assert arrays.keys(tmp_path / "a.h5") == ["own"]


@each_kind
def test_what_holds_no_arrays_of_numbers_is_refused(tmp_path, name):
    empty = WRITERS[name](tmp_path / f"empty-{name}", {})
    with pytest.raises(DataError, match="holds no arrays that can be used"):
        open_source(empty, Image.extensions)
    pairs = hdf5(tmp_path / "pairs.h5", {"x": np.zeros((4, 4), dtype=[("a", np.int8), ("b", np.float32)])})
    with pytest.raises(UnreadableError, match="neither numbers nor texts"):
        arrays.open_array(pairs)


def test_broken_files_are_one_sentence(tmp_path):
    whole = hdf5(tmp_path / "a.h5", {"x": PICTURES}).read_bytes()
    rng, path = np.random.default_rng(0), tmp_path / "broken.h5"
    for at in rng.integers(0, len(whole), 40).tolist():
        for broken in (whole[:at], whole[:at] + bytes(rng.integers(0, 256, 4, np.uint8)) + whole[at + 4 :]):
            path.write_bytes(broken)
            try:
                index = build_index(open_source(path, Image.extensions), Image(), accept_unreadable=True)
                Image().read(index.item(0))
            except (DataError, UnreadableError) as error:
                assert "\n" not in str(error)
    zarred(tmp_path / "b.zarr", {"x": PICTURES})
    (tmp_path / "b.zarr" / "x" / "zarr.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read|does not say which"):
        open_source(tmp_path / "b.zarr", Image.extensions)


@pytest.mark.parametrize(("name", "package"), [("a.h5", "h5py"), ("a.zarr", "zarr")])
def test_a_missing_package_is_named_with_its_command(tmp_path, monkeypatch, name, package):
    WRITERS[name](tmp_path / name, {"x": PICTURES})
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DataError, match=f"takes {package}") as refused:
        open_source(tmp_path / name, Image.extensions)
    assert "pip install 'selftaught[" in refused.value.hint


@each_kind
def test_a_training_reads_them_with_workers(tmp_path, name):
    path = WRITERS[name](tmp_path / name, {"x": np.repeat(PICTURES, 4, axis=0)})
    settings: dict[str, Any] = {
        "encoder": {"name": "small", "width": 8},
        "modality": {"name": "image", "size": 16},
        "quiet": True,
    }
    run = st.pretrain(path, out=tmp_path / "run", steps=2, batch_size=8, workers=2, **settings)
    assert run.metrics[-1]["step"] == 2
