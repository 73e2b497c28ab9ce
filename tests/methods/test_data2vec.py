"""data2vec: its equations, whose layers are the target, where gradients stop, and that it learns."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from selftaught.encoders import make
from selftaught.methods.data2vec import Data2Vec
from tests.methods.check import drawn, gradients_are_right, outputs_of, total
from tests.pretexts import unexplained
from tests.small import build


@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_loss_is_equation_3(beta: float) -> None:
    hidden = torch.tensor([[1, 0, 1, 0], [0, 1, 1, 0]], dtype=torch.bool)
    back, target = 3 * drawn(2, 4, 3), drawn(2, 4, 3, seed=1)
    rows = []
    for p, q in zip(back[hidden].flatten(), target[hidden].flatten(), strict=True):
        far = abs(float(p) - float(q))
        rows.append(far**2 / (2 * beta) if far <= beta else far - beta / 2)
    outputs = {"back": back, "target": target, "hidden": hidden}
    assert float(total(Data2Vec(beta=beta), outputs)) == pytest.approx(sum(rows) / len(rows))
    gradients_are_right(lambda x: total(Data2Vec(beta=beta), {**outputs, "back": x}), 2, 4, 3)


def test_the_target_is_the_mean_of_normalised_layers() -> None:
    method = Data2Vec(layers=1.0)
    encoder: Any = make("vit_tiny", (1, 8, 8), patch=2, dim=16, depth=3, heads=2)
    method.build({"encoder": encoder})
    x = torch.randn(2, 1, 8, 8)
    _, layers = encoder.context(encoder.embed(x), layers=(0, 1, 2))
    expected = sum(F.layer_norm(one, (16,)) for one in layers) / 3
    torch.testing.assert_close(method.averaged_layers(x), expected)
    assert not outputs_of(build(Data2Vec()))["target"].requires_grad


def test_a_convnet_gives_its_last_layer() -> None:
    method = Data2Vec()
    encoder: Any = make("small", (1, 32, 32), width=8)
    method.build({"encoder": encoder})
    x = torch.randn(4, 1, 32, 32)
    expected = F.layer_norm(encoder(x).tokens, (64,))
    torch.testing.assert_close(method.averaged_layers(x), expected)


def test_it_learns_what_a_teacher_makes_of_hidden_places() -> None:
    error, spread = unexplained(Data2Vec(momentum=0.95), steps=150, lr=1e-2)
    assert error < 0.7 and spread > 0.05
