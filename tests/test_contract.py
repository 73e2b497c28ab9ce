"""The contract: every method on every modality, by discovery, so a new file is tested before its author writes a test.

In CI the default modality and one other; the whole matrix in ``make test-all``. What only one method or modality
promises (its equation, its own transformations) is tested in ``tests/methods`` and ``tests/modalities``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from selftaught import catalog
from selftaught.data.keys import generator
from selftaught.encoders import make
from selftaught.nn import batchwise
from selftaught.train.checkpoint import Store
from selftaught.train.clocks import clock_of
from selftaught.train.fabric import make_fabric
from selftaught.train.loop import Callback, Settings, State, fit
from selftaught.train.optim import Recipe, Schedule, build_optimiser
from selftaught.train.step import Stepper
from selftaught.train.task import Share, Task
from selftaught.types import Batch, Method, Modality, Outputs
from tests.ranks import Ranks, fabric_here

METHODS = catalog.names("method")
MODALITIES = catalog.names("modality")
SAMPLES = 16  # more than any batch here
IN_CI = ("image", "series")  # the default modality and one other
GIVE_BACK = {  # methods whose targets are the sample's own values
    "aim", "autoencoder", "denoising", "diffusion", "image_gpt", "inpainting", "mae", "simmim", "split_brain",
    "super_resolution", "vae", "vq_vae",
}  # fmt: skip


def cells(values: list[str]) -> list[Any]:
    return [name if name in IN_CI else pytest.param(name, marks=pytest.mark.slow) for name in values]


every_method = pytest.mark.parametrize("method", METHODS)
every_modality = pytest.mark.parametrize("modality", cells(MODALITIES))


# -- parts, small and from one seed -----------------------------------------------------------------------------------


def prepared(modality: str) -> Modality:
    """The modality after ``fit`` on its own toy samples."""
    made = catalog.load("modality", modality)()
    made.fit(made.toy(32))
    return made


def views(modality: Modality, method: Method, count: int, *, first: int = 0, seed: int = 0) -> Batch:
    """Positions ``first`` to ``first + count``, with the views that the method asks for, as a worker makes them."""
    samples, plan = modality.toy(SAMPLES), method.needs().plan
    positions = np.arange(first, first + count)
    made = [modality.views(samples[p % len(samples)], generator(seed, "", int(p)), plan) for p in positions]
    return modality.collate(made, positions % len(samples), positions)


def task_of(modality: Modality, method: str, dtype: torch.dtype = torch.float32) -> Task:
    """A small encoder and the method under its defaults; weights from one seed."""
    torch.manual_seed(0)
    made = catalog.load("method", method)()
    needs = made.needs()
    skip_without_pretext(made, modality)
    encoders = {name: _encoder(modality, drops=needs.hides == "drop") for name in needs.encoders}
    for teacher in list(encoders.values())[1:]:
        teacher.requires_grad_(False)
    made.samples, made.pretext = SAMPLES, modality.pretext
    made.build(encoders)
    return Task(encoders, made, modality.normalise).to(dtype).train()


def skip_without_pretext(method: Method, modality: Modality) -> None:
    """For methods that ask for what this kind of data does not have: a colour, a turn."""
    for group in method.needs().plan:
        if group.pretext and group.pretext != "auto" and group.pretext not in modality.pretext:
            pytest.skip(f"{modality.name} data have no {group.pretext}")


def _encoder(modality: Modality, *, drops: bool) -> Any:
    if drops:
        return make("vit_tiny", modality.shape(), dim=16, depth=2, heads=2)
    return make("small", modality.shape(), width=8)


def one_loss(task: Task, batch: Batch) -> Tensor:
    clock = clock_of(0, steps=10, steps_per_epoch=5, seed=0)
    torch.manual_seed(1)
    terms = task.method.loss(task(Share(batch, clock)), clock)
    return torch.stack([value / count for value, count in terms.values()]).sum()


def in_parallel(rank: int, world: int, modality: str, method: str) -> dict[str, Any]:
    """Three steps on this rank's share of the same global batches: losses, and the encoder's last gradients."""
    kind = prepared(modality)
    task = task_of(kind, method, torch.float64)
    if world > 1:
        batchwise.convert_batch_norm(task)
    fabric, recipe = fabric_here(), Recipe("sgd", lr=0.1)  # AdamW would blow rounding up to a full step
    optimiser = build_optimiser(task, recipe, batch_size=8)
    model = fabric.setup_module(task) if world > 1 else task
    stepper = Stepper(task, model, optimiser, fabric=fabric, recipe=recipe, seed=0, accumulate=1)
    if type(task.method).before_epoch is not Method.before_epoch:
        task.method.before_epoch(lambda: sweep(task, kind), clock_of(0, steps=10, steps_per_epoch=5, seed=0))
    losses = []
    for step in range(3):
        batch = views(kind, task.method, 8 // world, first=8 * step + rank * 8 // world)
        clock = clock_of(step, steps=10, steps_per_epoch=5, seed=0)
        losses.append(float(stepper(batch, clock, Schedule(10)).loss))
    gradients = {name: p.grad for name, p in task.encoders.named_parameters() if p.grad is not None}
    return {"losses": losses, "gradients": gradients}


def sweep(task: Task, modality: Modality) -> Iterator[tuple[Tensor, Outputs]]:
    """All samples, whole, in eval mode: what the loop hands to ``before_epoch``."""
    places = np.arange(SAMPLES)
    batch = modality.collate([modality.plain(sample) for sample in modality.toy(SAMPLES)], places, places)
    task.eval()
    with torch.no_grad():
        yield batch.index, task(Share(batch, clock_of(0, steps=10, steps_per_epoch=5, seed=0)))
    task.train()


# -- methods x modalities ---------------------------------------------------------------------------------------------


@every_modality
@every_method
def test_loss_is_finite_and_reaches_the_encoder(method: str, modality: str) -> None:
    kind = prepared(modality)
    task = task_of(kind, method)
    loss = one_loss(task, views(kind, task.method, 8))
    assert loss.isfinite()
    loss.backward()
    for name, parameter in task.encoders.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@every_modality
@every_method
def test_what_is_frozen_gets_no_gradient(method: str, modality: str) -> None:
    """Teachers and targets: whatever a method keeps without ``requires_grad`` stays as it was until ``after_step``."""
    kind = prepared(modality)
    task = task_of(kind, method)
    frozen = {name: p.detach().clone() for name, p in task.method.named_parameters() if not p.requires_grad}
    one_loss(task, views(kind, task.method, 8)).backward()
    for name, parameter in task.method.named_parameters():
        if name in frozen:
            assert parameter.grad is None and torch.equal(parameter, frozen[name]), name


@every_modality
@every_method
def test_order_of_samples_does_not_matter(method: str, modality: str) -> None:
    kind = prepared(modality)
    task = task_of(kind, method, torch.float64)
    batch, order = views(kind, task.method, 8), torch.tensor([3, 0, 7, 1, 5, 2, 6, 4])
    shuffled = batch.map(lambda tensor: tensor[order])
    torch.testing.assert_close(one_loss(task, batch), one_loss(task, shuffled), rtol=1e-9, atol=1e-9)
    clock = clock_of(0, steps=10, steps_per_epoch=5, seed=0)
    straight, moved = task(Share(batch, clock)), task(Share(shuffled, clock))
    for name in straight:
        torch.testing.assert_close(straight[name][order], moved[name], rtol=1e-7, atol=1e-9, msg=name)


@pytest.mark.parametrize("method", [name for name in METHODS if catalog.constant("method", name, "small_batches")])
def test_small_batches_do_where_nothing_is_compared(method: str) -> None:
    """With batch norm's statistics fixed, the loss of a batch is the mean of its halves'."""
    kind = prepared(IN_CI[0])
    task = task_of(kind, method, torch.float64).eval()
    batch = views(kind, task.method, 8)
    losses = [one_loss(task, part) for part in (batch, *batch.split(2))]
    torch.testing.assert_close(losses[0], (losses[1] + losses[2]) / 2, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("method", [name for name in METHODS if name in GIVE_BACK])
def test_what_was_not_measured_is_no_target(method: str) -> None:
    """Missing readings are filled in before the encoder sees them; that filling is not asked for."""
    kind = prepared("series")
    task = task_of(kind, method).eval()
    batch, clock = views(kind, task.method, 4), clock_of(0, steps=10, steps_per_epoch=5, seed=0)
    observed = batch["views"].observed
    assert observed is not None and observed.all()
    gone = torch.rand(observed.shape, generator=torch.Generator().manual_seed(0)) < 0.3
    outputs = task(Share(batch, clock))
    batch["views"].observed = ~gone
    fewer = {**outputs, **{name: value for name, value in task(Share(batch, clock)).items() if name == "observed"}}
    assert fewer["observed"].float().mean() < 0.9
    spoilt = dict(fewer)
    for name in ("target", "colour"):
        if name in outputs:
            mask = fewer["observed"] if fewer["observed"].ndim == outputs[name].ndim else fewer["observed"][:, None]
            spoilt[name] = torch.where(mask.expand_as(outputs[name]), outputs[name], (outputs[name] + 3) % 5)
    with torch.no_grad():
        energies = [task.method.energy(each, clock) for each in (outputs, fewer, spoilt)]
    assert not torch.allclose(energies[0], energies[1])
    torch.testing.assert_close(energies[1], energies[2])


@every_modality
@every_method
def test_same_seed_same_bits(method: str, modality: str) -> None:
    kind = prepared(modality)
    losses = []
    for _ in range(2):
        task = task_of(kind, method)
        losses.append(one_loss(task, views(kind, task.method, 8)))
    assert torch.equal(*losses)


@every_modality
@every_method
def test_state_comes_back(method: str, modality: str) -> None:
    kind = prepared(modality)
    task, other = task_of(kind, method), task_of(kind, method)
    with torch.no_grad():
        for parameter in task.parameters():
            parameter.add_(0.01)
    other.load_state_dict(task.state_dict(), strict=True)
    batch = views(kind, task.method, 8)
    assert torch.equal(one_loss(task, batch), one_loss(other, batch))


@every_modality
@every_method
@pytest.mark.parametrize("world", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_several_processes_are_one(ranks: Ranks, world: int, method: str, modality: str) -> None:
    """Loss and encoder gradients, three steps in a row, with batch norm over all of them."""
    skip_without_pretext(catalog.load("method", method)(), prepared(modality))
    (alone,) = ranks(in_parallel, 1, modality, method)
    for other in ranks(in_parallel, world, modality, method):
        assert alone["losses"] == pytest.approx(other["losses"], rel=1e-7, abs=1e-9)
        assert alone["gradients"].keys() == other["gradients"].keys()
        for name, gradient in alone["gradients"].items():
            torch.testing.assert_close(
                other["gradients"][name], gradient, rtol=1e-5, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}"
            )


class StopAt(Callback):
    """Ends a training after a step, as a signal would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, state: State, row: dict[str, Any]) -> None:
        state.stop = "enough" if state.clock.step + 1 == self.step else ""


