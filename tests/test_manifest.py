"""Tables of samples: the four kinds say the same, bytes in Parquet are read where they were copied to, once."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from selftaught.data.fingerprint import fingerprint_of
from selftaught.data.index import Index, build_index
from selftaught.data.labels import read_labels
from selftaught.data.manifest import read_table
from selftaught.data.source import open_source
from selftaught.errors import DataError
from selftaught.formats import files
from selftaught.modalities.image import Image

pytestmark = pytest.mark.usefixtures("cache")

EXTENSIONS = Image.extensions


def encoded(value: int, extension: str = ".png") -> bytes:
    return cv2.imencode(extension, np.full((9, 12, 3), value, np.uint8))[1].tobytes()


def index_of(path: str | Path | list) -> Index:
    return build_index(open_source(path, EXTENSIONS), Image())


ROWS = [
    {"path": "b.png", "label": "cat", "group": "p1", "age": 3, "ok": True},
    {"path": "a.png", "label": None, "group": "p2", "age": 4, "ok": False},
    {"path": "none.png", "label": "dog", "group": "p,3", "age": None, "ok": None},
]


def written(path: Path) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist([{**row, "nested": [1, 2]} for row in ROWS]), path)
    elif path.suffix == ".jsonl":
        path.write_text("\n\n".join(json.dumps({**row, "nested": [1, 2]}) for row in ROWS) + "\n")
    else:
        between = "\t" if path.suffix == ".tsv" else ","
        lines = [["" if value is None else str(value) for value in row.values()] for row in ROWS]
        quoted = [[f'"{value}"' if between in value else value for value in line] for line in lines]
        path.write_text("\n".join(between.join(line) for line in [list(ROWS[0]), *quoted]) + "\n")
    return path


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_the_four_kinds_say_the_same(tmp_path, kind):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(encoded(3))
    path = written(tmp_path / f"m.{kind}")
    columns = {
        "path": ("b.png", "a.png", "none.png"),
        "label": ("cat", "", "dog"),
        "group": ("p1", "p2", "p,3"),
        "age": ("3", "4", ""),
        "ok": ("True", "False", ""),
    }
    assert read_table(str(path)).columns == columns
    index = index_of(path)
    assert [index.name(row) for row in range(2)] == ["b.png", "a.png"]
    assert index.quarantine == [("none.png", "there is no such file")]
    assert index.item(0).group == "p1" and index.column("age").tolist() == ["3", "4"]


def test_labels_come_from_any_table(tmp_path):
    for number in range(4):
        (tmp_path / f"{number}.png").write_bytes(encoded(number))
    rows = [{"path": f"{number}.png", "label": "even" if number % 2 == 0 else "odd"} for number in range(4)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "l.parquet")
    (tmp_path / "l.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "l.tsv").write_text("path\tlabel\n" + "\n".join(f"{row['path']}\t{row['label']}" for row in rows))
    index = index_of(tmp_path)
    for name in ("l.parquet", "l.jsonl", "l.tsv"):
        assert read_labels(index, str(tmp_path / name)).values.tolist() == [0, 1, 0, 1]


def hugging_face(path: Path, values: list[int], labels: list[int]) -> Path:
    """Pictures as datasets writes them: a struct of bytes and path, classes as numbers with names in the metadata."""
    pictures = [{"bytes": encoded(value, ".jpg"), "path": f"{value}.jpeg"} for value in values]
    features = {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}, "image": {"_type": "Image"}}
    table = pa.table({"image": pictures, "label": labels})
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})}), path)
    return path


def test_pictures_inside_parquet(tmp_path, cache):
    index = index_of(hugging_face(tmp_path / "train.parquet", [10, 90, 200], [0, 1, 1]))
    assert [index.name(row) for row in range(3)] == ["0.jpg", "1.jpg", "2.jpg"]
    assert [files.read(index.item(row).path) for row in range(3)] == [encoded(value, ".jpg") for value in (10, 90, 200)]
    labels = read_labels(index, "label")
    assert labels.classes == ("cat", "dog") and labels.values.tolist() == [0, 1, 1]
    (heap,) = (cache / "tables").glob("*.bytes")
    before = heap.stat().st_ino
    index_of(tmp_path / "train.parquet")
    assert heap.stat().st_ino == before  # copied once
    fingerprint = fingerprint_of(open_source(tmp_path / "train.parquet", EXTENSIONS))
    heap.unlink()
    assert fingerprint_of(open_source(tmp_path / "train.parquet", EXTENSIONS)) == fingerprint


def test_a_folder_of_parquet_files_named_after_splits(tmp_path):
    hugging_face(tmp_path / "train-00000-of-00002.parquet", [1, 2], [0, 1])
    hugging_face(tmp_path / "train-00001-of-00002.parquet", [3], [1])
    hugging_face(tmp_path / "test-00000-of-00001.parquet", [4, 5], [0, 1])
    index = index_of(tmp_path)
    assert len(index) == 5 and index.column("split").tolist() == ["test", "test", "train", "train", "train"]
    assert index.name(4) == "train-00001-of-00002/0.jpg" and index.column("source")[4] == "train-00001-of-00002"
    labels = read_labels(index, "label")
    assert labels.split is not None and labels.split.tolist()[0] == "test"


def test_what_hugging_face_saves_to_disk(tmp_path):
    """Arrow streams below folders that are called after splits, with files beside them that say what they are."""
    for split, values in (("train", [1, 2, 3]), ("test", [4])):
        folder = tmp_path / split
        folder.mkdir()
        hugging_face(tmp_path / "m.parquet", values, [0] * (len(values) - 1) + [1])
        table = pq.read_table(tmp_path / "m.parquet")
        (tmp_path / "m.parquet").unlink()
        opened = pa.ipc.new_stream if split == "train" else pa.ipc.new_file
        with opened(str(folder / "data-00000-of-00001.arrow"), table.schema) as writer:
            writer.write_table(table)
        (folder / "dataset_info.json").write_text("{}")
    index = index_of(tmp_path)
    assert [index.name(row) for row in range(4)][0] == "test/data-00000-of-00001/0.jpg"
    assert index.column("split").tolist() == ["test", "train", "train", "train"]
    assert files.read(index.item(3).path) == encoded(3, ".jpg")
    assert read_labels(index, "label").classes == ("cat", "dog")
    (tmp_path / "broken.arrow").write_bytes(b"ARROW1 and nothing more")
    with pytest.raises(DataError, match="cannot be read as an Arrow file"):
        open_source(tmp_path / "broken.arrow", EXTENSIONS)


def test_plain_bytes_gaps_and_what_is_no_picture(tmp_path):
    table = pa.table(
        {"image": pa.array([encoded(1), None, b"no picture", encoded(2)], pa.binary()), "id": [1, 2, 3, 4]}
    )
    pq.write_table(table, tmp_path / "m.parquet")
    index = index_of(tmp_path / "m.parquet")
    assert [index.name(row) for row in range(2)] == ["0.png", "3.png"] and index.column("id").tolist() == ["1", "4"]
    reasons = dict(index.quarantine)
    assert reasons["1"] == "the file is empty (0 bytes)" and "holds text" in reasons["2"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.jsonl", "", "m.jsonl has no rows"),
        ("m.jsonl", '{"path": "a"}\n[1]\n', "Line 2 of m.jsonl is not a JSON object"),
        ("m.jsonl", '{"path": "a"}\nno\n', "Line 2 of m.jsonl is not a JSON object"),
        ("m.jsonl", '{"file": "a"}\n', "m.jsonl has no column 'path'"),
        ("m.tsv", "path\tlabel\n", "no rows below its header"),
        ("m.csv", "path\n\xff", "cannot be read as a CSV file"),
        ("m.parquet", "no parquet", "m.parquet cannot be read as a Parquet file"),
        ("m.parquet", "", "m.parquet cannot be read as a Parquet file"),
    ],
)
def test_broken_tables_get_one_sentence(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError) as caught:
        open_source(tmp_path / name, EXTENSIONS)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_tables_that_do_not_say_what_is_meant(tmp_path):
    pq.write_table(pa.table({"left": [b"1"], "right": [b"2"]}), tmp_path / "two.parquet")
    with pytest.raises(DataError, match="which of its columns holds the samples: left, right"):
        open_source(tmp_path / "two.parquet", EXTENSIONS)
    pq.write_table(pa.table({"label": [1]}), tmp_path / "none.parquet")
    with pytest.raises(DataError, match="has no column 'path'"):
        open_source(tmp_path / "none.parquet", EXTENSIONS)
    hugging_face(tmp_path / "with.parquet", [1], [0])
    with pytest.raises(DataError, match="Some of the 2 tables hold the samples themselves"):
        open_source([tmp_path / "none.parquet", tmp_path / "with.parquet"], EXTENSIONS)


def test_parquet_overwritten_anywhere_is_refused_or_read(tmp_path):
    whole = hugging_face(tmp_path / "m.parquet", [1, 2, 3], [0, 1, 0]).read_bytes()
    rng, path = np.random.default_rng(0), tmp_path / "broken.parquet"
    for at in rng.integers(0, len(whole), 60).tolist():
        for broken in (whole[:at], whole[:at] + bytes(rng.integers(0, 256, 4, np.uint8)) + whole[at + 4 :]):
            path.write_bytes(broken)
            try:
                source = open_source(path, EXTENSIONS)
                build_index(source, Image(), accept_unreadable=True)
            except DataError as error:
                assert "\n" not in str(error)


@pytest.mark.parametrize("name", ["../secret/x.png", "a/../../secret/x.png", "ABSOLUTE"])
def test_a_table_reads_outside_of_its_folder_only_if_asked(tmp_path, monkeypatch, name):
    for folder in ("mine", "secret", "mine/a"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.png").write_bytes(encoded(3))
    name = str(tmp_path / "secret" / "x.png") if name == "ABSOLUTE" else name
    (tmp_path / "mine" / "m.csv").write_text(f"path\nx.png\n{name}\n")
    with pytest.raises(DataError, match=r"m.csv names files outside of its folder: '.*secret/x.png'") as refused:
        open_source(tmp_path / "mine" / "m.csv", EXTENSIONS)
    assert refused.value.hint == "If you know that table, --outside reads them."
    monkeypatch.setenv("SELFTAUGHT_OUTSIDE", "1")
    assert len(index_of(tmp_path / "mine" / "m.csv")) == 2


def test_absolute_paths_within_the_folder_are_those_of_its_own_files(tmp_path):
    (tmp_path / "x.png").write_bytes(encoded(3))
    (tmp_path / "m.csv").write_text(f"path\n{tmp_path / 'x.png'}\nnone\0.png\n")
    index = build_index(open_source(tmp_path / "m.csv", EXTENSIONS), Image(), accept_unreadable=True)
    assert index.column("path").tolist() == ["x.png"]
    assert index.quarantine == [("none\0.png", "there is no such file")]
