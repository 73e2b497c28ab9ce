"""What a training learns from: its samples, which of them are held out, their labels, how often each is drawn.

Samples on this machine are listed; shards that lie elsewhere are not, but for those that were looked at first.
Nothing is written here.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from selftaught import catalog
from selftaught.commands.model import load_modality
from selftaught.commands.samples import TOO_FEW, hold_out, open_samples, read_again
from selftaught.commands.start import Start
from selftaught.data import shares
from selftaught.data.index import Index
from selftaught.data.kept import Decoded
from selftaught.data.labels import read_labels
from selftaught.data.place import cache_folder
from selftaught.data.stream import Stream, is_stream, open_stream
from selftaught.errors import ConfigError, RunError
from selftaught.formats import arrays


class TrainingData:
    """``saved``: what the run that is gone on with, in ``out``, was started with; empty for a new one."""

    def __init__(self, request: Mapping[str, Any], saved: Mapping[str, Any], out: Path) -> None:
        self.request, self.saved, self.out = request, saved, out
        self.unreadable: list[tuple[str, str]] = []
        self.labels: np.ndarray | None = None  # (N,) class numbers: watched, learned from by supervised methods alone
        self.shares: np.ndarray | None = None  # of ``train_rows``: how often each is drawn; None = all alike

    def open(self, start: Start | None) -> None:
        """The index and the modality; ``start`` is the run that another one begins from. Heads are read, no pixels."""
        accept = self.request["accept_unreadable"]
        self.stream = self._open_stream()
        data = self.request["data"] if self.stream is None else self.stream.look
        if self.saved:
            known = self.saved["preprocessing"]
            asked = self.request["modality"]["name"] == known["name"]
            modality = load_modality(known, said_by=None if asked else self.out)
            self.samples = read_again(data, modality, accept_unreadable=accept)
            self._refuse_changes()
        elif start is not None:
            modality = start.modality(self.request["modality"])
            self.samples = read_again(data, modality, accept_unreadable=accept)
        else:
            self.samples = open_samples(data, self.request["modality"], accept_unreadable=accept)
        self.unreadable += self.samples.index.quarantine

    def _open_stream(self) -> Stream | None:
        """Shards elsewhere, with a look at their first samples; None for data on this machine, or copied to it."""
        if not is_stream(self.request["data"]):
            return None
        asked = self.request["modality"]["name"]
        names = catalog.names("modality") if asked == "auto" else [asked]
        wanted = frozenset().union(*(catalog.load("modality", name).extensions for name in names))
        return open_stream(self.request["data"], wanted - arrays.EXTENSIONS)

    def _refuse_changes(self) -> None:
        if self.fingerprint == self.saved["fingerprint"]:
            return
        if self.stream is not None:
            raise RunError(f"The shards changed since the run {self.out} was started.", hint="Choose another --out.")
        if not self.request["changed_data"]:
            hint = "--changed-data goes on with the run's own list of samples; another --out starts afresh."
            raise RunError(f"The data changed since the run {self.out} was started.", hint=hint)
        self.samples.index = Index.open(self.out / "index.arrow")

    def divide(self) -> None:
        """Training rows and those for health. Of a stream, those that were looked at are all held out."""
        count = len(self.samples.index)
        if self.stream is None:
            self.train_rows, self.held_rows = hold_out(count, self.request["seed"])
        else:
            self.train_rows = np.arange(count)
            self.held_rows = np.arange(count if count >= TOO_FEW else 0)
        self.index = self.samples.index.select(self.train_rows)

    def read_labels(self) -> None:
        """Labels that fit no sample, and shares that are none, before anything is written."""
        if self.request["labels"] is not None:
            found = read_labels(self.samples.index, self.request["labels"], self.samples.source)
            found.refuse_names()
            self.labels = found.values
        self.shares = self._shares()

    def _shares(self) -> np.ndarray | None:
        index, rows, parts = self.samples.index, self.train_rows, []
        if self.request["mix"] is not None and self.request["balance"] is None:
            hint = "For instance --balance source --mix wiki.tar=3,news.tar=1"
            raise ConfigError("The 'mix' parameter needs 'balance', which says what kinds there are.", hint=hint)
        if self.request["balance"] is not None:
            kinds = read_labels(index, self.request["balance"], self.samples.source)
            kinds = dataclasses.replace(kinds, values=kinds.values[rows])  # of those that are drawn, shares are exact
            mix = self.request["mix"]
            parts.append(shares.balanced(kinds.values) if mix is None else shares.mixed(kinds, mix))
        if self.request["weights"] is not None:
            parts.append(shares.weights_of(index, self.request["weights"])[rows])
        return shares.shares(parts)

    @property
    def targets(self) -> np.ndarray | None:
        """The labels of the training rows."""
        return None if self.labels is None else self.labels[self.train_rows]

    @property
    def count(self) -> int:
        """Samples to learn from; of a stream, about."""
        return len(self.index) if self.stream is None else self.stream.samples

    @property
    def fingerprint(self) -> str:
        return self.samples.fingerprint if self.stream is None else self.stream.fingerprint

    @property
    def modality(self) -> Any:
        return self.samples.modality

    @functools.cached_property
    def kept(self) -> Decoded | None:
        """Where this process keeps decoded training samples, if it is to."""
        gigabytes = self.request["cache_gb"]
        return Decoded(len(self.index), gigabytes, cache_folder() / "decoded") if gigabytes else None
