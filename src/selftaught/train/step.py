"""One optimiser step, exact whatever the number of ranks and micro-batches.

The loss is the sum over its terms of sum / count, with sum and count over all micro-batches of all ranks. DDP averages
gradients, so every rank backpropagates ``world * own sum / total count``: the average is then one process's gradient.

With ``accumulate > 1`` there are two ways. A loss that adds up over samples (one term, ``couples = False``) is
backpropagated piece by piece, and the gradient divided by the total count afterwards. All others go twice: forward
without a graph, the loss and its gradient on the outputs of the whole share, then forward again, pushing those
gradients through (Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup"). The
second forward repeats the first: same dropout, same batch statistics. Batch norm sees the micro-batch either way.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from selftaught.nn import batchwise
from selftaught.train.optim import Recipe, Schedule, set_rates
from selftaught.train.task import Share, Task
from selftaught.types import Batch, Clock, Outputs, Terms


@dataclass(slots=True)
class Step:
    """What one step gave; everything stays on the device until somebody reads it."""

    loss: Tensor  # over all ranks and micro-batches
    terms: dict[str, Tensor]
    norm: Tensor | None  # of the whole gradient before clipping; None where it was not asked for
    rate: float
    outputs: Outputs  # detached, this rank's share


class Stepper:
    """Makes steps of ``task`` through ``model``, which is ``task`` as Fabric wrapped it."""

    def __init__(
        self,
        task: Task,
        model: nn.Module,
        optimiser: torch.optim.Optimizer,
        *,
        fabric: Fabric,
        recipe: Recipe,
        seed: int,
        accumulate: int,
    ) -> None:
        self.task, self.model, self.optimiser, self.fabric = task, model, optimiser, fabric
        self.recipe, self.seed, self.accumulate = recipe, seed, accumulate
        self.world = batchwise.world()
        self.norms = _batch_norms(task)
        self.twice: bool | None = True if task.method.couples else None  # None = not known yet
        self.parameters = [p for group in optimiser.param_groups for p in group["params"]]

    def __call__(self, batch: Batch, clock: Clock, schedule: Schedule, *, measure: bool = True) -> Step:
        """One step on this rank's share. ``measure``: take the norm of the gradient (it costs a pass over it)."""
        self.optimiser.zero_grad(set_to_none=True)
        totals, outputs = self._gradients(batch, clock)
        rate = set_rates(self.optimiser, factor=schedule.factor(clock.step), fraction=clock.fraction)
        norm = self._norm() if measure or self.recipe.clip else None
        self.optimiser.step()
        with torch.no_grad():
            self.task.method.after_step(outputs, clock)
        terms = {name: torch.as_tensor(value / count) for name, (value, count) in totals.items()}
        return Step(torch.stack(list(terms.values())).sum(), terms, norm, rate, outputs)

    def _gradients(self, batch: Batch, clock: Clock) -> tuple[Terms, Outputs]:
        if self.accumulate == 1:
            return self._whole(batch, clock)
        parts = batch.split(self.accumulate)
        with self._one_move_of_statistics():
            if self.twice is None:
                self.twice = self._count_terms(parts[0], clock) > 1
            return self._in_two_passes(parts, clock) if self.twice else self._piece_by_piece(parts, clock)

    def _whole(self, batch: Batch, clock: Clock) -> tuple[Terms, Outputs]:
        outputs = self._forward(batch, clock, 0)
        terms = self.task.method.loss(outputs, clock)
        totals = self._totals(terms)
        self.fabric.backward(self._scaled(terms, totals))
        return totals, _detached(outputs)

    def _piece_by_piece(self, parts: list[Batch], clock: Clock) -> tuple[Terms, Outputs]:
        """Counts of later pieces are not known yet, so sums are backpropagated and divided once at the end."""
        sums: list[Terms] = []
        outputs: list[Outputs] = []
        for number, part in enumerate(parts):
            with self._unsynced(number < len(parts) - 1):
                outputs.append(self._forward(part, clock, number))
                terms = self.task.method.loss(outputs[-1], clock)
                ((value, _),) = terms.values()
                self.fabric.backward(value * self.world)
            sums.append({name: (value.detach(), count) for name, (value, count) in terms.items()})
            outputs[-1] = _detached(outputs[-1])
        totals = self._totals(_added(sums))
        ((_, count),) = totals.values()
        for gradient in [p.grad for p in self.parameters if p.grad is not None]:
            gradient.div_(count)
        return totals, _joined(outputs)

    def _in_two_passes(self, parts: list[Batch], clock: Clock) -> tuple[Terms, Outputs]:
        with torch.no_grad(), self._still_statistics():
            outputs = _joined([self._forward(part, clock, number) for number, part in enumerate(parts)])
        leaves = {name: value.requires_grad_() for name, value in outputs.items() if value.is_floating_point()}
        terms = self.task.method.loss(outputs, clock)
        totals = self._totals(terms)
        pulls = torch.autograd.grad(self._scaled(terms, totals), list(leaves.values()), allow_unused=True)
        pull = {name: gradient for name, gradient in zip(leaves, pulls, strict=True) if gradient is not None}
        start = 0
        for number, part in enumerate(parts):
            own = slice(start, start := start + len(part))
            with self._unsynced(number < len(parts) - 1):
                again = self._forward(part, clock, number)
                products = [(again[k] * g[own]).sum() for k, g in pull.items() if again[k].requires_grad]
                self.fabric.backward(torch.stack(products).sum())  # its gradient on the outputs is exactly g
        return totals, _detached(outputs)

    def _forward(self, batch: Batch, clock: Clock, number: int) -> Outputs:
        """Dropout is keyed by (seed, t, rank, micro-batch): a second forward, or a resumed run, drops the same."""
        torch.manual_seed(_key(self.seed, clock.step, batchwise.rank(), number))
        return self.model(Share(batch, clock))

    def _totals(self, terms: Terms) -> Terms:
        """Sums and counts over all ranks, without gradient; in one collective where there are several."""
        own = {name: (value.detach(), count) for name, (value, count) in terms.items()}
        if self.world == 1:
            return {name: (value, _at_least_something(count)) for name, (value, count) in own.items()}
        device = next(iter(own.values()))[0].device
        flat = [torch.as_tensor(v, dtype=torch.float64, device=device) for pair in own.values() for v in pair]
        pairs = batchwise.total(torch.stack(flat)).view(-1, 2)
        return {name: (pair[0], _at_least_something(pair[1])) for name, pair in zip(own, pairs, strict=True)}

    def _scaled(self, terms: Terms, totals: Terms) -> Tensor:
        """What this rank backpropagates: world * sum over terms of own sum / total count."""
        return torch.stack([value * self.world / totals[name][1] for name, (value, _) in terms.items()]).sum()

    def _norm(self) -> Tensor:
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if self.recipe.clip:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.recipe.clip, norm)
        return norm

    def _count_terms(self, part: Batch, clock: Clock) -> int:
        with torch.no_grad(), self._still_statistics():
            return len(self.task.method.loss(self._forward(part, clock, 0), clock))

    def _unsynced(self, wait: bool) -> contextlib.AbstractContextManager[None]:
        if self.world == 1:
            return contextlib.nullcontext()
        return self.fabric.no_backward_sync(self.model, enabled=wait)  # type: ignore[arg-type]

    @contextlib.contextmanager
    def _still_statistics(self) -> Iterator[None]:
        """Batch norm uses the batch's statistics and keeps its running ones as they are."""
        for norm in self.norms:
            norm.track_running_stats = False
        try:
            yield
        finally:
            for norm in self.norms:
                norm.track_running_stats = True

    @contextlib.contextmanager
    def _one_move_of_statistics(self) -> Iterator[None]:
        """k micro-batches move the running statistics as far as one batch does: (1 - m')^k = 1 - m."""
        usual = [norm.momentum for norm in self.norms]
        for norm in self.norms:
            if norm.momentum is not None:
                norm.momentum = 1 - (1 - norm.momentum) ** (1 / self.accumulate)
        try:
            yield
        finally:
            for norm, momentum in zip(self.norms, usual, strict=True):
                norm.momentum = momentum
                if norm.num_batches_tracked is not None:
                    norm.num_batches_tracked.sub_(self.accumulate - 1)


def _batch_norms(module: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    kind = nn.modules.batchnorm._BatchNorm
    return [norm for norm in module.modules() if isinstance(norm, kind) and norm.track_running_stats]


def _key(*parts: int) -> int:
    digest = hashlib.blake2b(b"".join(part.to_bytes(8, "little") for part in parts), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1  # torch takes signed seeds


def _at_least_something(count: Tensor | float) -> Tensor | float:
    """A count of 0 (nothing masked in the whole batch) means a sum of 0: the term is then 0, not 0 / 0."""
    return count.clamp_min(1e-12) if isinstance(count, Tensor) else max(count, 1e-12)


def _added(terms: list[Terms]) -> Terms:
    (name,) = terms[0]
    return {name: (torch.stack([one[name][0] for one in terms]).sum(), sum(one[name][1] for one in terms))}


def _joined(outputs: list[Outputs]) -> Outputs:
    return {name: torch.cat([one[name] for one in outputs]) for name in outputs[0]}


def _detached(outputs: Outputs) -> Outputs:
    return {name: value.detach() for name, value in outputs.items()}
