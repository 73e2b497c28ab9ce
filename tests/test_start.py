"""Trainings whose encoder is not new: from a run, gently, with drift watched; and what auto chooses then."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import selftaught as st
from selftaught import config
from selftaught.commands import choices, encoder_choice
from selftaught.commands.start import Start, rates
from selftaught.encoders import make
from selftaught.encoders.auto import Choice
from selftaught.errors import ConfigError, MethodError, ModalityError, RunError
from selftaught.modalities.image import Image
from selftaught.train.checkpoint import Store

ENCODER = {"name": "small", "width": 4}
SETTINGS = {"batch_size": 8, "workers": 0, "quiet": True, "precision": "fp32"}


@pytest.fixture(scope="module")
def pictures():
    """64 pictures of 16 x 16, and which kind each is of."""
    samples = Image().toy(64)
    return np.stack([np.asarray(one.data)[:16, :16] for one in samples])


@pytest.fixture(scope="module")
def first(pictures, tmp_path_factory):
    out = tmp_path_factory.mktemp("start") / "first"
    return st.pretrain(pictures, out=out, steps=10, encoder=ENCODER, method="simclr", **SETTINGS)


def weights(run) -> dict:
    return load_file(Path(run) / "encoder" / "model.safetensors")


def heads(run) -> dict:
    return {name: value for name, value in kept(run).items() if name.startswith("method.") and "::" not in name}


def kept(run) -> dict:
    """Tensors of the last checkpoint."""
    found = Store(Path(run) / "checkpoints").load_latest()
    assert found is not None
    return found.tensors


def test_new_heads_learn_before_the_encoder_does(pictures, first, tmp_path):
    run = st.pretrain(pictures, out=tmp_path / "run", steps=4, from_=first, method="vicreg", head_first=0.9, **SETTINGS)
    parameters = [name for name, value in weights(first).items() if "running" not in name and "num_batches" not in name]
    assert all(torch.equal(weights(run)[name], weights(first)[name]) for name in parameters)
    derived, reasons = run.config["derived"], run.config["reasons"]
    assert derived["head_first"] == 0.9 and derived["layer_decay"] == 0.75
    assert derived["encoder"] == "small" and "with its weights" in reasons["encoder"]
    assert "not new" in reasons["lr"]


def test_after_them_the_encoder_learns_too(pictures, first, tmp_path):
    run = st.pretrain(pictures, out=tmp_path / "run", steps=4, from_=first, method="vicreg", **SETTINGS)
    assert run.config["derived"]["head_first"] == 0.1
    moved = {name: (weights(run)[name] - weights(first)[name]).abs().max() for name in weights(first)}
    assert moved["stages.3.0.conv1.weight"] > 0 and moved["stem.0.weight"] > 0


def test_the_same_method_goes_on_with_its_heads(pictures, first, tmp_path):
    run = st.pretrain(pictures, out=tmp_path / "run", steps=2, from_=first, method="simclr", lr=1e-9, **SETTINGS)
    assert run.config["derived"]["head_first"] == 0.0
    for name, value in heads(first).items():
        if value.is_floating_point() and "running" not in name:
            torch.testing.assert_close(heads(run)[name], value, rtol=0, atol=1e-6)


def test_auto_goes_on_with_the_method_of_the_run(pictures, tmp_path):
    """Its options as well, so that the heads fit; also where the second run goes on, or a third starts from it."""
    chosen = {"name": "vicreg", "width": 24}
    first = st.pretrain(pictures, out=tmp_path / "first", steps=2, encoder=ENCODER, method=chosen, **SETTINGS)
    run = st.pretrain(pictures, out=tmp_path / "run", steps=2, from_=first, method={"covariance": 2.0}, **SETTINGS)
    derived = run.config["derived"]
    assert (derived["method"], derived["method_options"]) == ("vicreg", {"width": 24})
    assert derived["head_first"] == 0.0 and "goes on from" in run.config["reasons"]["method"]
    shutil.rmtree(tmp_path / "run" / "encoder")  # as if it was killed just before its end
    assert st.pretrain(
        pictures, out=tmp_path / "run", steps=2, from_=first, method={"covariance": 2.0}, **SETTINGS
    ).finished
    third = st.pretrain(pictures, out=tmp_path / "third", steps=1, from_=tmp_path / "run", **SETTINGS)
    assert third.config["derived"]["method_options"] == {"width": 24, "covariance": 2.0}
    assert third.config["derived"]["head_first"] == 0.0


def test_auto_learns_otherwise_where_the_method_of_the_run_lacks_something(pictures, tmp_path):
    data = {"x": pictures, "y": np.arange(64) % 2}
    given = {"encoder": ENCODER, "method": "supcon", "labels": "y"}
    first = st.pretrain(data, out=tmp_path / "first", steps=1, **given, **SETTINGS)
    run = st.pretrain(data, out=tmp_path / "run", steps=1, from_=first, **SETTINGS)
    assert run.config["derived"]["method"] == "simclr"
    run = st.pretrain(data, out=tmp_path / "again", steps=1, from_=first, labels="y", **SETTINGS)
    assert run.config["derived"]["method"] == "supcon"


@pytest.mark.parametrize(
    ("given", "name", "why"),
    [
        ({}, "simclr", "usual"),
        ({"teacher": True, "before": "byol"}, "distill", "teacher"),
        ({"before": "byol", "batch_size": 4}, "byol", "goes on from"),
        ({"batch_size": 4}, "moco", "queue"),
        ({"batch_size": 8}, "simclr", "usual"),
        ({"encoder": "vit_small_patch14_dinov2", "count": 100_000}, "dino", "100,000 are many"),
        ({"encoder": "vit_small", "count": 99_999}, "simclr", "usual"),
        ({"encoder": "resnet50", "count": 10**6}, "simclr", "usual"),
    ],
)
def test_what_auto_chooses_and_why(given, name, why):
    usual = {"before": "", "encoder": "", "count": 1000, "batch_size": None, "teacher": False}
    chosen, reason = choices.method("simclr", **{**usual, **given})
    assert chosen == name and why in reason
    assert given.get("before") or chosen in config.candidates("method", {})  # whose options are known beforehand


def test_auto_learns_as_suits_the_encoder_that_auto_comes_to(pictures, tmp_path, monkeypatch):
    """On an accelerator, where many pictures get a transformer; here one stands in that has none of either."""
    options = {"patch": 8, "dim": 16, "depth": 1, "heads": 2}
    asked = []

    def chosen(shape, count, *, device, minutes=None):
        asked.append((tuple(shape), count, device))
        return Choice("vit_tiny", (16, 16), options, "vit_tiny at 16 pixels.")

    monkeypatch.setattr(encoder_choice, "choose", chosen)
    monkeypatch.setattr(encoder_choice, "find_device", lambda: "cuda")
    monkeypatch.setattr(choices, "MANY", 65)
    few = st.pretrain(pictures, out=tmp_path / "few", steps=1, **SETTINGS)
    assert few.config["derived"]["method"] == "simclr" and len(asked) == 1
    monkeypatch.setattr(choices, "MANY", 64)
    many = st.pretrain(pictures, out=tmp_path / "many", steps=1, **SETTINGS)
    derived, reasons = many.config["derived"], many.config["reasons"]
    assert (derived["method"], derived["encoder"]) == ("dino", "vit_tiny") and "64 are many" in reasons["method"]
    shape, count, device = asked[1]  # before the method was chosen; asked[2]: when the encoder was
    assert (shape, count, device) == ((3, 16, 16), asked[2][1], "cuda")


def test_drift_is_watched(pictures, first, tmp_path):
    run = st.pretrain(pictures, out=tmp_path / "run", steps=6, from_=first, method="simclr", lr=0.1, **SETTINGS)
    drift = [one["drift"] for one in run.health["measures"]]
    assert drift[0] == pytest.approx(0, abs=1e-5) and drift[-1] > 1e-3
    assert "drift" not in first.health["measures"][0]


def test_it_reads_data_as_the_run_did(pictures, first):
    start = Start(first)
    assert start.modality({"name": "auto"}).mean == start.model.modality.mean
    larger = start.modality({"name": "auto", "size": 24})
    assert larger.shape() == (3, 24, 24) and larger.mean == start.model.modality.mean
    with pytest.raises(ModalityError, match="must be image"):
        start.modality({"name": "series"})


def test_a_larger_size_is_a_second_stage(pictures, first, tmp_path):
    run = st.pretrain(
        pictures, out=tmp_path / "run", steps=2, from_=first, modality={"size": 24}, method="simclr", **SETTINGS
    )
    assert run.config["derived"]["shape"] == [3, 24, 24]
    assert st.load(run).embed(pictures[:3]).shape == (3, 32)


def test_a_run_from_a_run_goes_on_after_an_interruption(pictures, first, tmp_path):
    """The same command twice: the second finds it finished; a half-done one ends the same."""
    whole = st.pretrain(pictures, out=tmp_path / "whole", steps=6, from_=first, method="vicreg", **SETTINGS)
    again = st.pretrain(pictures, out=tmp_path / "whole", steps=6, from_=first, method="vicreg", **SETTINGS)
    assert again.finished and all(torch.equal(weights(whole)[k], weights(again)[k]) for k in weights(whole))
    shutil.rmtree(tmp_path / "whole" / "encoder")  # as if it was killed before the end: the last checkpoint stands
    newest = max((tmp_path / "whole" / "checkpoints").glob("*.safetensors"), key=lambda path: path.stat().st_mtime)
    before = weights(again) if (tmp_path / "whole" / "encoder").exists() else None
    assert before is None and newest.exists()
    resumed = st.pretrain(pictures, out=tmp_path / "whole", steps=6, from_=first, method="vicreg", **SETTINGS)
    assert resumed.finished and resumed.config["derived"]["head_first"] == 0.1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"encoder": ENCODER, "from_": True}, "Only one of 'encoder' and 'from'"),
        ({"pretrained": True, "from_": True}, "Only one of 'pretrained' and 'from'"),
        ({"head_first": 0.2, "encoder": ENCODER}, "not new"),
        ({"layer_decay": 0.5, "encoder": ENCODER}, "not new"),
    ],
)
def test_two_beginnings_or_none_are_refused(pictures, first, tmp_path, given, said):
    given = {**given, **({"from_": first} if "from_" in given else {})}
    with pytest.raises(ConfigError, match=said):
        st.pretrain(pictures, out=tmp_path / "run", steps=1, **given, **SETTINGS)
    assert not (tmp_path / "run").exists()


def test_from_something_that_is_no_run(pictures, tmp_path):
    with pytest.raises(RunError, match="must be the folder of a run"):
        st.pretrain(pictures, out=tmp_path / "run", steps=1, from_=tmp_path, **SETTINGS)
    assert not (tmp_path / "run").exists()


def test_rates_fall_towards_the_input():
    for encoder in (make("small", (3, 32, 32), width=4), make("vit_tiny", (3, 32, 32), dim=16, depth=3, heads=2)):
        found = rates(encoder, head_first=0.1, layer_decay=0.5)
        learned = {f"encoder.{name}" for name, p in encoder.named_parameters() if p.requires_grad}
        assert found.keys() == learned and all(one["frozen_until"] == 0.1 for one in found.values())
        by_layer = {layer: {found[f"encoder.{name}"]["rate"] for name in learned_names(encoder, layer)}
                    for layer in set(encoder.layers().values())}  # fmt: skip
        deepest = max(by_layer)
        assert deepest >= 3 and all(rate == {0.5 ** (deepest - layer)} for layer, rate in by_layer.items())


def learned_names(encoder, layer: int) -> list[str]:
    learned = {name for name, p in encoder.named_parameters() if p.requires_grad}
    return [name for name, one in encoder.layers().items() if one == layer and name in learned]


def test_timm_models_have_layers():
    encoder = make("resnet18", (3, 32, 32))
    layers = encoder.layers()
    assert layers["net.conv1.weight"] == 0 < layers["net.layer1.0.conv1.weight"] < layers["net.layer4.1.conv2.weight"]


def test_methods_that_learn_from_labels_say_so(pictures, tmp_path):
    with pytest.raises(MethodError, match="learns from labels"):
        st.pretrain(pictures, out=tmp_path / "run", steps=1, encoder=ENCODER, method="supcon", **SETTINGS)
    assert not (tmp_path / "run").exists()


def test_labels_reach_the_method(pictures, tmp_path):
    kind = np.arange(64) % 2
    run = st.pretrain(
        {"x": pictures, "y": kind},
        out=tmp_path / "run",
        steps=2,
        encoder=ENCODER,
        method="supcon",
        labels="y",
        **SETTINGS,
    )
    assert run.finished


def test_a_method_that_drops_tokens_gets_an_encoder_that_can(pictures, tmp_path):
    settings = {**SETTINGS, "method": {"name": "msn", "small": 0}, "modality": {"size": 16}}
    run = st.pretrain(pictures, out=tmp_path / "run", steps=1, **settings)
    assert run.config["derived"]["encoder"] == "vit_tiny" and "drops tokens" in run.config["reasons"]["encoder"]


def test_small_batches_get_a_queue(pictures, tmp_path):
    run = st.pretrain(pictures, out=tmp_path / "run", steps=1, encoder=ENCODER, **{**SETTINGS, "batch_size": 4})
    assert run.config["derived"]["method"] == "moco" and "queue" in run.config["reasons"]["method"]
