"""What a method makes of a few samples, as a picture: RUN/pictures/shown.png."""

from __future__ import annotations

import contextlib
from typing import Any

from selftaught.commands import pictures
from selftaught.commands.preparation import Preparation
from selftaught.data.loader import Loader, Order
from selftaught.encoders.whole import quiet_eval
from selftaught.train.clocks import clock_of
from selftaught.train.task import Task
from selftaught.types import Method

COUNT = 16  # samples


def write(parts: Preparation, task: Task, device: Any) -> None:
    """Of samples that were held out, where there are any; nothing where the method has nothing to show."""
    if type(task.method).show is Method.show:
        return
    rows = parts.data.held_rows if len(parts.data.held_rows) else parts.data.train_rows
    index = parts.data.samples.index.select(rows)
    order = Order(len(index), min(COUNT, len(index)), parts.request["seed"], "shown")
    loader = Loader(index, parts.modality, parts.plan, order, stop=1, accept_unreadable=True)
    with contextlib.closing(loader), quiet_eval(task):
        batch = task.prepare(next(iter(loader)).to(device))
        columns = task.method.show(task.encoders, batch, clock_of(0, steps=1, steps_per_epoch=1, seed=0))  # type: ignore[arg-type]
    if columns:
        pictures.write_shown(parts.out / "pictures" / "shown.png", columns, parts.modality)
