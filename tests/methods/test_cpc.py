"""CPC: how patches are cut, what a context knows, its equation, and that it learns."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from selftaught.encoders import make
from selftaught.methods.cpc import CPC, cut, turns
from selftaught.types import Batch, Features, Stream
from tests.methods.check import CLOCK, cosine, drawn, gradients_are_right, total


class OnPatches(nn.Module):
    """(B, 1, 4, 4) -> (B, 8), for views of 8 x 8."""

    dim, shape, gives_tokens, hides = 8, (1, 8, 8), False, frozenset()

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(16, 8))

    def grid(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        assert shape == (1, 4, 4)
        return (1,), (1,)

    def forward(self, x: Tensor) -> Features:
        return Features(self.net(x))


def ready(**options: object) -> CPC:
    torch.manual_seed(0)
    method = CPC(out_dim=4, context=6, across=4, patch=2, **options).double()  # type: ignore[arg-type]
    method.build({"encoder": OnPatches()})  # type: ignore[dict-item]
    return method.double()


def test_patches_overlap_by_half() -> None:
    view = torch.arange(64.0).view(1, 1, 8, 8)
    patches, grid = cut(view, [(4, 2), (4, 2)], most=3)
    assert grid == (3, 3) and patches.shape == (1, 9, 1, 4, 4)
    assert torch.equal(patches[0, 5, 0], view[0, 0, 2:6, 4:8])  # second row, third column
    line, grid = cut(torch.arange(16.0).view(1, 1, 16), [(4, 2)], most=3)
    assert grid == (3,) and torch.equal(line[0, 2, 0], torch.arange(4.0, 8.0))


def test_a_context_knows_its_row_and_those_above() -> None:
    method, z = ready(), drawn(2, 9, 4).requires_grad_()
    context = method._context(z, (3, 3))
    (gradient,) = torch.autograd.grad(context[0, 4].sum(), z)  # the middle: row 1, column 1
    reached = gradient.abs().sum(-1) > 0
    assert reached[0].tolist() == [True] * 6 + [False] * 3 and not reached[1].any()


def test_loss_is_equation_4() -> None:
    method, z, ahead = ready(temperature=0.3, ahead=2), drawn(2, 9, 4), drawn(2, 1, 2, 9, 4, seed=1)
    expected = 0.0
    for step in (1, 2):
        rows = []
        for b in range(2):
            for n in range(9 - 3 * step):
                shares = {
                    (c, m): math.exp(cosine(ahead[b, 0, step - 1, n], z[c, m]) / 0.3)
                    for c in range(2)
                    for m in range(9)
                }
                rows.append(-math.log(shares[b, n + 3 * step] / sum(shares.values())))
        expected += sum(rows) / len(rows) / 2
    assert float(total(method, {"z": z, "ahead": ahead})) == pytest.approx(expected)
    gradients_are_right(lambda x: total(method, {"z": z, "ahead": x}), 2, 1, 2, 9, 4)


def test_directions_go_through_the_grid_their_own_way() -> None:
    """Down, up, right and left on three by three: what follows what, and the way back."""
    expected = (
        [0, 1, 2, 3, 4, 5, 6, 7, 8],
        [6, 7, 8, 3, 4, 5, 0, 1, 2],
        [0, 3, 6, 1, 4, 7, 2, 5, 8],
        [2, 5, 8, 1, 4, 7, 0, 3, 6],
    )
    for direction, order in enumerate(expected):
        turned, back = turns((3, 3), direction)
        assert turned.tolist() == order and turned[back].tolist() == list(range(9))


def test_four_directions_ask_four_ways() -> None:
    """What is told of a turned sample downwards is what is told of the sample the other way."""
    method, views = ready(directions=4), drawn(2, 1, 1, 8, 8)
    encoder = OnPatches().double()
    batch = Batch({"views": Stream(views)}, torch.arange(2), torch.arange(2))
    outputs = method({"encoder": encoder}, batch, CLOCK)  # type: ignore[dict-item]
    assert outputs["ahead"].shape[:2] == (2, 4)
    assert len(method.loss(outputs, CLOCK)) == 4 * outputs["ahead"].shape[2]
    z = outputs["z"]
    below = torch.stack(
        [step(method._context(z.view(2, 3, 3, 4).flip(1).flatten(1, 2), (3, 3))) for step in method.predict], 1
    )
    upwards = below.unflatten(2, (3, 3)).flip(2).flatten(2, 3)
    torch.testing.assert_close(outputs["ahead"][:, 1], upwards)
    one = {"z": z, "ahead": outputs["ahead"][:, 1:2]}
    flipped = {"z": z.view(2, 3, 3, 4).flip(1).flatten(1, 2), "ahead": below[:, None]}
    terms = [method.loss(flipped, CLOCK), method.loss({**one, "ahead": outputs["ahead"]}, CLOCK)]
    torch.testing.assert_close(terms[0]["row_1"][0] / 4, terms[1]["row_1_2"][0])


def test_series_and_volumes_too() -> None:
    for shape in ((2, 60), (1, 48, 48, 48)):
        method, encoder = CPC(ahead=2), make("small", shape, width=4)
        method.build({"encoder": encoder})
        batch = Batch({"views": Stream(torch.randn(2, 1, *shape))}, torch.arange(2), torch.arange(2))
        outputs = method({"encoder": encoder}, batch, CLOCK)
        assert outputs["z"].shape[1] == 5 ** (len(shape) - 1) and total(method, outputs).isfinite()


def test_predictions_get_better() -> None:
    torch.manual_seed(0)
    encoder, method = OnPatches(), CPC(out_dim=8, context=16, across=4, patch=2)
    method.build({"encoder": encoder})  # type: ignore[dict-item]
    parameters = [*encoder.parameters(), *method.parameters()]
    optimiser, losses = torch.optim.Adam(parameters, lr=1e-2), []
    columns = torch.randn(16, 1, 1, 1, 8).expand(-1, -1, -1, 8, -1)  # what is above tells what is below
    for _ in range(60):
        batch = Batch({"views": Stream(columns)}, torch.arange(16), torch.arange(16))
        loss = total(method, method({"encoder": encoder}, batch, CLOCK))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 1.0
