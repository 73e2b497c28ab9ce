"""What people do wrong and what breaks, in tables: each gets its sentence, and nothing is lost.

Files and sources here; settings in ``test_bad_input.py``, runs in ``test_damaged_runs.py``, bytes at random in
``test_fuzz.py``, disks, processes and clocks in ``test_machines.py``.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from selftaught.data.index import build_index
from selftaught.data.labels import read_labels
from selftaught.data.source import open_source
from selftaught.errors import DataError, SelftaughtError
from selftaught.modalities.image import Image
from selftaught.modalities.series import Series
from tests.fuzz_files import encoded, gif, pixels

JPG, PNG, WEBP, BMP = (encoded(extension, pixels()) for extension in (".jpg", ".png", ".webp", ".bmp"))
TIFF = encoded(".tif", pixels(), cv2.IMWRITE_TIFF_COMPRESSION, 1)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SELFTAUGHT_CACHE", str(tmp_path / "cache"))


def npy(array: Any, **options: Any) -> bytes:
    held = io.BytesIO()
    np.save(held, array, **options)
    return held.getvalue()


def npz(**arrays: Any) -> bytes:
    held = io.BytesIO()
    np.savez(held, **arrays)
    return held.getvalue()


def png(width: int, height: int, *, pixels: bytes = b"", bits: int = 8) -> bytes:
    """A PNG that claims a size, with any pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(pixels)) if pixels else b""
    return b"\x89PNG\r\n\x1a\n" + head + body + chunk(b"IEND", b"")


