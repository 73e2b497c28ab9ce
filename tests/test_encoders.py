"""Every encoder keeps the contract: ours over 1, 2 and 3 axes, timm's of several kinds, and modules of the user's."""

from __future__ import annotations

import copy
import json
import math
import subprocess
import sys
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from selftaught.encoders import OWN, Encoder, check, list_encoders, make, wrap
from selftaught.errors import EncoderError
from selftaught.ops.tokens import enlarge, keep
from selftaught.types import Encoder as Contract

TINY_VIT: dict[str, Any] = {"dim": 48, "depth": 2, "heads": 3}


class Maps(nn.Module):
    """A module of the user's that gives a map."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, stride=4, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


def vectors() -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(2 * 20, 7), nn.BatchNorm1d(7), nn.Dropout(0.5))


CASES: dict[str, tuple[Any, tuple[int, ...], dict[str, Any]]] = {
    "small 1-D": ("small", (5, 40), {"width": 8}),
    "small 2-D": ("small", (3, 21, 17), {"width": 8}),
    "small 3-D": ("small", (1, 9, 16, 12), {"width": 4, "depth": 2}),
    "vit 1-D": ("vit_tiny", (5, 37), {**TINY_VIT, "patch": 4}),
    "vit 2-D": ("vit_tiny", (13, 30, 20), {**TINY_VIT, "patch": (8, 4), "registers": 2}),
    "vit 3-D": ("vit_tiny", (1, 5, 12, 9), {**TINY_VIT, "patch": (2, 4, 4), "class_token": False}),
    "vit first": ("vit_small", (1, 16, 16), {**TINY_VIT, "pool": "first"}),
    "vit causal": ("vit_base", (2, 24), {**TINY_VIT, "patch": 4, "pool": "last", "attend": "causal"}),
    "resnet18": ("resnet18", (5, 33, 40), {"stem": "standard"}),
    "mobilenet": ("mobilenetv3_small_050", (1, 32, 32), {}),
    "convnext": ("convnext_atto", (3, 32, 32), {}),
    "timm vit": ("vit_tiny_patch16_224", (3, 32, 48), {"depth": 2}),
    "timm deit3": ("deit3_small_patch16_224", (3, 32, 32), {"depth": 2}),
    "timm dinov2": ("vit_small_patch14_reg4_dinov2", (3, 28, 28), {"depth": 2}),
    "timm siglip": ("vit_base_patch16_siglip_224", (3, 32, 32), {"depth": 2, "embed_dim": 96, "num_heads": 3}),
    "timm eva02": ("eva02_tiny_patch14_224", (3, 28, 28), {"depth": 2}),
    "timm dinov3": ("vit_small_patch16_dinov3", (3, 48, 32), {"depth": 2}),
    "timm rope mixed": ("vit_small_patch16_rope_mixed_224", (3, 32, 32), {"depth": 2}),
    "timm swin": ("swin_tiny_patch4_window7_224", (3, 32, 32), {"depths": (1, 1, 1, 1), "embed_dim": 24}),
    "timm beit": ("beit_base_patch16_224", (3, 32, 32), {"depth": 2, "embed_dim": 96, "num_heads": 3}),
    "timm one vector": ("coat_tiny", (3, 32, 32), {"serial_depths": (1, 1, 1, 1), "parallel_depth": 1}),
    "your maps": (Maps, (3, 18, 23), {}),
    "your vectors": (vectors, (2, 20), {}),
}
OPENED = [name for name in CASES if name.startswith("vit")] + [
    f"timm {name}" for name in ("vit", "deit3", "dinov2", "siglip", "eva02", "dinov3", "rope mixed")
]
TIMM = [name for name, (model, _, _) in CASES.items() if isinstance(model, str) and timm.is_model(model)]


@pytest.fixture(autouse=True)
def one_thread():
    """Tensors this small are faster without a team of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def built() -> dict[str, Encoder]:
    """Every encoder, made once: tests leave weights and modes as they found them."""
    return {}


@pytest.fixture(params=CASES)
def case(request, built) -> tuple[str, Encoder, Tensor]:
    return case_of(request.param, built)


def case_of(name: str, built: dict[str, Encoder]) -> tuple[str, Encoder, Tensor]:
    model, shape, options = CASES[name]
    torch.manual_seed(0)
    if name not in built:
        built[name] = make(model if isinstance(model, str) else model(), shape, **options).eval()
    return name, built[name], torch.randn(4, *shape)


def twin_of(encoder: Encoder, name: str, **options) -> Any:
    """The same model as timm makes it, with the encoder's weights."""
    twin: Any = timm.create_model(name, num_classes=0, **options).eval()
    twin.load_state_dict(net_of(encoder).state_dict(), strict=True)
    return twin


def net_of(encoder: Encoder) -> Any:
    return encoder.net