@every_method
def test_a_stopped_run_goes_on_to_the_same_bits(method: str, tmp_path: Path) -> None:
    """Queues, banks, centres, teachers, prototypes and assignments included; an epoch begins in between."""
    kind = prepared(IN_CI[0])

    def trained(store: Store | None, *callbacks: Callback) -> dict[str, Tensor]:
        task = task_of(kind, method)
        batches = lambda start, stop: (views(kind, task.method, 8, first=8 * t) for t in range(start, stop))  # noqa: E731
        whole = kind.collate([kind.plain(one) for one in kind.toy(SAMPLES)], np.arange(SAMPLES), np.arange(SAMPLES))
        settings = Settings(8, steps=4, steps_per_epoch=2, optimiser=Recipe(lr=1e-3))
        fit(
            task, batches, settings, fabric=make_fabric("cpu", precision="32-true"), store=store, callbacks=callbacks,
            sweep=lambda: [whole],
        )  # fmt: skip
        return task.state_dict()

    expected = trained(None)
    trained(Store(tmp_path), StopAt(2))
    found = trained(Store(tmp_path))
    assert found.keys() == expected.keys()
    assert [name for name, value in expected.items() if not torch.equal(found[name], value)] == []


# -- methods ----------------------------------------------------------------------------------------------------------


