"""BEiT: its equation, whose words they are, and that it learns."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from selftaught.encoders import make
from selftaught.errors import EncoderError
from selftaught.methods.beit import BEiT
from selftaught.train.loop import Share
from selftaught.train.task import Task
from tests.methods.check import CLOCK, drawn, gradients_are_right, total
from tests.pretexts import batches_of, discs, modality_of, train


def test_loss_is_equation_6() -> None:
    scores, word = drawn(2, 4, 5), torch.tensor([[0, 4, 2, 1], [3, 3, 0, 2]])
    hidden = torch.tensor([[1, 0, 1, 0], [0, 1, 1, 0]], dtype=torch.bool)
    rows = [
        math.log(float(scores[b, n].exp().sum())) - float(scores[b, n, word[b, n]])
        for b in range(2)
        for n in range(4)
        if hidden[b, n]
    ]
    outputs = {"scores": scores, "word": word, "hidden": hidden}
    assert float(total(BEiT(), outputs)) == pytest.approx(sum(rows) / 4, rel=1e-6)
    gradients_are_right(lambda x: total(BEiT(), {**outputs, "scores": x}), 2, 4, 5)


class Brightness(torch.nn.Module):
    """A teacher with three words for the cells of a 4 x 4 grid: dark, middle, bright."""

    vocabulary, gives_tokens = 3, False

    def words(self, x: torch.Tensor) -> tuple[torch.Tensor, tuple[int, ...]]:
        cells = torch.nn.functional.adaptive_avg_pool2d(x.mean(1, keepdim=True), 4).flatten(1)
        return torch.bucketize(cells, torch.tensor([-0.3, 0.5])), (4, 4)


def task_with(teacher: Any, **options: Any) -> Task:
    samples, method = discs(32), BEiT(**options)
    modality = modality_of(samples)
    torch.manual_seed(0)
    encoder = make("vit_tiny", modality.shape(), patch=4, dim=32, depth=2, heads=2)
    teacher.requires_grad_(False)
    method.build({"encoder": encoder, "teacher": teacher})  # type: ignore[dict-item]
    return Task({"encoder": encoder, "teacher": teacher}, method, modality.normalise)


def test_a_teachers_own_words() -> None:
    task = task_with(Brightness())
    (batch,) = batches_of(task.method, 8, discs(32))
    outputs = task(Share(batch, CLOCK))
    view = task.prepare(batch)["views"].data[:, 0]
    assert outputs["scores"].shape == (8, 16, 3) and "place" not in outputs
    assert torch.equal(outputs["word"], Brightness().words(view)[0])


def test_words_on_another_grid_are_those_of_the_nearest_place() -> None:
    class Coarse(Brightness):
        def words(self, x: torch.Tensor) -> tuple[torch.Tensor, tuple[int, ...]]:
            return torch.arange(4).expand(len(x), -1), (2, 2)

    task = task_with(Coarse())
    (batch,) = batches_of(task.method, 2, discs(32))
    found = task(Share(batch, CLOCK))["word"].view(2, 4, 4)
    assert found[0].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]


def test_a_vocabulary_made_here_follows_the_teachers_places() -> None:
    task = task_with(make("small", (3, 16, 16), width=8, stride=1), words=8)
    train(task, discs(32), steps=30)
    (batch,) = batches_of(task.method, 32, discs(32))
    outputs = task.eval()(Share(batch, CLOCK))
    assert len(outputs["place_word"].unique()) >= 4


def test_a_teacher_without_places_is_refused() -> None:
    class OneVector(torch.nn.Module):
        gives_tokens, dim = False, 4

    with pytest.raises(EncoderError, match="gives tokens"):
        task_with(OneVector())


def test_it_learns_words() -> None:
    task = task_with(Brightness(), mask="grid")
    train(task, discs(32), steps=200)
    (batch,) = batches_of(task.method, 64, discs(32), start=999, steps=1000)
    with torch.no_grad():
        outputs = task(Share(batch, CLOCK))
    right = outputs["scores"].argmax(-1) == outputs["word"]
    commonest = outputs["word"][outputs["hidden"]].bincount().max() / outputs["hidden"].sum()
    assert right[outputs["hidden"]].float().mean() > commonest + 0.02
