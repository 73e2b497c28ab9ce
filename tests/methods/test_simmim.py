"""SimMIM: its equation, transformers' implementation, what the encoder sees, and that it learns."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from selftaught.encoders import make
from selftaught.methods.simmim import SimMIM
from selftaught.ops.tokens import cells
from selftaught.types import Batch, Stream
from tests.methods.check import CLOCK, drawn, gradients_are_right, total
from tests.pretexts import left
from tests.small import build


def test_loss_is_the_mean_absolute_error_on_hidden_pixels() -> None:
    hidden = torch.tensor([[1, 0, 1, 0], [0, 1, 1, 0], [1, 1, 0, 0]], dtype=torch.bool)
    back, target = drawn(3, 4, 6), drawn(3, 4, 6, seed=1)
    rows = [abs(float(p) - float(q)) for p, q in zip(back[hidden].flatten(), target[hidden].flatten(), strict=True)]
    outputs = {"back": back, "target": target, "hidden": hidden}
    assert float(total(SimMIM(), outputs)) == pytest.approx(sum(rows) / len(rows))
    gradients_are_right(lambda x: total(SimMIM(), {**outputs, "back": x}), 3, 4, 6)


def test_it_agrees_with_transformers() -> None:
    """Hugging Face's ViTForMaskedImageModeling has SimMIM's loss: fed with its reconstruction, ours agrees."""
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        image_size=12, patch_size=4, encoder_stride=4, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32,
    )  # fmt: skip
    torch.manual_seed(0)
    theirs = transformers.ViTForMaskedImageModeling(config).double().eval()
    x, hidden = drawn(4, 3, 12, 12), drawn(4, 9, seed=1).argsort(1) < 5
    found = theirs(pixel_values=x, bool_masked_pos=hidden)
    outputs = {"back": cells(found.reconstruction, (3, 3)), "target": cells(x, (3, 3)), "hidden": hidden}
    torch.testing.assert_close(total(SimMIM(), outputs), found.loss, rtol=1e-5, atol=0)


def test_hidden_cells_are_not_seen_by_a_transformer() -> None:
    task = build(SimMIM(masked=0.5)).eval()
    x = torch.randn(4, 1, 1, 8, 8)
    batch = Batch({"views": Stream(x)}, torch.arange(4), torch.arange(4))
    first = task.method(task.encoders, batch, CLOCK)
    assert first["hidden"].sum(1).tolist() == [8] * 4
    pixels = first["hidden"].view(4, 1, 1, 4, 4).repeat_interleave(2, 3).repeat_interleave(2, 4)
    other = batch.replace(streams={"views": Stream(torch.where(pixels, 9.0, x))})
    assert torch.equal(first["back"], task.method(task.encoders, other, CLOCK)["back"])


def test_the_mask_vector_learns_in_a_convnet() -> None:
    encoder: Any = make("small", (1, 16, 16), width=8)
    method = SimMIM()
    method.build({"encoder": encoder})
    batch = Batch({"views": Stream(torch.randn(4, 1, 1, 16, 16))}, torch.arange(4), torch.arange(4))
    total(method, method({"encoder": encoder}, batch, CLOCK)).backward()
    assert encoder.mask_vector.grad is not None and encoder.mask_vector.grad.abs().sum() > 0


@pytest.mark.parametrize("kind", ["random", "patches", "grid"])
def test_it_learns_what_stands_beside(kind: str) -> None:
    """Hidden parts of a disc are told from the others, far better than by their mean."""
    assert left(SimMIM(mask=kind), steps=150) < 0.5
