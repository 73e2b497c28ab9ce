"""One pre-training from its parts to the files of a run: what ``pretrain`` does once torch is needed."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
import logging
import shutil
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors import SafetensorError

from selftaught import config
from selftaught.commands import painted, pictures, shown
from selftaught.commands.choices import PRECISIONS
from selftaught.commands.health import make_watch
from selftaught.commands.model import save_encoder
from selftaught.commands.parts import save_method
from selftaught.commands.preparation import Preparation
from selftaught.commands.run import Run, Speaker, command_line, environment
from selftaught.data.loader import once
from selftaught.diagnostics.best import Best
from selftaught.diagnostics.held_out import batches_of
from selftaught.diagnostics.watch import Watch
from selftaught.errors import CheckpointError, OutOfMemory
from selftaught.train import room
from selftaught.train.checkpoint import Store, lock, write_text
from selftaught.train.fabric import make_fabric
from selftaught.train.loop import Result, Settings, Task, fit
from selftaught.train.optim import DEFAULT_LR, Recipe
from selftaught.train.progress import MetricsFile, make_progress

SHOWN = 32  # samples in the pictures


def train(parts: Preparation, say: Speaker, began: float) -> Run:
    """Trains as asked, and writes everything that a run holds. ``began``: when the command did, for ``--minutes``."""
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces what we say ourselves
    fabric = make_fabric(devices=parts.request["devices"], precision=_precision(parts))
    while True:
        try:
            return _train(parts, fabric, say, began)
        except OutOfMemory as error:
            if not _may_shrink(parts, error):
                raise
            say(f"note: {error} {error.fits:,} fit: starting over with these.")
            for made in ("checkpoints", "pictures"):  # of step 0, with another batch size
                shutil.rmtree(parts.out / made, ignore_errors=True)
            parts.start_over(error.fits)
        room.release()  # here, not above: the error's frames hold what did not fit


def _may_shrink(parts: Preparation, error: OutOfMemory) -> bool:
    """Where nobody asked for a size, nothing was learned yet, and the encoder can be made anew."""
    store = Store(parts.out / "checkpoints")
    new = not parts.saved and set(store.steps()) <= {0}
    own = not isinstance(parts.request["encoder"], dict)  # a module of the user's
    return bool(error.fits) and parts.request["batch_size"] is None and new and not own


def _train(parts: Preparation, fabric: Any, say: Speaker, began: float) -> Run:
    parts.choose_batch(device=fabric.device.type, devices=fabric.world_size)
    parts.precision()
    steps, minutes = parts.schedule()
    settings = _settings(parts, steps, minutes, spent=time.perf_counter() - began)
    settings.share(fabric.world_size)
    parts.build()
    settings = dataclasses.replace(settings, groups=parts.rates())
    first = fabric.global_rank == 0
    with lock(parts.out) if first else contextlib.nullcontext():
        if first:
            _write_start(parts, fabric)
            say(*_opening(parts))
        fabric.barrier()
        watch = make_watch(parts, say) if first else None
        best = _best_of(parts, watch) if watch else None
        result = _fit(parts, settings, fabric, watch, best)
        if watch and best:
            step = _write_end(parts, result, watch, best)
            say(*_closing(parts, result, watch, step))
    return Run(parts.out)


def preview(parts: Preparation) -> Path:
    """Exactly the views of the first batches of training, as a picture beside the place of the run."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parts.choose_batch(device=device, devices=parts.request["devices"] or 1)
    parts.measure()
    path = parts.out.with_name(parts.out.name + "-preview.png")
    with contextlib.closing(parts.loader(0, 4)) as loader:
        return pictures.write_views(path, loader, parts.modality, rows=SHOWN)


def _precision(parts: Preparation) -> str:
    return parts.saved["derived"]["precision"] if parts.saved else PRECISIONS[parts.request["precision"]]


