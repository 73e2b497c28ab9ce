"""Our losses against lightly's, on the same random numbers: the largest relative difference in value and in gradient.

    PYTHONPATH=src python-with-lightly benchmarks/parity.py

Needs a Python that has lightly besides our dependencies (a throw-away environment). Prints one line a loss; a loss that
lightly computes otherwise is listed with the reason. Exit code 1 where one that should agree differs by more than 1e-5.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from lightly import loss as peer  # type: ignore[import-not-found]
from torch import Tensor

from selftaught.methods.barlow_twins import barlow_terms
from selftaught.methods.dcl import decoupled
from selftaught.methods.dino import DINO
from selftaught.methods.dinov2 import koleo
from selftaught.methods.ibot import IBOT
from selftaught.methods.lejepa import sigreg
from selftaught.methods.mmcr import capacity_terms
from selftaught.methods.msn import MSN
from selftaught.methods.swav import SwAV
from selftaught.methods.tico import covariance_contrast
from selftaught.methods.vicregl import VICRegL
from selftaught.nn.centre import Centre
from selftaught.ops.losses import across_views, nt_xent, unit, vicreg_terms
from selftaught.train.clocks import clock_of

B, D, K = 64, 32, 48
CLOCK = clock_of(0, steps=10, steps_per_epoch=10, seed=0)
Loss = Callable[[Tensor], Tensor]
WHERE = torch.rand(B, 2, 4, 2, generator=torch.Generator().manual_seed(1))
PROTOTYPES = torch.randn(K, D, generator=torch.Generator().manual_seed(2))


def vicreg(z: Tensor) -> Tensor:
    terms = vicreg_terms(z)
    return 25 * terms["invariance"] + 25 * terms["variance"] + terms["covariance"]


def barlow(z: Tensor) -> Tensor:
    same, others = barlow_terms(z[:, 0], z[:, 1])
    return same + 5e-3 * others


def tico(z: Tensor) -> Tensor:
    """One direction, as lightly has it, and an empty running covariance."""
    a, b = unit(z[:, 0]), unit(z[:, 1])
    return 1 - (a * b).sum(1).mean() + 8 * covariance_contrast(a, torch.zeros(D, D), beta=0.9)


def dino(z: Tensor) -> Tensor:
    method = DINO(prototypes=D, small=0)
    method.centre = Centre(D)
    ((value, count),) = method.loss({"scores": z, "target": z.detach().roll(1, 0)}, CLOCK).values()
    return value / count


def lightly_dino(z: Tensor) -> Tensor:
    teacher = z.detach().roll(1, 0)
    return peer.DINOLoss(output_dim=D)([teacher[:, 0], teacher[:, 1]], [z[:, 0], z[:, 1]], teacher_temp=0.04)


def swav(z: Tensor) -> Tensor:
    method = SwAV(queue=0)
    method.queues = torch.nn.ModuleList([torch.nn.ModuleList(), torch.nn.ModuleList()])  # empty
    ((value, count),) = method.loss({"scores": unit(z)}, CLOCK).values()
    return value / count


def vicregl(z: Tensor) -> Tensor:
    """Whole views, and four places of eight numbers each, at random positions."""
    terms = VICRegL().loss({"z": z, "dense": z.unflatten(2, (4, 8)), "where": WHERE}, CLOCK)
    return torch.stack([value / count for value, count in terms.values()]).sum()


def lightly_vicregl(z: Tensor) -> Tensor:
    views = [(z[:, v], z[:, v].unflatten(1, (2, 2, 8))) for v in (0, 1)]
    return peer.VICRegLLoss()(views, [WHERE[:, v].unflatten(1, (2, 2)) for v in (0, 1)]).sum()


def ibot(z: Tensor) -> Tensor:
    """The term of the places, two a sample, all hidden."""
    method = IBOT(prototypes=D)
    method.centre, method.place_centre = Centre(D), Centre(D)
    places, hidden = z[:, None], torch.ones(B, 1, 2, dtype=torch.bool)
    outputs = {"place": places, "place_target": places.detach().roll(1, 0), "hidden": hidden}
    value, count = method.loss({**outputs, "scores": z, "target": z.detach()}, CLOCK)["places"]
    return value / count


def lightly_ibot(z: Tensor) -> Tensor:
    loss = peer.IBOTPatchLoss(output_dim=D, teacher_temp=0.07, student_temp=0.1)
    teacher = z.detach().roll(1, 0).flatten(0, 1)
    return loss(teacher, z.flatten(0, 1), torch.ones(B, 1, 2, dtype=torch.bool))


def msn(z: Tensor, prior: str) -> Tensor:
    method = MSN(prototypes=K, prior=prior)
    scores = unit(z) @ unit(PROTOTYPES).T
    terms = method.loss({"scores": scores[:, 1:], "target": scores[:, 0].detach()}, CLOCK)
    return torch.stack([value / count for value, count in terms.values()]).sum()


def lightly_msn(z: Tensor, loss: Any) -> Tensor:
    return loss(temperature=0.1, sinkhorn_iterations=0)(z[:, 1], z[:, 0].detach(), PROTOTYPES)


def lightly_sigreg(z: Tensor) -> Tensor:
    torch.manual_seed(0)
    return peer.lejepa_loss.SIGReg(num_vectors=K)(z[:, 0])


def ours_sigreg(z: Tensor) -> Tensor:
    torch.manual_seed(0)
    return sigreg(z[:, 0], torch.randn(D, K))


PAIRS: dict[str, tuple[Loss, Loss]] = {
    "NT-Xent": (
        lambda z: nt_xent(z, z, start=0, temperature=0.5).mean(),
        lambda z: peer.NTXentLoss(temperature=0.5)(z[:, 0], z[:, 1]),
    ),
    "negative cosine": (
        lambda z: -across_views(z, z.detach()).mean(),
        lambda z: torch.stack(
            [peer.NegativeCosineSimilarity()(z[:, v], z.detach()[:, 1 - v]) for v in (0, 1)]
        ).mean(),
    ),
    "Barlow Twins": (barlow, lambda z: peer.BarlowTwinsLoss()(z[:, 0], z[:, 1])),
    "VICReg": (vicreg, lambda z: peer.VICRegLoss()(z[:, 0], z[:, 1])),
    "DCL": (
        lambda z: decoupled(z, z, start=0, temperature=0.1).mean(),
        lambda z: peer.DCLLoss(temperature=0.1)(z[:, 0], z[:, 1]),
    ),
    "DCLW": (
        lambda z: decoupled(z, z, start=0, temperature=0.1, sigma=0.5).mean(),
        lambda z: peer.DCLWLoss(temperature=0.1, sigma=0.5)(z[:, 0], z[:, 1]),
    ),
    "TiCo": (tico, lambda z: peer.TiCoLoss(rho=8.0)(z[:, 0], z[:, 1])),
    "MMCR": (
        lambda z: -B * capacity_terms(z)[0] + 5e-3 * capacity_terms(z)[1],
        lambda z: peer.MMCRLoss()(unit(z)[:, :1], unit(z)[:, 1:]),
    ),
    "SIGReg": (ours_sigreg, lightly_sigreg),
    "DINO": (dino, lightly_dino),
    "VICRegL": (vicregl, lightly_vicregl),
    "iBOT, places": (ibot, lightly_ibot),
    "KoLeo": (lambda z: koleo(z[:, 0]).mean(), lambda z: peer.KoLeoLoss()(z[:, 0])),
    "MSN": (lambda z: msn(z, "uniform"), lambda z: lightly_msn(z, peer.MSNLoss)),
    "PMSN": (lambda z: msn(z, "power"), lambda z: lightly_msn(z, peer.PMSNLoss)),
    "SwAV": (swav, lambda z: peer.SwaVLoss()([unit(z)[:, 0], unit(z)[:, 1]], [])),
}  # fmt: skip
OTHERWISE = {"DCLW": "lightly's weights carry no gradient; the values agree"}


def difference(a: Tensor, b: Tensor) -> float:
    """Relative to the peer's largest number, or to 0.1 where that is smaller (a mean cosine of random vectors is 0)."""
    return float((a - b).abs().max() / b.abs().max().clamp_min(0.1))


def main() -> None:
    wrong = []
    for name, losses in PAIRS.items():
        worst = [0.0, 0.0]
        for seed in range(20):
            found = []
            for loss in losses:
                z = torch.randn(B, 2, D, generator=torch.Generator().manual_seed(seed)).requires_grad_()
                value = loss(z)
                value.backward()
                found.append((value.detach(), z.grad))
            for place, (ours, theirs) in enumerate(zip(*found, strict=True)):
                worst[place] = max(worst[place], difference(ours, theirs))
        agrees = worst[0] < 1e-5 and (worst[1] < 1e-5 or name in OTHERWISE)
        wrong += [] if agrees else [name]
        print(f"{name:16} value {worst[0]:.1e}  gradient {worst[1]:.1e}  {OTHERWISE.get(name, '')}")
    if wrong:
        sys.exit(f"These differ: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
