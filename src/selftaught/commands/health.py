"""What health is measured on: held-out samples, untouched, in pairs of views, and as the method sees them."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from selftaught.commands.preparation import Preparation
from selftaught.commands.run import Speaker
from selftaught.data.index import Index
from selftaught.data.loader import Loader, Order, once
from selftaught.diagnostics.watch import Watch
from selftaught.types import Batch, Method

EXPLAINED = 128  # held-out samples that the method is to explain
PAIRED = 256  # held-out samples with two views, for alignment


def make_watch(parts: Preparation, say: Speaker) -> Watch:
    """Health on held-out samples: untouched ones in memory, and some with two views."""
    size = math.prod(parts.modality.plain_shape())
    rows, held_out = health_rows(parts.data.held_rows, parts.data.train_rows, size)
    index = parts.data.samples.index.select(rows)
    plain = list(once(index, parts.modality, batch_size=256, unreadable=parts.data.unreadable, accept_unreadable=True))
    came = np.concatenate([batch.p.numpy() for batch in plain])  # all but the unreadable ones
    labels = None if parts.data.labels is None else parts.data.labels[rows][came]
    count = min(PAIRED, len(index))
    order = Order(len(index), min(64, count), parts.request["seed"], "health")
    first = parts.plan[0]  # two views of it, also where one is learned from; not turned, and of the input's size
    pairs = (dataclasses.replace(first, count=max(2, first.count), size=1.0, pretext=""),)
    paired = Loader(index, parts.modality, pairs, order, stop=count // order.batch_size, accept_unreadable=True)
    return Watch(
        plain,
        list(paired),
        explained=_explained(parts, index),
        labels=labels,
        start=parts.out / "tables" / "start.npy" if parts.starts_trained else None,
        path=parts.out / "health.json",
        batch_size=parts.order.batch_size,
        held_out=held_out,
        compares=sum(group.count for group in parts.plan) > 1,
        say=lambda verdict: say(f"{verdict.level}: {verdict.sentence}"),
    )


def _explained(parts: Preparation, index: Index) -> list[Batch]:
    """Some held-out samples with the method's own views, where it can say how well it explains them."""
    assert parts.method is not None
    if type(parts.method).energy is Method.energy:
        return []
    order = Order(len(index), min(EXPLAINED, len(index)), parts.request["seed"], "explained")
    return list(Loader(index, parts.modality, parts.plan, order, stop=1, accept_unreadable=True))


def health_rows(held: np.ndarray, train: np.ndarray, bytes_per_sample: int) -> tuple[np.ndarray, bool]:
    """(rows that health is measured on, held out?): what fits into 128 MiB; training rows where none are held out."""
    room = max(128, 128 * 2**20 // max(1, bytes_per_sample))
    return (held[:room], True) if len(held) else (train[: min(room, 512)], False)