def _settings(parts: Preparation, steps: int | None, minutes: float | None, *, spent: float) -> Settings:
    request = parts.request
    gentle = parts.lr_share()
    rate = gentle * DEFAULT_LR[request["optimiser"]] if request["lr"] is None else request["lr"]
    recipe = Recipe(request["optimiser"], lr=rate, weight_decay=request["weight_decay"], warmup=request["warmup"])
    peak = parts.derived.add("lr", recipe.peak(parts.order.batch_size))
    slower = f", {gentle:g} of the usual as the encoder is not new" if gentle < 1 else ""
    why = f"{request['optimiser']} at a batch of {parts.order.batch_size}{slower}"
    parts.derived.add("lr", peak, why if request["lr"] is None else "")
    if request["accumulate"] > 1:  # what a step then means is not what every user expects, so it is said
        few = parts.order.batch_size // (request["accumulate"] * parts.devices)
        why = f"micro-batches: the loss sees all {parts.order.batch_size} samples, batch norm {few} at a time"
        parts.derived.add("accumulate", request["accumulate"], why)
    return Settings(
        batch_size=parts.order.batch_size,
        steps=steps,
        minutes=minutes,
        spent=spent if minutes and not parts.saved else 0.0,
        steps_per_epoch=parts.order.steps_per_epoch,
        seed=request["seed"],
        accumulate=request["accumulate"],
        optimiser=recipe,
        compile=parts.device == "cuda",
    )


def _fit(parts: Preparation, settings: Settings, fabric: Any, watch: Watch | None, best: Best | None) -> Result:
    request, out = parts.request, parts.out
    assert parts.method is not None
    task = Task(parts.encoders, parts.method, parts.modality.normalise)
    try:
        result = fit(
            task,
            parts.batches(fabric.global_rank, fabric.world_size),
            settings,
            fabric=fabric,
            store=Store(out / "checkpoints"),
            callbacks=[cast(Any, each) for each in (watch, best) if each],
            metrics=MetricsFile(out / "metrics.csv", tensorboard=out / "tensorboard") if watch else None,
            progress=make_progress() if watch and not request["quiet"] else None,
            sweep=lambda: once(parts.data.index, parts.modality, workers=parts.workers, kept=parts.data.kept),
        )
        if watch:
            shown.write(parts, task, fabric.device)
            painted.write(out, task, parts.modality, batches_of(watch.plain))
        return result
    finally:
        if watch:
            _write_quarantine(parts)


# --- the files of a run ------------------------------------------------------------------------------------------


def _write_start(parts: Preparation, fabric: Any) -> None:
    """Everything known before step 0. A run that goes on keeps what it started with.

    run.yaml comes first: without it nobody could tell what the folder of a run that was killed here is.
    """
    out = parts.out
    if not parts.saved:
        _write_run(parts, {})
    if not (out / "index.arrow").exists():
        parts.data.samples.index.save(out / "index.arrow")
    facts = environment(str(fabric.device), torch.get_num_threads(), fabric.world_size, parts.data.fingerprint)
    write_text(out / "environment.json", json.dumps(facts, indent=1))
    if not (out / "pictures" / "views.png").exists():
        _write_pictures(parts)


def _write_run(parts: Preparation, more: dict[str, Any]) -> None:
    saved = parts.saved or {
        "schema": config.SCHEMA,
        "command": command_line(),
        "derived": parts.derived.values,
        "reasons": parts.derived.reasons,
        "kept": "encoder",
        "request": parts.request,
        "preprocessing": parts.preprocessing(),
        "fingerprint": parts.data.fingerprint,  # last: a file that was cut off lacks it
    }
    config.save_yaml(parts.out / "run.yaml", {**saved, "derived": {**saved["derived"], **more}})


def _write_pictures(parts: Preparation) -> None:
    folder = parts.out / "pictures"
    rows = np.arange(min(SHOWN, len(parts.data.index))) if parts.data.stream else parts.order.indices(0)[:SHOWN]
    some = once(parts.data.index, parts.modality, indices=rows, accept_unreadable=True)
    for batch in islice(some, 1):
        pictures.write_samples(folder / "samples.png", batch, parts.modality)
    with contextlib.closing(parts.loader(0, 4)) as loader:
        pictures.write_views(folder / "views.png", loader, parts.modality, rows=SHOWN)


