"""MSN and PMSN: their equations, what is dropped, where gradients stop, and that it learns."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from selftaught.methods.msn import MSN, divergence
from selftaught.ops.assignment import sinkhorn
from tests.methods.check import drawn, found_again, gradients_are_right, outputs_of, total, trained
from tests.small import build

SMALL = {"prototypes": 6, "hidden": 8, "out_dim": 4, "small": 0}


def softmax(values: torch.Tensor, temperature: float) -> list[float]:
    shares = [math.exp(float(one) / temperature) for one in values]
    return [one / sum(shares) for one in shares]


@pytest.mark.parametrize("prior", ["uniform", "power"])
@pytest.mark.parametrize("balance", [False, True])
def test_loss_is_equations_1_and_2(prior: str, balance: bool) -> None:
    options = {"temperature": 0.3, "teacher_temperature": 0.2, "regularisation": 0.7, "prior": prior}
    method = MSN(**SMALL, **options, balance=balance)  # type: ignore[arg-type]
    scores, target = drawn(5, 3, 6) / 3, drawn(5, 6, seed=1) / 3
    codes = sinkhorn(target, epsilon=0.2).tolist() if balance else [softmax(row, 0.2) for row in target]
    rows, mean = [], [0.0] * 6
    for i in range(5):
        for a in range(3):
            p = softmax(scores[i, a], 0.3)
            rows.append(-sum(t * math.log(q) for t, q in zip(codes[i], p, strict=True)))
            mean = [m + q / 15 for m, q in zip(mean, p, strict=True)]
    law = [k**-0.25 for k in range(1, 7)]
    law = [one / sum(law) for one in law]
    if prior == "uniform":
        far = math.log(6) + sum(m * math.log(m) for m in mean)
    else:
        far = sum(p * math.log(p / m) for p, m in zip(law, mean, strict=True))
    assert float(total(method, {"scores": scores, "target": target})) == pytest.approx(sum(rows) / 15 + 0.7 * far)
    gradients_are_right(lambda x: total(method, {"scores": x, "target": target}), 5, 3, 6)


def test_divergence_is_zero_at_the_prior() -> None:
    uniform = torch.full((4,), 0.25, dtype=torch.float64)
    assert float(divergence(uniform, None)) == pytest.approx(0, abs=1e-12)
    assert float(divergence(torch.eye(4, dtype=torch.float64)[0], None)) == pytest.approx(math.log(4))
    law = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    assert float(divergence(law, law)) == pytest.approx(0, abs=1e-12) and float(divergence(uniform, law)) > 0.05


def test_a_share_of_the_places_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    task = build(MSN(**SMALL, dropped=0.25))  # type: ignore[arg-type]
    seen: list[int] = []
    encoder: Any = task.encoders["encoder"]
    usual = encoder.context
    monkeypatch.setattr(
        encoder, "context", lambda tokens, **more: seen.append(tokens.values.shape[1]) or usual(tokens, **more)
    )
    outputs = outputs_of(task)
    assert seen == [12] and outputs["scores"].shape == (6, 1, 6) and not outputs["target"].requires_grad


def test_it_learns() -> None:
    method = MSN(prototypes=64, hidden=64, out_dim=32, small=0, momentum=0.9)
    assert found_again(trained(method, steps=200)) > found_again(build(MSN()).eval()) + 0.1