FILES: list[tuple[str, bytes, str]] = [  # name, content, what is said of it
    ("empty.jpg", b"", "the file is empty (0 bytes)"),
    ("text.jpg", b"hello, this is no picture", "not a picture that can be read: it holds text ('hello, this' …)"),
    ("error.png", b"<!DOCTYPE html><html>404 Not Found</html>", "it holds text ('<!DOCTYPE ht' …)"),
    ("paper.jpg", b"%PDF-1.7" + bytes(99), "it is a PDF"),
    ("packed.png", b"PK\x03\x04" + bytes(60), "it is a ZIP archive"),
    ("phone.jpg", b"\0\0\0\x18ftypheic" + bytes(60), "it is HEIC"),
    ("web.jpg", b"\0\0\0\x18ftypavif" + bytes(60), "it is AVIF"),
    ("film.jpg", b"\0\0\0\x18ftypisom" + bytes(60), "it is an MP4 or HEIF file"),
    ("slide.jpg", b"\x00\x00\x00\x0cjP  \r\n\x87\n" + bytes(60), "it is JPEG 2000"),
    ("half.jpg", JPG[: len(JPG) // 2], "truncated jpeg: its header is cut off"),
    ("start.jpg", JPG[:20], "truncated jpeg: its header is cut off"),
    ("end.jpg", JPG[:-2], "corrupt or truncated jpeg: Premature end of JPEG file"),
    ("cut.png", PNG[:-30], "broken png header: the file ends before the picture does"),
    ("flipped.png", PNG[:60] + bytes([PNG[60] ^ 255]) + PNG[61:], "truncated png: wrong checksum in its IDAT block"),
    ("nothing.png", png(0, 5), "the picture is 0 x 5 pixels"),
    ("bomb.png", png(60_000, 60_000, pixels=b"0"), "claims 60000 x 60000 pixels, more than 268,435,456"),
    ("hollow.png", png(8, 8), "corrupt or truncated png"),
    ("short.png", png(8, 8, pixels=bytes(20)), "corrupt or truncated png"),
    ("cut.webp", WEBP[:-40], "truncated webp: the file ends before the picture does"),
    ("cut.bmp", BMP[:-99], "truncated bmp: the file ends before the picture does"),
    ("cut.tif", TIFF[: len(TIFF) // 2], "truncated tiff: a page's directory is missing"),
    ("start.tif", TIFF[:8], "truncated tiff: a page's directory is missing"),
    ("cut.gif", gif()[:200], "corrupt or truncated animation: its header is broken"),
    ("cut.npy", npy(np.zeros((4, 8, 8, 3), np.uint8))[:-50], "truncated: 718 of 768 bytes are there"),
    ("objects.npy", npy(np.array([{}], object), allow_pickle=True), "holds pickled Python objects, which are never"),
    ("number.npy", npy(np.float32(3)), "an array of 0 axes, not pictures (N, Y, X)"),
    ("nothing.npy", npy(np.zeros((0, 8, 8, 3), np.uint8)), "holds no samples"),
    ("words.npy", npy(np.full((2, 8, 8), "a")), "values of type <U1 are not pixels"),
    ("complex.npy", npy(np.zeros((4, 8, 8), complex)), "values of type complex128 are not pixels"),
    ("nan.npy", npy(np.full((2, 8, 8), np.nan)), "not finite"),
    ("axes.npy", npy(np.zeros((2, 2, 2, 8, 8))), "an array of 5 axes, not pictures"),
    ("square.npy", npy(np.zeros((2, 8, 8, 8))), "may be (Y, X, C) or (C, Y, X): say which by layout"),
    ("scan.dcm", bytes(128) + b"DICM" + bytes(40), "a DICOM file without pictures"),
    ("text.dcm", b"hello", "it holds text ('hello' …)"),
    ("text.nii", b"hello" * 100, "no NIfTI volume"),
    ("short.nii", b"\x5c\x01\0\0" + bytes(10), "no NIfTI volume"),
    ("broken.nii.gz", b"\x1f\x8b\x08" + bytes(40), "corrupt gzip"),
]


@pytest.mark.parametrize(("name", "content", "reason"), FILES, ids=[name for name, *_ in FILES])
def test_a_file_that_cannot_be_read_is_named_with_its_reason_and_the_others_are_used(tmp_path, name, content, reason):
    """While it is scanned or, where only its pixels are broken, when it is read."""
    if name.endswith(".npy"):
        (tmp_path / "whole.npy").write_bytes(npy(np.zeros((1, 8, 8), np.uint8)))
    else:
        (tmp_path / "whole.png").write_bytes(PNG)
    (tmp_path / name).write_bytes(content)
    image = Image()
    index = build_index(open_source(tmp_path, image.extensions), image, accept_unreadable=True)
    said = dict(index.quarantine)
    image.fit([image.read(index.item(row)) for row in range(len(index)) if index.name(row).startswith("whole")])
    for row in range(len(index)):
        try:
            image.plain(image.read(index.item(row)))
        except SelftaughtError as error:
            said[index.name(row).split("[")[0]] = str(error)
    assert said.keys() == {name}
    assert reason in said[name] and "\n" not in said[name]


SOURCES: list[tuple[str, bytes, str, str]] = [  # name, content, sentence, hint
    ("picture.jpg.part", b"x", "is not data of a supported kind (.part)", "Known kinds: "),
    ("notes.docx", b"x", "is not data of a supported kind (.docx)", "Known kinds: "),
    ("photo.jgp", b"x", "is not data of a supported kind (.jgp)", "Did you mean '.jpg'?"),
    ("none.npz", b"PK no", "none.npz cannot be read: not an .npz archive: File is not a zip file", ""),
    ("two.npz", npz(a=np.zeros((2, 8, 8)), b=np.zeros((2, 8, 8))), "does not say which of its arrays", "two.npz::a"),
    ("x.npz::y", npz(x=np.zeros((2, 8, 8))), "x.npz holds no array named 'y'", "It holds: x."),
    ("broken.h5", b"\x89HDF\r\n\x1a\n" + bytes(100), "broken.h5 cannot be read: broken HDF5 file", ""),
    ("text.h5", b"hello" * 99, "text.h5 cannot be read: broken HDF5 file", ""),
    ("broken.zip", b"PK\x03\x04" + bytes(60), "broken.zip cannot be read as a zip archive", "It may be cut off"),
    ("empty.zip", b"PK\x05\x06" + bytes(18), "empty.zip' is empty", ""),
    ("text.tar", b"hello" * 200, "text.tar cannot be read as a tar archive: invalid header", "It may be cut off"),
    ("text.tar.gz", b"\x1f\x8b\x08" + bytes(60), "text.tar.gz cannot be read as a compressed tar archive", "cut off"),
    ("broken.parquet", b"PAR1" + bytes(50) + b"PAR1", "broken.parquet cannot be read as a Parquet file", ""),
    ("broken.arrow", b"ARROW1" + bytes(60), "broken.arrow cannot be read as an Arrow file", ""),
    ("empty.csv", b"", "empty.csv has no rows", ""),
    ("header.csv", b"path,label\n", "header.csv has no rows below its header", ""),
    ("named.csv", b"file,label\na.png,1\n", "named.csv has no column 'path'", "Its columns: file, label"),
    ("typo.csv", b"paht,label\na.png,1\n", "typo.csv has no column 'path'", "Did you mean 'paht'?"),
    ("ragged.csv", b"path,label\na.png\n", "Row 2 of ragged.csv has 1 fields, its header has 2", ""),
    ("gone.csv", b"path\nnone.png\n", "None of the 1 paths in gone.csv exists", "relative to the folder that holds"),
    ("latin.csv", "path\nbücher.png\n".encode("latin-1"), "latin.csv cannot be read as a CSV file: 'utf-8' codec", ""),
    ("broken.jsonl", b"{\n", "Line 1 of broken.jsonl is not a JSON object", ""),
    ("list.jsonl", b"[1]\n", "Line 1 of list.jsonl is not a JSON object", ""),
    ("away.csv", b"path\n../x.png\n", "away.csv names files outside of its folder: '../x.png'", "--outside reads"),
    ("root.csv", b"path\n/etc/passwd\n/etc/hosts\n", "outside of its folder: '/etc/passwd' and 1 more", "--outside"),
]


@pytest.mark.parametrize(("name", "content", "sentence", "hint"), SOURCES, ids=[name for name, *_ in SOURCES])
def test_data_that_cannot_be_used_are_refused_by_name(tmp_path, name, content, sentence, hint):
    (tmp_path / name.split("::")[0]).write_bytes(content)
    with pytest.raises(DataError) as refused:
        open_source(str(tmp_path / name), Image.extensions)
    assert sentence in str(refused.value) and hint in refused.value.hint
    assert "\n" not in str(refused.value) and str(refused.value).endswith(".")


def a_folder_of(*names: str) -> Callable[[Path], Any]:
    def make(root: Path) -> Path:
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(PNG if name.endswith(".png") else b"x")
        return root

    return make


DATA: list[tuple[str, Callable[[Path], Any], str]] = [  # what is wrong, the data, the sentence
    ("nothing there", lambda root: root / "nowhere", "There is no file or folder"),
    ("an empty folder", lambda root: root, "is empty"),
    ("hidden files alone", a_folder_of(".a.png", ".git/b.png"), "is empty"),
    (
        "no pictures",
        a_folder_of("a.txt", "b.txt", "c.doc"),
        "holds nothing that can be used: 2 .txt, 1 .doc files were",
    ),
    ("an empty list", lambda root: [], "The list of paths is empty"),
    ("a list of missing files", lambda root: [root / "a.png", root / "b.png"], "nor any other of the 2 listed"),
    ("a pattern without matches", lambda root: str(root / "*.zip"), "There is no file or folder"),
    (
        "a pattern of too many",
        lambda root: str(root / "{0..9999999}.tar"),
        "names 10,000,000 files, more than 1,000,000",
    ),
    ("a number", lambda root: 3, "The data must be a path, a list of paths, arrays, or a dataset"),
    ("no array of samples", lambda root: {"y": np.zeros(3)}, "must hold the samples as 'x'"),
    (
        "rows that do not match",
        lambda root: (np.zeros((3, 8, 8)), np.zeros(4)),
        "has the shape (4,), 'x' has (3, 8, 8)",
    ),
    ("no rows", lambda root: np.zeros((0, 8, 8)), "The array of samples is empty"),
    ("objects", lambda root: np.array([{}, {}], object), "holds Python objects"),
    ("a dataset without samples", lambda root: Dataset(0), "The dataset is empty"),
    ("a dataset of words", lambda root: Dataset("word"), "is str, not a picture or an array of numbers"),
    ("a dataset of nothing known", lambda root: Dataset({"thing": 3}), "has none of image, img"),
]


class Dataset:
    """Three samples alike, or none."""

    def __init__(self, sample: Any) -> None:
        self.sample = sample

    def __len__(self) -> int:
        return 0 if self.sample == 0 else 3

    def __getitem__(self, number: int) -> Any:
        return self.sample


@pytest.mark.parametrize(("make", "sentence"), [row[1:] for row in DATA], ids=[row[0] for row in DATA])
def test_what_is_no_data_is_refused(tmp_path, make, sentence):
    root = tmp_path / "data"
    root.mkdir()
    with pytest.raises(DataError) as refused:
        open_source(make(root), Image.extensions)
    assert sentence in str(refused.value) and "\n" not in str(refused.value)


SERIES: list[tuple[str, Any, str]] = [
    ("five axes", np.zeros((2, 2, 2, 2, 2)), "is not series (N, T), (N, C, T) or (N, T, C)"),
    ("square", np.zeros((4, 8, 8)), "may be (C, T) or (T, C): say which by layout"),
    ("words", np.full((3, 9), "a"), "values of type <U1 are not readings"),
    ("no readings", np.zeros((3, 2, 0)), "has no readings"),
    ("complex", np.zeros((3, 9), complex), "values of type complex128 are not readings"),
]


@pytest.mark.parametrize(("array", "sentence"), [row[1:] for row in SERIES], ids=[row[0] for row in SERIES])
def test_arrays_that_are_no_series_are_named(tmp_path, array, sentence):
    np.save(tmp_path / "x.npy", array)
    series = Series()
    with pytest.raises(SelftaughtError) as refused:
        index = build_index(open_source(tmp_path / "x.npy", series.extensions), series)
        series.read(index.item(0))
    assert sentence in str(refused.value) and "\n" not in str(refused.value)


LABELS: list[
    tuple[str, Any, str]
] = [  # what is wrong, the labels (a table's text, or what --labels gets), the sentence
    ("no such table", "nowhere.csv", "There is no label file"),
    ("no such column", "species", "must be 'folders', a column, or a CSV file of path,label. Got 'species'"),
    ("no folders", "folders", "do not lie in sub-folders that could name classes"),
    ("no path column", "file,label\n0.png,a\n", "has no column 'path'"),
    ("no label column", "path,class\n0.png,a\n", "has no column 'label'"),
    ("unknown paths", "path,label\nelse/9.png,a\n", "it says 'else/9.png', the data have '0.png'"),
    ("no label at all", "path,label\n0.png,\n1.png,\n", "None of the 4 samples has a label"),
    ("one class", "path,label\n0.png,a\n1.png,a\n", "are 'a'; at least two classes are needed"),
    ("missing numbers", "path,label\n0.png,1\n1.png,nan\n2.png,2\n3.png,1\n", "'nan' is no class, but a label"),
    ("infinite numbers", "path,label\n0.png,1\n1.png,inf\n2.png,2\n3.png,1\n", "'inf' is no class, but a label"),
    ("ragged", "path,label\n0.png\n", "Row 2 of labels.csv has 1 fields, its header has 2"),
    ("readings", np.array([0.5, 1.5, 2.5, 0.5]), "must be classes. Got real numbers such as 0.5"),
    ("nan", np.array([0, 1, np.nan, 1]), "must be classes. Got real numbers such as nan"),
    ("infinity", np.array([0, 1, np.inf, 1]), "must be classes. Got real numbers such as inf"),
    ("too few", np.array([0, 1]), "must be one value for each of the 4 samples. Got shape (2,)"),
    ("too many axes", np.zeros((4, 2)), "must be one value for each of the 4 samples. Got shape (4, 2)"),
    (
        "more classes than samples have companions",
        np.arange(4),
        "Each of the 4 labelled samples has a label of its own",
    ),
    ("the path itself", "path,label\n" + "".join(f"{n}.png,{n}.png\n" for n in range(4)), "has a label of its own"),
]


@pytest.mark.parametrize(("labels", "sentence"), [row[1:] for row in LABELS], ids=[row[0] for row in LABELS])
def test_labels_that_cannot_be_learned_from_are_refused(tmp_path, labels, sentence):
    data = tmp_path / "data"
    a_folder_of(*(f"{number}.png" for number in range(4)))(data)
    index = build_index(open_source(data, Image.extensions), Image())
    if isinstance(labels, str) and "\n" in labels:
        (data / "labels.csv").write_text(labels)
        labels = str(data / "labels.csv")
    with pytest.raises(DataError) as refused:
        read_labels(index, labels).refuse_names()
    assert sentence in str(refused.value) and "\n" not in str(refused.value)


def test_the_tables_are_not_short():
    from tests import test_bad_input, test_damaged_runs

    settings = test_bad_input.test_a_refused_request_leaves_nothing_behind.pytestmark[0].args[1]
    runs = [*test_damaged_runs.LOADED, *test_damaged_runs.COMMANDS]
    assert len([*FILES, *SOURCES, *DATA, *SERIES, *LABELS, *settings, *runs]) >= 120