def _write_quarantine(parts: Preparation) -> None:
    """path, reason of everything that could not be read; the header alone where all was fine."""
    text = io.StringIO(newline="")
    lines = csv.writer(text)
    lines.writerow(["path", "reason"])
    lines.writerows(dict(parts.data.unreadable).items())
    write_text(parts.out / "quarantine.csv", text.getvalue())


def _write_end(parts: Preparation, result: Result, watch: Watch, best: Best) -> int:
    """run.yaml as it came out, and the encoder; gives the step that it is of."""
    _write_run(parts, {"steps": result.steps})
    kept = _best(parts)
    if best.lost and kept.is_dir():  # it is not there where a run stopped just before it wrote it, and is judged anew
        watch.verdicts.append(best.verdict())
        watch.write()  # before the encoder, with which the run counts as finished
        shutil.rmtree(parts.out / "encoder", ignore_errors=True)
        kept.replace(parts.out / "encoder")
        return best.step
    _save_method(parts, result.step)
    _save_encoder(parts, parts.out / "encoder", result.step)
    shutil.rmtree(kept, ignore_errors=True)
    return result.step


def _best_of(parts: Preparation, watch: Watch) -> Best:
    return Best(watch, lambda step: _save_encoder(parts, _best(parts), step), trained=parts.starts_trained)


def _best(parts: Preparation) -> Path:
    """Where the encoder with the highest RankMe so far lies while the run goes on."""
    return parts.out / "checkpoints" / "best"


def _save_encoder(parts: Preparation, folder: Path, step: int) -> None:
    facts = {"run": parts.request["method"], "step": step, "kept": "encoder"}
    with _or_say(f"The encoder of step {step} cannot be written to {str(folder)!r}"):
        save_encoder(folder, parts.encoder, parts.preprocessing(), facts)


def _save_method(parts: Preparation, step: int) -> None:
    assert parts.method is not None
    folder = parts.out / "parts" / "method"
    with _or_say(f"The method's own weights cannot be written to {str(folder)!r}"):
        save_method(folder, parts.method, {"samples": parts.data.count, "step": step})


@contextlib.contextmanager
def _or_say(what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        hint = "The last good checkpoint stands. Make room or grant permission, then start it again."
        raise CheckpointError(f"{what}: {error}", hint=hint) from error


# --- words -------------------------------------------------------------------------------------------------------


def _opening(parts: Preparation) -> list[str]:
    if parts.saved:
        return [f"Going on with the run {parts.out}"]
    held = f", {len(parts.data.held_rows):,} of them held out to measure health" if len(parts.data.held_rows) else ""
    count = len(parts.data.samples.index) + (parts.data.count if parts.data.stream else 0)
    about = "about " if parts.data.stream and not parts.data.stream.exact else ""
    return [
        f"{about}{count:,} samples of {parts.modality.name}{held}; run {parts.out}",
        *(f"  {line}" for line in parts.derived.lines()),
        *(f"note: {line}" for line in parts.modality.advice(parts.plan)),
    ]


def _closing(parts: Preparation, result: Result, watch: Watch, step: int) -> list[str]:
    """``step``: that of the encoder that is kept."""
    verdicts = [one.sentence for one in watch.verdicts[-1:]]
    data, left_out = parts.request["data"], len(dict(parts.data.unreadable))
    quarantine = [f"{left_out:,} samples could not be read: {parts.out / 'quarantine.csv'}"] if left_out else []
    return [
        *result.notes,
        *quarantine,
        *verdicts,
        f"The encoder is in {parts.out / 'encoder'}, after {step:,} steps in {result.seconds:,.0f} s.",
        f"Next: selftaught evaluate {parts.out} {data if isinstance(data, str | Path) else 'DATA'} --labels LABELS",
    ]