@every_method
def test_a_method_says_what_it_is(method: str) -> None:
    kind = catalog.load("method", method)
    assert issubclass(kind, Method) and kind.family
    assert len(catalog.summary("method", method)) > 20
    needs = kind().needs()
    assert needs.plan and needs.encoders[0] == "encoder"
    assert needs.hides in ("", "drop", "replace")


@every_method
def test_every_hyper_parameter_has_a_help_and_a_range(method: str) -> None:
    for parameter in catalog.signature("method", method):
        assert parameter.help, parameter.name
        assert parameter.kind == "bool" or parameter.choices or parameter.constraint, parameter.name


# -- modalities -------------------------------------------------------------------------------------------------------


@every_modality
def test_views_are_a_pure_function(modality: str) -> None:
    kind, plan = prepared(modality), catalog.load("method", METHODS[0])().needs().plan
    sample = kind.toy(1)[0]
    draw: Callable[[int], Any] = lambda p: kind.views(sample, generator(0, "", p), plan)  # noqa: E731
    first, again, other = draw(3), draw(3), draw(4)
    for name, stream in first.streams.items():
        assert np.array_equal(stream, again.streams[name])
        assert not np.array_equal(stream, other.streams[name])


@every_modality
def test_normalised_data_are_about_standard(modality: str) -> None:
    kind = prepared(modality)
    batch = kind.collate([kind.plain(sample) for sample in kind.toy(32)], np.arange(32), np.arange(32))
    data = kind.normalise(batch["plain"].data)
    assert data.shape[2:] == kind.shape() and data.dtype == torch.float32
    assert abs(data.mean()) < 0.3 and 0.6 < data.std() < 1.4
    assert kind.normalise(batch["plain"].data, torch.bfloat16).dtype == torch.bfloat16


