"""Memory that does not suffice: a step that fails for want of it says which batch would have fitted."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import torch

from selftaught.errors import OutOfMemory, is_out_of_memory
from selftaught.types import Batch


def most(step: Callable[[Batch], Any], batch: Batch, smallest: int) -> int:
    """How many samples of ``batch`` one step can take, found by halving; 0 where not even ``smallest`` fit.

    To be called once the frames of the failed step are gone, for they hold what it had made.
    """
    size = len(batch) // 2
    while size >= max(1, smallest):
        release()
        if _fits(step, batch.map(lambda tensor, size=size: tensor[:size])):
            release()
            return size
        size //= 2
    return 0


def refusal(asked: int, fits: int, *, auto: bool = True) -> OutOfMemory:
    """The error of a step of ``asked`` samples, of which ``fits`` fit (0 = not known, or none)."""
    if not fits:
        hint = "Try half the --batch-size, a smaller --encoder or smaller views (--modality.size)."
        return OutOfMemory(f"A step of {asked:,} samples takes more memory than there is.", hint=hint)
    parts = -(-asked // fits)
    hint = f"{fits:,} fit: --batch-size {fits}, or --accumulate {parts} to keep the batch"
    return OutOfMemory(
        f"A step of {asked:,} samples takes more memory than there is.",
        hint=f"{hint}; --batch-size auto takes what fits." if auto else f"{hint}.",
        fits=fits,
    )


def release() -> None:
    """Whatever is not used any more goes back."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _fits(step: Callable[[Batch], Any], batch: Batch) -> bool:
    try:
        step(batch)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    return True