def test_shapes(case):
    _, encoder, x = case
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


def test_the_three_parts_are_the_whole(case):
    _, encoder, x = case
    with torch.no_grad():
        tokens, _ = encoder.context(encoder.embed(x))
        torch.testing.assert_close(encoder.pool(tokens), encoder(x).pooled, rtol=0, atol=0)


@pytest.mark.parametrize("name", TIMM)
def test_equals_timm(name, built):
    _, encoder, x = case_of(name, built)
    net = net_of(encoder)
    with torch.no_grad():
        expected = net.forward_head(net.forward_features(x), pre_logits=True)
        torch.testing.assert_close(encoder(x).pooled, expected, rtol=0, atol=1e-5)


def test_gradients_reach_every_parameter_that_learns(case):
    _, encoder, x = case
    encoder.train()
    torch.manual_seed(0)
    features = encoder(x)
    weights = torch.randn_like(features.pooled)  # a plain sum has no gradient behind a normalisation
    (features.pooled * weights).sum().backward()
    without = [name for name, one in encoder.named_parameters() if one.requires_grad and one.grad is None]
    encoder.zero_grad()
    encoder.eval()
    assert without == []


def test_permuting_the_batch_permutes_the_output(case):
    _, encoder, x = case
    order = torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        torch.testing.assert_close(encoder(x[order]).pooled, encoder(x).pooled[order], rtol=1e-4, atol=1e-5)


def test_config_rebuilds_the_same_architecture(case):
    name, encoder, x = case
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


def test_a_copy_is_the_same_and_independent(case):
    """Teachers are copies."""
    _, encoder, x = case
    again = copy.deepcopy(encoder)
    with torch.no_grad():
        expected = encoder(x).pooled
        torch.testing.assert_close(again(x).pooled, expected, rtol=0, atol=0)
        for parameter in again.parameters():
            parameter.add_(1)
        torch.testing.assert_close(encoder(x).pooled, expected, rtol=0, atol=0)


def test_a_class_token_is_no_pool_where_tokens_attend_causally(built):
    for name in ("vit first", "timm vit"):
        _, encoder, x = case_of(name, built)
        causal, _ = encoder.context(encoder.embed(x), attend="causal")
        with pytest.raises(EncoderError, match="mean or last"):
            encoder.pool(causal)
        with pytest.raises(EncoderError, match="one of none, causal"):
            encoder.context(encoder.embed(x), attend="backwards")


def test_what_is_replaced_does_not_count(case):
    _, encoder, x = case
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


@pytest.mark.parametrize("name", OPENED)
def test_dropped_tokens_equal_computing_on_the_rest(name, built):
    """Whatever the dropped tokens hold, and however the padding of uneven counts is filled, the rest is the same."""
    _, encoder, x = case_of(name, built)
    hidden = torch.zeros(4, encoder.embed(x[:1]).values.shape[1], dtype=torch.bool)
    hidden[:2, 0] = True
    hidden[1, 1] = True
    with torch.no_grad():
        together = encoder.context(keep(encoder.embed(x), hidden))[0]
        for row in range(4):
            alone = encoder.context(keep(encoder.embed(x[row : row + 1]), hidden[row : row + 1]))[0]
            count = int((~hidden[row]).sum())
            torch.testing.assert_close(together.values[row, :count], alone.values[0], rtol=1e-4, atol=1e-5)
            assert together.position[row, :count].tolist() == (~hidden[row]).nonzero()[:, 0].tolist()


@pytest.mark.parametrize("name", OPENED)
def test_kept_tokens_keep_their_positions(name, built):
    """Dropping nothing but through ``keep`` (positions gathered one by one) is the same as the whole grid."""
    _, encoder, x = case_of(name, built)
    with torch.no_grad():
        tokens = encoder.embed(x)
        kept = keep(tokens, torch.zeros(tokens.position.shape, dtype=torch.bool))
        torch.testing.assert_close(encoder.context(kept)[0].values, encoder.context(tokens)[0].values)
        order = torch.arange(kept.position.shape[1] - 1, -1, -1)
        if not encoder.attend == "causal":
            kept.values, kept.position = kept.values[:, order], kept.position[:, order]
            turned = encoder.context(kept)[0].values[:, order]
            torch.testing.assert_close(turned, encoder.context(tokens)[0].values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", OPENED)
def test_causal_tokens_do_not_see_what_follows(name, built):
    _, encoder, x = case_of(name, built)
    with torch.no_grad():
        tokens, changed = encoder.embed(x), encoder.embed(x)
        changed.values = changed.values.clone()
        changed.values[:, -1] += 5
        one, other = (encoder.context(some, attend="causal")[0].values for some in (tokens, changed))
        torch.testing.assert_close(one[:, :-1], other[:, :-1])
        assert not torch.allclose(one[:, -1], other[:, -1])


@pytest.mark.parametrize("registers", [0, 2])
def test_documents_are_worlds_of_their_own(registers):
    """Packed documents give what each gives alone: positions restart, and no prefix carries one into the other."""
    encoder = make("vit_tiny", (2, 16), patch=2, registers=registers, **TINY_VIT).eval()
    alone = make("vit_tiny", (2, 16), patch=2, registers=registers, **TINY_VIT).eval()
    alone.load_state_dict(encoder.state_dict())
    x = torch.randn(1, 2, 16)
    ids = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1]])
    with torch.no_grad():
        tokens = encoder.embed(x)
        packed = encoder.context(tokens, attend=ids)[0].values
        changed = encoder.embed(x)
        changed.values = torch.where(ids[..., None] == 0, changed.values + 3, changed.values)
        torch.testing.assert_close(encoder.context(changed, attend=ids)[0].values[:, 3:], packed[:, 3:])
        second = encoder.embed(x)
        second.values, second.position = second.values[:, 3:], torch.arange(5)[None].clone()
        torch.testing.assert_close(alone.context(second, attend=ids[:, 3:])[0].values, packed[:, 3:])


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


