"""What the parts hand to each other.

Shape legend, used everywhere: B batch, V views, C channels, T time, Z Y X space, N tokens, D features,
K prototypes or classes. Every mask says in its name what True means: ``hidden`` (True = hidden from the model),
``valid`` (False = padding), ``observed`` (False = missing value).

This file holds data and protocols only, no mathematics. ``Method`` is a base class rather than a protocol because
fine-tuning and probes (``downstream``) are methods too, and share its defaults.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

# ---------------------------------------------------------------------------------------------------------------------
# Data, from a file to the device
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Item:
    """One row of the index: where a sample is, and what is known of it without decoding it."""

    path: str
    part: int = 0  # which sample of the file: row of an array, page, window, tile
    length: int = 1  # in the modality's unit (frames, characters); 1 where samples have one size
    entity: str = ""  # what the sample is a part of (a recording, a slide); "" = itself
    group: str = ""  # what must stay on one side of a split (patient, speaker); "" = none
    label: str | None = None
    split: str = ""  # "train", "test", … where the data say so


@dataclass(slots=True)
class Sample:
    """One item as stored, before any view: ``streams`` has one entry ("image"), or one per sensor or language.

    A stream is an array, or something that becomes one through ``numpy.asarray`` and knows its ``shape`` before: a
    picture that is still encoded, so that ``views`` draws the crops first and decodes at the smallest scale they allow.
    """

    streams: dict[str, Any]
    observed: dict[str, np.ndarray] = field(default_factory=dict)  # True = observed; absent = all observed
    target: Any = None
    facts: dict[str, Any] = field(default_factory=dict)  # what the file says of itself: bit depth, rate, spacing

    @property
    def data(self) -> Any:
        """The only stream; a ValueError where there are several."""
        (array,) = self.streams.values()
        return array


@dataclass(slots=True)
class Views:
    """The views of one sample, made in a worker, as stored (uint8 stays uint8).

    An untouched sample is one view in the group "plain".
    """

    streams: dict[str, np.ndarray]  # group name -> (V, *shape)
    valid: dict[str, np.ndarray] = field(default_factory=dict)
    observed: dict[str, np.ndarray] = field(default_factory=dict)
    hidden: dict[str, np.ndarray] = field(default_factory=dict)  # True = hidden, (V, N)
    drawn: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)  # group -> {"box": (V, 2 ndim), "flip": (V,)}
    # and, under the name of its pretext, (V,) int64 which value each view got; or what was taken away (colours)
    target: Any = None


@dataclass(slots=True)
class Stream:
    """One named stream of a batch: (B, V, *shape) as stored; (B, V, C, *space) float once normalised on the device."""

    data: Tensor
    valid: Tensor | None = None
    observed: Tensor | None = None
    hidden: Tensor | None = None
    drawn: dict[str, Tensor] = field(default_factory=dict)

    def map(self, change: Callable[[Tensor], Tensor]) -> Stream:
        """Every tensor changed, in a new Stream."""

        def maybe(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else change(tensor)

        drawn = {name: change(value) for name, value in self.drawn.items()}
        return Stream(change(self.data), maybe(self.valid), maybe(self.observed), maybe(self.hidden), drawn)


@dataclass(slots=True)
class Batch:
    """One rank's share of global batch t, or one micro-batch of it: samples first, in order of position."""

    streams: dict[str, Stream]  # by group of the plan; "plain" (V = 1) for samples that nothing was done to
    index: Tensor  # (B,) int64: which sample of the index
    p: Tensor  # (B,) int64: global position, the key of everything random about the sample
    target: Tensor | None = None

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, name: str) -> Stream:
        return self.streams[name]

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """Every tensor changed, in a new Batch."""
        target = None if self.target is None else change(self.target)
        streams = {name: stream.map(change) for name, stream in self.streams.items()}
        return Batch(streams, change(self.index), change(self.p), target)

    def to(self, device: torch.device | str) -> Batch:
        return self.map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:  # the name torch's DataLoader looks for
        return self.map(lambda tensor: tensor.pin_memory())

    def split(self, parts: int) -> list[Batch]:
        """``parts`` micro-batches of consecutive samples; sizes differ by at most one."""
        edges = [len(self) * part // parts for part in range(parts + 1)]
        return [self.map(lambda tensor, a=a, b=b: tensor[a:b]) for a, b in zip(edges, edges[1:], strict=False)]

    def replace(self, **changes: Any) -> Batch:
        return dataclasses.replace(self, **changes)


# ---------------------------------------------------------------------------------------------------------------------
# What a method asks for
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Geometry:
    """Where a view is cut. Groups that name one geometry share the crop and the flip."""

    name: str = "own"
    scale: tuple[float, float] = (0.08, 1.0)  # share of the sample's extent (area, volume, duration) that a crop keeps
    ratio: tuple[float, float] = (3 / 4, 4 / 3)  # aspect of a crop, where there is more than one axis
    flip: float = 0.5  # probability of mirroring the last axis, where the modality allows it


@dataclass(frozen=True, slots=True)
class Photometry:
    """What changes in a view besides its place. Strengths are those of the SimCLR paper at 1.0; 0 switches off."""

    colour: float = 1.0  # strength s of brightness, contrast, saturation (0.8 s) and hue (0.2 s)
    colour_p: float = 0.8
    gray: float = 0.2  # probability
    blur: float = 0.5  # probability
    solarise: float = 0.0  # probability
    noise: float = 1.0  # strength of what sensors do: jitter, scaling, drift (series, audio)


@dataclass(frozen=True, slots=True)
class ViewGroup:
    """``count`` views of one size. ``size`` is relative to the run's input size (multi-crop's small views: 96/224)."""

    name: str = "views"
    count: int = 2
    size: float = 1.0
    geometry: Geometry = Geometry()
    photometry: tuple[Photometry, ...] = (Photometry(),)  # one for all, or one per view (BYOL's two differ)
    stream: str = ""  # which of the sample's streams; "" = the only one
    companion: str = ""  # "neighbour" = views of the next or previous sample in time; "" = of the sample itself
    pretext: str = ""  # one of the modality's discrete transformations, applied last; "auto" = its first; "" = none


Plan = tuple[ViewGroup, ...]


@dataclass(frozen=True, slots=True)
class Needs:
    """What a method asks of the rest; the command builds it and refuses what does not fit, before data are read."""

    plan: Plan = (ViewGroup(),)
    encoders: tuple[str, ...] = ("encoder",)  # names of the encoders it is given; the first one is kept
    tokens: bool = False  # True = needs an encoder that gives more than one vector
    hides: str = ""  # "drop" or "replace" = what the encoder must be able to do with hidden tokens
    masks: Mapping[str, Any] = field(default_factory=dict)  # group name -> rule of ops.mask
    labels: bool = False  # True = ``batch.target`` must hold classes, -1 where one is not known


@dataclass(frozen=True, slots=True)
class Clock:
    """When we are, and the noise that is part of an objective.

    ``noise(name, p, shape)`` gives standard normal values of shape (len(p), *shape), a pure function of
    (seed, name, p): the same on one process or eight, with or without an interruption.
    """

    step: int
    steps: int
    epoch: int
    seed: int
    noise: Callable[[str, Tensor, Sequence[int]], Tensor]

    @property
    def fraction(self) -> float:
        """Share of the run that is done, in [0, 1]."""
        return self.step / max(1, self.steps)


# ---------------------------------------------------------------------------------------------------------------------
# The encoder's side
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Tokens:
    """Cells of a grid, content only: positions are added in ``context``, so that dropped tokens keep theirs."""

    values: Tensor  # (B, N, D)
    position: Tensor  # (B, N) int64: flat place in ``grid``, last axis fastest
    grid: tuple[int, ...]
    valid: Tensor | None = None  # (B, N), False = padding; None = all valid


@dataclass(slots=True)
class Features:
    """What an encoder gives. ``tokens`` is None for encoders that give one vector only."""

    pooled: Tensor  # (B, D)
    tokens: Tensor | None = None  # (B, N, D), without class and register tokens
    grid: tuple[int, ...] = ()
    valid: Tensor | None = None


@runtime_checkable
class Encoder(Protocol):
    """What is learned and kept: ``embed`` (input -> tokens), ``context`` (-> tokens), ``pool`` (-> one vector)."""

    shape: tuple[int, ...]  # (C, *space) of the input that it was made for
    dim: int  # D of ``pooled``
    token_dim: int  # D of the tokens
    depth: int  # layers that ``context(layers=…)`` can return
    hides: frozenset[str]  # subset of {"drop", "replace"}: what it can do with hidden tokens
    gives_tokens: bool

    def grid(self, shape: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]: ...
    def embed(self, x: Tensor, valid: Tensor | None = None) -> Tokens: ...
    def context(
        self,
        tokens: Tokens,
        *,
        hidden: Tensor | None = None,
        attend: str | Tensor | None = None,
        layers: Sequence[int] = (),
    ) -> tuple[Tokens, list[Tensor]]: ...
    def pool(self, tokens: Tokens) -> Tensor: ...
    def learn_mask(self) -> None: ...
    def __call__(self, x: Tensor, valid: Tensor | None = None) -> Features: ...


Encoders = Mapping[str, Encoder]
Outputs = dict[str, Tensor]  # samples first, one micro-batch
Terms = dict[str, tuple[Tensor, Tensor | float]]  # name -> (sum, count); the loop divides by the count over all ranks


class Method(nn.Module):
    """One objective: what it asks for, and how it turns that into a loss.

    Hyper-parameters are keyword arguments of ``__init__`` (the signature is the configuration); weights are made in
    ``build``, which gets the encoders. A method sees tensors and encoders, never files, devices, ranks or the loop.
    Two facts are set before ``build``: ``samples``, how many training samples there are, for what is kept of each
    (memory banks, assignments), ``batch.index`` being in [0, samples); and ``pretext``, the modality's transformations
    and how many values each has, of which a plan may ask for one.
    """

    family: ClassVar[str] = ""  # "contrastive", "non-contrastive", …: the heading in ``selftaught methods``
    couples: ClassVar[bool] = False  # True = samples meet in the loss: accumulation runs ``forward`` twice
    minimum_batch: ClassVar[int] = 2  # the fewest samples that there is anything to learn from
    remembers: ClassVar[bool] = False  # True = it keeps something for every sample, so there must be a list of them
    small_batches: ClassVar[bool] = False  # True = each sample is learned from by itself: more and smaller steps pay
    samples: int = 0
    pretext: Mapping[str, int] = MappingProxyType({})

    def needs(self) -> Needs:
        """What the method asks for; called before ``build``, so it depends on hyper-parameters only."""
        return Needs()

    def build(self, encoders: Encoders) -> None:
        """Makes heads, teachers and queues. Called once, on the CPU, under a keyed seed."""

    def forward(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        """One micro-batch -> tensors, samples first. Streams are normalised already: (B, V, C, *space) float."""
        raise NotImplementedError

    def loss(self, outputs: Outputs, clock: Clock) -> Terms:
        """``{name: (sum, count)}`` over this rank's samples; other ranks' samples come through ``nn.batchwise``."""
        raise NotImplementedError

    def after_step(self, outputs: Outputs, clock: Clock) -> None:
        """After the optimiser moved: teachers, queues, centres. Outputs are detached, this rank's whole share."""

    def before_epoch(self, sweep: Callable[[], Iterable[tuple[Tensor, Outputs]]], clock: Clock) -> None:
        """For clustering targets: ``sweep()`` yields (index, outputs in eval mode) over the training samples."""

    def show(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        """For people: name of a column -> (B, C, *space), normalised as the views are, or (B, Y, X, 3) uint8 pictures.

        {} = nothing to show.
        What went in, what was hidden, what came back. Called in eval mode, without a graph, on a few samples.
        """
        return {}

    def generate(self, encoders: Encoders, p: Tensor, clock: Clock) -> Tensor:
        """New samples (len(p), C, *space), normalised as the views are; ``p`` keys the noise. For methods that can."""
        raise NotImplementedError

    def energy(self, outputs: Outputs, clock: Clock) -> Tensor:
        """(B,) how badly each sample is explained, on a scale of the method's own; lower = more as expected.

        Where views of one sample are compared: one less the mean cosine of their projections. Methods that give a
        sample back, or bound its likelihood, say how far off they are.
        """
        z = outputs.get("z")
        if z is None or z.ndim != 3 or z.shape[1] < 2:
            raise NotImplementedError
        unit = nn.functional.normalize(z.float(), dim=-1)
        views = z.shape[1]
        return 1 - (unit.sum(1).square().sum(-1) - views) / (views * (views - 1))

    def groups(self, encoders: Encoders) -> dict[str, dict[str, Any]]:
        """Parameter-name prefix -> {"rate": factor, "weight_decay": x, "betas": …, "frozen_until": fraction}."""
        return {}


class Modality(Protocol):
    """One kind of data. ``__init__`` keyword arguments are its configuration; ``state`` is what ``fit`` learned.

    ``modalities/base.py`` says what each part must do and gives the defaults.
    """

    @property
    def name(self) -> str: ...
    @property
    def extensions(self) -> frozenset[str]: ...
    @property
    def default_method(self) -> str: ...
    @property
    def default_encoder(self) -> str: ...
    @property
    def pretext(self) -> Mapping[str, int]: ...

    def items(self, path: str) -> Iterable[Item]: ...
    def read(self, item: Item) -> Sample: ...
    def fit(self, samples: Iterable[Sample]) -> None: ...
    def views(self, sample: Sample, rng: np.random.Generator, plan: Plan) -> Views: ...
    def plain(self, sample: Sample) -> Views: ...
    def collate(self, views: Sequence[Views], index: np.ndarray, p: np.ndarray) -> Batch: ...
    def normalise(self, data: Tensor, dtype: torch.dtype = torch.float32) -> Tensor: ...
    def denormalise(self, data: Tensor) -> Tensor: ...
    def raw(self, batch: Batch) -> Tensor: ...
    def picture(self, data: np.ndarray) -> np.ndarray: ...
    def shape(self) -> tuple[int, ...]: ...
    def plain_shape(self) -> tuple[int, ...]: ...
    def state(self) -> dict[str, Any]: ...
    def load_state(self, state: Mapping[str, Any]) -> None: ...
    def advice(self, plan: Plan) -> list[str]: ...
    def toy(self, n: int, seed: int = 0) -> list[Sample]: ...
