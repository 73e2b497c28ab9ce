"""What a check and a peek look at: held-out samples through the encoder in eval mode, outputs, sizes of weights."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from selftaught.diagnostics import measures
from selftaught.types import Batch, Features, Stream

MANY = 16  # prototypes, and samples of a batch, from which on it is a sign that all fall to one
AT_ONCE = 64  # samples that a look puts through the encoder together
Batches = Sequence[Batch] | Callable[[], Iterable[Batch]]


def embed(state: Any, plain: Batches, paired: Batches) -> tuple[Tensor, Tensor | None]:
    """Features (N, D) of untouched samples, and (M, 2, D) of pairs of views; the encoder is left as it was."""
    encoder = kept_encoder(state.task)
    with _evaluating(encoder), torch.inference_mode(), state.fabric.autocast():
        z = torch.cat([_pooled(state, encoder, batch["plain"])[:, 0] for batch in batches_of(plain)]).float()
        pairs = [_pooled(state, encoder, next(iter(batch.streams.values()))) for batch in batches_of(paired)]
    return z, torch.cat(pairs).float() if pairs else None


def explained(state: Any, batches: Iterable[Batch]) -> dict[str, float]:
    """How well the method explains samples that it does not learn from; the task is left as it was.

    ``held_out_loss``: the mean of its ``energy``, with the same masks and noise at every look. ``unexplained``: that,
    as a share of what guessing the mean would cost, where something is given back: 1 = no better than the mean.
    """
    task, sums, guesses, count = state.task, 0.0, 0.0, 0
    clock = dataclasses.replace(state.clock, step=0, epoch=0)
    with _evaluating(task), torch.inference_mode(), state.fabric.autocast():
        device = next(task.parameters()).device
        for batch in batches:
            outputs = task.method(task.encoders, task.prepare(batch.to(device)), clock)
            sums += float(task.method.energy(outputs, clock).double().sum())
            count += len(batch)
            if "back" in outputs:
                guess = {**outputs, "back": torch.zeros_like(outputs["back"])}
                guesses += float(task.method.energy(guess, clock).double().sum())
    seen = {"held_out_loss": sums / max(1, count)}
    return seen | ({"unexplained": sums / guesses} if guesses > 0 else {})


def figures(z: Tensor, pairs: Tensor | None, labels: Tensor | None) -> dict[str, float]:
    """All measures of one check, by name. ``rank`` is RankMe of centred features, which the verdicts use."""
    spread, variation = measures.spread(z), measures.variation(z)
    seen = {
        "rankme": measures.rankme(z),
        "rank": measures.rankme(z, centre=True),
        "dim": z.shape[1],
        "alpha_req": measures.alpha_req(z),
        "uniformity": measures.uniformity(z),
        "spread": spread.mean,
        "spread_min": spread.smallest,
        "dead_share": spread.dead_share,
    }
    if pairs is not None and pairs.shape[1] > 1:
        seen["lidar"] = measures.lidar(pairs)
        seen["alignment"] = measures.alignment(pairs[:, 0], pairs[:, 1])
        # Two samples are 2 variation^2 apart on the average: below 1, views are closer than samples.
        seen["closeness"] = seen["alignment"] / max(2 * variation**2, 1e-12)
    if labels is not None:
        seen["knn"] = measures.knn_accuracy(z, labels.to(z.device))
    return seen


def batches_of(given: Batches) -> Iterable[Batch]:
    return given() if callable(given) else given


def kept_encoder(task: Any) -> nn.Module:
    """The encoder that is kept: the first."""
    return next(iter(task.encoders.values()))


def _pooled(state: Any, encoder: nn.Module, stream: Stream) -> Tensor:
    """(B, V, *stored) -> (B, V, D), a few samples at a time: a look must not need more memory than a step."""
    pieces = []
    for first in range(0, len(stream.data), AT_ONCE):
        few = stream.map(lambda tensor, rows=slice(first, first + AT_ONCE): tensor[rows])
        index = torch.arange(len(few.data))
        batch = Batch({"plain": few}, index, index).to(next(encoder.parameters()).device)
        x = state.task.prepare(batch)["plain"].data
        out = encoder(x.flatten(0, 1))
        pieces.append((out.pooled if isinstance(out, Features) else out).unflatten(0, x.shape[:2]))
    return torch.cat(pieces)


def compared(outputs: Mapping[str, Tensor]) -> Tensor | None:
    """(B, D) first views of what the method compares: its output "z", (B, V, D) or (B, D). None where it has none."""
    z = outputs.get("z")
    if z is None or z.ndim not in (2, 3) or len(z) < 4:
        return None
    return (z[:, 0] if z.ndim == 3 else z).detach().float()


def sorted_by(outputs: Mapping[str, Tensor]) -> Tensor | None:
    """(B, K) of first views: nearness to the prototypes that a method sorts by, its output "scores", (B, V, ..., K).

    None where it has none, or where they or the samples are so few that all may well belong to one.
    """
    scores = outputs.get("scores")
    if scores is None or scores.ndim < 3 or min(len(scores), scores.shape[-1]) < MANY:
        return None
    return scores.detach()[:, 0].reshape(len(scores), -1, scores.shape[-1])[:, 0]  # of several heads the first


def norms(encoder: nn.Module) -> list[float]:
    matrices = [p.detach() for p in encoder.parameters() if p.ndim > 1 and p.requires_grad]
    return torch.stack([matrix.float().norm() for matrix in matrices]).tolist() if matrices else []


def jsonable(value: float) -> float | None:
    """JSON knows no nan."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextlib.contextmanager
def _evaluating(module: nn.Module):
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
