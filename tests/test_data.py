"""The front door, the index and the labels: what users call data becomes rows, and bad data one sentence."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selftaught.data.fingerprint import fingerprint_of
from selftaught.data.index import Index, build_index
from selftaught.data.labels import read_labels
from selftaught.data.place import cache_folder
from selftaught.data.source import open_source
from selftaught.errors import DataError, QuarantineError, WriteError
from selftaught.formats import arrays
from tests.pictures_stand_in import Tiny, write_pictures

pytestmark = pytest.mark.usefixtures("cache")

EXTENSIONS = Tiny.extensions


def index_of(data: Any, modality: Any = None, **options: Any) -> Index:
    modality = Tiny() if modality is None else modality
    return build_index(open_source(data, EXTENSIONS), modality, **options)


def words(column: np.ndarray | None) -> list[str]:
    return [] if column is None else column.tolist()


# --- The front door -----------------------------------------------------------------------------------------------


def test_folder_is_recursive_sorted_and_skips_what_is_hidden(tmp_path):
    write_pictures(tmp_path / "b", 2)
    write_pictures(tmp_path / "a" / "deep", 1)
    write_pictures(tmp_path / ".hidden", 1)
    shutil.copy(tmp_path / "b" / "0000.jpg", tmp_path / "top.JPG")
    (tmp_path / ".DS_Store").write_bytes(b"x")
    (tmp_path / "notes.txt").write_text("x")
    np.save(tmp_path / "features.npy", np.zeros((5, 3)))
    source = open_source(tmp_path, EXTENSIONS)
    assert source.paths == ("top.JPG", "a/deep/0000.jpg", "b/0000.jpg", "b/0001.jpg")
    assert source.kind == "folder" and dict(source.others) == {".txt": 1, ".npy": 1}
    assert [file.size for file in source.files()] == [os.path.getsize(tmp_path / path) for path in source.paths]


def test_loops_of_links_end_and_each_folder_counts_once(tmp_path):
    write_pictures(tmp_path / "a", 2)
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "again").symlink_to(tmp_path / "a")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    (tmp_path / "linked.jpg").symlink_to(tmp_path / "a" / "0000.jpg")
    assert open_source(tmp_path, EXTENSIONS).paths == ("linked.jpg", "a/0000.jpg", "a/0001.jpg")


def test_single_file_list_and_arrays(tmp_path):
    paths = write_pictures(tmp_path, 3)
    assert open_source(str(paths[0]), EXTENSIONS).paths == ("0000.jpg",)
    listed = open_source([paths[2], str(paths[0])], EXTENSIONS)
    assert listed.paths == ("0002.jpg", "0000.jpg") and listed.root == str(tmp_path)
    np.savez(tmp_path / "a.npz", train_x=np.zeros((4, 8, 8), np.uint8), train_y=np.arange(4))
    assert len(index_of(f"{tmp_path}/a.npz::train_x")) == 4


def test_arrays_from_memory_are_written_once_and_named_by_content(cache):
    x, y = np.random.default_rng(0).integers(0, 256, (30, 9, 9, 3), dtype=np.uint8), np.arange(30) % 3
    first, second = open_source((x, y), EXTENSIONS), open_source({"y": y.copy(), "x": x.copy()}, EXTENSIONS)
    assert first.paths == open_source((x.copy(), y), EXTENSIONS).paths
    assert fingerprint_of(first) == fingerprint_of(open_source((x, y), EXTENSIONS))
    assert fingerprint_of(first) != fingerprint_of(open_source((x, y + 1), EXTENSIONS))
    assert sorted(second.paths[0]) and isinstance(arrays.open_array(first.full(0)), np.memmap)
    index = index_of((x, y))
    assert len(index) == 30 and np.array_equal(Tiny().read(index.item(7)).data, x[7])
    assert np.array_equal(read_labels(index, "y").values, y)
    fresh = str(cache) + "-elsewhere"
    assert fingerprint_of(open_source((x, y), EXTENSIONS, cache=fresh)) == fingerprint_of(first)


@pytest.mark.parametrize("data", ["manifest", "relative"])
def test_manifest_keeps_its_columns(tmp_path, data):
    write_pictures(tmp_path / "pictures", 3)
    rows = ["path,label,group,split,camera", "pictures/0002.jpg,cat,p1,train,A", "pictures/0000.jpg,,p2,test,B"]
    (tmp_path / "m.csv").write_text("\ufeff" + "\r\n".join(rows) + "\r\n")
    index = index_of(tmp_path / "m.csv")
    assert index.column("path").tolist() == ["pictures/0002.jpg", "pictures/0000.jpg"]
    assert index.column("camera").tolist() == ["A", "B"] and index.column("label").tolist() == ["cat", None]
    item = index.item(0)
    assert (item.label, item.group, item.split, item.path) == ("cat", "p1", "train", f"{tmp_path}/pictures/0002.jpg")


def _empty(folder):
    return folder


def _only_text(folder):
    for number in range(12):
        (folder / f"{number}.txt").write_text("x")
    return folder


def _no_path_column(folder):
    (folder / "m.csv").write_text("paht,label\na.jpg,1\n")
    return folder / "m.csv"


def _ragged(folder):
    (folder / "m.csv").write_text("path,label\na.jpg\n")
    return folder / "m.csv"


def _header_only(folder):
    (folder / "m.csv").write_text("path,label\n")
    return folder / "m.csv"


def _nothing_exists(folder):
    (folder / "m.csv").write_text("path\nno.jpg\n")
    return folder / "m.csv"


def _wrong_kind(folder):
    (folder / "a.jpgg").write_text("x")
    return folder / "a.jpgg"


def _misspelt(folder):
    (folder / "pictures").mkdir()
    return folder / "picturs"


@pytest.mark.parametrize(
    ("make", "message", "hint"),
    [
        (_empty, "is empty", "Hidden"),
        (_only_text, "12 .txt files were found", ".jpg"),
        (_no_path_column, "has no column 'path'", "Did you mean 'paht'"),
        (_ragged, "Row 2 of m.csv has 1 fields, its header has 2", ""),
        (_header_only, "no rows below its header", ""),
        (_nothing_exists, "None of the 1 paths in m.csv exists, for one 'no.jpg'", "relative"),
        (_wrong_kind, "not data of a supported kind", "Did you mean '.jpg'"),
        (_misspelt, "There is no file or folder", "Did you mean 'pictures'"),
        (lambda folder: [], "list of paths is empty", ""),
        (lambda folder: ["a.jpg", "b.jpg"], "There is no file", ""),
        (lambda folder: ["a.pdf"], "not data of a supported kind", ""),
        (lambda folder: 5, "Got int instead", ""),
        (lambda folder: {"y": np.zeros(3)}, "must hold the samples as 'x'", "It holds: y"),
        (lambda folder: (np.zeros((3, 2)), np.zeros(2)), "'y' has the shape", ""),
        (lambda folder: np.zeros((0, 8, 8)), "array of samples is empty", ""),
        (lambda folder: np.array([None, {}]), "holds Python objects", ""),
    ],
)
def test_bad_data_get_one_sentence(tmp_path, make, message, hint):
    with pytest.raises(DataError) as caught:
        open_source(make(tmp_path), EXTENSIONS)
    assert message in str(caught.value) and hint in caught.value.hint and "\n" not in str(caught.value)


def test_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    assert cache_folder(tmp_path / "a") == tmp_path / "a"
    monkeypatch.delenv("SELFTAUGHT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "selftaught"


# --- The index ----------------------------------------------------------------------------------------------------


def test_second_start_asks_no_file_and_changes_are_noticed(tmp_path):
    write_pictures(tmp_path, 30)

    def scanned() -> int:
        modality = Tiny()
        index_of(tmp_path, modality)
        return len(modality.asked)

    assert scanned() == 30 and scanned() == 0
    shutil.copy(tmp_path / "0000.jpg", tmp_path / "new.jpg")
    assert scanned() == 31 and scanned() == 0
    (tmp_path / "0003.jpg").unlink()
    assert scanned() == 30 and scanned() == 0
    times = os.stat(tmp_path / "0004.jpg")
    os.utime(tmp_path / "0004.jpg", ns=(times.st_atime_ns, times.st_mtime_ns + 1))  # rewritten, same size
    assert scanned() == 30 and scanned() == 0
    (tmp_path / "0005.jpg").rename(tmp_path / "renamed.jpg")
    assert scanned() == 30 and scanned() == 0
    (tmp_path / "irrelevant.txt").write_text("x")
    assert scanned() == 0


def test_large_folders_are_fingerprinted_by_directory_and_sample(tmp_path, monkeypatch):
    from selftaught.data import fingerprint

    write_pictures(tmp_path, 40, classes=4)
    monkeypatch.setattr(fingerprint, "EVERY_FILE", 10)
    monkeypatch.setattr(fingerprint, "SAMPLED", 5)

    def now() -> str:
        return fingerprint_of(open_source(tmp_path, EXTENSIONS))

    before = now()
    assert now() == before
    path = tmp_path / "class1" / "0001.jpg"
    content = path.read_bytes()
    path.unlink()
    assert now() != before
    path.write_bytes(content)
    assert now() != before  # back under its name, but replaced: the directory's time says so


def test_broken_cache_is_scanned_again(tmp_path, cache):
    write_pictures(tmp_path, 3)
    path = Path(index_of(tmp_path).path)
    for content in (b"", b"ARROW1 but broken", path.read_bytes()[:-40]):
        path.write_bytes(content)
        assert len(index_of(tmp_path)) == 3


def test_quarantine_names_what_cannot_be_read_and_is_remembered(tmp_path):
    write_pictures(tmp_path, 38)
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("I am a note, not a picture")
    for _ in range(2):  # the second one comes from the cache
        with pytest.raises(
            QuarantineError, match=r"3 of 41 .* \(7.3%\) cannot be read.*empty.jpg: the file is empty"
        ) as caught:
            (tmp_path / "zip.png").write_bytes(b"PK\x03\x04aaaaaaaaaaaa") if not (
                tmp_path / "zip.png"
            ).exists() else None
            index_of(tmp_path)
        assert "--accept-unreadable" in caught.value.hint
    assert len(index_of(tmp_path, accept_unreadable=True)) == 38
    (tmp_path / "zip.png").unlink()
    index = index_of(tmp_path)
    assert len(index) == 38 and [path for path, _ in index.quarantine] == ["empty.jpg", "text.jpg"]
    assert all("\n" not in reason and reason for _, reason in index.quarantine)


def test_few_files_do_not_stop_unless_none_is_left(tmp_path):
    write_pictures(tmp_path, 2)
    (tmp_path / "0001.jpg").write_bytes(b"")
    assert len(index_of(tmp_path)) == 1
    (tmp_path / "0000.jpg").write_bytes(b"no picture at all")
    with pytest.raises(DataError, match="None of the 2 files can be read, for one '0000.jpg'"):
        index_of(tmp_path)


def test_files_of_a_list_that_are_gone_are_named(tmp_path):
    paths = write_pictures(tmp_path, 3)
    index = index_of([*paths, tmp_path / "gone.jpg"])
    assert len(index) == 3 and index.quarantine == [("gone.jpg", "there is no such file")]


def test_select_save_open_and_pickle(tmp_path):
    write_pictures(tmp_path / "data", 20, classes=2)
    index = index_of(tmp_path / "data")
    mask = np.arange(20) % 3 == 0
    some = index.select(mask).select([1, 0])
    assert some.column("path").tolist() == index.column("path")[[3, 0]].tolist()
    saved = some.save(tmp_path / "index.arrow")
    again = Index.open(tmp_path / "index.arrow")
    for one in (saved, again, pickle.loads(pickle.dumps(some))):
        assert len(one) == 2 and one.item(0) == some.item(0) and one.fingerprint == index.fingerprint
    assert again.item(0).path == str(tmp_path / "data" / some.column("path")[0]) and again.name(0) == some.name(0)
    with pytest.raises(DataError, match="is not there"):
        Index.open(tmp_path / "no.arrow")


def test_pickled_index_is_a_name_not_the_table(tmp_path):
    x = np.zeros((20_000, 1), np.uint8)
    index = index_of(x)
    assert os.path.getsize(index.path) > 500_000 and len(pickle.dumps(index)) < 1_000
    write_pictures(tmp_path, 2)
    sent = pickle.dumps(index_of(tmp_path))
    write_pictures(tmp_path, 3)
    index_of(tmp_path)
    with pytest.raises(DataError, match="was rewritten"):
        pickle.loads(sent)


def test_unwritable_cache_is_one_sentence(tmp_path, monkeypatch):
    write_pictures(tmp_path / "data", 2)
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("SELFTAUGHT_CACHE", str(tmp_path / "file"))
    with pytest.raises(WriteError, match="index cannot be written") as caught:
        index_of(tmp_path / "data")
    assert "SELFTAUGHT_CACHE" in caught.value.hint
    with pytest.raises(WriteError, match="arrays cannot be written"):
        index_of(np.zeros((3, 8, 8)))


def test_groups_of_arrays_come_with_them(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((4, 8)), y=np.arange(4), subject=np.array(["p1", "p1", "p2", "p3"]))
    index = index_of(tmp_path / "a.npz")
    assert index.column("group").tolist() == ["p1", "p1", "p2", "p3"]
    assert words(read_labels(index, "y").group) == ["p1", "p1", "p2", "p3"]


# --- Labels -------------------------------------------------------------------------------------------------------


def test_labels_from_folders_with_splits(tmp_path):
    for split in ("train", "test"):
        write_pictures(tmp_path / split, 6, classes=3)
    write_pictures(tmp_path, 1)
    labels = read_labels(index_of(tmp_path), "folders")
    assert labels.classes == ("class0", "class1", "class2") and labels.unlabelled == 1
    assert labels.values.tolist() == [-1] + [0, 0, 1, 1, 2, 2] * 2
    assert words(labels.split) == [""] + ["test"] * 6 + ["train"] * 6 and labels.group is None


def test_labels_from_a_column_and_numbers_sort_as_numbers(tmp_path):
    write_pictures(tmp_path, 4)
    rows = ["path,grade,group", "0000.jpg,10,a", "0001.jpg,9,a", "0002.jpg,,b", "0003.jpg,2,b"]
    (tmp_path / "m.csv").write_text("\n".join(rows))
    labels = read_labels(index_of(tmp_path / "m.csv"), "grade")
    assert labels.classes == ("2", "9", "10") and labels.values.tolist() == [2, 1, -1, 0]
    assert labels.labelled.tolist() == [True, True, False, True] and words(labels.group) == ["a", "a", "b", "b"]


@pytest.mark.parametrize("said", ["data/{}", "{}", "{root}/data/{}"])
def test_labels_from_a_csv_file(tmp_path, said):
    write_pictures(tmp_path / "data", 4)
    rows = [f"{said.format(f'000{n}.jpg', root=tmp_path)},{'ab'[n % 2]},test" for n in (3, 1, 2)]
    (tmp_path / "l.csv").write_text("\n".join(["path,label,split", *rows]))
    labels = read_labels(index_of(tmp_path / "data"), str(tmp_path / "l.csv"))
    assert labels.values.tolist() == [-1, 1, 0, 1] and words(labels.split) == ["", "test", "test", "test"]


def test_labels_of_arrays_with_names(tmp_path):
    np.savez_compressed(
        tmp_path / "a.npz",
        train_images=np.zeros((4, 8, 8), np.uint8),
        train_labels=np.array([[0], [1], [1], [0]], np.uint8),
        classes=np.array(["normal", "ill"]),
    )
    labels = read_labels(index_of(tmp_path / "a.npz"), "y")
    assert labels.classes == ("ill", "normal") and labels.values.tolist() == [1, 0, 0, 1]
    assert read_labels(index_of(tmp_path / "a.npz"), "train_labels").values.tolist() == [1, 0, 0, 1]
    assert read_labels(index_of(tmp_path / "a.npz"), np.array(["u", "u", "v", "w"])).values.tolist() == [0, 0, 1, 2]


def test_names_of_samples_are_no_classes(tmp_path):
    write_pictures(tmp_path, 3)
    with pytest.raises(DataError, match="Each of the 3 labelled samples has a label of its own"):
        read_labels(index_of(tmp_path), np.array(["u", "v", "w"])).refuse_names()
    read_labels(index_of(tmp_path), np.array(["nan", "nan", "inf"])).refuse_names()  # words, where there are no numbers


def test_bad_labels_get_one_sentence(tmp_path):
    write_pictures(tmp_path / "flat", 3)
    write_pictures(tmp_path / "one", 3, classes=1)
    flat, one = index_of(tmp_path / "flat"), index_of(tmp_path / "one")
    (tmp_path / "other.csv").write_text("path,label\nelse/x.jpg,1\n")
    (tmp_path / "nolabel.csv").write_text("path,lable\n0000.jpg,1\n")
    (tmp_path / "blank.csv").write_text("path,label\nflat/0000.jpg,\n")
    expected = [
        (flat, "folders", "do not lie in sub-folders", "CSV"),
        (one, "folders", "are 'class0'; at least two", ""),
        (flat, "folder", "must be 'folders', a column, or a CSV", "Did you mean 'folders'"),
        (flat, str(tmp_path / "other.csv"), "it says 'else/x.jpg', the data have '0000.jpg'", ""),
        (flat, str(tmp_path / "nolabel.csv"), "has no column 'label'", "Did you mean 'lable'"),
        (flat, str(tmp_path / "blank.csv"), "None of the 3 samples has a label", ""),
        (flat, str(tmp_path / "absent.csv"), "There is no label file", ""),
        (flat, np.zeros(2), "one value for each of the 3 samples", ""),
        (flat, np.array([0.5, 1, 2]), "must be classes. Got real numbers such as 0.5", ""),
        (flat, np.array([0, 1, np.nan]), "must be classes. Got real numbers such as nan", ""),
        (flat, np.array([0, np.inf, 1]), "must be classes. Got real numbers such as inf", ""),
        (flat, np.array(["0", "1", "nan"]), "'nan' is no class, but a label", "Leave it empty"),
        (flat, np.array(["0", "-inf", "1"]), "'-inf' is no class, but a label", "Leave it empty"),
        (index_of(np.zeros((3, 8))), "y", "holds no labels 'y'", "Give (x, y)"),
    ]
    for index, spec, message, hint in expected:
        with pytest.raises(DataError) as caught:
            read_labels(index, spec)
        assert message in str(caught.value) and hint in caught.value.hint, str(caught.value)


# --- Real data ----------------------------------------------------------------------------------------------------


def test_real_folders_are_labels_and_splits(shared_data):
    index = index_of(shared_data / "scenes100")
    labels = read_labels(index, "folders")
    assert len(index) == 3_600 and len(labels.classes) == 6 and not index.quarantine and not labels.unlabelled
    assert labels.split is not None and set(labels.split) == {"train", "test"}


def test_real_arrays_bring_their_labels(shared_data):
    for member, rows in (("", 8_000), ("::test_images", 2_000)):
        index = index_of(f"{shared_data}/mnist10k/mnist10k.npz{member}")
        labels = read_labels(index, "y")
        assert len(index) == rows and labels.classes == tuple("0123456789") and not labels.unlabelled
