"""MAE: its equation, transformers' implementation, what the encoder sees, and that it learns."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from selftaught.encoders import make
from selftaught.methods.mae import MAE
from selftaught.ops.tokens import cells, normalised
from selftaught.types import Batch, Clock, Stream
from tests.methods.check import CLOCK, drawn, gradients_are_right, outputs_of, total
from tests.pretexts import left
from tests.small import build

SMALL = {"depth": 1, "width": 16}


def mae(**options: object) -> MAE:
    return MAE(**{**SMALL, **options})  # type: ignore[arg-type]


def hidden_ones() -> torch.Tensor:
    return torch.tensor([[1, 0, 1, 0], [0, 1, 1, 0], [1, 1, 0, 0]], dtype=torch.bool)


@pytest.mark.parametrize("normalise", [True, False])
def test_loss_is_the_mean_square_on_hidden_patches(normalise: bool) -> None:
    back, target, hidden = drawn(3, 4, 9), 2 + 3 * drawn(3, 4, 9, seed=1), hidden_ones()
    method = mae(normalise=normalise)
    method.normalise = normalise
    rows = []
    for b in range(3):
        for n in range(4):
            if not hidden[b, n]:
                continue
            t = target[b, n]
            if normalise:
                mean = sum(t.tolist()) / 9
                variance = sum((one - mean) ** 2 for one in t.tolist()) / 8
                t = (t - mean) / (variance + 1e-6) ** 0.5
            rows.append(sum((float(p) - float(q)) ** 2 for p, q in zip(back[b, n], t, strict=True)) / 9)
    outputs = {"back": back, "target": target, "hidden": hidden}
    assert float(total(method, outputs)) == pytest.approx(sum(rows) / len(rows), rel=1e-9)
    gradients_are_right(lambda x: total(method, {**outputs, "back": x}), 3, 4, 9)


def test_guessing_the_mean_costs_one() -> None:
    """Each patch has spread 1, so a guess of 0 is off by 1 (8/9 of it, for the variance is the unbiased one)."""
    target = drawn(3, 4, 9)
    method = mae()
    method.normalise = True
    rows = method.energy({"back": torch.zeros_like(target), "target": target, "hidden": hidden_ones()}, CLOCK)
    torch.testing.assert_close(rows, torch.full((3,), 8 / 9, dtype=torch.float64), rtol=1e-5, atol=0)


def test_normalised_patches_come_back() -> None:
    patches = 5 + 2 * drawn(2, 3, 8)
    unit, mean, spread = normalised(patches)
    torch.testing.assert_close(unit * spread + mean, patches)
    assert normalised(torch.ones(1, 1, 8))[0].abs().max() == 0  # a plain patch is no division by zero


def test_patches_are_normalised_by_what_was_measured() -> None:
    patches, observed = drawn(2, 3, 9), torch.rand(2, 3, 9, generator=torch.Generator().manual_seed(0)) < 0.6
    unit, mean, spread = normalised(torch.where(observed, patches, 7.0), observed)
    for b in range(2):
        for n in range(3):
            seen = patches[b, n][observed[b, n]]
            assert float(mean[b, n]) == pytest.approx(float(seen.mean()))
            assert float(spread[b, n]) == pytest.approx(float((seen.var() + 1e-6).sqrt()))
            torch.testing.assert_close(unit[b, n][observed[b, n]], (seen - mean[b, n]) / spread[b, n])
    nothing = normalised(patches, torch.zeros_like(observed))
    assert all(one.isfinite().all() for one in nothing)


def test_hidden_patches_are_not_seen() -> None:
    """Changing them changes neither what the encoder gives nor what comes back."""
    task = build(mae())
    task.eval()
    x = torch.randn(4, 1, 1, 8, 8)
    batch = Batch({"views": Stream(x)}, torch.arange(4), torch.arange(4))
    first = task.method(task.encoders, batch, CLOCK)
    hidden = first["hidden"]
    assert hidden.sum(1).tolist() == [12] * 4
    pixels = hidden.view(4, 1, 1, 4, 4).repeat_interleave(2, 3).repeat_interleave(2, 4)
    other = batch.replace(streams={"views": Stream(torch.where(pixels, 9.0, x))})
    again = task.method(task.encoders, other, CLOCK)
    torch.testing.assert_close(first["back"], again["back"], rtol=0, atol=0)
    assert not torch.equal(first["target"], again["target"])


def test_every_sample_has_its_own_mask() -> None:
    outputs = outputs_of(build(mae()))
    assert not torch.equal(outputs["hidden"][0], outputs["hidden"][1])


def test_small_patches_are_not_normalised() -> None:
    task = build(mae(normalise=True))  # 2 x 2 pixels of one channel
    assert not task.method.normalise  # type: ignore[union-attr]


def test_it_agrees_with_transformers() -> None:
    """The same weights and the same mask: Hugging Face's ViTMAEForPreTraining, loss and gradient to 1e-5."""
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTMAEConfig(
        image_size=24, patch_size=4, num_channels=3, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=128, decoder_hidden_size=16, decoder_num_hidden_layers=2, decoder_num_attention_heads=2,
        decoder_intermediate_size=64, norm_pix_loss=True, mask_ratio=0.75, layer_norm_eps=1e-6,
    )  # fmt: skip
    torch.manual_seed(0)
    theirs = transformers.ViTMAEForPreTraining(config).double().train()
    ours = MAE(depth=2, width=16, heads=2)
    encoder: Any = make("vit_tiny", (3, 24, 24), patch=4, dim=32, depth=2, heads=2)
    ours.build({"encoder": encoder})
    encoder, ours = encoder.double().train(), ours.double().train()
    encoder.net.load_state_dict(encoder_weights(theirs.vit))
    ours.decoder.load_state_dict(decoder_weights(theirs.decoder))
    ours.decoder.position.copy_(theirs.decoder.decoder_pos_embed[0, 1:])
    x = drawn(5, 3, 24, 24)
    noise = drawn(5, 36, seed=1)  # theirs keeps the lowest, ours hides the highest
    clock = Clock(0, 10, 0, 0, lambda name, p, shape: noise)
    batch = Batch({"views": Stream(x[:, None])}, torch.arange(5), torch.arange(5))
    loss = total(ours, ours({"encoder": encoder}, batch, clock))
    loss.backward()
    found = theirs(pixel_values=x, noise=noise)
    found.loss.backward()
    torch.testing.assert_close(loss, found.loss, rtol=1e-5, atol=1e-7)
    patch = theirs.vit.embeddings.patch_embeddings.projection.weight.grad
    torch.testing.assert_close(encoder.net.patch_embed.proj.weight.grad, patch, rtol=1e-5, atol=1e-9)


