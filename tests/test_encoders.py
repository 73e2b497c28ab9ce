"""Every encoder keeps the contract: ours, timm's and the user's."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import pytest
import torch

from selftaught.encoders import make, wrap
from selftaught.errors import EncoderError
from selftaught.ops.tokens import enlarge
from selftaught.types import Encoder as Contract

from .encoder_cases import CASES, TIMM, TINY_VIT, case_of, net_of, one_thread, twin_of, vectors  # noqa: F401  the fixture is for every test here


@pytest.mark.parametrize("name", CASES)
def test_shapes(name):
    encoder, x = case_of(name)
    anything: object = encoder
    assert isinstance(anything, Contract)
    with torch.no_grad():
        tokens = encoder.embed(x)
        features = encoder(x)
    before, after = encoder.grid(x.shape[1:])
    assert tokens.grid == before and tokens.values.shape[:2] == tokens.position.shape
    assert features.pooled.shape == (4, encoder.dim)
    if encoder.gives_tokens:
        assert features.grid == after and features.tokens is not None
        assert features.tokens.shape == (4, math.prod(after), encoder.token_dim)
    else:
        assert features.tokens is None and not encoder.hides


@pytest.mark.parametrize("name", CASES)
def test_the_three_parts_are_the_whole(name):
    encoder, x = case_of(name)
    with torch.no_grad():
        tokens, _ = encoder.context(encoder.embed(x))
        torch.testing.assert_close(encoder.pool(tokens), encoder(x).pooled, rtol=0, atol=0)


@pytest.mark.parametrize("name", TIMM)
def test_equals_timm(name):
    encoder, x = case_of(name)
    net = net_of(encoder)
    with torch.no_grad():
        expected = net.forward_head(net.forward_features(x), pre_logits=True)
        torch.testing.assert_close(encoder(x).pooled, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_gradients_reach_every_parameter_that_learns(name):
    encoder, x = case_of(name)
    encoder.train()
    torch.manual_seed(0)
    features = encoder(x)
    weights = torch.randn_like(features.pooled)  # a plain sum has no gradient behind a normalisation
    (features.pooled * weights).sum().backward()
    without = [name for name, one in encoder.named_parameters() if one.requires_grad and one.grad is None]
    encoder.zero_grad()
    encoder.eval()
    assert without == []


@pytest.mark.parametrize("name", CASES)
def test_permuting_the_batch_permutes_the_output(name):
    encoder, x = case_of(name)
    order = torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        torch.testing.assert_close(encoder(x[order]).pooled, encoder(x).pooled[order], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_config_rebuilds_the_same_architecture(name):
    encoder, x = case_of(name)
    config = json.loads(json.dumps(encoder.config()))
    if name.startswith("your"):
        with pytest.raises(EncoderError, match="only you can build"):
            make(config)
        return
    again = make(config).eval()
    assert again.config() == encoder.config()
    again.load_state_dict(encoder.state_dict(), strict=True)
    with torch.no_grad():
        torch.testing.assert_close(again(x).pooled, encoder(x).pooled, rtol=0, atol=0)


@pytest.mark.parametrize("name", CASES)
def test_a_copy_is_the_same_and_independent(name):
    """Teachers are copies."""
    encoder, x = case_of(name)
    again = copy.deepcopy(encoder)
    with torch.no_grad():
        expected = encoder(x).pooled
        torch.testing.assert_close(again(x).pooled, expected, rtol=0, atol=0)
        for parameter in again.parameters():
            parameter.add_(1)
        torch.testing.assert_close(encoder(x).pooled, expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", CASES)
def test_what_is_replaced_does_not_count(name):
    encoder, x = case_of(name)
    if "replace" not in encoder.hides:
        with pytest.raises(EncoderError, match="replace hidden tokens"):
            encoder.learn_mask()
        return
    _, grid = encoder.grid(x.shape[1:])
    hidden = torch.zeros(4, math.prod(grid), dtype=torch.bool)
    hidden[:, -1] = True
    with torch.no_grad():
        tokens = encoder.embed(x)
        base = encoder.context(tokens, hidden=hidden)[0].values
        changed = encoder.embed(x)
        seen = hidden if hidden.shape[1] == tokens.values.shape[1] else enlarge(hidden, grid, tokens.grid)
        changed.values = torch.where(seen[..., None], changed.values + 7, changed.values)
        torch.testing.assert_close(encoder.context(changed, hidden=hidden)[0].values, base)
        assert not torch.allclose(encoder.context(tokens)[0].values, base)
        assert not torch.allclose(encoder.context(changed)[0].values, encoder.context(tokens)[0].values)


def test_the_mask_vector_learns_only_when_asked():
    for name, shape, options in (CASES["vit 2-D"], CASES["small 2-D"]):
        encoder = make(name, shape, **options)
        assert encoder.mask_vector is not None and not encoder.mask_vector.requires_grad
        encoder.learn_mask()
        tokens = encoder.embed(torch.randn(2, *shape))
        hidden = torch.rand(tokens.position.shape) < 0.5
        encoder.context(tokens, hidden=hidden)[0].values.square().sum().backward()
        assert encoder.mask_vector.grad is not None and encoder.mask_vector.grad.abs().sum() > 0


def test_padding_does_not_count():
    cases: list[tuple[str, dict[str, Any]]] = [("vit_tiny", {**TINY_VIT, "patch": 4}), ("small", {"width": 8})]
    for name, options in cases:
        encoder = make(name, (2, 40), **options).eval()
        x = torch.randn(3, 2, 40)
        valid = torch.ones(3, 40, dtype=torch.bool)
        valid[0, 24:] = False
        other = torch.where(valid[:, None], x, torch.full_like(x, 9.0))
        with torch.no_grad():
            one, two = encoder(x, valid), encoder(other, valid)
        torch.testing.assert_close(one.pooled, two.pooled)
        assert one.valid is not None and int(one.valid[0].sum()) < int(one.valid[1].sum())


@pytest.mark.parametrize("name", CASES)
def test_layers_asked_for_come_in_that_order(name):
    encoder, x = case_of(name)
    if not encoder.depth:
        with pytest.raises(EncoderError, match="layers"):
            encoder.context(encoder.embed(x), layers=(0,))
        return
    with torch.no_grad():
        tokens = encoder.embed(x)
        last, (end, start) = encoder.context(tokens, layers=(-1, 0))
        plain, _ = encoder.context(tokens)
    torch.testing.assert_close(last.values, plain.values)
    assert end.shape[0] == start.shape[0] == 4
    assert end.shape != start.shape or not torch.allclose(end, start)
    with pytest.raises(EncoderError, match="layers"):
        encoder.context(tokens, layers=(encoder.depth,))


@pytest.mark.parametrize(("name", "built_for", "given"), [
    ("vit 1-D", (5, 37), (5, 90)), ("vit 3-D", (1, 5, 12, 9), (1, 8, 8, 16)), ("small 2-D", (3, 21, 17), (3, 50, 8)),
    ("timm dinov3", (3, 48, 32), (3, 64, 64)), ("timm eva02", (3, 28, 28), (3, 56, 28)),
    ("convnext", (3, 32, 32), (3, 64, 96)),
    ("your maps", (3, 18, 23), (3, 30, 30)),
])  # fmt: skip
def test_other_sizes_than_made_for(name, built_for, given):
    encoder, _ = case_of(name)
    assert encoder.shape == built_for
    with torch.no_grad():
        features = encoder(torch.randn(2, *given))
    assert features.grid == encoder.grid(given)[1]
    assert features.pooled.shape == (2, encoder.dim)


@pytest.mark.parametrize(
    ("size", "channels"), [(8, 1), (9, 3), (15, 5), (16, 13), (31, 1), (33, 3), (48, 5), (64, 13), (96, 1), (224, 3)]
)
def test_small_takes_any_size_from_8(size, channels):
    encoder = make("small", (channels, size, size + 3), width=2).eval()
    start, end = encoder.grid((channels, size, size + 3))
    assert max(start) <= 32
    with torch.no_grad():
        assert encoder(torch.randn(1, channels, size, size + 3)).grid == end


@pytest.mark.parametrize(("options", "start"), [({}, 1.0), ({"zero_init_last": True}, 0.0)])
def test_residual_branches_of_a_new_resnet_are_open_unless_asked(options, start):
    encoder = make("resnet18", (3, 32, 32), **options)
    last = encoder.get_parameter("net.layer4.1.bn2.weight")
    assert torch.equal(last, torch.full_like(last, start))
    assert encoder.config()["options"]["zero_init_last"] is (start == 0.0)


def test_the_standard_resnet18_is_timms():
    encoder = make("resnet18", (3, 32, 32), stem="standard").eval()
    twin = twin_of(encoder, "resnet18")
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(encoder(x).pooled, twin(x), rtol=0, atol=1e-6)


def test_the_small_stem_keeps_resolution():
    for stem, shape, grid in (
        ("auto", (3, 32, 32), (4, 4)),
        ("auto", (3, 96, 96), (3, 3)),
        ("small", (3, 96, 96), (12, 12)),
    ):
        encoder = make("resnet18", shape, stem=stem)
        assert encoder.grid(shape)[1] == grid
        assert encoder.options["stem"] == ("standard" if grid == (3, 3) else "small")


def test_channels_last_and_bf16_go_through_without_a_copy():
    cases: list[tuple[str, dict[str, Any]]] = [("small", {"width": 8}), ("resnet18", {}), ("vit_tiny", TINY_VIT)]
    for name, options in cases:
        encoder = make(name, (3, 32, 32), **options).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        x = torch.randn(2, 3, 32, 32).to(torch.bfloat16).to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            tokens = encoder.embed(x)
            features = encoder(x)
        assert tokens.values.dtype == torch.bfloat16 and tokens.values.is_contiguous() or name == "vit_tiny"
        features.pooled.float().square().sum().backward()
        assert all(torch.isfinite(one.grad).all() for one in encoder.parameters() if one.grad is not None)


def test_wrap_leaves_the_module_as_it_was():
    module = vectors()
    module[2].eval()
    state = {name: value.clone() for name, value in module.state_dict().items()}
    random = torch.get_rng_state()
    encoder = wrap(module, (2, 20))
    assert module.training and not module[2].training
    assert all(torch.equal(state[name], value) for name, value in module.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    assert wrap(encoder, (2, 20)) is encoder


def test_seeded_weights_are_the_same_again():
    for name, shape, options in (CASES["small 2-D"], CASES["vit 2-D"], CASES["resnet18"]):
        states = []
        for _ in range(2):
            torch.manual_seed(3)
            states.append(make(name, shape, **options).state_dict())
        assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
