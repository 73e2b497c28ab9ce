"""Frozen teachers: that they see what they are used to, never learn, and come from runs, timm and transformers."""

from __future__ import annotations

import copy
import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import selftaught as st
from selftaught import catalog
from selftaught.commands.teachers import Frozen, teacher
from selftaught.encoders import hub, huggingface, make
from selftaught.errors import ConfigError, EncoderError, MethodError, ModalityError
from selftaught.modalities.image import Image
from selftaught.modalities.series import Series
from selftaught.train.checkpoint import Store

ENCODER = {"name": "small", "width": 4}
SETTINGS = {"batch_size": 8, "workers": 0, "quiet": True, "precision": "fp32"}
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]


@pytest.fixture(scope="module")
def pictures():
    """64 pictures of 16 x 16."""
    return np.stack([np.asarray(one.data)[:16, :16] for one in Image().toy(64)])


@pytest.fixture(scope="module")
def first(pictures, tmp_path_factory):
    out = tmp_path_factory.mktemp("teachers") / "first"
    return st.pretrain(pictures, out=out, steps=10, encoder=ENCODER, method="simclr", **SETTINGS)


def image(pictures) -> Image:
    modality = Image(size=16)
    modality.fit([modality.from_array(one) for one in pictures[:8]])
    return modality


# -- runs and timm ----------------------------------------------------------------------------------------------------


def test_the_teacher_sees_what_it_is_used_to(pictures, first):
    model = st.load(first)
    modality = Image(size=16)
    modality.fit([modality.from_array(one) for one in pictures[:8]])
    modality.load_state({**modality.state(), "mean": [10.0, 20.0, 30.0], "std": [3.0, 4.0, 5.0]})
    stored = torch.from_numpy(pictures[:4, None])
    frozen = teacher(os.fspath(first), modality)
    found = frozen(modality.normalise(stored)[:, 0]).pooled
    expected = model.encoder(model.modality.normalise(stored)[:, 0]).pooled
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_the_teacher_never_learns_and_is_in_no_checkpoint():
    encoder = make("small", (3, 16, 16), width=4)
    before = copy.deepcopy(encoder.state_dict())
    frozen = Frozen(encoder, lambda x: x, (16, 16)).train()
    frozen(torch.randn(4, 3, 16, 16))
    assert not list(frozen.parameters()) and not frozen.state_dict()
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert frozen(torch.randn(2, 3, 24, 24)).pooled.shape == (2, 32)  # brought to its own size
    assert frozen.double()(torch.randn(2, 3, 16, 16).double()).pooled.dtype == torch.float64  # moves along


def test_distillation_from_a_run(pictures, first, tmp_path):
    run = st.pretrain(
        pictures, out=tmp_path / "run", steps=6, encoder=ENCODER, teacher=first, modality={"size": 16}, **SETTINGS
    )
    assert run.config["derived"]["method"] == "distill" and "teacher" in run.config["reasons"]["method"]
    checkpoint = Store(Path(run) / "checkpoints").load_latest()
    assert checkpoint and not any(name.startswith("encoders.teacher") for name in checkpoint.tensors)
    assert run.metrics[-1]["loss"] < run.metrics[0]["loss"]


def test_a_teacher_where_none_is_asked_for_and_none_where_one_is(pictures, first, tmp_path):
    for given, said in (
        ({"method": "simclr", "teacher": first}, "takes no teacher"),
        ({"method": "distill"}, "learns from a teacher"),
    ):
        with pytest.raises(MethodError, match=said):
            st.pretrain(pictures, out=tmp_path / "run", steps=1, encoder=ENCODER, **given, **SETTINGS)
        assert not (tmp_path / "run").exists()


def test_a_teacher_of_another_kind_of_data(first):
    with pytest.raises(ModalityError, match="a run on series"):
        teacher(os.fspath(first), Series())


def test_a_teacher_that_nobody_knows(pictures, tmp_path):
    with pytest.raises(ConfigError, match="a finished run, a timm name or a model of transformers") as caught:
        st.pretrain(pictures, out=tmp_path / "run", steps=1, encoder=ENCODER, teacher="resnet_18", **SETTINGS)
    assert "resnet18" in str(caught.value.hint) and not (tmp_path / "run").exists()


