"""Vision transformers opened up: dropping, attention, positions, pools, and weights that move to timm and back."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from selftaught.encoders import make
from selftaught.errors import EncoderError
from selftaught.ops.tokens import keep

from .encoder_cases import OPENED, TINY_VIT, case_of, net_of, one_thread, twin_of  # noqa: F401  the fixture is for every test here


def test_a_class_token_is_no_pool_where_tokens_attend_causally():
    for name in ("vit first", "timm vit"):
        encoder, x = case_of(name)
        causal, _ = encoder.context(encoder.embed(x), attend="causal")
        with pytest.raises(EncoderError, match="mean or last"):
            encoder.pool(causal)
        with pytest.raises(EncoderError, match="one of none, causal"):
            encoder.context(encoder.embed(x), attend="backwards")


@pytest.mark.parametrize("name", OPENED)
def test_dropped_tokens_equal_computing_on_the_rest(name):
    """Whatever the dropped tokens hold, and however the padding of uneven counts is filled, the rest is the same."""
    encoder, x = case_of(name)
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
def test_kept_tokens_keep_their_positions(name):
    """Dropping nothing but through ``keep`` (positions gathered one by one) is the same as the whole grid."""
    encoder, x = case_of(name)
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
def test_causal_tokens_do_not_see_what_follows(name):
    encoder, x = case_of(name)
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
