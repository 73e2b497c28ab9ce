"""Decoded samples that are kept change nothing but the time it takes: the same bits, within a bound, on any disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from selftaught.data.index import Index, build_index
from selftaught.data.kept import Decoded
from selftaught.data.loader import Loader, Order, once
from selftaught.data.source import open_source
from selftaught.modalities.image import Image
from selftaught.types import Batch, Geometry, ViewGroup

PLAN = (ViewGroup("views", 2, geometry=Geometry(scale=(0.05, 0.4))),)  # small crops: JPEGs are decoded at many scales
COUNT = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """JPEGs of several sizes, one of them turned by its orientation, PNGs and TIFFs of 16 bits."""
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for number in range(COUNT):
        side = (160 + 8 * number, 200, 3)
        pixels = cv2.GaussianBlur(rng.integers(0, 256, side, dtype=np.uint8), (0, 0), 3)
        name = f"{number:02d}" + (".png", ".tif", ".jpg", ".jpg")[number % 4]
        cv2.imwrite(str(root / name), pixels)
    turned = (root / "02.jpg").read_bytes()
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    segment = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    (root / "02.jpg").write_bytes(turned[:2] + segment + turned[2:])
    return root


@pytest.fixture(scope="module")
def modality(index) -> Image:
    image = Image(size=32)
    image.fit([image.read(index.item(i)) for i in range(len(index))])
    return image


@pytest.fixture(scope="module")
def index(folder, tmp_path_factory) -> Index:
    return build_index(open_source(folder, Image.extensions), Image(), tmp_path_factory.mktemp("cache"))


def batches(index: Index, modality: Image, kept: Decoded | None, *, workers: int = 0, stop: int = 9) -> list[Batch]:
    """Three epochs of three batches of eight."""
    with Loader(index, modality, PLAN, Order(len(index), 8, 1), stop=stop, workers=workers, kept=kept) as loader:
        made = list(loader)
        assert (loader.asked, loader.found) == ((0, 0) if kept is None else (stop * 8, loader.found))
        batches.found = loader.found  # type: ignore[attr-defined]
    return made


def assert_same(one: list[Batch], other: list[Batch]) -> None:
    for a, b in zip(one, other, strict=True):
        assert a.index.equal(b.index) and a["views"].data.equal(b["views"].data)
        assert a["views"].drawn["box"].equal(b["views"].drawn["box"])


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_same_to_the_bit_and_later_epochs_find_what_was_kept(index, modality, tmp_path, workers):
    kept = Decoded(len(index), 1.0, tmp_path)
    found = batches(index, modality, kept, workers=workers)
    assert_same(found, batches(index, modality, None))
    first, later = Decoded(len(index), 1.0, tmp_path), COUNT
    batches(index, modality, first, workers=workers, stop=3)
    assert batches.found == 0, "nothing is kept before the first epoch"  # type: ignore[attr-defined]
    batches(index, modality, kept, workers=workers)
    assert batches.found > 2 * later, "three more epochs find the PNGs and TIFFs, and most scales of the JPEGs"  # type: ignore[attr-defined]
    assert list(tmp_path.iterdir()) == [], "the file has no name, so nothing can be left behind"


def test_what_is_kept_needs_no_file(index, modality, tmp_path, monkeypatch):
    kept = Decoded(len(index), 1.0, tmp_path)
    plain = [batch for _ in range(2) for batch in once(index, modality, batch_size=8, kept=kept)]

    def gone(item: Any) -> None:
        raise AssertionError(f"{item.path} was opened again")

    monkeypatch.setattr(modality, "read", gone)
    for one, other in zip(plain, once(index, modality, batch_size=8, kept=kept), strict=False):
        assert one["plain"].data.equal(other["plain"].data)


def test_no_more_is_kept_than_was_allowed(index, modality, tmp_path):
    whole = Decoded(len(index), 1.0, tmp_path)
    batches(index, modality, whole)
    assert whole.size > 2e6
    kept = Decoded(len(index), 0.001, tmp_path)
    assert_same(batches(index, modality, kept), batches(index, modality, None))
    assert 0.5e6 < kept.size <= 1e6, "it fills up to the bound"
    assert 0 < kept.found < kept.asked


def test_a_full_disk_is_no_fault(index, modality, tmp_path, monkeypatch):
    kept, write, written = Decoded(len(index), 1.0, tmp_path), os.pwritev, []

    def full(file: int, parts: list, at: int) -> int:
        written.append(at)
        if len(written) == 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, [parts[0]], at) if len(written) == 2 else write(file, parts, at)  # cut short

    monkeypatch.setattr(os, "pwritev", full)
    assert_same(batches(index, modality, kept), batches(index, modality, None))
    assert len(written) == 4, "after an error nothing more is tried"
    assert kept.found > 0, "what was kept before is used"


def test_rows_of_compressed_arrays_are_kept_and_mapped_ones_are_not(tmp_path):
    h5py = pytest.importorskip("h5py")
    x = np.random.default_rng(0).integers(0, 256, (6, 20, 20, 3), dtype=np.uint8)
    np.save(tmp_path / "x.npy", x)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("x", data=x, compression="gzip")
    for name, expected in (("x.npy", 0), ("x.h5", 6)):
        image = Image(size=16)
        rows = build_index(open_source(tmp_path / name, Image.extensions), image, tmp_path / "cache")
        image.fit([image.read(rows.item(i)) for i in range(6)])
        kept = Decoded(6, 1.0, tmp_path)
        first = [batch["plain"].data for batch in once(rows, image, batch_size=3, kept=kept)]
        again = [batch["plain"].data for batch in once(rows, image, batch_size=3, kept=kept)]
        assert all(map(np.array_equal, first, again))
        assert kept.found == expected, name


def test_what_cannot_be_read_is_named_with_and_without(folder, modality, tmp_path):
    index = build_index(open_source(folder, Image.extensions), Image(), tmp_path / "cache")
    broken, stored = folder / "06.jpg", (folder / "06.jpg").read_bytes()
    broken.write_bytes(stored[: len(stored) // 2])
    try:
        for kept in (None, Decoded(len(index), 1.0, tmp_path)):
            bad: list[tuple[str, str]] = []
            options: dict[str, Any] = {"unreadable": bad, "accept_unreadable": True, "kept": kept}
            with Loader(index, modality, PLAN, Order(len(index), 8, 1), stop=6, **options) as loader:
                list(loader)
            assert [path for path, _ in bad] == ["06.jpg"]
    finally:
        broken.write_bytes(stored)
