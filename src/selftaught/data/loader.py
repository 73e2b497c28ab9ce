"""Batches, in order, from worker processes: which they are depends on (seed, t) alone.

Each worker makes whole batches, torch's DataLoader hands them over in order, and nothing random lives in a worker, so
the number of workers, ranks and restarts cannot matter. A run is one pass of this iterator: no worker is started anew
at an epoch's end.
"""

from __future__ import annotations

import atexit
import time
import weakref
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from selftaught.data import processes
from selftaught.data.fetch import Answer, Evaluation, Samples, Training
from selftaught.data.index import Index
from selftaught.data.kept import Decoded
from selftaught.data.order import Order
from selftaught.data.scan import check_share
from selftaught.errors import ConfigError, SelftaughtError, must_be
from selftaught.types import Batch, Modality, Plan

__all__ = ["Loader", "Order", "once"]


class Feed:
    """Iterates answers from workers; keeps what was unreadable, the time spent waiting, and the workers' lives.

    ``data`` gives an answer for each of ``steps``; None = it is iterated, and knows its steps itself.
    """

    def __init__(
        self,
        data: Any,
        steps: range | None,
        *,
        workers: int,
        prefetch: int,
        pin_memory: bool,
        give_way: bool = False,
        unreadable: list[tuple[str, str]] | None,
        accept_unreadable: bool,
        count: int,
    ) -> None:
        self.unreadable = [] if unreadable is None else unreadable
        self.waited = 0.0  # seconds spent blocked in __next__, over all batches
        self.last_wait = 0.0  # of the last batch
        self.asked = self.found = 0  # decoded samples asked for, and those that were kept, where they are kept at all
        self._accept, self._count, self._tried = accept_unreadable, count, 0
        self._known = {path for path, _ in self.unreadable}
        self._bad: dict[str, str] = {}
        with processes.unwarned():
            self._loader = DataLoader(
                data,  # type: ignore[arg-type]  # a mapping from t to an answer is all it needs
                batch_size=None,
                sampler=steps,
                num_workers=workers,
                prefetch_factor=prefetch if workers else None,
                pin_memory=pin_memory,
                collate_fn=_as_it_is,
                worker_init_fn=processes.set_up(give_way=give_way),
                generator=torch.Generator(),  # the global one would advance at every start, and training with it
            )
        self._answers: Iterator[Answer] | None = None
        self._workers: Sequence[Any] = ()
        self._closed = False
        self._at_exit = partial(_close_at_exit, weakref.ref(self))

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        while True:
            answer = self._wait()
            self._note(answer)
            if answer.batch is not None:
                return answer.batch

    def _wait(self) -> Answer:
        started = time.perf_counter()
        try:
            return self._next()
        except StopIteration:
            self.close()
            raise
        except (RuntimeError, OSError, EOFError) as error:
            died = processes.death(self._workers)
            self.close()
            raise died or error from None
        finally:
            self.last_wait = time.perf_counter() - started
            self.waited += self.last_wait

    def _next(self) -> Answer:
        return Answer(*next(self._started()))

    def _started(self) -> Iterator[Answer]:
        if self._closed:
            raise StopIteration
        if self._answers is None:
            self._answers, self._workers = processes.start(self._loader)
            # before multiprocessing's own exit handler, which terminates and joins: our workers ignore SIGTERM
            atexit.register(self._at_exit)
        return self._answers

    def _note(self, answer: Answer) -> None:
        """Names what was unreadable exactly once, and stops where it is too much."""
        self._tried += answer.tried
        self.asked, self.found = self.asked + answer.asked, self.found + answer.found
        for path, reason in answer.unreadable:
            if path not in self._known:
                self._known.add(path)
                self.unreadable.append((path, reason))
            self._bad[path] = reason
        try:
            if answer.error is not None:
                raise answer.error
            if not self._accept:
                check_share(list(self._bad.items()), min(self._tried, self._count), self._count)
        except SelftaughtError:
            self.close()
            raise

    def close(self) -> None:
        """Ends the workers. Called at the end, on errors and at exit; safe to call again."""
        self._closed = True
        self._answers = None  # torch's iterator tells its workers to end when it is dropped
        atexit.unregister(self._at_exit)

    def __enter__(self):
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


