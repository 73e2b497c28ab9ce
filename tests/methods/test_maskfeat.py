"""MaskFeat: its equation, histograms of edges, what the encoder sees, and that it learns."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from selftaught.methods.maskfeat import MaskFeat
from selftaught.ops.gradients import cells_of_parts, directions, drawn_edges, edge_histograms
from tests.methods.check import drawn, gradients_are_right, total
from tests.pretexts import CLOCK, batches_of, discs, left, task_on


def test_loss_is_the_mean_square_on_hidden_cells() -> None:
    hidden = torch.tensor([[1, 0, 1, 0], [0, 1, 1, 0]], dtype=torch.bool)
    back, target = drawn(2, 4, 6), drawn(2, 4, 6, seed=1)
    rows = [(float(p) - float(q)) ** 2 for p, q in zip(back[hidden].flatten(), target[hidden].flatten(), strict=True)]
    outputs = {"back": back, "target": target, "hidden": hidden}
    assert float(total(MaskFeat(), outputs)) == pytest.approx(sum(rows) / len(rows))
    gradients_are_right(lambda x: total(MaskFeat(), {**outputs, "back": x}), 2, 4, 6)


@pytest.mark.parametrize("angle", [10, 50, 90, 130, 170])
def test_a_ramp_has_one_direction(angle: int) -> None:
    """Values rise along ``angle`` degrees from the x axis everywhere: all of the histogram lies in that bin of 20."""
    rise = math.radians(angle)
    y, x = np.mgrid[:16, :16]
    ramp = torch.from_numpy(np.sin(rise) * y + np.cos(rise) * x)[None, None]
    fine = cells_of_parts(edge_histograms(ramp, (4, 4)), (4, 4), (2, 2)).view(8, 8, 9)[
        1:-1, 1:-1
    ]  # the border's differences are halved
    expected = torch.zeros(9, dtype=torch.float64)
    expected[angle // 20] = 1
    torch.testing.assert_close(fine, expected.expand(6, 6, 9))


def test_histograms_of_a_place_by_place_loop() -> None:
    x = drawn(1, 2, 8, 8)
    found = cells_of_parts(edge_histograms(x, (2, 2)), (2, 2), (2, 2))[0].view(4, 4, 2, 9)
    for row in range(4):
        for column in range(4):
            for channel in range(2):
                bins = [0.0] * 9
                for y in range(2 * row, 2 * row + 2):
                    for z in range(2 * column, 2 * column + 2):
                        plane = x[0, channel]
                        gy = float(plane[min(7, y + 1), z] - plane[max(0, y - 1), z])
                        gx = float(plane[y, min(7, z + 1)] - plane[y, max(0, z - 1)])
                        bins[int((math.atan2(gy, gx) % math.pi) / math.pi * 9) % 9] += math.hypot(gy, gx)
                length = math.sqrt(sum(one**2 for one in bins))
                assert found[row, column, channel].tolist() == pytest.approx([one / length for one in bins])


@pytest.mark.parametrize(("shape", "grid"), [((2, 32), (8,)), ((1, 9, 9), (3, 3)), ((1, 8, 8, 8), (2, 2, 2))])
def test_any_number_of_axes(shape: tuple[int, ...], grid: tuple[int, ...]) -> None:
    found = edge_histograms(drawn(2, *shape), grid)
    assert found.shape[:2] == (2, math.prod(grid)) and found.isfinite().all()
    assert drawn_edges(found, grid, shape).shape == (2, *shape)
    assert edge_histograms(torch.zeros(1, *shape), grid).abs().max() == 0


def test_directions_are_unlike() -> None:
    for axes, count in ((1, 2), (2, 9), (3, 13)):
        ways = directions(axes)
        assert ways.shape == (count, axes)
        torch.testing.assert_close(ways.norm(dim=1), torch.ones(count))
        alike = ways @ ways.T if axes == 1 else (ways @ ways.T).abs()
        assert (alike - 2 * torch.eye(count)).max() < 0.95


def test_what_is_shown() -> None:
    task = task_on(MaskFeat(), discs(8)).eval()
    (batch,) = batches_of(task.method, 4, discs(8))
    with torch.no_grad():
        shown = task.method.show(task.encoders, task.prepare(batch), CLOCK)  # type: ignore[arg-type]
    assert list(shown) == ["input", "seen", "edges", "told"]
    assert all(one.shape == (4, 3, 16, 16) for one in shown.values())


def test_it_learns() -> None:
    assert left(MaskFeat(), steps=150) < 0.85