def encoder_weights(vit: torch.nn.Module) -> dict[str, torch.Tensor]:
    names = {
        "embeddings.cls_token": "cls_token", "embeddings.position_embeddings": "pos_embed",
        "embeddings.patch_embeddings.projection": "patch_embed.proj", "layernorm_before": "norm1",
        "layernorm_after": "norm2", "layernorm.": "norm.", "layers.": "blocks.", "attention.qkv_": "attn.qkv.",
        "attention.o_proj": "attn.proj",
    }  # fmt: skip
    return renamed(vit.state_dict(), names)


def decoder_weights(decoder: torch.nn.Module) -> dict[str, torch.Tensor]:
    names = {
        "decoder_embed": "enter", "decoder_pred": "leave", "decoder_norm": "norm", "layernorm_before": "norm1",
        "layernorm_after": "norm2", "decoder_layers.": "blocks.", "attention.qkv_": "self_attn.in_proj_",
        "attention.o_proj": "self_attn.out_proj", "mlp.fc": "linear",
    }  # fmt: skip
    state = dict(decoder.state_dict())
    state.pop("decoder_pos_embed")
    return {"mask_vector": state.pop("mask_token")[0, 0], **renamed(state, names)}


def renamed(state: dict[str, torch.Tensor], names: dict[str, str]) -> dict[str, torch.Tensor]:
    """Query, key and value side by side, then each name with its parts replaced."""
    state = dict(state)
    for name in [name for name in state if ".q_proj." in name]:
        parts = [state.pop(name.replace("q_proj", f"{one}_proj")) for one in "qkv"]
        state[name.replace("q_proj.", "qkv_")] = torch.cat(parts)
    for before, after in names.items():
        state = {name.replace(before, after): value for name, value in state.items()}
    return state


def test_what_is_shown_is_true_where_it_was_seen() -> None:
    task = build(mae(normalise=True)).eval()
    x = torch.randn(4, 1, 1, 8, 8)
    batch = Batch({"views": Stream(x)}, torch.arange(4), torch.arange(4))
    with torch.no_grad():
        shown = task.method.show(task.encoders, batch, CLOCK)  # type: ignore[arg-type]
        hidden = task.method(task.encoders, batch, CLOCK)["hidden"]
    assert list(shown) == ["input", "seen", "back"] and all(one.shape == (4, 1, 8, 8) for one in shown.values())
    seen = ~hidden[..., None].expand(-1, -1, 4)
    for name in ("seen", "back"):
        assert torch.equal(cells(shown[name], (4, 4))[seen], cells(x[:, 0], (4, 4))[seen])
    assert cells(shown["seen"], (4, 4))[~seen].abs().max() == 0
    assert not torch.equal(cells(shown["back"], (4, 4))[~seen], cells(x[:, 0], (4, 4))[~seen])


@pytest.mark.parametrize("kind", ["random", "grid"])
def test_it_learns_what_stands_beside(kind: str) -> None:
    """Hidden parts of a disc are told from the others, far better than by their mean."""
    assert left(mae(mask=kind, masked=0.5, width=32, normalise=False), steps=150) < 0.7
