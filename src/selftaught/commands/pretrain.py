"""From data that nobody labelled to an encoder in a run folder.

Cheap checks come first: names, flags and ranges before torch loads, the place and the data before pixels are decoded,
so that a refused request leaves nothing behind and the corrected one just works.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated, Any

from selftaught import catalog
from selftaught.commands.choices import refuse_batch
from selftaught.commands.run import Run, Speaker, check_place
from selftaught.config import Group, command
from selftaught.errors import ConfigError, DataError, must_be, nearest


@command
def pretrain(
    data: Annotated[Any, "", "folder, zip or tar, table, .npz or .npy, URL of shards; in Python also paths or arrays"],
    *,
    out: Annotated[str | os.PathLike[str], "", "folder of the run; made here, or gone on with"],
    modality: Annotated[Group, "modality", "kind of data; auto = by content"] = "auto",
    method: Annotated[Group, "method", "what to learn by; auto = the kind of data's own"] = "auto",
    encoder: Annotated[Group, "encoder", "what learns; auto = by size of the data and the machine"] = "auto",
    views: Annotated[Group, "views", "changes to the views that the method asks for"] = None,
    epochs: Annotated[float | None, "in (0, inf)", "passes over the data"] = None,
    steps: Annotated[int | None, "in [1, inf)", "optimiser steps, instead of epochs"] = None,
    minutes: Annotated[float | None, "in (0, inf)", "wall clock, instead of epochs; the plan is made in steps"] = None,
    batch_size: Annotated[int | None, "in [1, inf)", "samples per optimiser step, over all devices"] = None,
    accumulate: Annotated[int, "in [1, inf)", "micro-batches per step and device"] = 1,
    optimiser: Annotated[str, "one of adamw, sgd, lars", "what moves the weights"] = "adamw",
    lr: Annotated[float | None, "in (0, inf)", "peak learning rate at a batch of 256; scaled to yours"] = None,
    weight_decay: Annotated[float | None, "in [0, inf)", "decay per step, of weights with two axes or more"] = None,
    warmup: Annotated[float, "in [0, 1)", "share of the steps with a rising rate"] = 0.05,
    seed: Annotated[int, "in [0, 9223372036854775807]", "of everything random"] = 0,
    labels: Annotated[
        str | None, "", "folders, a column or a CSV: watched (kNN); learned from by supervised methods alone"
    ] = None,
    balance: Annotated[
        str | None, "", "folders, a column or a table: samples of each kind are drawn as often as of any other"
    ] = None,
    mix: Annotated[
        Any, "", "with balance: how often each kind is drawn, NAME=SHARE,NAME=SHARE; a mapping in Python and YAML"
    ] = None,
    weights: Annotated[str | None, "", "a column of the data: how often each sample is drawn, against others"] = None,
    pretrained: Annotated[bool, "", "start from timm's published weights"] = False,
    from_: Annotated[str | os.PathLike[str] | None, "", "start from the encoder of this finished run"] = None,
    head_first: Annotated[
        float | None, "in [0, 1)", "share of the run in which an encoder that is not new waits for new heads"
    ] = None,
    layer_decay: Annotated[
        float | None, "in (0, 1]", "its rate from layer to layer towards the input; auto = 0.75"
    ] = None,
    teacher: Annotated[
        str | os.PathLike[str] | None, "", "a run, a timm name or a model of transformers, for methods that ask"
    ] = None,
    devices: Annotated[int | None, "in [1, 4096]", "processes, or accelerators"] = None,
    precision: Annotated[str, "one of auto, fp32, bf16", "arithmetic; auto = bf16 where the hardware has it"] = "auto",
    workers: Annotated[int | None, "in [0, 4096]", "processes that read data, per device"] = None,
    cache_gb: Annotated[float, "in [0, inf)", "decoded samples to keep for later epochs, 10^9 bytes a device"] = 0.0,
    accept_unreadable: Annotated[bool, "", "go on although more than 5 % cannot be read"] = False,
    resume: Annotated[str, "one of auto, never, must", "go on with the run at --out"] = "auto",
    changed_data: Annotated[bool, "", "go on although the data changed; the run keeps its list of samples"] = False,
    preview: Annotated[bool, "", "only write the views of the first batches to OUT-preview.png"] = False,
    config: Annotated[str | None, "", "YAML file or shipped recipe; what is given here wins over it"] = None,
    quiet: Annotated[bool, "", "print nothing but errors"] = False,
) -> Run:
    """Learns an encoder from unlabelled data.

    The same command again goes on with an interrupted run, and says so when the run is finished. Raises ConfigError,
    MethodError, EncoderError, ModalityError, DataError and RunError for wrong requests, before a folder is made.
    """
    request = dict(locals())
    began = time.perf_counter()
    if sum(each is not None for each in (epochs, steps, minutes)) > 1:
        raise ConfigError("Only one of 'epochs', 'steps' and 'minutes' can be given.")
    _refuse_starts(request)
    refuse_batch(batch_size, request["method"]["name"])
    before = None if preview else check_place(out, request, resume)
    if isinstance(data, str | os.PathLike) and _is_missing(str(data)):
        from selftaught.data.entries import nearby

        raise DataError(f"There is no file or folder {str(data)!r}.", hint=nearby(str(data)))
    say = Speaker(quiet)
    if before is not None and before.finished:
        say(f"The run {out} is finished. Next: selftaught evaluate {out} DATA --labels LABELS")
        return before

    from selftaught.commands.preparation import Preparation  # torch, only once all that is cheap was checked

    parts = Preparation(request, before)
    parts.open_data()
    from selftaught.commands import training  # lightning, which takes longer still

    if preview:
        say(f"The views of the first batches are in {training.preview(parts)}")
        return Run(Path(out))
    return training.train(parts, say, began)


def _is_missing(path: str) -> bool:
    """Neither there nor a pattern of several, which the front door knows."""
    file = path.split("::")[0]
    if "://" in path:
        return False
    return not Path(file).expanduser().exists() and not any(mark in file for mark in "*?[{")


def _refuse_starts(request: dict[str, Any]) -> None:
    """Two beginnings for one encoder, none where one is to be treated gently, a teacher that nobody knows."""
    if request["teacher"] is not None and not catalog.teacher_kind(os.fspath(request["teacher"])):
        spec = os.fspath(request["teacher"])
        wanted = "a finished run, a timm name or a model of transformers"
        raise ConfigError(must_be("teacher", "pretrain", wanted, spec), hint=nearest(spec, catalog.timm_names()))
    asked = request["encoder"]
    if request["from_"] is not None:
        if isinstance(asked, dict) and asked != {"name": "auto"}:
            raise ConfigError("Only one of 'encoder' and 'from' can be given: the run has its own encoder.")
        if request["pretrained"]:
            raise ConfigError("Only one of 'pretrained' and 'from' can be given.")
        Run.open(request["from_"])
        return
    for name in ("head_first", "layer_decay"):
        if request[name] is not None and not request["pretrained"]:
            flag = name.replace("_", "-")
            raise ConfigError(
                f"The {name!r} parameter is for an encoder that is not new.",
                hint=f"--{flag} goes with --from or --pretrained.",
            )
