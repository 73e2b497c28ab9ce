"""iBOT: its equations on views and on hidden places, what is hidden, the teacher, and that it learns."""

from __future__ import annotations

import math

import pytest
import torch

from selftaught.methods.ibot import IBOT
from tests.methods.check import CLOCK, drawn, found_again, gradients_are_right, outputs_of, total, trained
from tests.small import build

SMALL = {"prototypes": 6, "hidden": 8, "bottleneck": 4, "small": 0}
HIDDEN = torch.tensor([[[1, 1, 0], [0, 0, 0]], [[1, 0, 0], [1, 1, 1]]]).bool()  # (2, 2, 3)


def ready(**options: object) -> IBOT:
    method = build(IBOT(**{**SMALL, **options}), dtype=torch.float64).method  # type: ignore[arg-type]
    method.centre.mean.copy_(drawn(6, seed=3) / 10)  # type: ignore[union-attr,operator]
    method.place_centre.mean.copy_(drawn(6, seed=4) / 10)  # type: ignore[union-attr,operator]
    return method  # type: ignore[return-value]


def some() -> dict[str, torch.Tensor]:
    shapes = {"scores": (2, 3, 6), "target": (2, 2, 6), "place": (2, 2, 3, 6), "place_target": (2, 2, 3, 6)}
    made = {name: drawn(*shape, seed=number) / 3 for number, (name, shape) in enumerate(shapes.items())}
    return {**made, "hidden": HIDDEN}


def crossed(teacher: torch.Tensor, student: torch.Tensor, temperatures: tuple[float, float]) -> float:
    """-sum p log q of two rows of scores, by hand."""
    p = [math.exp(float(x) / temperatures[0]) for x in teacher]
    q = [math.exp(float(x) / temperatures[1]) for x in student]
    return -sum(a / sum(p) * math.log(b / sum(q)) for a, b in zip(p, q, strict=True))


def test_loss_is_equations_1_and_2() -> None:
    method = ready(temperature=0.3, teacher_temperature=0.2, place_temperature=0.25, places=0.5)
    outputs, views, places = some(), [], []
    for i in range(2):
        for v in range(2):
            sharp = outputs["target"][i, v] - method.centre.mean
            views += [crossed(sharp, outputs["scores"][i, w], (0.2, 0.3)) for w in range(3) if w != v]
            seen = [m for m in range(3) if HIDDEN[i, v, m]]
            rows = [
                crossed(
                    outputs["place_target"][i, v, m] - method.place_centre.mean, outputs["place"][i, v, m], (0.25, 0.3)
                )
                for m in seen
            ]
            places += [sum(rows) / len(rows)] if rows else []
    expected = sum(views) / len(views) + 0.5 * sum(places) / len(places)
    assert len(places) == 3 and float(total(method, outputs)) == pytest.approx(expected)
    gradients_are_right(lambda x: total(method, {**outputs, "place": x}), 2, 2, 3, 6)


def test_what_is_not_hidden_does_not_count() -> None:
    method, outputs = ready(), some()
    place = outputs["place"].clone().requires_grad_()
    total(method, {**outputs, "place": place}).backward()
    assert (place.grad.abs().sum(-1) > 0).equal(HIDDEN)  # type: ignore[union-attr]


def test_some_views_are_hidden_in_part() -> None:
    task = build(IBOT(**SMALL, masked=0.5, least=0.2, most=0.5))  # type: ignore[arg-type]
    outputs = outputs_of(task, count=40)
    counts = outputs["hidden"].flatten(0, 1).sum(1)
    assert outputs["place"].shape == (40, 2, 8, 6)  # half of 16 places at most
    assert 0.3 < (counts > 0).float().mean() < 0.7 and counts[counts > 0].min() >= 3 and counts.max() <= 8
    assert torch.equal(outputs["hidden"], outputs_of(task, count=40)["hidden"])  # a function of the position


def test_the_student_does_not_see_what_is_hidden() -> None:
    task = build(IBOT(**SMALL, masked=1.0, least=0.5, most=0.5)).eval()  # type: ignore[arg-type]
    before = outputs_of(task, count=4)
    with torch.no_grad():
        task.encoders["encoder"].mask_vector.copy_(drawn(32))  # type: ignore[operator,union-attr]
    after = outputs_of(task, count=4)
    assert (before["place"] - after["place"]).abs().amax() > 1e-3
    torch.testing.assert_close(before["place_target"], after["place_target"])


def test_centres_and_teacher_follow() -> None:
    task = build(IBOT(**SMALL, centre_momentum=0.75, momentum=0.5))  # type: ignore[arg-type]
    outputs = outputs_of(task)
    before = task.method.teacher["head"].layers[0].weight.clone()  # type: ignore[index,union-attr]
    with torch.no_grad():
        task.method.head.layers[0].weight.zero_()  # type: ignore[index,union-attr]
    task.method.after_step(outputs, CLOCK)
    hidden = outputs["place_target"][outputs["hidden"]]
    torch.testing.assert_close(task.method.place_centre.mean, hidden.mean(0) / 4)  # type: ignore[union-attr]
    torch.testing.assert_close(task.method.teacher["head"].layers[0].weight, before / 2)  # type: ignore[index,union-attr]


def test_it_learns() -> None:
    method = IBOT(prototypes=64, hidden=64, bottleneck=32, small=0, momentum=0.9)
    assert found_again(trained(method, steps=200)) > found_again(build(IBOT()).eval()) + 0.1