def test_padded_tokens_are_left_out_of_a_transformer():
    """The same sample, alone and padded to a longer length."""
    encoder = make("vit_tiny", (2, 40), patch=4, **TINY_VIT).eval()
    x = torch.randn(1, 2, 40)
    valid = torch.arange(40)[None] < 24
    with torch.no_grad():
        padded = encoder(x, valid)
        tokens = encoder.embed(x)
        tokens.values, tokens.position = tokens.values[:, :6], tokens.position[:, :6]
        alone = encoder.pool(encoder.context(tokens)[0])
    torch.testing.assert_close(padded.pooled, alone)


@pytest.mark.parametrize("pool", ["mean", "first", "last"])
def test_pools(pool):
    encoder = make("vit_tiny", (1, 16), patch=4, pool=pool, **TINY_VIT).eval()
    valid = torch.arange(16)[None] < 8
    with torch.no_grad():
        tokens, _ = encoder.context(encoder.embed(torch.randn(1, 1, 16), valid))
    assert tokens.prefix is not None
    expected = {"mean": tokens.values[:, :2].mean(1), "first": tokens.prefix[:, 0], "last": tokens.values[:, 1]}
    torch.testing.assert_close(encoder.pool(tokens), expected[pool])


def test_layers_asked_for_come_in_that_order(case):
    _, encoder, x = case
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


def test_weights_move_to_timm_and_back():
    encoder = make("vit_tiny", (3, 64, 64), patch=16, depth=2).eval()
    twin = twin_of(encoder, "vit_tiny_patch16_224", img_size=64, depth=2, global_pool="avg", fc_norm=False)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        before = encoder(x).pooled
        torch.testing.assert_close(twin(x), before, rtol=0, atol=1e-5)
        nn.init.normal_(twin.cls_token)
        net_of(encoder).load_state_dict(twin.state_dict(), strict=True)
        torch.testing.assert_close(encoder(x).pooled, twin(x), rtol=0, atol=1e-5)
        assert not torch.allclose(encoder(x).pooled, before)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_small_patch16_rope_mixed_224", "eva02_tiny_patch14_224"])
def test_other_sizes_are_handled_as_timm_does(name):
    patch = 14 if "14" in name else 16
    encoder = make(name, (3, 4 * patch, 4 * patch), depth=2).eval()
    twin = twin_of(encoder, name, img_size=4 * patch, depth=2, dynamic_img_size=True)
    for size in ((4 * patch, 4 * patch), (6 * patch, 3 * patch), (2 * patch, 5 * patch)):
        x = torch.randn(2, 3, *size)
        with torch.no_grad():
            torch.testing.assert_close(encoder(x).pooled, twin(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("name", "built_for", "given"), [
    ("vit 1-D", (5, 37), (5, 90)), ("vit 3-D", (1, 5, 12, 9), (1, 8, 8, 16)), ("small 2-D", (3, 21, 17), (3, 50, 8)),
    ("timm dinov3", (3, 48, 32), (3, 64, 64)), ("timm eva02", (3, 28, 28), (3, 56, 28)),
    ("convnext", (3, 32, 32), (3, 64, 96)),
    ("your maps", (3, 18, 23), (3, 30, 30)),
])  # fmt: skip
def test_other_sizes_than_made_for(name, built_for, given, built):
    _, encoder, _ = case_of(name, built)
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


def test_dropped_tokens_and_attention_are_refused_where_the_model_works_on_whole_grids(built):
    for name in ("small 2-D", "resnet18", "your maps"):
        _, encoder, x = case_of(name, built)
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
