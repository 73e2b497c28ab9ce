"""What ``make``, ``check`` and ``wrap`` refuse, in what words, and what they leave alone."""

from __future__ import annotations

import subprocess
import sys

import pytest
import timm
import torch
from torch import Tensor, nn

from selftaught.encoders import OWN, check, list_encoders, make, wrap
from selftaught.errors import EncoderError
from selftaught.ops.tokens import keep

from .encoder_cases import CASES, case_of, one_thread  # noqa: F401  the fixture is for every test here

REFUSALS = [
    ("resnet99", (3, 32, 32), {}, "one of ours or a timm model", "resnet"),
    ("vit_smal", (3, 32, 32), {}, "one of ours or a timm model", "'vit_small'"),
    ("small", (3, 2, 32), {}, "at least 4 along every axis", ""),
    ("small", (3,), {}, "1, 2 or 3 axes of space", ""),
    ("small", (3, 32, 32), {"width": 0}, "'width'", ""),
    ("small", (3, 32, 32), {"depth": 1.5}, "'depth'", ""),
    ("small", (3, 32, 32), {"stride": (2, 2, 2)}, "'stride'", ""),
    ("small", (3, 32, 32), {"pool": "first"}, "'pool'", ""),
    ("small", (3, 32, 32), {"breadth": 3}, "'breadth' parameter of small", "width"),
    ("vit_tiny", (3, 32, 32), {"breadth": 3}, "'breadth' parameter of vit_tiny", "patch"),
    ("vit_tiny", (3, 32, 32), {"pool": "middle"}, "one of mean, first, last", ""),
    ("vit_tiny", (3, 32), {"attend": "causal", "pool": "first"}, "mean or last", "sees none"),
    ("vit_tiny", (3, 32), {"attend": "backwards"}, "one of none, causal", ""),
    ("vit_tiny", (3, 32), {"class_token": False, "pool": "first"}, "without a class token", ""),
    ("vit_tiny", (3, 32), {"heads": 5}, "a multiple of heads", ""),
    ("vit_tiny", (3, 32, 32), {"patch": (4, 4, 4)}, "'patch'", ""),
    ("resnet18", (3, 64), {}, "take pictures", "small"),
    ("resnet18", (3, 32, 32), {"breadth": 3}, "'breadth' parameter of resnet18", "stem"),
    ("resnet18", (3, 32, 32), {"stem": "tiny"}, "one of auto, small, standard", ""),
    ("convnext_atto", (3, 32, 32), {"stem": "small"}, "no ResNet", ""),
    ("convnext_atto", (3, 32, 32), {"attend": "causal"}, "'attend'", ""),
    ("vit_tiny_patch16_224", (3, 50, 50), {}, "multiple of (16, 16)", "(48, 48)"),
    ("vgg11", (3, 16, 16), {}, "one that the model can take", "32x32"),
    ("small", (3, 32, 32), {"pretrained": True}, "nobody published", ""),
    ("vit_tiny", (3, 32), {"pretrained": True}, "timm's model of that name", ""),
]


@pytest.mark.parametrize(("name", "shape", "options", "message", "hint"), REFUSALS)
def test_refusals(name, shape, options, message, hint):
    for ask in (make, check) if "pretrained" not in options else (make,):
        with pytest.raises(EncoderError) as caught:
            ask(name, shape, **options)
        assert message in str(caught.value) and hint in caught.value.hint
        assert "\n" not in str(caught.value)


def test_check_draws_no_random_numbers_and_accepts_what_make_accepts():
    random = torch.get_rng_state()
    for name, shape, options in CASES.values():
        if isinstance(name, str):
            check(name, shape, **options)
    assert torch.equal(random, torch.get_rng_state())


def test_a_wrong_shape_for_a_config_is_refused():
    config = make("small", (3, 16, 16), width=2).config()
    assert make(config, (3, 20, 24)).shape == (3, 16, 16)
    with pytest.raises(EncoderError, match="3 channels"):
        make(config, (1, 16, 16))


def test_dropped_tokens_and_attention_are_refused_where_the_model_works_on_whole_grids():
    for name in ("small 2-D", "resnet18", "your maps"):
        encoder, x = case_of(name)
        tokens = encoder.embed(x)
        with pytest.raises(EncoderError, match="causal"):
            encoder.context(tokens, attend="causal")
        hidden = torch.zeros(tokens.position.shape, dtype=torch.bool)
        hidden[:, 0] = True
        with pytest.raises(EncoderError, match="drop"):
            encoder.context(keep(tokens, hidden))


class Raises(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("my own bug")


class GivesTuple(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (x.flatten(1),)


class GivesSequence(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2)


@pytest.mark.parametrize(
    ("module", "hint"), [(Raises(), "my own bug"), (GivesTuple(), "forward"), (GivesSequence(), "")]
)
def test_modules_that_cannot_be_wrapped(module, hint):
    with pytest.raises(EncoderError) as caught:
        wrap(module, (3, 8, 8))
    assert "your module" in str(caught.value) and hint in caught.value.hint


def test_unreachable_weights_are_refused_soon(monkeypatch, tmp_path):
    """No mock: the address is one that nothing answers at."""
    import time

    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    start = time.monotonic()
    for ask in (make, check):
        with pytest.raises(EncoderError, match="out of reach") as caught:
            ask("resnet18", (3, 32, 32), pretrained=True)
        assert "network" in caught.value.hint
    assert time.monotonic() - start < 15


def test_listing_and_small_do_not_import_timm():
    code = (
        "import sys; from selftaught.encoders import make, check, list_encoders, wrap; "
        "check('small', (3, 16, 16)); make('small', (3, 16, 16), width=2); print(list_encoders()); "
        "assert not any(name.split('.')[0] in ('timm', 'transformers') for name in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == str(["small", "vit_tiny", "vit_small", "vit_base"])
    assert set(list_encoders()) == set(OWN)
    assert set(list_encoders(timm=True)) - set(OWN) == set(timm.list_models())