@every_modality
def test_denormalise_is_the_way_back(modality: str) -> None:
    kind = prepared(modality)
    batch = kind.collate([kind.plain(sample) for sample in kind.toy(4)], np.arange(4), np.arange(4))
    data = kind.normalise(batch["plain"].data)
    torch.testing.assert_close(kind.normalise(kind.denormalise(data)), data, rtol=1e-3, atol=1e-2)


@every_modality
def test_raw_features_and_pictures(modality: str) -> None:
    kind = prepared(modality)
    batch = kind.collate([kind.plain(sample) for sample in kind.toy(6)], np.arange(6), np.arange(6))
    raw = kind.raw(batch)
    assert raw.shape[0] == 6 and raw.ndim == 2 and raw.dtype == torch.float32 and raw.isfinite().all()
    picture = kind.picture(batch["plain"].data[0, 0].numpy())
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3


@every_modality
def test_state_rebuilds_the_modality(modality: str) -> None:
    import json

    kind = prepared(modality)
    other = catalog.load("modality", modality)()
    other.load_state(json.loads(json.dumps(kind.state())))
    sample = kind.toy(1)[0]
    assert other.shape() == kind.shape()
    for name, stream in kind.plain(sample).streams.items():
        again = other.plain(sample).streams[name]
        assert np.array_equal(stream, again)
        tensors = (each.normalise(torch.from_numpy(stream)[None]) for each in (kind, other))
        assert torch.equal(*tensors)


@every_modality
def test_toy_samples_have_two_classes(modality: str) -> None:
    targets = [sample.target for sample in prepared(modality).toy(10)]
    assert set(targets) == {0, 1}
