"""The one loop that trains everything: pre-training, probes and fine-tuning.

``fit`` goes from the last checkpoint (or step 0) to the last step. Batch t and all that is random about it depend on
(seed, t) alone, so a run that was killed and started again is the same run. What a step does is in ``step.py``, what a
checkpoint holds in ``snapshot.py``, when it is written in ``saving.py``; health, online kNN and pictures come in as
callbacks. Numbers stay on the device until a row of metrics is due, so that an accelerator never waits for the host.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import replace

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from selftaught.errors import Interrupted, is_out_of_memory
from selftaught.nn import batchwise
from selftaught.train import room
from selftaught.train.callbacks import Callback, Result, Row, State
from selftaught.train.checkpoint import Store
from selftaught.train.clocks import clock_of
from selftaught.train.divergence import Losses
from selftaught.train.fabric import make_fabric
from selftaught.train.feed import Batches, Feed
from selftaught.train.keeper import Keeper
from selftaught.train.memory import kept_memory
from selftaught.train.optim import Schedule, build_optimiser
from selftaught.train.plan import Costs, Rehearsal, steps_within, thrown_away, timed
from selftaught.train.progress import MetricsFile, Progress
from selftaught.train.settings import Settings
from selftaught.train.signals import Agreement, Signals
from selftaught.train.step import Step, Stepper
from selftaught.train.task import Share, Task
from selftaught.types import Batch, Clock, Method, Outputs

__all__ = ["Batches", "Callback", "Result", "Settings", "State", "Task", "fit"]

ROWS = 2000  # about how many rows of metrics a run writes
EVERY_ON_DEVICE = 10  # steps, at least, between two rows: reading numbers makes an accelerator wait
WITHOUT_END = 10**9  # steps


def fit(
    task: Task,
    batches: Batches,
    settings: Settings,
    *,
    fabric: Fabric | None = None,
    store: Store | None = None,
    callbacks: Sequence[Callback] = (),
    metrics: MetricsFile | None = None,
    progress: Progress | None = None,
    sweep: Callable[[], Iterable[Batch]] | None = None,
) -> Result:
    """Trains ``task`` in place, from the store's last checkpoint or from step 0, and gives what came out.

    ``store=None`` keeps no checkpoints. ``sweep`` yields plain batches of the training samples, for methods with
    ``before_epoch``. On ranks other than 0 metrics and progress are left alone, and the store is only read.

    Raises ConfigError (batch size and ranks), RunError (the store holds another run), CheckpointError (it cannot be
    written or read), DivergedError (the loss is not finite; the last good checkpoint stands), Interrupted (by a signal,
    after a checkpoint).
    """
    fabric = make_fabric() if fabric is None else fabric
    if fabric.global_rank != 0:
        metrics = progress = None
    memory = kept_memory() if fabric.device.type == "cpu" else nullcontext()
    with Signals() as signals, memory:
        try:
            run = _Run(task, batches, settings, fabric, store, callbacks, metrics, progress, sweep, signals)
            return run()
        finally:
            for part, end in ((progress, "stop"), (metrics, "close")):
                if part is not None:
                    getattr(part, end)()


class _Run:
    """One call of ``fit``."""

    def __init__(
        self,
        task: Task,
        batches: Batches,
        settings: Settings,
        fabric: Fabric,
        store: Store | None,
        callbacks: Sequence[Callback],
        metrics: MetricsFile | None,
        progress: Progress | None,
        sweep: Callable[[], Iterable[Batch]] | None,
        signals: Signals,
    ) -> None:
        settings.share(fabric.world_size)
        self.began = time.perf_counter()
        self.task, self.batches, self.settings, self.fabric = task, batches, settings, fabric
        self.callbacks, self.metrics, self.progress, self.sweep = callbacks, metrics, progress, sweep
        self.signals = signals
        self.on_device = fabric.device.type != "cpu"
        self.done, self.steps, self.row = 0, settings.steps or 0, Row()
        self.epoch = settings.steps_per_epoch or settings.steps or WITHOUT_END
        self.losses = Losses(seed=settings.seed)
        self.agreement = Agreement(on_device=self.on_device)
        _place(task.train(), fabric, compiled=settings.compile and self.on_device)
        groups = {**settings.groups, **task.method.groups(task.encoders)}  # type: ignore[arg-type]
        self.optimiser = build_optimiser(task, settings.optimiser, batch_size=settings.batch_size, groups=groups)
        self.keeper = Keeper(store, task, self.optimiser, settings=settings, callbacks=callbacks)

    def __call__(self) -> Result:
        found = self.keeper.restore()
        if found is not None:
            self.done, self.steps = found.step, found.facts["steps"]
        self.state = State(self.task, self.fabric, self._clock(self.done), self.steps, self.epoch)
        self.state.seconds = found.facts["seconds"] if found else 0.0
        self.stepper = Stepper(
            self.task,
            self.fabric.setup_module(self.task),
            self.optimiser,
            fabric=self.fabric,
            recipe=self.settings.optimiser,
            seed=self.settings.seed,
            accumulate=self.settings.accumulate,
        )
        if not self.steps:
            self._plan()
        self._save()  # fails now rather than in half a minute, and keeps the plan
        self._open()
        self._train()
        self._end()
        stopped = self.state.stop if self.done < self.steps else ""
        first, notes = found.step if found else 0, tuple(self.keeper.notes)
        return Result(self.done, self.steps, self.state.seconds, self.row, first, notes, stopped)

    # -- before the first step -----------------------------------------------------------------------------------------

    def _plan(self) -> None:
        """Turns minutes into steps."""
        assert self.settings.minutes is not None
        total = 60 * self.settings.minutes - self.settings.spent
        rehearsal = Rehearsal(total)
        with thrown_away(self.task, self.optimiser), closing(Feed(self.batches, 0, WITHOUT_END)) as feed:
            for number, batch in enumerate(feed):
                self._step(batch, self._clock(number, steps=WITHOUT_END), Schedule(WITHOUT_END)).loss.item()
                if self.fabric.broadcast(rehearsal.step()):
                    break
        costs = Costs(rehearsal.seconds_per_step, self._rehearsed_sweep(), 3 * timed(self._save), self.settings.reserve)
        self._fill(total, costs)  # callbacks are asked what a run of about this length costs
        callbacks = sum(callback.rehearse(self.state) for callback in self.callbacks)
        self._fill(total, replace(costs, end=costs.end + callbacks))
        self.keeper.notes.append(self._planned(total, costs))

    def _planned(self, total: float, costs: Costs) -> str:
        """The plan in words, and where the time went if little of it is left for steps."""
        assert self.settings.minutes is not None
        plural = "" if self.steps == 1 else "s"
        words = f"{self.settings.minutes:g} minutes are {self.steps} step{plural} of {costs.step:.3g} s."
        if self.steps * costs.step >= 30 * self.settings.minutes:
            return words
        before = self.settings.spent + time.perf_counter() - self.began
        return f"{words} Before the first one {before:.0f} s go by (reading, measuring, timing): give more minutes."

    def _fill(self, total: float, costs: Costs) -> None:
        left = total - (time.perf_counter() - self.began)
        steps = self.fabric.broadcast(steps_within(left, costs, steps_per_epoch=self.epoch))
        self.steps = self.state.steps = steps

    def _rehearsed_sweep(self) -> float:
        """Seconds of what the method does before an epoch, thrown away."""
        with thrown_away(self.task, self.optimiser):
            return timed(self._before_epoch)

    def _open(self) -> None:
        if self.metrics is not None:
            self.metrics.start(self.done)
        if self.progress is not None:
            self.progress.start(self.done, self.steps)
            for note in self.keeper.notes:
                self.progress.note(note)
        for callback in self.callbacks:
            callback.on_start(self.state)

    # -- the loop ------------------------------------------------------------------------------------------------------

    def _train(self) -> None:
        recipe = self.settings.optimiser
        schedule = Schedule(self.steps, recipe.warmup, recipe.final)
        self.row_every = max(1, self.steps // ROWS, EVERY_ON_DEVICE if self.on_device else 1)
        self.started, self.before, self.mark = time.perf_counter(), self.state.seconds, 0
        with closing(Feed(self.batches, self.done, self.steps)) as feed:
            self._begin_interval(feed)
            for batch in feed:
                self._before_epoch()
                row_due = self._row_due(self.done + 1)
                clock = self._clock(self.done)
                step = self._step(batch, clock, schedule, measure=row_due)
                self.done += 1
                self._after(step, clock, feed, row_due)
                if self._must_stop():
                    break

    def _step(self, batch: Batch, clock: Clock, schedule: Schedule, *, measure: bool = True) -> Step:
        """Raises OutOfMemory, with what would fit where one process can find that out alone."""

        def step(share: Batch) -> Step:
            return self.stepper(share.to(self.fabric.device), clock, schedule, measure=measure)

        try:
            return step(batch)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        self.optimiser.zero_grad(set_to_none=True)  # here, not above: the failed step's frames hold its tensors
        alone = self.fabric.world_size == 1
        fits = room.most(step, batch, self.task.method.minimum_batch * self.settings.accumulate) if alone else 0
        raise room.refusal(self.settings.batch_size, fits, auto=not self.done)

    def _after(self, step: Step, clock: Clock, feed: Feed, row_due: bool) -> None:
        self.state.clock, self.state.outputs = clock, step.outputs
        self.state.seconds = self.before + time.perf_counter() - self.started
        self.losses.add(step.loss)
        if row_due or not self.on_device:
            self.losses.check(self.done)
        row = self._read(step, feed) if row_due else Row()
        for callback in self.callbacks:
            callback.on_step(self.state, row)
        if self._epoch_ends(self.done):
            for callback in self.callbacks:
                callback.on_epoch(self.state, row)
        if row_due:
            self._show(row)
            self._begin_interval(feed)
        if self.keeper.writes and (self.signals.save or self.keeper.saving.due()):
            self.signals.save = False
            self._save()

    def _read(self, step: Step, feed: Feed) -> Row:
        """One row of metrics; an accelerator is waited for here."""
        spent = max(1e-9, time.perf_counter() - self.interval_began)
        samples = (self.done - self.interval_first) * self.settings.batch_size
        row = Row(step=self.done, epoch=self.state.clock.epoch, seconds=self.state.seconds)
        row |= {"samples": self.done * self.settings.batch_size, "loss": float(step.loss), "lr": step.rate}
        row["gradient_norm"] = math.nan if step.norm is None else float(step.norm)
        row |= {"samples_per_second": samples / spent, "data_wait": feed.waited / spent}
        if feed.kept is not None:
            row["kept"] = feed.kept
        if len(step.terms) > 1:
            row |= {f"loss.{name}": float(value) for name, value in step.terms.items()}
        self.keeper.saving.job = self.state.seconds / self.done * self.steps
        return row

    def _show(self, row: Row) -> None:
        self.row = row
        if self.metrics is not None:
            self.metrics.write(row)
        if self.progress is not None:
            self.progress.update(self.done, row, self.state.words)

    def _begin_interval(self, feed: Feed) -> None:
        self.interval_began, self.interval_first = time.perf_counter(), self.done
        feed.begin()

    def _before_epoch(self) -> None:
        method = self.task.method
        wants = self.sweep is not None and type(method).before_epoch is not Method.before_epoch
        if wants and self.done % self.epoch == 0:
            method.before_epoch(self._sweep, self._clock(self.done))

    def _sweep(self) -> Iterator[tuple[Tensor, Outputs]]:
        assert self.sweep is not None
        self.task.eval()
        with torch.no_grad():
            for batch in self.sweep():
                share = Share(batch.to(self.fabric.device), self._clock(self.done))
                yield batch.index, self.stepper.model(share)
        self.task.train()

    # -- when ----------------------------------------------------------------------------------------------------------

    def _clock(self, step: int, *, steps: int = 0) -> Clock:
        return clock_of(step, steps=steps or self.steps, steps_per_epoch=self.epoch, seed=self.settings.seed)

    def _epoch_ends(self, done: int) -> bool:
        return done % self.epoch == 0 or done == self.steps

    def _row_due(self, done: int) -> bool:
        return done % self.row_every == 0 or self._epoch_ends(done)

    def _must_stop(self) -> bool:
        self.mark = self.agreement.highest(2 if self.signals.stop else 1 if self.state.stop else 0, self.done)
        return self.mark > 0

    # -- checkpoints and the end ---------------------------------------------------------------------------------------

    def _save(self) -> None:
        """Never writes weights that are not finite."""
        self.losses.check(self.done)
        if self.keeper.writes:
            self.losses.check_weights(self.task, self.done)
            self.keeper.save(self.done, self.steps, seconds=self.state.seconds)

    def _end(self) -> None:
        self.losses.check(self.done)
        if self.mark < 2:
            for callback in self.callbacks:
                callback.on_end(self.state)
        self._save()
        self.fabric.barrier()
        self.task.eval()
        if self.mark == 2 and self.done < self.steps:
            name = self.signals.stop or "a signal to another process"
            kept = ", after a checkpoint" if self.keeper.store is not None else ""
            hint = "Start the same command again to go on." if kept else ""
            raise Interrupted(f"Stopped by {name} at step {self.done} of {self.steps}{kept}.", hint=hint)


def _place(task: Task, fabric: Fabric, *, compiled: bool) -> None:
    """Ready for the device: batch norm over all ranks, convolutions with channels last, which is how they are fast."""
    if fabric.world_size > 1:
        batchwise.convert_batch_norm(task)
    task.to(fabric.device)
    for module in task.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        elif isinstance(module, nn.Conv3d):
            module.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    for encoder in task.encoders.values() if compiled else ():
        encoder.compile()
