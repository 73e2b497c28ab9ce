"""A small SimCLR training as a process of its own, to be killed: ``python -m tests.sigkill_script RUN STEPS``.

Prints "step N" after every step and "saving" while a checkpoint is being written. ``SLOW_SAVE`` seconds are spent in
the middle of each write, with half a file on the disk, so that a kill can hit there.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selftaught.errors import SelftaughtError
from selftaught.methods.simclr import SimCLR
from selftaught.train.checkpoint import Store, lock
from selftaught.train.fabric import make_fabric
from selftaught.train.loop import Callback, Settings, State, fit
from selftaught.train.optim import Recipe
from selftaught.train.progress import MetricsFile
from tests.small import Pictures, build


class Tell(Callback):
    def on_step(self, state: State, row: dict[str, Any]) -> None:
        print("step", state.clock.step + 1, flush=True)
        time.sleep(float(os.environ.get("SLOW_STEP", "0")))


class SlowStore(Store):
    """Leaves half a file and waits before it writes the whole."""

    def _write(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], step: int) -> None:
        if slow := float(os.environ.get("SLOW_SAVE", "0")):
            (self.folder / f"{step:08d}.safetensors.partial").write_bytes(b"half of the tensors")
            print("saving", step, flush=True)
            time.sleep(slow)
        super()._write(tensors, facts, step)


def main(run: str, steps: str) -> int:
    torch.set_num_threads(int(os.environ.get("THREADS", "1")))
    settings = Settings(16, steps=int(steps), steps_per_epoch=7, save_every=0.0, optimiser=Recipe(lr=1e-2))
    try:
        with lock(run):
            folder = Path(run)
            task, metrics = build(SimCLR(), dropout=0.2), MetricsFile(folder / "metrics.csv")
            store, fabric = SlowStore(folder / "checkpoints"), make_fabric("cpu", devices=1)
            result = fit(task, Pictures(16), settings, fabric=fabric, store=store, callbacks=[Tell()], metrics=metrics)
    except SelftaughtError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print("resumed from", result.resumed_from, *result.notes, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
