"""Turns samples into vectors with a frozen encoder, and leaves the encoder as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from selftaught.types import Batch, Features

Normalise = Callable[[Tensor], Tensor]
DTYPES = {"32": torch.float32, "bf16": torch.bfloat16, "16": torch.float16}


def extract(
    encoder: nn.Module,
    batches: Iterable[Batch],
    normalise: Normalise,
    *,
    rows: int | None = None,
    device: torch.device | str = "cpu",
    precision: str = "32",
) -> Float[np.ndarray, "N D"]:
    """Pooled features of plain batches, in the order given; float32.

    With ``rows=N`` the result has N rows, each at its ``batch.p`` (its place among the samples asked for), and nan for
    those that did not come because they cannot be read; ``evaluate`` leaves such rows out and says so.

    The encoder runs in eval mode without gradients, so no running statistic moves; each module's mode is put back.
    ``precision`` is "32", "bf16" or "16" (autocast of the forward pass). Several views per sample are averaged.
    """
    dtype = DTYPES[precision]
    device = torch.device(device)
    autocast = torch.autocast(device.type, dtype=dtype, enabled=dtype is not torch.float32)
    parts, places = [], []
    with evaluating(encoder), torch.inference_mode(), autocast:
        for batch in batches:
            parts.append(pooled(encoder, normalise(batch["plain"].data.to(device))).float().cpu().numpy())
            places.append(batch.p.numpy())
    return _placed(parts, places, rows, getattr(encoder, "dim", 0))


def extract_raw(
    raw: Callable[[Batch], Tensor], batches: Iterable[Batch], *, rows: int | None = None
) -> Float[np.ndarray, "N D"]:
    """The control without an encoder: ``modality.raw`` of each batch; float32, placed as by ``extract``."""
    parts, places = [], []
    for batch in batches:
        parts.append(raw(batch).float().cpu().numpy())
        places.append(batch.p.numpy())
    return _placed(parts, places, rows, 0)


def _placed(parts: list[np.ndarray], places: list[np.ndarray], rows: int | None, dim: int) -> np.ndarray:
    found = np.concatenate(parts) if parts else np.empty((0, dim), np.float32)
    if rows is None:
        return found
    made = np.full((rows, found.shape[1]), np.nan, np.float32)
    if places:
        made[np.concatenate(places)] = found
    return made


def calibrate(encoder: nn.Module, batches: Iterable[Batch], normalise: Normalise) -> int:
    """Sets batch norm's running statistics to the mean over ``batches``; no weight moves. Returns how many it set.

    An untrained convnet has mean 0 and variance 1 there, which says nothing of the data: layer by layer its features
    drift, and the control "random" would lose for a reason that takes no label and no gradient to mend. So the control
    gets the statistics of the unlabelled training samples, which is the stronger, and so the fairer, opponent.
    """
    norms = [module for module in encoder.modules() if getattr(module, "running_mean", None) is not None]
    before = [getattr(norm, "momentum", None) for norm in norms]
    for norm in norms:
        norm.reset_running_stats()  # type: ignore[operator]
        norm.momentum = None  # type: ignore[assignment]  # None = plain mean over all batches
    modes = [(module, module.training) for module in encoder.modules()]
    encoder.train()
    try:
        with torch.no_grad():
            for batch in batches if norms else ():
                pooled(encoder, normalise(batch["plain"].data.to(next(encoder.parameters()).device)))
    finally:
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum  # type: ignore[assignment]
        _restore(modes)
    return len(norms)


def pooled(encoder: nn.Module, x: Tensor) -> Tensor:
    """(B, V, C, *space) -> (B, D); any module that gives (B, D), (B, D, *grid) or ``Features`` will do."""
    out = encoder(x.flatten(0, 1))
    out = out.pooled if isinstance(out, Features) else out
    out = out.flatten(2).mean(dim=2) if out.ndim > 2 else out
    return out.unflatten(0, x.shape[:2]).mean(dim=1)


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode inside; afterwards every part has the mode it had (a frozen part of a training encoder stays so)."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        _restore(modes)


def _restore(modes: list[tuple[nn.Module, bool]]) -> None:
    for part, training in modes:
        part.training = training
