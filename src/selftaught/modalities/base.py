"""What a modality does, part by part, with the defaults that most share.

A modality is one file here and one test file; ``catalog`` finds it by its file name, and the class is the one whose
name is the file's (``Image`` in ``image.py``). Keyword arguments of ``__init__`` are its configuration
(``--modality.size 96``); what ``fit`` measures on the data is its ``state``, saved as ``preprocessing.json``.
Arrays stay as stored (uint8 pictures, float32 readings) until ``normalise`` on the device.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from selftaught.errors import MethodError, must_be
from selftaught.types import Batch, Item, Plan, Sample, Stream, ViewGroup, Views


class Modality:
    """Base of every modality; see ``types.Modality`` for the contract in one glance."""

    name: ClassVar[str] = ""
    extensions: ClassVar[frozenset[str]] = frozenset()  # lower case, with the dot: which files of a folder are its own
    default_method: ClassVar[str] = "simclr"
    default_encoder: ClassVar[str] = "auto"
    pretext: ClassVar[Mapping[str, int]] = {}  # discrete transformations and how many values each has: {"rotation": 4};
    # the first is what "auto" means, 0 values stand for one whose label is no class (colour)

    @classmethod
    def claims(cls, shape: tuple[int, ...], kind: str) -> float:
        """How surely an array of samples of ``shape`` and NumPy kind ("u", "f", …) is of this modality, in [0, 1]."""
        return 0.0

    def items(self, path: str) -> Iterable[Item]:
        """The samples in one file, without decoding it: cheap enough for a million files.

        Raises ``UnreadableError`` with the reason where the file's head already shows that it cannot be used.
        """
        return [Item(path)]

    def read(self, item: Item) -> Sample:
        """One item as stored. Raises ``UnreadableError``; a picture may stay encoded (see ``types.Sample``)."""
        raise NotImplementedError

    def from_array(self, array: np.ndarray) -> Sample:
        """A sample the user holds in memory; the same checks and the same meaning of axes as ``read``."""
        raise NotImplementedError

    def fit(self, samples: Iterable[Sample]) -> None:
        """Measures on some training samples what must be known before step 0 (channels, size, mean, spread)."""

    def views(self, sample: Sample, rng: np.random.Generator, plan: Plan) -> Views:
        """The views that ``plan`` asks for: a pure function of its arguments, run in a worker."""
        raise NotImplementedError

    def plain(self, sample: Sample) -> Views:
        """The sample as evaluation sees it: one view named "plain", resized to the input size, nothing random."""
        raise NotImplementedError

    def collate(self, views: Sequence[Views], index: np.ndarray, p: np.ndarray) -> Batch:
        """Stacks samples of one size: (B, V, *shape) per group."""
        streams = {}
        for group in views[0].streams:
            streams[group] = Stream(
                _stack([one.streams[group] for one in views]),
                valid=_stack_masks([one.valid.get(group) for one in views], absent=True),
                observed=_stack_masks([one.observed.get(group) for one in views], absent=True),
                hidden=_stack_masks([one.hidden.get(group) for one in views], absent=False),
                drawn={key: _stack([one.drawn[group][key] for one in views]) for key in views[0].drawn.get(group, {})},
            )
        target = None if views[0].target is None else torch.as_tensor(np.asarray([one.target for one in views]))
        return Batch(streams, torch.from_numpy(index), torch.from_numpy(p), target)

    def normalise(self, data: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """(B, V, *stored) on the device -> (B, V, C, *space) in ``dtype``, about zero mean and unit spread."""
        raise NotImplementedError

    def denormalise(self, data: Tensor) -> Tensor:
        """The way back, for pictures of reconstructions."""
        raise NotImplementedError

    def raw(self, batch: Batch) -> Tensor:
        """(B, D) float32: the input itself as features, for the control that every encoder must beat."""
        return self.normalise(batch["plain"].data).flatten(1)

    def picture(self, data: np.ndarray) -> np.ndarray:
        """One view as stored -> (Y, X, 3) uint8 for a person to look at."""
        raise NotImplementedError

    def shape(self) -> tuple[int, ...]:
        """(C, *space) of one normalised view at the run's input size; known after ``fit``."""
        raise NotImplementedError

    def plain_shape(self) -> tuple[int, ...]:
        """(C, *space) of one normalised untouched sample, where that is not ``shape``."""
        return self.shape()

    def state(self) -> dict[str, Any]:
        """JSON-able: configuration and what ``fit`` measured; enough to rebuild the modality."""
        raise NotImplementedError

    def load_state(self, state: Mapping[str, Any]) -> None:
        raise NotImplementedError

    def advice(self, plan: Plan) -> list[str]:
        """What the user should know of these data and these views before the training: sentences, mostly none."""
        return []

    def toy(self, n: int, seed: int = 0) -> list[Sample]:
        """Synthetic samples of two classes (``target`` 0 or 1), so that the whole matrix of tests runs offline."""
        raise NotImplementedError


def pretext_of(modality: Modality, group: ViewGroup) -> str:
    """The transformation that a group asks for, "" for none. Raises MethodError for one that the modality has not."""
    if group.pretext == "auto" and modality.pretext:
        return next(iter(modality.pretext))
    if group.pretext and group.pretext not in modality.pretext:
        known = ", ".join(modality.pretext) or "none"
        wanted = f"one of those that {modality.name} data have ({known})"
        raise MethodError(must_be("pretext", f"ViewGroup {group.name!r}", wanted, group.pretext))
    return group.pretext


def draw_values(rng: np.random.Generator, count: int, values: int) -> np.ndarray:
    """(V,) int64 in [0, values), each value as often as any other where there are enough views, in random order."""
    rounds = [rng.permutation(values) for _ in range(-(-count // values))]
    return np.concatenate(rounds)[:count].astype(np.int64)


def _stack(arrays: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(arrays))


def _stack_masks(masks: Sequence[np.ndarray | None], *, absent: bool) -> Tensor | None:
    """None where no sample has the mask; a sample without one among others that have is ``absent`` everywhere."""
    known = next((mask for mask in masks if mask is not None), None)
    return None if known is None else _stack([np.full_like(known, absent) if mask is None else mask for mask in masks])
