"""Drawing samples unlike: exact shares, by key, whatever the interruptions; and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import selftaught as st
from selftaught import cli
from selftaught.data.labels import Labels
from selftaught.data.order import Order
from selftaught.data.shares import balanced, mixed, shares
from selftaught.errors import DataError

pytestmark = pytest.mark.usefixtures("cache")


def drawn(order: Order, epoch: int) -> np.ndarray:
    steps = range(epoch * order.steps_per_epoch, (epoch + 1) * order.steps_per_epoch)
    return np.concatenate([order.indices(t) for t in steps])


def test_each_epoch_has_the_shares_up_or_down_by_less_than_one():
    rng = np.random.default_rng(0)
    weights = rng.exponential(size=120) * (rng.random(120) < 0.7)
    share = weights / weights.sum()
    order = Order(120, 12, seed=3, shares=share)
    for epoch in range(5):
        counts = np.bincount(drawn(order, epoch), minlength=120)
        assert counts.sum() == 120 and (abs(counts - 120 * share) < 1).all() and not counts[weights == 0].any()


def test_in_the_long_run_the_shares_are_exact():
    share = np.array([0.5, 0.25, 0.125, 0.0625, 0.0625])
    order = Order(5, 1, seed=0, shares=share)
    counts = np.bincount(np.concatenate([drawn(order, epoch) for epoch in range(2000)]), minlength=5)
    np.testing.assert_allclose(counts / counts.sum(), share, atol=0.01)


def test_batches_are_a_function_of_seed_and_t():
    share = np.arange(1, 51) / np.arange(1, 51).sum()
    one, other = Order(50, 8, seed=1, shares=share), Order(50, 8, seed=1, shares=share)
    for t in (17, 3, 40, 17):
        assert np.array_equal(one.indices(t), other.indices(t))
        parts = [one.share(t, rank, 3)[0] for rank in range(3)]
        assert np.array_equal(np.concatenate(parts), one.indices(t))
    assert not np.array_equal(one.indices(3), Order(50, 8, seed=2, shares=share).indices(3))
    assert not np.array_equal(drawn(one, 0), drawn(one, 1))


def test_equal_shares_are_each_sample_once():
    order = Order(40, 8, seed=0, shares=np.full(40, 1 / 40))
    assert sorted(drawn(order, 2).tolist()) == list(range(40))


def test_balance_and_weights_multiply():
    labels = Labels(np.array([0, 0, 0, 1, -1, -1]), ("a", "b"))
    share = shares([balanced(labels.values)])
    assert share is not None
    np.testing.assert_allclose(share, [1 / 9, 1 / 9, 1 / 9, 1 / 3, 1 / 6, 1 / 6])
    both = shares([balanced(labels.values), np.array([1.0, 1, 1, 0, 1, 1])])
    assert both is not None and both[3] == 0 and both.sum() == pytest.approx(1)
    assert shares([]) is None


@pytest.mark.parametrize("wanted", ["b=3, a=1", {"a": 0.25, "b": 0.75}, "a=1e0,b=3.0"])
def test_kinds_are_mixed_by_shares(wanted):
    labels = Labels(np.array([0, 0, 0, 1]), ("a", "b"))
    share = shares([mixed(labels, wanted)])
    assert share is not None
    np.testing.assert_allclose(share, [1 / 12, 1 / 12, 1 / 12, 3 / 4])


def test_a_kind_of_which_none_is_left_is_named():
    with pytest.raises(DataError, match="All samples of the kind 'b' are held out"):
        mixed(Labels(np.array([0, 0]), ("a", "b")), "a=1,b=1")
    np.testing.assert_allclose(mixed(Labels(np.array([0, 0]), ("a", "b")), "a=1,b=0"), [0.5, 0.5])


def test_names_of_kinds_may_hold_equals_signs():
    np.testing.assert_allclose(mixed(Labels(np.array([0, 1]), ("a=b", "c")), "a=b=2,c=0"), [2, 0])


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """36 dark pictures and 4 light ones, with a table that says how often each is wanted."""
    folder = tmp_path_factory.mktemp("photos")
    lines = ["path,kind,wanted,broken"]
    for number in range(40):
        cv2.imwrite(str(folder / f"{number}.png"), np.full((20, 20, 3), 220 if number < 4 else 30, np.uint8))
        lines.append(
            f"{number}.png,{'light' if number < 4 else 'dark'},{1 if number < 4 else 0},{'x' if number == 7 else 1}"
        )
    (folder / "m.csv").write_text("\n".join(lines))
    return folder


SETTINGS: dict[str, Any] = {"encoder": {"name": "small", "width": 8}, "modality": {"name": "image", "size": 8}}


@pytest.mark.parametrize(
    ("option", "light"),
    [
        ({"balance": "kind"}, 0.5),
        ({"balance": "kind", "mix": "light=3,dark=1"}, 0.75),
        ({"weights": "wanted"}, 1.0),
        ({}, 0.1),
    ],
)
def test_a_training_draws_so(photos, tmp_path, option, light, monkeypatch):
    seen: list[int] = []
    from selftaught.commands.preparation import Preparation

    built = Preparation.loader
    monkeypatch.setattr(Preparation, "loader", lambda self, *args, **more: _watched(built(self, *args, **more), seen))
    st.pretrain(
        photos / "m.csv", out=tmp_path / "run", epochs=4, batch_size=10, workers=0, quiet=True, **SETTINGS, **option
    )
    assert len(seen) >= 160 and np.mean([row < 4 for row in seen]) == pytest.approx(light, abs=0.08)


class _watched:
    """The loader, with every sample noted; all are trained on, so rows are those of the table."""

    def __init__(self, loader: Any, seen: list[int]) -> None:
        self.loader, self.seen = loader, seen

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        batch = next(self.loader)
        self.seen += batch.index.tolist()
        return batch


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--weights", "nothing"], "The data have no column 'nothing' of weights."),
        (["--weights", "broken"], "The weight of '7.png' must be a finite number of at least 0. Got 'x' instead."),
        (["--mix", "light=1"], "The 'mix' parameter needs 'balance', which says what kinds there are."),
        (["--balance", "kind", "--mix", "light=1"], "'mix' says no share of the kind 'dark'."),
        (
            ["--balance", "kind", "--mix", "ligth=1,dark=1"],
            "No sample is of the kind 'ligth', which is to be mixed in.",
        ),
        (["--balance", "kind", "--mix", "light=0,dark=0"], "No sample has a weight above 0."),
        (["--balance", "kind", "--mix", "light"], "must be NAME=SHARE,NAME=SHARE,…, each name once"),
        (["--balance", "kind", "--mix", "light=1,light=2"], "must be NAME=SHARE,NAME=SHARE,…, each name once"),
        (["--balance", "kind", "--mix", "light=-1,dark=nan"], "must be NAME=SHARE,NAME=SHARE,…, each name once"),
        (["--balance", "nothing"], "must be 'folders', a column, or a CSV file"),
    ],
)
def test_what_is_no_weight_is_refused_before_anything_is_written(photos, tmp_path, capsys, words, sentence):
    out = tmp_path / "run"
    assert cli.main(["pretrain", str(photos / "m.csv"), "--out", str(out), "--steps", "1", *words]) == 2
    assert sentence in capsys.readouterr().err and not out.exists()
