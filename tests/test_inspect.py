"""``selftaught inspect``: what it counts, what it finds, what it says, and the page."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import selftaught as st
from selftaught import cli
from selftaught.errors import ConfigError, DataError
from selftaught.ops import likeness

pytestmark = pytest.mark.usefixtures("cache")


def photo(seed: int, side: int = 64) -> np.ndarray:
    """Blotches that differ from seed to seed."""
    rng = np.random.default_rng(seed)
    return cv2.resize(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8), (side, side), interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """30 pictures of two classes: one copied byte by byte, one saved again smaller, one cut off, one gray."""
    root = tmp_path_factory.mktemp("data") / "<photos> & co"
    for name in ("cats", "dogs"):
        (root / name).mkdir(parents=True)
    for number in range(26):
        kind = "cats" if number < 24 else "dogs"
        cv2.imwrite(str(root / kind / f"{number:02}.png"), photo(number))
    (root / "dogs" / "copy.png").write_bytes((root / "cats" / "03.png").read_bytes())
    again = cv2.resize(photo(5), (48, 48), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(root / "cats" / "again.jpg"), again, [cv2.IMWRITE_JPEG_QUALITY, 60])
    (root / "cats" / "cut.png").write_bytes((root / "cats" / "04.png").read_bytes()[:900])
    cv2.imwrite(str(root / "dogs" / "gray.png"), photo(90)[..., 0])
    (root / "notes.txt").write_text("x")
    return root


def inspected(data: Any, **options: Any) -> dict[str, Any]:
    return st.inspect(data, timing=False, quiet=True, **options)


def test_what_is_there_is_counted(folder):
    found = inspected(folder, labels="folders")
    assert found["samples"] == 30 and found["files"] == {".png": 29, ".jpg": 1} and found["left_alone"] == {".txt": 1}
    assert found["looked_at"] == 30 and found["channels"] == {3: 28, 1: 1} and found["types"] == {"uint8": 29}
    assert found["height"]["least"] == 48 and found["width"]["most"] == 64
    assert found["classes"] == {"cats": 26, "dogs": 4} and found["unlabelled"] == 0
    assert found["bytes"] == sum(path.stat().st_size for path in folder.rglob("*.*g"))


def test_copies_look_alikes_and_what_is_broken_are_found(folder):
    found = inspected(folder, labels="folders")
    assert [name for name, _ in found["unreadable"]] == ["cats/cut.png"]
    assert found["copies"] == [["cats/03.png", "dogs/copy.png"]] and found["disagreeing_copies"] == 1
    assert [pair[:2] for pair in found["look_alikes"]] == [["cats/05.png", "cats/again.jpg"]]
    said = " ".join(found["findings"])
    for words in (
        "Unreadable: 1 file, for one cats/cut.png",
        "Exact copies of other files: 1",
        "Looks the same: 1 pair",
        "Fewer than 5 samples: 1 class (dogs)",
    ):
        assert words in said, words


def test_what_is_in_the_test_data_too_is_shown_in_pairs(folder, tmp_path):
    (tmp_path / "a.png").write_bytes((folder / "cats" / "07.png").read_bytes())
    cv2.imwrite(str(tmp_path / "b.jpg"), photo(9))
    cv2.imwrite(str(tmp_path / "c.png"), photo(777))
    found = inspected(folder, test=tmp_path)
    assert found["test_samples"] == 3 and found["test_copies"] == [["cats/07.png", "a.png"]]
    assert [pair[:2] for pair in found["test_look_alikes"]] == [["cats/07.png", "a.png"], ["cats/09.png", "b.jpg"]]
    said = " ".join(found["findings"])
    assert "In the test data too: 1 file, for one cats/07.png, there a.png" in said and "cats/09.png and b.jpg" in said


def test_groups_that_straddle_splits(tmp_path):
    rows = ["path,label,group,split"]
    for number in range(8):
        cv2.imwrite(str(tmp_path / f"{number}.png"), photo(number))
        rows.append(f"{number}.png,{'ab'[number % 2]},p{number // 2},{'train' if number < 5 else 'test'}")
    (tmp_path / "m.csv").write_text("\n".join(rows))
    found = inspected(tmp_path / "m.csv", labels="label")
    assert found["straddling_groups"] == ["p2"] and "In more than one split: 1 group (p2)." in found["findings"]


def cohort(root: Path, kind: Callable[[int], str], ending: str = "png") -> Path:
    """24 pictures whose labels, in a table, are ill and well by turns; ``kind``: the folder and name of each."""
    rows = ["path,label"]
    for number in range(24):
        path = root / kind(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), photo(number, side=64 if number % 3 else 48))
        rows.append(f"{kind(number)},{('well', 'ill')[number % 2]}")
    (root / "m.csv").write_text("\n".join(rows))
    return root / "m.csv"


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (
            lambda n: f"{n}.{('png', 'jpg')[n % 2]}",
            "by the ending of the file alone, 100% of them are right (guessing: 50%)",
        ),
        (
            lambda n: f"site{n % 2}/{n}.png",
            "by the folder alone, 100% of them are right (guessing: 50%). Harmless where",
        ),
        (lambda n: f"{'ab'[n % 2]}_{n}.png", "by the name of the file, but for numbers, alone, 100% of them are right"),
        (lambda n: f"site{n % 3}/{n}.png", ""),
        (lambda n: f"{n}.png", ""),
    ],
)
def test_labels_that_can_be_told_without_looking(tmp_path, kind, said):
    found = inspected(cohort(tmp_path, kind), labels="label")
    told = [one for one in found["findings"] if one.startswith("The labels can be told without looking")]
    assert len(told) == bool(said) and (not said or said in told[0])


def test_labels_that_sizes_tell(tmp_path):
    """One scanner a class: by folders too, whose names are no finding."""
    for number in range(30):
        (tmp_path / "ab"[number % 2]).mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "ab"[number % 2] / f"{number}.png"), photo(number, side=(48, 64)[number % 2]))
    found = inspected(tmp_path, labels="folders")
    assert [one["fact"] for one in found["shortcuts"]] == ["the size"]
    assert any(
        "by the size alone, 100% of them are right (guessing: 50%). A model may" in one for one in found["findings"]
    )


def test_series_too(tmp_path):
    x = np.random.default_rng(0).normal(size=(40, 2, 100))
    x[0, 0, :50] = np.nan
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(40) % 2)
    found = inspected(tmp_path / "a.npz", labels="y")
    assert found["modality"] == "series" and found["length"]["middle"] == 100 and found["channels"] == {2: 40}
    assert (
        found["missing"] == pytest.approx(50 / (40 * 200)) and "0.6% of the readings are missing." in found["findings"]
    )


def test_the_command_line_says_it_and_writes_a_page(folder, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert cli.main(["inspect", str(folder), "--labels", "folders", "--timing", "false", "--out", str(page)]) == 0
    told = capsys.readouterr().out
    assert "30 samples (image) in 29 .png, 1 .jpg" in told and "! Unreadable: 1 file" in told
    assert "Next: selftaught pretrain '" in told and "Left alone: 1 .txt" in told
    text = page.read_text(encoding="utf-8")
    assert "&lt;photos&gt; &amp; co" in text and "<photos>" not in text and text.count("data:image/png") >= 25
    assert cli.main(["inspect", str(folder), "--timing", "false", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["copies"] == [["cats/03.png", "dogs/copy.png"]]


def test_a_pass_is_timed_and_leaves_nothing(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = st.inspect(folder, quiet=True, look=5)
    assert found["epoch_seconds"] > 0 and " on " in found["timed"] and found["looked_at"] == 5
    assert not list(tmp_path.iterdir())


def test_wrong_requests(folder, tmp_path):
    with pytest.raises(ConfigError, match="ending in .html"):
        inspected(folder, out=str(tmp_path / "page.txt"))
    with pytest.raises(DataError, match="There is no file or folder"):
        inspected(tmp_path / "none")
    with pytest.raises(DataError, match="None of the"):
        (tmp_path / "a.png").write_bytes(b"no picture")
        inspected(tmp_path)


def differ(one: Any, other: Any) -> int:
    """Bits, counted one by one."""
    return sum(bin(int(a) ^ int(b)).count("1") for a, b in zip(one, other, strict=True))


# --- Look-alikes ------------------------------------------------------------------------------------------------------


def test_the_same_picture_saved_again_differs_in_few_bits():
    for seed in range(20):
        picture = photo(seed, 200)
        small = cv2.resize(picture, (77, 77), interpolation=cv2.INTER_AREA)
        again = cv2.imdecode(cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 50])[1], cv2.IMREAD_COLOR)
        assert again is not None
        one, *others = (likeness.perceptual_hash(np.asarray(each)) for each in (picture, again, photo(seed + 100, 200)))
        bits = [differ(one, other) for other in others]
        assert bits[0] <= likeness.ALIKE < 12 < bits[1]
    assert likeness.perceptual_hash(np.full((40, 40, 3), 7, np.uint8)) is None


def test_pairs_agree_with_comparing_one_by_one():
    rng = np.random.default_rng(0)
    ours, theirs = (rng.integers(0, 4, (number, 8), dtype=np.uint8) for number in (300, 40))

    pairs, bits = likeness.near_pairs(ours, theirs)
    expected = {
        (i, j): differ(ours[i], theirs[j]) for i in range(300) for j in range(40) if differ(ours[i], theirs[j]) <= 6
    }
    assert dict(zip(map(tuple, pairs.tolist()), bits.tolist(), strict=True)) == expected
    assert bits.tolist() == sorted(bits.tolist())
    pairs, bits = likeness.near_pairs(ours)
    assert len(pairs) and all(
        i < j and differ(ours[i], ours[j]) == b for (i, j), b in zip(pairs.tolist(), bits, strict=True)
    )


def test_pairs_are_bounded_where_all_look_alike(monkeypatch):
    monkeypatch.setattr(likeness, "MOST", 50)
    monkeypatch.setattr(likeness, "_AT_ONCE", 8 * 100 * 2)
    pairs, _ = likeness.near_pairs(np.zeros((100, 8), np.uint8))
    assert 50 <= len(pairs) < 250


def test_arrays_in_memory_get_a_call_to_make():
    found = inspected(np.stack([photo(seed) for seed in range(12)]))
    assert found["command"] == 'st.pretrain(data, out="runs/first", minutes=10)'


def test_copies_in_real_pictures(shared_data):
    """scenes100: nothing of the test part is in the training part, byte by byte."""
    found = inspected(shared_data / "scenes100" / "train", test=shared_data / "scenes100" / "test", look=600)
    assert found["samples"] == 3000 and found["test_samples"] == 600 and found["test_copies"] == []
    assert not found["unreadable"]
