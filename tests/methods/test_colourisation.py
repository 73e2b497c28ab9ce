"""Colourisation: its equations, what the encoder sees, how rare colours weigh, and that it learns."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch

from selftaught.data.keys import generator
from selftaught.encoders import make
from selftaught.errors import MethodError
from selftaught.methods.colourisation import SPAN, Colourisation
from selftaught.modalities.image import Image
from selftaught.ops.colour import STEP, classes, mean_colour, nearest, soft, to_rgb
from selftaught.types import Sample
from tests.methods.check import clock_at, drawn, gradients_are_right, total
from tests.pretexts import batches_of, discs, outputs_on, task_on, train


def ready(**options: object) -> Colourisation:
    torch.manual_seed(0)
    method = Colourisation(width=8, **options)  # type: ignore[arg-type]
    method.build({"encoder": make("small", (3, 16, 16), width=8)})
    return method.double()


def test_classes_are_the_colours_of_srgb() -> None:
    found = classes()
    assert (found % STEP == 0).all() and 240 < len(found) < 320
    rng = np.random.default_rng(0)
    lab = cv2.cvtColor(rng.random((1, 5000, 3)).astype(np.float32), cv2.COLOR_RGB2LAB)[0, :, 1:]
    far = np.linalg.norm(lab[:, None] - found[None], axis=-1).min(1)
    assert far.max() < STEP  # every colour has a class near


def test_soft_targets_are_a_gaussian_over_five() -> None:
    middles = torch.from_numpy(classes()).double()
    ab = 40 * drawn(1, 3, 2)
    which, share = soft(ab, middles)
    for n in range(3):
        far = [(math.dist(ab[0, n].tolist(), middle.tolist()), q) for q, middle in enumerate(middles)]
        five = sorted(far)[:5]
        weights = [math.exp(-(d**2) / (2 * 25)) for d, _ in five]
        assert which[0, n].tolist() == [q for _, q in five]
        assert share[0, n].tolist() == pytest.approx([w / sum(weights) for w in weights])


def test_loss_is_equation_2() -> None:
    method = ready()
    method.frequency.copy_(drawn(len(method.middles)).abs().softmax(0))
    ab, back = 30 * drawn(2, 2, 2, 2), drawn(2, len(method.middles), 2, 2, seed=1)
    p, q = method.frequency, len(method.middles)
    weights = [1 / (0.5 * float(one) + 0.5 / q) for one in p]
    scale = sum(float(one) * w for one, w in zip(p, weights, strict=True))  # the expected weight is 1
    rows = []
    for b in range(2):
        for y in range(2):
            for x in range(2):
                logs = back[b, :, y, x].log_softmax(0)
                which, share = soft(ab[b, :, y, x].float().view(1, 1, 2), method.middles.float())
                cross = -sum(float(s) * float(logs[k]) for k, s in zip(which[0, 0], share[0, 0], strict=True))
                rows.append(weights[int(which[0, 0, 0])] / scale * cross)
    assert float(total(method, {"back": back, "ab": ab})) == pytest.approx(sum(rows) / 8, rel=1e-5)
    gradients_are_right(lambda x: total(method, {"back": x, "ab": ab[:1, :, :1, :1]}), 1, len(method.middles), 1, 1)


def test_regression_is_equation_1() -> None:
    method, back, ab = ready(regression=True), drawn(2, 2, 3, 3), 50 * drawn(2, 2, 3, 3, seed=1)
    expected = float((back - ab / SPAN).square().mean())
    assert float(total(method, {"back": back, "ab": ab})) == pytest.approx(expected, rel=1e-5)


def test_frequencies_follow_the_data() -> None:
    method = ready()
    red = method.middles.float()[5].view(1, 2, 1, 1).expand(4, 2, 3, 3)
    for step in range(3):
        method.after_step({"ab": red, "back": red}, clock_at(step))
    assert float(method.frequency[5]) == pytest.approx(1) and float(method.frequency.sum()) == pytest.approx(1)
    weights = method.weights()
    assert float(weights[5]) == pytest.approx(1) and (weights >= 1 - 1e-9).all()  # rare ones weigh more


def test_the_mean_colour_lies_between_mode_and_mean() -> None:
    middles = torch.tensor([[0.0, 0.0], [40.0, 0.0]])
    scores = torch.tensor([0.0, 1.0]).view(1, 2, 1, 1)
    mean = 40 * math.e / (1 + math.e)
    annealed = float(mean_colour(scores, middles)[0, 0, 0, 0])
    assert mean < annealed < 40
    assert float(mean_colour(scores, middles, temperature=1.0)[0, 0, 0, 0]) == pytest.approx(mean)


def test_colour_is_taken_from_the_view_and_kept() -> None:
    rng = np.random.default_rng(0)
    smooth = cv2.resize(rng.integers(0, 256, (4, 4, 3)).astype(np.uint8), (40, 40))
    image, sample = Image(size=16), Sample({"image": smooth})
    image.fit([sample])
    made = image.views(sample, generator(0, "", 0), Colourisation().needs().plan)
    view, lab = made.streams["views"][0], made.drawn["views"]["colour"][0]
    assert (view == view[..., :1]).all() and lab.shape == (16, 16, 3)
    ab = torch.from_numpy(lab[..., 1:].astype(np.float32)).movedim(-1, 0)[None] - 128
    back = to_rgb(torch.from_numpy(lab[None, ..., 0].astype(np.float32)) * 100 / 255, ab)[0].numpy()
    gray = cv2.cvtColor(back, cv2.COLOR_RGB2GRAY)
    assert abs(gray.astype(int) - view[..., 0]).mean() < 3  # Lab is rounded


def test_gray_data_are_refused() -> None:
    image, sample = Image(size=16), Sample({"image": np.zeros((20, 20, 1), np.uint8)})
    image.fit([sample])
    assert "colour" not in image.pretext
    with pytest.raises(MethodError, match="colour"):
        image.views(sample, generator(0, "", 0), Colourisation().needs().plan)


@pytest.mark.parametrize("regression", [True, False])
def test_it_learns_colours(regression: bool) -> None:
    """Bright things are red, dark ones green."""
    samples, method = discs(32), Colourisation(width=16, regression=regression)
    task = task_on(method, samples)
    train(task, samples, steps=60 if regression else 200)
    outputs = outputs_on(task, samples)
    (batch,) = batches_of(method, 16, samples)
    with torch.no_grad():
        shown = method.show(task.encoders, task.prepare(batch), clock_at(0))  # type: ignore[arg-type]
    told = SPAN * outputs["back"] if regression else mean_colour(outputs["back"], method.middles)
    red_and_green = torch.tensor([[60.0, 40.0], [-40.0, 30.0]])
    same = nearest(outputs["ab"], red_and_green) == nearest(told, red_and_green)
    assert same.float().mean() > 0.75
    assert all(one.dtype == torch.uint8 and one.shape == (16, 16, 16, 3) for one in shown.values())
    far = {name: (shown[name].float() - shown["input"].float()).abs().mean() for name in ("seen", "back")}
    assert far["back"] < 0.7 * far["seen"]