def test_a_published_teacher_gets_its_own_size_and_statistics(pictures, monkeypatch):
    """Weights are out of reach here; what goes into the model is what counts."""
    modality, made = Image(size=16), hub.make
    modality.fit([modality.from_array(one) for one in pictures[:8]])
    monkeypatch.setattr(hub, "make", lambda name, shape, pretrained: made(name, shape))
    frozen = teacher("resnet18.tv_in1k", modality)
    seen = []
    frozen._held[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    stored = torch.full((1, 1, 16, 16, 3), 128, dtype=torch.uint8)
    frozen(modality.normalise(stored)[:, 0])
    assert seen[0].shape == (1, 3, 224, 224)
    expected = (128 / 255 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(seen[0][0, :, 7, 7], expected, rtol=0, atol=0.02)


def test_a_gray_picture_is_gray_in_every_channel_of_a_published_teacher(pictures, monkeypatch):
    made = hub.make
    monkeypatch.setattr(hub, "make", lambda name, shape, pretrained: made(name, shape))
    modality = image(pictures[..., :1])
    frozen, seen = teacher("resnet18.tv_in1k", modality), []
    frozen._held[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    frozen(modality.normalise(torch.full((1, 1, 16, 16, 1), 128, dtype=torch.uint8))[:, 0])
    expected = (128 / 255 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(seen[0][0, :, 7, 7], expected, rtol=0, atol=0.02)


# -- transformers -----------------------------------------------------------------------------------------------------


TINY: dict[str, Any] = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
VIT: dict[str, Any] = {**TINY, "image_size": 16, "patch_size": 8}


def saved(folder: Path, net, *, size=None, **more) -> str:
    """A model of transformers as its users save it, with its image processor's settings."""
    net.save_pretrained(folder)
    facts = {"size": size or {"height": 16, "width": 16}, "image_mean": MEAN, "image_std": STD, **more}
    (folder / "preprocessor_config.json").write_text(json.dumps(facts), encoding="utf-8")
    return str(folder)


def models() -> dict:
    """name -> (model, what one vector of a picture is)."""
    import transformers as hf

    stages: dict[str, Any] = {"embedding_size": 8, "hidden_sizes": [8, 12], "depths": [1, 1], "layer_type": "basic"}
    text: dict[str, Any] = {**TINY, "vocab_size": 20, "bos_token_id": 0, "eos_token_id": 1}
    clip = hf.CLIPConfig(text_config=text, vision_config=VIT)
    mae: dict[str, Any] = {**VIT, "mask_ratio": 0.75, "decoder_hidden_size": 16, "decoder_num_hidden_layers": 1}
    mae |= {"decoder_num_attention_heads": 2, "decoder_intermediate_size": 16}
    return {
        "dinov2": (hf.Dinov2Model(hf.Dinov2Config(**VIT)), lambda out: out.pooler_output),
        "vit": (hf.ViTModel(hf.ViTConfig(**VIT)), lambda out: out.pooler_output),
        "vit without a pooler": (
            hf.ViTModel(hf.ViTConfig(**VIT), add_pooling_layer=False),
            lambda out: out.last_hidden_state[:, 0],
        ),
        "resnet": (hf.ResNetModel(hf.ResNetConfig(**stages)), lambda out: out.pooler_output.flatten(1)),
        "clip": (hf.CLIPModel(clip), lambda out: out.pooler_output),
        "mae": (hf.ViTMAEModel(hf.ViTMAEConfig(**mae)), lambda out: out.last_hidden_state[:, 0]),
    }


@pytest.mark.parametrize("name", ["dinov2", "vit", "vit without a pooler", "resnet", "clip", "mae"])
def test_a_model_of_transformers_gives_its_own_vector(name, tmp_path):
    net, vector = models()[name]
    found = huggingface.load(saved(tmp_path / "model", net.eval()))
    x = torch.randn(3, 3, 16, 16)
    tower = getattr(net, "vision_model", net)
    if name == "mae":
        tower.config.mask_ratio = 0.0  # all of the picture
    with torch.no_grad():
        expected = vector(tower(pixel_values=x))
        torch.testing.assert_close(found(x).pooled, expected)
        torch.testing.assert_close(found(x).pooled, found(x).pooled, rtol=0, atol=1e-6)
    assert found.dim == expected.shape[1] and (found.size, found.mean) == ((16, 16), tuple(MEAN))


def keep(seen: list, _module, _args, given: dict) -> None:
    seen.append(given["pixel_values"])


def test_it_sees_what_its_image_processor_says(pictures, tmp_path):
    spec = saved(
        tmp_path / "model", models()["dinov2"][0], size={"shortest_edge": 20}, do_center_crop=True, crop_size=16
    )
    for channels in (3, 1):
        modality = image(pictures[..., :channels])
        frozen, seen = teacher(spec, modality), []
        net: Any = frozen._held[0].net
        net.register_forward_pre_hook(partial(keep, seen), with_kwargs=True)
        stored = torch.full((1, 1, 24, 24, channels), 128, dtype=torch.uint8)
        assert frozen(modality.normalise(stored)[:, 0]).pooled.shape == (1, 24)
        expected = (128 / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
        torch.testing.assert_close(seen[0][0, :, 7, 7], expected, rtol=0, atol=0.02)
        assert seen[0].shape == (1, 3, 16, 16)


def test_distillation_from_a_model_of_transformers(pictures, tmp_path):
    spec = saved(tmp_path / "model", models()["dinov2"][0])
    run = st.pretrain(pictures, out=tmp_path / "run", steps=6, encoder=ENCODER, teacher=spec, **SETTINGS)
    assert run.config["derived"]["method"] == "distill" and run.metrics[-1]["loss"] < run.metrics[0]["loss"]


def test_models_that_cannot_teach(pictures, tmp_path):
    import transformers as hf

    net, _ = models()["dinov2"]
    text = saved(tmp_path / "text", hf.BertModel(hf.BertConfig(**TINY, vocab_size=20)))
    silent = saved(tmp_path / "silent", net)
    (Path(silent) / "preprocessor_config.json").unlink()
    vague = saved(tmp_path / "vague", net)
    (Path(vague) / "preprocessor_config.json").write_text("{}", encoding="utf-8")
    half = saved(tmp_path / "half", net)
    from safetensors.torch import load_file, save_file

    kept = {key: value for key, value in load_file(f"{half}/model.safetensors").items() if "layer.0" not in key}
    save_file(kept, f"{half}/model.safetensors", metadata={"format": "pt"})
    cut = saved(tmp_path / "cut", net)
    (Path(cut) / "model.safetensors").write_bytes((Path(cut) / "model.safetensors").read_bytes()[:100])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text("{}", encoding="utf-8")
    for spec, said in (
        (text, "vision model of transformers"),
        (silent, "how large its pictures are"),
        (vague, "how large its pictures are"),
        (half, "all of its weights"),
        (cut, "vision model of transformers"),
        (str(tmp_path / "other"), "vision model of transformers"),
    ):
        with pytest.raises(EncoderError, match=said) as caught:
            huggingface.load(spec)
        assert caught.value.hint and "\n" not in str(caught.value) + caught.value.hint
    with pytest.raises(ModalityError, match="a model for 5 channels"):
        teacher(saved(tmp_path / "rgb", net), image(np.repeat(pictures[..., :1], 5, axis=-1)))
    with pytest.raises(ModalityError, match="look at pictures"):
        teacher(saved(tmp_path / "again", net), Series())


def test_a_name_on_the_hub_that_cannot_be_reached(monkeypatch, tmp_path):
    """No mock: the address is one that nothing answers at."""
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(EncoderError, match="no folder 'facebook/dinov2-small', and no model") as caught:
        huggingface.load("facebook/dinov2-small")
    assert "network" in caught.value.hint


def test_without_the_package_one_sentence_says_so(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EncoderError, match="needs the package transformers") as caught:
        huggingface.load("facebook/dinov2-small")
    assert "selftaught[transformers]" in caught.value.hint


def test_what_a_name_means(first, tmp_path):
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    for spec, kind in (
        (os.fspath(first), "run"),
        ("vit_small_patch14_dinov2.lvd142m", "timm"),
        (str(tmp_path), "transformers"),
        ("facebook/dinov2-small", "transformers"),
        ("nothing", ""),
        (str(tmp_path / "a" / "b"), ""),
    ):
        assert catalog.teacher_kind(spec) == kind, spec