class Loader(Feed):
    """This rank's share of the global batches ``start`` to ``stop`` (None = without end), in order.

    ``plan=None`` gives ``modality.plain``. ``seed`` keys the views (None = the order's). ``targets`` (one a row of the
    index) become the batches' ``target``; -1 is for the user to mean "none". ``unreadable`` collects (path, reason) of
    samples that were replaced by a keyed draw; past 5 % of at least 20 tried, ``QuarantineError`` unless accepted.
    ``waited`` and ``last_wait`` are the seconds spent blocked. A worker that dies raises ``WorkerError``. ``give_way``:
    workers take the processor only when the training leaves it free, for where both share it. ``kept``: where decoded
    samples of this index are kept; ``asked`` and ``found`` count how many of them were there.
    """

    def __init__(
        self,
        index: Index,
        modality: Modality,
        plan: Plan | None,
        order: Order,
        *,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
        start: int = 0,
        stop: int | None = None,
        seed: int | None = None,
        targets: np.ndarray | Sequence[Any] | None = None,
        unreadable: list[tuple[str, str]] | None = None,
        accept_unreadable: bool = False,
        prefetch: int = 2,
        pin_memory: bool = False,
        give_way: bool = False,
        kept: Decoded | None = None,
    ) -> None:
        if order.batch_size < world:
            raise ConfigError(
                must_be(
                    "batch_size", "pretrain", f"an int of at least the number of processes, {world}", order.batch_size
                )
            )
        samples = Samples(index, modality, plan, targets, kept)
        data = Training(samples, order, order.seed if seed is None else seed, rank, world)
        super().__init__(
            data,
            range(start, _FOREVER if stop is None else stop),
            workers=workers,
            prefetch=prefetch,
            pin_memory=pin_memory,
            give_way=give_way,
            unreadable=unreadable,
            accept_unreadable=accept_unreadable,
            count=order.count,
        )


def once(
    index: Index,
    modality: Modality,
    *,
    plan: Plan | None = None,
    seed: int = 0,
    indices: np.ndarray | Sequence[int] | None = None,
    batch_size: int = 64,
    workers: int = 0,
    targets: np.ndarray | Sequence[Any] | None = None,
    unreadable: list[tuple[str, str]] | None = None,
    accept_unreadable: bool = False,
    kept: Decoded | None = None,
) -> Iterator[Batch]:
    """Batches of ``indices`` (None = all), each sample once, in order; the last batch may be smaller.

    Plain, or with the views of ``plan``, keyed by ``seed``.

    ``batch.index`` says which samples they are, ``batch.p`` their place in ``indices``. What is unreadable is left
    *out* and named in ``unreadable``: a replacement would be counted as another sample's result. ``kept``: as in
    ``Loader``.
    """
    rows = np.arange(len(index), dtype=np.int64) if indices is None else np.asarray(indices, np.int64)
    data = Evaluation(Samples(index, modality, plan, targets, kept), rows, batch_size, seed)
    steps = range(-(-len(rows) // batch_size))
    feed = Feed(
        data,
        steps,
        workers=min(workers, len(steps)),
        prefetch=2,
        pin_memory=False,
        unreadable=unreadable,
        accept_unreadable=accept_unreadable,
        count=len(rows),
    )
    with feed:
        yield from feed


_FOREVER = 2**40  # a length that a sampler can state; a run of a microsecond a step would last twelve days


def _as_it_is(answer: Any) -> tuple:
    return tuple(answer)


def _close_at_exit(feed: weakref.ref) -> None:
    if (alive := feed()) is not None:
        alive.close()
