"""Encoders and method as one module, entered only through its forward, so that any wrapper (DDP, FSDP) sees every use.

The batch arrives as stored (uint8 pictures, float32 readings) and is normalised here, on the device, straight into the
type the encoder computes in: one cast, no float copy in the workers or on the bus.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from selftaught.types import Batch, Clock, Method, Outputs


class Normalise(Protocol):
    """``modality.normalise``: (B, V, *stored) -> (B, V, C, *space) in ``dtype``."""

    def __call__(self, data: Tensor, dtype: torch.dtype = ...) -> Tensor: ...


class Share:
    """A batch on its way into the wrapped module.

    Not a dataclass on purpose: Fabric casts and copies what is in dataclasses, and the data must arrive as stored.
    """

    __slots__ = ("batch", "clock")

    def __init__(self, batch: Batch, clock: Clock) -> None:
        self.batch = batch
        self.clock = clock


class Task(nn.Module):
    """What the loop trains. ``normalise=None`` passes the data on as they are."""

    encoders: nn.ModuleDict
    method: Method

    def __init__(self, encoders: Mapping[str, nn.Module], method: Method, normalise: Normalise | None = None) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(dict(encoders))
        self.method = method
        self.normalise: Callable[..., Tensor] | None = normalise

    def forward(self, share: Share) -> Outputs:
        """One micro-batch -> the method's outputs, samples first."""
        return self.method(self.encoders, self.prepare(share.batch), share.clock)

    def prepare(self, batch: Batch) -> Batch:
        """The batch with every stream normalised, in the type the encoder computes in."""
        if self.normalise is None:
            return batch
        device, dtype = self.place()
        if torch.is_autocast_enabled(device.type):
            dtype = torch.get_autocast_dtype(device.type)
        streams = {}
        for name, stream in batch.streams.items():
            data = self.normalise(stream.data, dtype)
            streams[name] = type(stream)(data, stream.valid, stream.observed, stream.hidden, stream.drawn)
        return batch.replace(streams=streams)

    def place(self) -> tuple[torch.device, torch.dtype]:
        """Device and type of the weights."""
        for parameter in self.parameters():
            return parameter.device, parameter.dtype
        return torch.device("cpu"), torch.float32
