"""Split-brain: its equations, the two halves, what the encoder sees, and that it learns."""

from __future__ import annotations

import pytest
import torch

from selftaught.encoders import make
from selftaught.errors import MethodError
from selftaught.methods.split_brain import SplitBrain, halves
from tests.methods.check import drawn, gradients_are_right, total
from tests.pretexts import discs, left


def ready(channels: int = 3) -> SplitBrain:
    torch.manual_seed(0)
    method = SplitBrain(width=8)
    method.build({"encoder": make("small", (channels, 16, 16), width=8)})
    return method


def test_loss_is_the_mean_square_of_what_was_not_shown() -> None:
    """Equations 3 and 4: the first half tells channels 1 and 2, the second channel 0."""
    method, back, target = ready(), drawn(2, 2, 3, 4, 4), drawn(2, 2, 3, 4, 4, seed=1)
    expected = (back[:, 0, 1:] - target[:, 0, 1:]).square().mean() + (back[:, 1, 0] - target[:, 1, 0]).square().mean()
    outputs = {"back": back, "target": target}
    assert float(total(method, outputs)) == pytest.approx(float(expected))
    gradients_are_right(lambda x: total(method, {**outputs, "back": x}), 2, 2, 3, 4, 4)


@pytest.mark.parametrize("channels", [2, 3, 5])
def test_axes_are_orthonormal(channels: int) -> None:
    axes, first = halves(channels)
    torch.testing.assert_close(axes @ axes.T, torch.eye(channels))
    assert 0 < int(first.sum()) < channels


def test_the_halves_are_brightness_and_colour() -> None:
    method = ready()
    view = drawn(2, 3, 4, 4).float()
    split = torch.einsum("ij,bj...->bi...", method.axes, view)
    shown = method.shown(split)
    assert shown.shape == (2, 2, 3, 4, 4)
    torch.testing.assert_close(shown.sum(1), view)  # together they are all
    torch.testing.assert_close(shown[:, 0], shown[:, 0, :1].expand(-1, 3, -1, -1))  # gray
    torch.testing.assert_close(shown[:, 1].mean(1), torch.zeros(2, 4, 4), atol=1e-6, rtol=0)  # no brightness


def test_one_channel_is_refused() -> None:
    with pytest.raises(MethodError, match="two channels"):
        ready(channels=1)


def test_it_learns() -> None:
    assert left(SplitBrain(width=32), discs(32), steps=100) < 0.4
