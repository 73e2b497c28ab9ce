"""A finished run against its controls on labelled data: features, trainers, tables."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from selftaught.commands.choices import workers as choose_workers
from selftaught.commands.model import Model, load
from selftaught.commands.run import Run, Speaker
from selftaught.commands.samples import identities, joined, read_again
from selftaught.commands.tables import print_summary, write_tables
from selftaught.data.index import Index
from selftaught.data.keys import stream_key
from selftaught.data.labels import Labels, read_labels
from selftaught.data.loader import once
from selftaught.downstream.evaluate import Evaluation, evaluate
from selftaught.downstream.features import calibrate, extract, extract_raw
from selftaught.downstream.finetune import trainer
from selftaught.downstream.tables import append_rows
from selftaught.encoders import make
from selftaught.errors import DataError, EncoderError

CALIBRATED = 2048  # samples whose statistics an untrained encoder's batch norms get


class Measuring:
    """Labelled data, opened as the run reads them. ``test``: other data to test on, None = a share of ``data``."""

    def __init__(
        self, run: Run, data: Any, *, test: Any, labels: Any, workers: int | None, accept_unreadable: bool
    ) -> None:
        self.run, self.data = run, data
        self.model: Model = load(run)
        self.workers, _ = choose_workers(workers, "cpu", 1)
        self.samples = read_again(data, self.model.modality, accept_unreadable=accept_unreadable)
        self.labels = read_labels(self.samples.index, labels, self.samples.source)
        if test is not None:
            self._add_test(test, labels, accept_unreadable)
        self.labels.refuse_names()

    @property
    def index(self) -> Index:
        return self.samples.index

    @property
    def modality(self) -> Any:
        return self.model.modality

    def evaluate(
        self,
        *,
        protocols: Sequence[str],
        budgets: Sequence[str],
        seeds: int,
        test: float,
        controls: Sequence[str],
        epochs: int,
        least: int,
        transductive: bool,
        say: Speaker,
    ) -> Evaluation:
        """Runs everything, writes evaluation.json and the tables, prints the table and the sentence."""
        vectors = self.embed(self.model.encoder)
        features: dict[str, Any] = {"pretrained": vectors}
        if "raw" in controls:
            features["raw"] = extract_raw(self.modality.raw, self._plain(), rows=len(self.index))
        if "random" in controls:
            features["random"] = self._random
        if "public" in controls:
            features["public"] = self._public()
        result = evaluate(
            features,
            self.labels.values,
            classes=self.labels.classes,
            trainers=self.trainers(protocols, controls, epochs=epochs, least=least),
            protocols=protocols,
            budgets=budgets,
            seeds=seeds,
            test=test,
            split=self.labels.split,
            group=self.labels.group,
            seen=self._seen(),
            transductive=transductive,
            data=_name(self.data),
            progress=None if say.silent else _counter(),
        )
        append_rows(self.run.folder, result, data=_name(self.data))
        write_tables(self.run.folder, self.index, self.modality, vectors, self.labels, result)
        if not say.silent:
            print_summary(result)
        return result

    # --- features ------------------------------------------------------------------------------------------------

    def _plain(self, rows: np.ndarray | None = None) -> Any:
        return once(
            self.index, self.modality, indices=rows, workers=self.workers, batch_size=256, accept_unreadable=True
        )

    def embed(self, encoder: Any) -> np.ndarray:
        """Pooled features (N, D) of every sample, nan where one cannot be read."""
        return extract(encoder, self._plain(), self.modality.normalise, rows=len(self.index))

    def _fresh(self, seed: int) -> Any:
        """The same encoder, untrained."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream_key(seed, "untrained") % 2**63)
            return make(self.model.encoder.config())

    def _random(self, seed: int) -> np.ndarray:
        encoder = self._fresh(seed)
        rows = np.random.default_rng(seed).permutation(len(self.index))[:CALIBRATED]
        calibrate(encoder, self._plain(np.sort(rows)), self.modality.normalise)
        return self.embed(encoder)

    def _public(self) -> np.ndarray:
        """Published weights of the same architecture, or of ResNet-18 where ours has none."""
        name, shape = self.model.encoder.config()["name"], self.modality.shape()
        if len(shape) != 3:
            raise EncoderError(
                "There are no public weights for data of this kind.", hint="Leave out the control 'public'."
            )
        name = "resnet18" if name in ("small", "custom") else name
        return self.embed(make(name, shape, pretrained=True))

    # --- fine-tuning ---------------------------------------------------------------------------------------------

    def trainers(self, protocols: Sequence[str], controls: Sequence[str], *, epochs: int, least: int) -> dict[str, Any]:
        """What ``evaluate`` calls to fine-tune, and to train from scratch, as far as these are asked for."""
        flip = self.run.config["request"]["views"].get("flip")
        options: dict[str, Any] = {} if flip is None else {"flip": flip}
        common = {"epochs": epochs, "least": least, "workers": self.workers, **options}
        made = {}
        if "finetune" in protocols:
            copies = lambda seed: copy.deepcopy(self.model.encoder)  # noqa: E731
            made["pretrained"] = trainer(copies, self.index, self.modality, pretrained=True, **common)
        if "scratch" in controls:
            made["scratch"] = trainer(self._fresh, self.index, self.modality, pretrained=False, **common)
        return made

    # --- which samples -------------------------------------------------------------------------------------------

    def _add_test(self, test: Any, labels: Any, accept_unreadable: bool) -> None:
        """Test data from elsewhere: one index of both, with the split stated."""
        other = read_again(test, self.modality, accept_unreadable=accept_unreadable)
        theirs = read_labels(other.index, labels, other.source)
        both = joined(self.samples, other)
        if len(both.index) != len(self.index) + len(other.index):
            raise DataError("Some files are in the labelled data and in the test data.", hint="They must not overlap.")
        self.labels = _joined_labels(self.labels, theirs)
        self.samples = both

    def _seen(self) -> np.ndarray:
        """(N,) bool: which samples were in the data of the pre-training."""
        known = {each for row in identities(Index.open(self.run.folder / "index.arrow")) for each in row}
        return np.array([bool(known.intersection(row)) for row in identities(self.index)], bool)


def _joined_labels(ours: Labels, theirs: Labels) -> Labels:
    """Theirs after ours, with one list of classes; ours are trained on, theirs tested on."""
    classes = tuple(dict.fromkeys([*ours.classes, *theirs.classes]))
    place = np.array([classes.index(name) for name in theirs.classes], np.int64)
    values = np.concatenate([ours.values, np.where(theirs.values >= 0, place[theirs.values], -1)])
    split = np.array(["train"] * len(ours.values) + ["test"] * len(theirs.values), object)
    parts = [np.full(len(one.values), "", object) if one.group is None else one.group for one in (ours, theirs)]
    group = None if ours.group is None and theirs.group is None else np.concatenate(parts)
    return Labels(values, classes, group, split)


def _name(data: Any) -> str:
    return str(data) if isinstance(data, str | Path) else "arrays"


def _counter() -> Any:
    """A line that counts the jobs, on a terminal only."""
    import sys

    if not sys.stderr.isatty():
        return None

    def show(done: int, total: int, what: str) -> None:
        print(f"\r\x1b[K{done}/{total} {what}", end="" if done + 1 < total else "\r\x1b[K", file=sys.stderr, flush=True)

    return show
