"""From a checked request to the parts of a training: data opened, "auto" decided, encoder and method built.

Nothing is written here. What a run decided at its start is taken from its run.yaml when it goes on, so that another
machine, or another version's idea of "auto", does not change it midway.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from selftaught import catalog, config
from selftaught.commands import choices, misfits, start
from selftaught.commands.encoder_choice import EncoderChoice
from selftaught.commands.model import modality_state
from selftaught.commands.run import Run
from selftaught.commands.samples import measure
from selftaught.commands.start import Start
from selftaught.commands.teachers import teacher as make_teacher
from selftaught.commands.training_data import TrainingData
from selftaught.commands.views import change_plan
from selftaught.data import lanes
from selftaught.data.keys import stream_key
from selftaught.data.lanes import Lanes
from selftaught.data.loader import Loader, Order
from selftaught.data.stream import Stream
from selftaught.data.streaming import StreamLoader
from selftaught.encoders import make
from selftaught.errors import RunError, must_be
from selftaught.train.devices import find_device, launched, refuse_devices
from selftaught.types import Method, Plan

if TYPE_CHECKING:
    from selftaught.train.feed import Batches


class Preparation:
    """The parts of one training. ``before`` is the run that the request goes on with, None for a new one."""

    def __init__(self, request: dict[str, Any], before: Run | None) -> None:
        self.request = request
        self.saved = before.config if before else {}
        self.out = Path(request["out"])
        self.derived = choices.Derived()
        self.data = TrainingData(request, self.saved, self.out)
        self.method: Method | None = None
        self.most = 0  # samples of which a step takes all memory that there is; 0 = not met yet
        self.start = self._start() if request["from_"] is not None and not before else None
        self.choice = EncoderChoice(request, self.saved, self.start, self.derived)
        self.adopted = False  # whether the method goes on with weights of the starting run
        if request["devices"] is not None and not launched():
            refuse_devices(request["devices"], find_device())
        if request["method"]["name"] != "auto":
            self.method = self._make_method(request["method"])

    def _start(self) -> Start:
        asked = self.request["encoder"]
        return Start(self.request["from_"], None if isinstance(asked, dict) else asked)

    # --- data ----------------------------------------------------------------------------------------------------

    def open_data(self) -> None:
        """Index, modality, method, training rows. Heads of files are read, no pixels."""
        self.data.open(self.start)
        if self.method is None:
            self._choose_method()
        assert self.method is not None
        if self.data.stream is not None:
            misfits.refuse_stream(self.method, self.request)
        self.data.divide()
        self._batch_size("cpu", 1)  # refuses what does not fit the data, whatever the device
        self.data.read_labels()

    @property
    def modality(self) -> Any:
        return self.data.modality

    def _choose_method(self) -> None:
        """The method where nobody named one; options that were given are for whichever it is."""
        if self.saved:
            derived = self.saved["derived"]
            name, options, why = derived["method"], derived.get("method_options", {}), ""
        else:
            before = None if self.start is None else self.start.method(labels=self.request["labels"] is not None)
            name, why = choices.method(
                self.modality.default_method,
                before=before[0] if before else "",
                encoder=self.choice.to_come(self.data.samples),
                count=len(self.data.samples.index),
                batch_size=self.request["batch_size"],
                teacher=self.request["teacher"] is not None,
            )
            options = before[1] if before and name == before[0] else {}
        group = config.check_group("method", {**options, **self.request["method"], "name": name}, {})
        self.method = self._make_method(group)
        self.derived.add("method", name, why)
        if options:
            self.derived.add("method_options", options)

    def _make_method(self, group: dict[str, Any]) -> Method:
        name, options = group["name"], {key: value for key, value in group.items() if key != "name"}
        method = catalog.load("method", name)(**options)
        self._method_group = group
        self.derived.add("method", name)
        misfits.refuse_missing(method, self.request)
        return method

    def _batch_size(self, device: str, devices: int) -> int:
        assert self.method is not None
        return choices.batch_size(
            self.request["batch_size"],
            self.data.count,
            device=device,
            devices=devices,
            accumulate=self.request["accumulate"],
            smallest=self.method.minimum_batch,
            small=self.method.small_batches,
        )

    def choose_batch(self, *, device: str, devices: int) -> None:
        """Batch size and workers, for the devices there are."""
        assert self.method is not None
        self.device, self.devices = device, devices
        size = self._batch_size(device, devices)
        size = min(size, self.most // self.request["accumulate"] * self.request["accumulate"] or size)
        alone = ", each learned from by itself" if self.method.small_batches else ""
        reason = "" if self.request["batch_size"] else f"for {self.data.count:,} samples on {self.device}{alone}"
        reason = f"{reason}; more does not fit its memory" if self.most and reason else reason
        self.derived.add("batch_size", self.saved["derived"]["batch_size"] if self.saved else size, reason)
        size = self.derived.values["batch_size"]
        self.order = Order(self.data.count, size, self.request["seed"], shares=self.data.shares)
        if self.data.stream is not None:
            self.lanes = self._lanes(self.data.stream, size)
        self.workers, why = choices.workers(self.request["workers"], self.device, self.devices)
        self.derived.add("workers", self.workers, why)

    def _lanes(self, stream: Stream, size: int) -> Lanes:
        """How the shards are dealt out, fixed at the start of a run."""
        shards, before = len(stream.shards), self.saved["derived"] if self.saved else {}
        count = before.get("lanes") or lanes.choose(shards, size, self.devices)
        if count % self.devices:
            wrong = must_be("devices", "pretrain", f"a number that divides the run's {count} lanes", self.devices)
            raise RunError(wrong)
        block = before.get("block") or stream.block(count // self.devices)
        self.derived.add("lanes", count, f"for {shards:,} shards and batches of {size}")
        self.derived.add("block", block, f"neighbours of about {stream.mean:,} bytes that are shuffled in memory")
        return Lanes(shards, count, size, self.request["seed"], block)

    def start_over(self, most: int) -> None:
        """After a first step that did not fit: a new method, as at the start, and batches of at most ``most``."""
        self.most = most
        self.method = self._make_method(self._method_group)

    # --- what learns ---------------------------------------------------------------------------------------------

    def build(self) -> None:
        """The data measured, then encoder and method built under a keyed seed."""
        assert self.method is not None
        self.measure()
        name, options = self.choice.named()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream_key(self.request["seed"], "weights") % 2**63)
            pretrained = self.request["pretrained"] and not self.saved
            shape = self.modality.shape()
            own = None if self.start is None else self.start.encoder()
            self.encoder = own or make(name, shape, pretrained=pretrained, **options)
            misfits.refuse(self.method, self.encoder, self.modality, self.plan, self.derived.values["encoder"])
            self.encoders: dict[str, Any] = {"encoder": self.encoder}
            if self.request["teacher"] is not None:
                self.encoders["teacher"] = make_teacher(os.fspath(self.request["teacher"]), self.modality)
            self.method.samples, self.method.pretext = self.data.count, self.modality.pretext
            self.method.build(self.encoders)
            if self.start is not None:
                self.adopted = self.start.adopt(self.method, self.derived.values["method"])
        self.derived.add("encoder_config", self.encoder.config())

    def measure(self) -> None:
        """What must be known of the data before step 0, the input size among it; a resumed run knows it already."""
        assert self.method is not None
        self.plan: Plan = change_plan(self.method.needs().plan, **self.request["views"])
        if not self.saved and self.start is None:
            self.choice.refuse_size()
            measure(self.data.samples, self.data.train_rows, self.request["seed"])
            self.choice.choose(self.data.samples, self.data.train_rows, method=self.method, device=self.device)
        self.derived.add(
            "modality", self.modality.name, "by content" if self.request["modality"]["name"] == "auto" else ""
        )
        self.derived.add("shape", list(self.modality.shape()))
        if (whole := list(self.modality.plain_shape())) != list(self.modality.shape()):
            self.derived.add("whole_shape", whole, "random crops show things larger than whole pictures do")

    def preprocessing(self) -> dict[str, Any]:
        """Which modality, its options and what it measured: enough to read other data in the same way."""
        given = {key: value for key, value in (self.request["modality"] or {}).items() if key != "name"}
        asked = self.request["modality"]["name"]  # a file of the user's own is found again by its path alone
        return modality_state(asked if ".py:" in asked else self.modality.name, given, self.modality)

    # --- batches -------------------------------------------------------------------------------------------------

    def batches(self, rank: int = 0, world: int = 1) -> Batches:
        """What the loop asks for: this rank's share of batches start, …, stop - 1."""
        return functools.partial(self.loader, rank=rank, world=world)

    def loader(self, start: int, stop: int, *, rank: int = 0, world: int = 1) -> Loader | StreamLoader:
        """The views of batches start, …, stop - 1."""
        options: dict[str, Any] = {
            "rank": rank,
            "world": world,
            "workers": self.workers,
            "start": start,
            "stop": stop,
            "unreadable": self.data.unreadable,
            "accept_unreadable": self.request["accept_unreadable"],
            "pin_memory": self.device == "cuda",
            "give_way": self.device == "cpu",
        }
        if self.data.stream is not None:
            return StreamLoader(self.data.stream, self.lanes, self.modality, self.plan, **options)
        assert self.method is not None
        options["targets"] = self.data.targets if self.method.needs().labels else None
        return Loader(self.data.index, self.modality, self.plan, self.order, kept=self.data.kept, **options)

    def lr_share(self) -> float:
        """Of the usual rate, for an encoder that is not new."""
        return start.GENTLE if self.starts_trained else 1.0

    @property
    def starts_trained(self) -> bool:
        """Whether the encoder is not new: published weights, or those of another run."""
        return bool(self.request["pretrained"] or self.request["from_"])

    def rates(self) -> dict[str, dict[str, float]]:
        """Parameter groups of an encoder that is not new; nothing for one that is. What a run began with, it keeps."""
        if not self.starts_trained:
            return {}
        for name, value, why in start.defaults(self.adopted):
            given = self.saved["derived"][name] if self.saved else self.request[name]
            self.derived.add(name, value if given is None else given, why if given is None else "")
        first, decay = (self.derived.values[name] for name in ("head_first", "layer_decay"))
        return start.rates(self.encoder, head_first=first, layer_decay=decay)

    def schedule(self) -> tuple[int | None, float | None]:
        """(steps, minutes) of the run: exactly one of them."""
        if self.request["minutes"] is not None:
            return None, self.request["minutes"]
        per_epoch = self.order.steps_per_epoch
        steps, reason = choices.steps_of(self.request["epochs"], self.request["steps"], per_epoch)
        return self.derived.add("steps", steps, reason), None

    def precision(self) -> str:
        """Fabric's word for it; chosen by the hardware where nobody asked."""
        from selftaught.train.fabric import choose_precision  # imports lightning, which takes seconds

        if self.saved:
            return self.derived.add("precision", self.saved["derived"]["precision"])
        asked = choices.PRECISIONS[self.request["precision"]]
        chosen, why = choose_precision(self.device, asked)
        return self.derived.add("precision", chosen, why if asked == "auto" else "")
