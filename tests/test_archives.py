"""Archives as folders: what is listed, what is refused, and that members are read where they lie."""

from __future__ import annotations

import io
import os
import struct
import tarfile
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from selftaught.commands.samples import identities, joined, open_samples
from selftaught.data import archives
from selftaught.data.fingerprint import fingerprint_of
from selftaught.data.index import Index, build_index
from selftaught.data.labels import read_labels
from selftaught.data.source import open_source
from selftaught.errors import DataError, UnreadableError
from selftaught.formats import files
from selftaught.modalities.image import Image

pytestmark = pytest.mark.usefixtures("cache")

EXTENSIONS = Image.extensions
PICTURES = frozenset({".jpg", ".png", ".bmp"})


def encoded(value: int, extension: str = ".png") -> bytes:
    return cv2.imencode(extension, np.full((9, 12, 3), value, np.uint8))[1].tobytes()


MEMBERS = {f"{kind}/{number}.png": encoded(40 * number + 3) for kind in ("cats", "dogs") for number in range(3)}


def zipped(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def tarred(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


MAKERS = {
    "a.zip": zipped,
    "stored.zip": lambda path, members: zipped(path, members, zipfile.ZIP_STORED),
    "a.tar": tarred,
    "a.tar.gz": lambda path, members: tarred(path, members, "w:gz"),
    "a.tgz": lambda path, members: tarred(path, members, "w:gz"),
    "a.tar.bz2": lambda path, members: tarred(path, members, "w:bz2"),
    "a.TAR.XZ": lambda path, members: tarred(path, members, "w:xz"),
}


def index_of(path: str | Path | list) -> Index:
    return build_index(open_source(path, EXTENSIONS), Image())


@pytest.mark.parametrize("name", MAKERS)
def test_an_archive_is_a_folder(tmp_path, name):
    members = {"./notes/readme.md": b"x", ".hidden/4.png": encoded(9), "__MACOSX/cats/._0.png": b"x", **MEMBERS}
    path = MAKERS[name](tmp_path / name, members)
    source = open_source(path, EXTENSIONS)
    assert source.paths == tuple(MEMBERS) and dict(source.others) == {".md": 1}
    index = index_of(path)
    assert [index.name(row) for row in range(6)] == list(MEMBERS)
    assert [files.read(index.item(row).path) for row in range(6)] == list(MEMBERS.values())
    assert np.asarray(Image().read(index.item(4)).data)[0, 0].tolist() == [43, 43, 43]
    labels = read_labels(index, "folders")
    assert labels.classes == ("cats", "dogs") and labels.values.tolist() == [0, 0, 0, 1, 1, 1]


def test_several_archives_are_folders_of_their_names(tmp_path):
    zipped(tmp_path / "2.zip", {"a.png": encoded(7)})
    tarred(tmp_path / "10.tar", MEMBERS)
    listed = index_of([tmp_path / "2.zip", tmp_path / "10.tar"])
    assert [listed.name(row) for row in (0, 1)] == ["2/a.png", "10/cats/0.png"]
    assert listed.column("source").tolist() == ["2"] + ["10"] * 6
    in_a_folder = index_of(tmp_path)
    assert len(in_a_folder) == 7 and in_a_folder.name(0) == "10/cats/0.png"
    (tmp_path / "beside.parquet").write_bytes(b"whatever")
    assert dict(open_source(tmp_path, EXTENSIONS).others) == {".parquet": 1}
    (tmp_path / "beside.parquet").unlink()
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "b.png").write_bytes(encoded(1))
    beside = open_source(tmp_path, EXTENSIONS)
    assert beside.paths == ("pictures/b.png",) and dict(beside.others) == {".zip": 1, ".tar": 1}


def test_patterns_name_shards_in_order(tmp_path):
    for number in range(12):
        tarred(tmp_path / f"shard-{number:03}.tar", {"a.png": encoded(number)})
    names = [f"shard-{number:03}/a.png" for number in (9, 10, 11)]
    assert list(open_source(tmp_path / "shard-{009..011}.tar", EXTENSIONS).paths) == names
    assert len(open_source(f"{tmp_path}/shard-*.tar", EXTENSIONS).paths) == 12
    with pytest.raises(DataError, match=r"There is no file .*shard-012.tar") as refused:
        open_source(tmp_path / "shard-{009..012}.tar", EXTENSIONS)
    assert "shard-01" in refused.value.hint
    with pytest.raises(DataError, match="names 2,000,001 files"):
        open_source(tmp_path / "shard-{0..2000000}.tar", EXTENSIONS)
    with pytest.raises(DataError, match="There is no file or folder"):
        open_source(tmp_path / "none-*.tar", EXTENSIONS)


def test_what_lies_beside_a_sample_are_its_columns(tmp_path):
    """WebDataset: members of one name up to the first dot belong together."""
    members = {
        "0.jpg": encoded(0, ".jpg"),
        "0.cls": b"3\n",
        "0.json": b'{"site": "A", "age": 4.5, "boxes": [1, 2]}',
        "1.jpg": encoded(1, ".jpg"),
        "1.cls": b"5",
        "1.json": b"no json",
        "lone.cls": b"1",
    }
    source = open_source(tarred(tmp_path / "s.tar", members), EXTENSIONS)
    assert source.columns == {"cls": ("3", "5"), "site": ("A", ""), "age": ("4.5", "")} and source.others == {".cls": 1}
    assert read_labels(build_index(source, Image()), "cls").classes == ("3", "5")


def test_a_label_file_names_members(tmp_path):
    index = index_of(zipped(tmp_path / "a.zip", MEMBERS))
    (tmp_path / "labels.csv").write_text("path,label\ncats/0.png,yes\ndogs/2.png,no\n")
    assert read_labels(index, str(tmp_path / "labels.csv")).values.tolist() == [1, -1, -1, -1, -1, 0]


def test_names_that_leave_the_archive_are_refused_and_the_rest_is_used(tmp_path):
    members = {"../../up.png": encoded(1), "/etc/root.png": encoded(2), "C:\\windows.png": encoded(3), **MEMBERS}
    for path in (zipped(tmp_path / "a.zip", members), tarred(tmp_path / "a.tar", members)):
        source = open_source(path, EXTENSIONS)
        assert source.paths == tuple(MEMBERS)
        assert [reason for _, reason in source.refused] == ["its name leaves the archive"] * 3
        assert [name for name, _ in build_index(source, Image()).quarantine] == [name for name, _ in source.refused]


def test_links_are_not_followed(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        link = tarfile.TarInfo("passwd.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        info = tarfile.TarInfo("a.png")
        info.size = len(encoded(1))
        archive.addfile(info, io.BytesIO(encoded(1)))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        link = zipfile.ZipInfo("passwd.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("a.png", encoded(1))
    for name in ("a.tar", "a.zip"):
        source = open_source(tmp_path / name, EXTENSIONS)
        assert source.paths == ("a.png",) and source.others == {"links": 1}


def test_bombs_are_refused_by_what_they_claim_and_by_what_they_do(tmp_path, cache):
    huge = bytes(70 * 2**20)
    path = zipped(tmp_path / "a.zip", {"bomb.bmp": huge, "a.png": encoded(1)})
    listing = archives.list_archive(str(path), PICTURES)
    assert [member.name for member in listing.members] == ["a.png"]
    assert "more than 200 times what is stored" in listing.refused[0][1]
    tarred(tmp_path / "b.tar.gz", {"a.bmp": huge}, "w:gz")
    with pytest.raises(DataError, match="unpacks to more than 200 times its size"):
        open_source(tmp_path / "b.tar.gz", EXTENSIONS)
    assert not list(cache.rglob("*.tmp"))
    liar = zipped(tmp_path / "liar.zip", {"a.bmp": bytes(2**20)})  # a directory that claims less than there is
    raw = liar.read_bytes()
    liar.write_bytes(
        raw[: raw.rindex(b"PK\x01\x02")]
        + raw[raw.rindex(b"PK\x01\x02") :].replace(struct.pack("<I", 2**20), struct.pack("<I", 100), 1)
    )
    (member,) = archives.list_archive(str(liar), PICTURES).members
    assert len(files.read(str(member.part))) == 100


def test_what_cannot_be_read_is_named(tmp_path):
    path = zipped(tmp_path / "a.zip", MEMBERS)
    raw = bytearray(path.read_bytes())
    at = raw.rindex(b"PK\x01\x02")
    raw[at + 8] |= 1  # the last member's flag: encrypted
    path.write_bytes(raw)
    assert open_source(path, EXTENSIONS).refused == (("dogs/2.png", "it is encrypted"),)
    path = zipped(tmp_path / "b.zip", MEMBERS, zipfile.ZIP_BZIP2)
    with pytest.raises(DataError, match="compressed by method 12"):
        open_source(path, EXTENSIONS)
    path = tarred(tmp_path / "c.tar", {"a.png": encoded(1), "./a.png": encoded(2)})
    source = open_source(path, EXTENSIONS)
    assert source.refused[0][0] == "a.png" and "further on" in source.refused[0][1]
    assert files.read(source.full(0)) == encoded(2)
    with pytest.raises(DataError, match=r"holds nothing that can be used: 1 \.md file was found"):
        open_source(zipped(tmp_path / "d.zip", {"a.md": b"x"}), EXTENSIONS)
    with pytest.raises(DataError, match="is empty"):
        open_source(zipped(tmp_path / "e.zip", {}), EXTENSIONS)


@pytest.mark.parametrize("name", MAKERS)
def test_archives_that_are_cut_off_or_overwritten_never_give_anything_but_their_members(tmp_path, name):
    """At any place: either the archive is refused in one sentence, or each member reads as it was or is refused."""
    whole = MAKERS[name](tmp_path / name, MEMBERS).read_bytes()
    rng, path = np.random.default_rng(0), tmp_path / f"broken-{name}"
    outcomes = {"refused": 0, "read": 0}
    for at in rng.integers(0, len(whole), 60).tolist():
        for broken in (whole[:at], whole[:at] + bytes(rng.integers(0, 256, 4, np.uint8)) + whole[at + 4 :]):
            path.write_bytes(broken)
            os.utime(path, ns=(at, len(broken)))
            try:
                source = open_source(path, EXTENSIONS)
            except DataError as error:
                assert "\n" not in str(error)
                outcomes["refused"] += 1
                continue
            for row in range(len(source.paths)):
                try:
                    Image().read(build_index(source, Image(), accept_unreadable=True).item(0)) if not row else None
                    files.read(source.full(row))
                except (UnreadableError, DataError) as error:
                    assert "\n" not in str(error)
            outcomes["read"] += 1
    assert outcomes["refused"] > 10


def test_a_tar_that_breaks_off_between_members_is_no_shorter_archive(tmp_path):
    """tarfile ends silently at a header that is none."""
    path = tarred(tmp_path / "a.tar", MEMBERS)
    raw = bytearray(path.read_bytes())
    with tarfile.open(path) as archive:
        at = archive.getmembers()[3].offset
    raw[at : at + 512] = os.urandom(512)
    path.write_bytes(raw)
    with pytest.raises(DataError, match="is no header"):
        open_source(path, EXTENSIONS)


def test_changes_are_noticed_and_an_emptied_cache_is_not_one(tmp_path, cache):
    path = tarred(tmp_path / "a.tar.gz", MEMBERS, "w:gz")
    before = fingerprint_of(open_source(path, EXTENSIONS))
    for made in (cache / "archives").iterdir():
        made.unlink()
    assert fingerprint_of(open_source(path, EXTENSIONS)) == before
    tarred(path, dict(list(MEMBERS.items())[:5]), "w:gz")
    assert fingerprint_of(open_source(path, EXTENSIONS)) != before


def test_members_of_one_name_in_two_archives_are_two_samples(tmp_path):
    """An evaluation on one archive of a run on another must not take them for each other."""
    first = zipped(tmp_path / "train.zip", {"1.bmp": encoded(1, ".bmp"), "2.bmp": encoded(2, ".bmp")})
    second = zipped(tmp_path / "test.zip", {"1.bmp": encoded(3, ".bmp")})
    os.utime(second, ns=(1, 1))
    known, asked = ({each for row in identities(index_of(path)) for each in row} for path in (first, second))
    assert not known & asked and known == {each for row in identities(index_of(first)) for each in row}


def test_one_index_of_an_archive_and_a_folder(tmp_path):
    zipped(tmp_path / "train.zip", MEMBERS)
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "0.png").write_bytes(encoded(200))
    ours, theirs = (open_samples(path, {"name": "image"}) for path in (tmp_path / "train.zip", tmp_path / "test"))
    both = joined(ours, theirs)
    assert len(both.index) == 7
    assert [files.read(both.index.item(row).path) for row in range(7)] == [*MEMBERS.values(), encoded(200)]


def test_parts_of_files(tmp_path):
    path = tmp_path / "a::b.bin"
    path.write_bytes(bytes(range(100)))
    assert files.read(str(path), 3) == b"\0\1\2" and files.stat(str(path))[0] == 100
    part = files.Part(str(path), 10, 5)
    assert files.part_of(f"{part}/name.png") == part and files.read(f"{part}/x") == bytes(range(10, 15))
    assert files.read(f"{part}/x", 2) == bytes([10, 11]) and files.stat(f"{part}/x")[0] == 5
    with pytest.raises(UnreadableError, match="truncated: 10 of 20"):
        files.read(str(files.Part(str(path), 90, 20)))
    with pytest.raises(UnreadableError, match="cannot be opened: No such file"):
        files.read(str(files.Part(str(tmp_path / "none"), 0, 1)))
    with pytest.raises(UnreadableError, match="corrupt|truncated"):
        files.read(str(files.Part(str(path), 0, 20, packed=True)))
