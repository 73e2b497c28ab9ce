"""Evaluation: pairing, intervals whose coverage is simulated, the sentence, and fine-tuning in the real loop."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from selftaught.data.index import build_index
from selftaught.data.loader import once
from selftaught.data.source import open_source
from selftaught.downstream.budgets import parse_budgets
from selftaught.downstream.evaluate import evaluate
from selftaught.downstream.features import calibrate, extract, extract_raw
from selftaught.downstream.finetune import Finetune, classify, finetune, steps_for, trainer
from selftaught.downstream.intervals import BLOCKS, block_of, interval, leave_out
from selftaught.downstream.sentence import gain_sentence
from selftaught.downstream.tables import (
    append_rows,
    write_map,
    write_neighbours,
    write_predictions,
    write_thumbnails,
)
from selftaught.encoders.small import Small
from selftaught.errors import ConfigError, DataError, RunError
from selftaught.modalities.image import Image

X, Y = load_digits(return_X_y=True)
X, Y = X.astype(np.float32), Y.astype(np.int64)
NOISY = X + np.random.default_rng(0).normal(scale=6, size=X.shape).astype(np.float32)


def of(result, kind, **facts):
    (found,) = [row for row in getattr(result, kind) if all(row[key] == value for key, value in facts.items())]
    return found


@pytest.fixture(scope="module")
def result():
    features = {"pretrained": X, "random": lambda seed: NOISY[:, seed::2], "raw": NOISY}
    return evaluate(features, Y, budgets=("1/class", "10/class", "all"), seeds=3, data="digits")


def test_every_combination_has_its_rows(result):
    assert len(result.rows) == 2 * 3 * 3 * 3 * 5  # protocols, features, budgets, seeds, metrics
    row = of(result, "rows", protocol="knn", features="raw", budget="10/class", seed=1, metric="accuracy")
    keys = "data task protocol features layer budget split seed metric value n_train n_test seen".split()
    assert set(row) == set(keys)
    assert (row["data"], row["split"], row["n_train"], row["n_test"], row["seen"]) == (
        "digits",
        "drawn-1",
        100,
        359,
        False,
    )
    json.dumps(result.to_json(), allow_nan=False)


def test_summary_and_gains_are_those_of_the_rows(result):
    def values(features):
        chosen = {"protocol": "linear", "features": features, "budget": "10/class", "metric": "accuracy"}
        return np.array([r["value"] for r in result.rows if all(r[k] == v for k, v in chosen.items())])

    summary = of(result, "summary", protocol="linear", features="raw", budget="10/class", metric="accuracy")
    assert summary["mean"] == pytest.approx(values("raw").mean(), abs=1e-5)
    assert summary["low"] < summary["mean"] < summary["high"] <= 1.0
    gain = of(result, "gains", protocol="linear", against="raw", budget="10/class", metric="accuracy")
    assert gain["gain"] == pytest.approx((values("pretrained") - values("raw")).mean(), abs=1e-5)
    assert gain["low"] > 0.05  # noise of six grey levels in sixteen costs a lot


def test_the_sentence_says_what_the_gains_say(result):
    gain = of(result, "gains", protocol="linear", against="random", budget="10/class", metric="accuracy")
    expected = f"With 10 labels per class pre-training is worth {100 * gain['gain']:+.1f} points (95 % CI "
    assert result.sentence.startswith(expected)
    assert "over the same encoder untrained; with all labels +" in result.sentence


def test_predictions_are_those_that_were_scored(result):
    columns = result.predictions
    chosen = (columns["protocol"] == "knn") & (columns["budget"] == "all") & (columns["seed"] == 2)
    hit = columns["predicted"][chosen] == columns["true"][chosen]
    row = of(result, "rows", protocol="knn", features="pretrained", budget="all", seed=2, metric="accuracy")
    assert hit.mean() == pytest.approx(row["value"], abs=1e-5)
    np.testing.assert_array_equal(columns["true"], Y[columns["id"]])


def test_the_same_request_gives_the_same_answer():
    small = {"pretrained": X[:300], "raw": NOISY[:300]}
    one, other = (evaluate(small, Y[:300], budgets="5/class", seeds=2, metrics=("accuracy",)) for _ in range(2))
    assert one.rows == other.rows and one.gains == other.gains


def test_controls_are_measured_on_the_very_same_samples():
    """Pairing: a control with the same features has a gain of exactly zero, with no uncertainty."""
    result = evaluate({"pretrained": X[:300], "raw": X[:300]}, Y[:300], budgets=("5/class",), seeds=3)
    for gain in result.gains:
        assert (gain["gain"], gain["low"], gain["high"]) == (0, 0, 0)


def test_scratch_is_the_control_of_every_protocol():
    def constant(request):
        return np.eye(10)[np.full(len(request.test), 3)]

    result = evaluate(
        {"pretrained": X}, Y, trainers={"scratch": constant}, protocols=("linear",), budgets=("10/class",)
    )
    gain = of(result, "gains", protocol="linear", against="scratch", budget="10/class", metric="accuracy")
    assert 0.7 < gain["gain"] < 0.85
    assert "over training from scratch" in result.sentence


def test_unreadable_unlabelled_and_seen_samples_are_said():
    labels, features, seen = Y[:400].copy(), X[:400].copy(), np.arange(400) < 200
    labels[:10], features[10:15] = -1, np.nan
    result = evaluate({"pretrained": features}, labels, seen=seen, budgets=("all",), seeds=1)
    assert any(note.startswith("10 of 400 samples have no label") for note in result.notes)
    assert any(note.startswith("5 labelled samples cannot be read") for note in result.notes)
    assert result.rows[0]["seen"] is False
    assert (result.predictions["id"] >= 200).all()
    both = evaluate({"pretrained": features}, labels, seen=seen, transductive=True, budgets=("all",), seeds=1)
    assert both.rows[0]["seen"] is True and "Transductive" in both.notes[2]


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        ({"protocols": ("knnn",)}, ConfigError, "'protocols' parameter of evaluate must be some of knn"),
        ({"metrics": ("acuracy",)}, ConfigError, "'metrics' parameter of evaluate must be some of accuracy"),
        ({"seeds": 0}, ConfigError, "'seeds' parameter"),
        ({"budgets": ("many",)}, ConfigError, "'budgets' parameter"),
        ({"features": {"pretrained": X[:7]}}, DataError, "There are 7 features 'pretrained' for 1797 labels"),
    ],
)
def test_wrong_requests_get_one_sentence(wrong, error, said):
    features = wrong.pop("features", {"pretrained": X})
    with pytest.raises(error, match=said):
        evaluate(features, Y, **wrong)


# --- intervals -----------------------------------------------------------------------------------------------------


def simulated(rng, *, seeds, tests, skill, across_seeds, fixed=True) -> tuple[np.ndarray, np.ndarray]:
    """Hits of one method: sample difficulty is shared by all seeds, each seed has its own skill."""
    difficulty = rng.normal(size=4 * tests)
    rows = [np.arange(tests)] * seeds if fixed else [rng.permutation(4 * tests)[:tests] for _ in range(seeds)]
    figures = []
    for row in rows:
        level = skill + across_seeds * rng.normal()
        hit = (difficulty[row] + 0.7 * rng.normal(size=tests) < level).astype(float)
        weights = leave_out(row)
        figures.append(weights @ hit / weights.sum(axis=1))
    figures = np.array(figures)
    return figures[:, 0], figures[:, 1:]


def truth(skill: float, across_seeds: float) -> float:
    from scipy.stats import norm

    return float(norm.cdf(skill / np.sqrt(1 + 0.7**2 + across_seeds**2)))


@pytest.mark.parametrize("across_seeds", [0.0, 0.1, 0.4])
@pytest.mark.parametrize("fixed", [True, False])
def test_intervals_with_three_seeds_cover_what_they_promise(across_seeds, fixed):
    """95 % intervals hold the true accuracy in about 95 % of 400 simulated studies of three seeds and 200 samples."""
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(400):
        value, without = simulated(rng, seeds=3, tests=200, skill=1.0, across_seeds=across_seeds, fixed=fixed)
        found = interval(value, without, bounds=(0.0, 1.0))
        inside += found.low <= truth(1.0, across_seeds) <= found.high
    assert 0.92 <= inside / 400 <= 0.995


def test_the_plain_interval_over_seeds_would_not():
    """Why the shared test samples count: with little between seeds, t over three seeds covers far too seldom."""
    rng, inside = np.random.default_rng(0), 0
    for _ in range(400):
        value, _ = simulated(rng, seeds=3, tests=200, skill=1.0, across_seeds=0.0)
        half = 4.303 * value.std(ddof=1) / 3**0.5
        inside += abs(value.mean() - truth(1.0, 0.0)) <= half
    assert inside / 400 < 0.9


def test_blocks_are_even_and_the_same_for_a_sample_everywhere():
    rows = np.arange(1000)
    counts = np.bincount(block_of(rows), minlength=BLOCKS)
    assert counts.min() > 25 and counts.max() < 80
    np.testing.assert_array_equal(block_of(rows[500:]), block_of(rows)[500:])


def test_one_seed_speaks_of_the_test_samples_alone():
    rng = np.random.default_rng(1)
    widths = []
    for _ in range(50):
        value, without = simulated(rng, seeds=1, tests=400, skill=1.0, across_seeds=0.0)
        found = interval(value, without)
        widths.append(found.high - found.low)
    p = truth(1.0, 0.0)
    assert np.mean(widths) == pytest.approx(2 * 2.09 * np.sqrt(p * (1 - p) / 400), rel=0.1)


# --- the sentence --------------------------------------------------------------------------------------------------


def gain(against, budget, mean, low, high):
    facts = {"protocol": "linear", "metric": "accuracy", "budget": budget, "against": against}
    return {**facts, "gain": mean, "low": low, "high": high, "n": 3}


def say(*gains, budgets=("10/class", "all"), **more):
    return gain_sentence(gains, protocol="linear", metric="accuracy", budgets=parse_budgets(budgets), **more)


def test_the_sentence_word_for_word():
    said = say(gain("scratch", "10/class", 0.142, 0.119, 0.164), gain("scratch", "all", 0.006, -0.002, 0.013))
    assert said == (
        "With 10 labels per class pre-training is worth +14.2 points (95 % CI 11.9 to 16.4) "
        "over training from scratch; with all labels +0.6 (-0.2 to 1.3)."
    )


def test_no_clear_difference_losses_and_better_controls_are_said():
    unclear = say(gain("scratch", "10/class", 0.01, -0.012, 0.032), budgets=("10/class",))
    assert unclear == (
        "With 10 labels per class pre-training makes no clear difference to training from scratch: "
        "+1.0 points (95 % CI -1.2 to 3.2)."
    )
    lost = say(gain("scratch", "10/class", -0.031, -0.052, -0.01), budgets=("10/class",))
    assert lost.startswith(
        "With 10 labels per class pre-training costs 3.1 points (95 % CI 1.0 to 5.2) against training"
    )
    won = gain("scratch", "10/class", 0.1, 0.05, 0.15)
    assert say(won, gain("raw", "10/class", -0.021, -0.03, -0.01)).endswith(
        " The raw input does better there: +2.1 points (95 % CI 1.0 to 3.0)."
    )
    assert "does as well there, for all we can tell" in say(won, gain("raw", "10/class", 0.01, -0.03, 0.05))
    assert say() == ""
    assert "Transductive" in say(won, transductive=True)


# --- tables ---------------------------------------------------------------------------------------------------------


def test_measuring_again_replaces_and_other_data_are_added(tmp_path, result):
    append_rows(tmp_path, result, data="digits")
    append_rows(tmp_path, result, data="digits")
    kept = json.loads((tmp_path / "evaluation.json").read_text())
    assert len(kept["rows"]) == len(result.rows) and len(kept["gains"]) == len(result.gains)
    other = evaluate({"pretrained": X[:300]}, Y[:300], budgets=("5/class",), seeds=1, data="other")
    append_rows(tmp_path, other, data="other")
    both = json.loads((tmp_path / "evaluation.json").read_text())
    assert len(both["rows"]) == len(result.rows) + len(other.rows)
    assert both["sentence"] == result.sentence  # the other had no control and nothing to say
    (tmp_path / "evaluation.json").write_text("torn")
    with pytest.raises(RunError, match="cannot be read"):
        append_rows(tmp_path, result, data="digits")


def test_tables_hold_what_the_report_reads(tmp_path, result):
    names = [str(k) for k in range(10)]
    write_predictions(tmp_path, result, name=lambda i: f"{i}.png", classes=names, protocol="knn")
    features = np.where(np.arange(len(X))[:, None] == 5, np.nan, X)  # sample 5 could not be read
    shown = write_neighbours(tmp_path, features, queries=2, k=3)
    write_map(tmp_path, X[:60], labels=[names[y] for y in Y[:60]])
    write_thumbnails(tmp_path, {4: np.zeros((200, 100, 3), np.uint8) + np.array([255, 0, 0], np.uint8)})
    read = {path.stem: pq.read_table(path).to_pydict() for path in (tmp_path / "tables").iterdir()}
    assert sorted(read) == ["map", "neighbours", "predictions", "thumbnails"]
    assert set(read["predictions"]["protocol"]) == {"knn"}
    assert read["predictions"]["path"][0] == f"{read['predictions']['id'][0]}.png"
    near = read["neighbours"]
    assert near["query"] == [0] * 3 + [len(X) - 1] * 3 and near["rank"] == [1, 2, 3] * 2
    assert 0 not in near["neighbour"][:3] and 5 not in near["neighbour"] and np.isfinite(near["similarity"]).all()
    assert shown == sorted({*near["query"], *near["neighbour"]})
    assert len(read["map"]["x"]) == 60 and read["map"]["label"][7] == names[Y[7]]
    picture = cv2.imdecode(np.frombuffer(read["thumbnails"]["png"][0], np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None and picture.shape == (64, 32, 3) and tuple(picture[0, 0]) == (0, 0, 255)


# --- features and fine-tuning, with the real parts -----------------------------------------------------------------


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    cache = tmp_path_factory.mktemp("digits")
    pictures = (X.reshape(-1, 8, 8) * 15.9).astype(np.uint8)
    modality = Image(size=8)
    index = build_index(open_source((pictures, Y), modality.extensions, cache=cache), modality, cache=cache)
    modality.fit([modality.read(index.item(i)) for i in range(200)])
    return index, modality


def small(modality, seed: int = 0) -> Small:
    torch.manual_seed(seed)
    return Small(modality.shape(), width=8)


def test_extraction_keeps_order_modes_and_statistics(parts):
    index, modality = parts
    encoder = small(modality).train()
    encoder.stages[0].eval()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    modes = [module.training for module in encoder.modules()]
    z = extract(encoder, once(index, modality, batch_size=100), modality.normalise, rows=len(index))
    assert z.shape == (1797, 64) and z.dtype == np.float32
    assert modes == [module.training for module in encoder.modules()]
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    alone = extract(encoder, once(index, modality, indices=[700, 3]), modality.normalise)
    np.testing.assert_allclose(alone, z[[700, 3]], atol=1e-5)
    assert extract_raw(modality.raw, once(index, modality)).shape == (1797, 64)


def test_samples_that_do_not_come_are_nan(parts):
    index, modality = parts
    batches = [batch for batch in once(index, modality, indices=range(30), batch_size=10) if batch.p[0] != 10]
    z = extract(small(modality), batches, modality.normalise, rows=30)
    assert np.isnan(z[10:20]).all() and np.isfinite(np.delete(z, range(10, 20), axis=0)).all()


def test_a_module_of_the_users_works(parts):
    index, modality = parts
    encoder = nn.Sequential(nn.Conv2d(1, 5, 3))  # gives (B, D, *grid)
    assert extract(encoder, once(index, modality, indices=range(4)), modality.normalise).shape == (4, 5)


def test_calibration_makes_eval_mode_see_the_data_as_train_mode_does(parts):
    index, modality = parts
    encoder = small(modality).eval()
    weights = [parameter.clone() for parameter in encoder.parameters()]
    assert calibrate(encoder, once(index, modality, batch_size=300), modality.normalise) > 0
    assert not encoder.training
    assert all(torch.equal(a, b) for a, b in zip(weights, encoder.parameters(), strict=True))
    (batch,) = once(index, modality, indices=range(1500), batch_size=1500)
    x = modality.normalise(batch["plain"].data)[:, 0]
    with torch.no_grad():
        fixed, live = encoder(x).pooled, encoder.train()(x).pooled
    assert (fixed - live).square().mean() / live.var() < 0.02


def test_finetuning_learns_digits_the_same_way_twice(parts):
    index, modality = parts
    rows, test = np.arange(0, 1200), np.arange(1200, 1797)

    def once_more():
        task = finetune(
            small(modality),
            index,
            modality,
            rows=rows,
            target=Y[rows],
            classes=10,
            steps=60,
            method=Finetune(classes=10, flip=0),
        )
        return classify(task, index, modality, rows=test)

    probability = once_more()
    assert (probability.argmax(axis=1) == Y[test]).mean() > 0.6
    np.testing.assert_allclose(probability.sum(axis=1), 1.0, atol=1e-5)
    np.testing.assert_array_equal(probability, once_more())


def test_the_head_learns_first_and_deep_layers_slowly(parts):
    _, modality = parts
    encoder = small(modality)
    method = Finetune(classes=3, head_first=0.2, layer_decay=0.5)
    method.build({"encoder": encoder})
    groups = method.groups({"encoder": encoder})
    rate = {name: facts["rate"] for name, facts in groups.items()}
    stem, first, last = (next(v for k, v in rate.items() if part in k) for part in (".stem", "stages.0", "stages.3"))
    assert stem < first < last < 1.0
    assert all(facts["frozen_until"] == 0.2 for facts in groups.values())
    assert not any("head" in name for name in groups)


def test_a_trainer_for_few_labels(parts):
    index, modality = parts
    trained = trainer(lambda seed: small(modality, seed), index, modality, pretrained=False, least=5, most=5, flip=0.0)
    result = evaluate({}, Y, trainers={"scratch": trained}, protocols=(), budgets=("1/class",), seeds=1)
    assert {row["features"] for row in result.rows} == {"scratch"}
    assert result.rows[0]["n_train"] == 10


def test_steps_follow_the_labels_within_bounds():
    assert steps_for(10, 30, 64, least=100, most=2000) == 100
    assert steps_for(640, 30, 64, least=100, most=2000) == 300
    assert steps_for(10**6, 30, 64, least=100, most=2000) == 2000
