"""Teachers that stay as they are: another run's encoder, or published weights of timm or transformers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught import catalog
from selftaught.commands.model import Model, load
from selftaught.commands.parts import load_task, method_of
from selftaught.commands.run import Run
from selftaught.errors import ModalityError, must_be
from selftaught.types import Features


class Frozen(nn.Module):
    """A trained encoder that never learns, and sees what the student sees in the way that it is used to.

    Its weights are in no state dict: checkpoints need not hold what another file does.
    """

    def __init__(self, encoder: nn.Module, reread: Callable[[Tensor], Tensor], size: tuple[int, ...]) -> None:
        """``reread``: the student's normalised input -> the teacher's; ``size``: the teacher's input per axis."""
        super().__init__()
        self._held: tuple[Any, ...] = (
            encoder.eval().requires_grad_(False),
        )  # in a tuple: torch registers modules alone
        self.reread, self.size = reread, size
        self.dim: int = encoder.dim  # type: ignore[assignment]
        self.gives_tokens = bool(getattr(encoder, "gives_tokens", False))
        self.token_dim: int = getattr(encoder, "token_dim", self.dim)
        self.vocabulary = 0  # words that ``words`` knows

    def forward(self, x: Tensor) -> Features:
        """(B, C, *space) as the student gets it -> features."""
        return self._held[0](self._seen(x))

    def speak(self, method: Any) -> None:
        """Takes the words of the method that the encoder was trained by (its ``word_of`` and ``words``)."""
        self._held = (self._held[0], method.eval().requires_grad_(False))
        self.vocabulary = method.words

    def words(self, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """(B, C, *space) as the student gets it -> (B, N) numbers of words, and their grid."""
        encoder, method = self._held
        return method.word_of(encoder, self._seen(x))

    def _seen(self, x: Tensor) -> Tensor:
        x = self.reread(x)
        if tuple(x.shape[2:]) != self.size:
            mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(self.size)]
            x = F.interpolate(x, self.size, mode=mode, align_corners=False)
        return x

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        for part in self._held:
            part._apply(fn, recurse)
        return super()._apply(fn, recurse)


def teacher(spec: str, modality: Any) -> Frozen:
    """``spec``: a finished run, a timm name (its published weights), or a model of transformers (folder or name).

    ``modality``: the student's. Raises RunError, EncoderError, ModalityError.
    """
    kind = catalog.teacher_kind(spec)
    if kind == "run":
        model = load(spec)
        if model.modality.name != modality.name:
            wanted = f"a run on {modality.name}"
            raise ModalityError(must_be("teacher", "pretrain", wanted, f"{spec}, a run on {model.modality.name}"))
        made = _from_model(model, modality)
        if hasattr(catalog.load("method", method_of(Run.open(spec))[0], said_by=spec), "word_of"):
            made.speak(load_task(spec, model).method)
        return made
    if modality.name != "image":
        wanted = f"a run on {modality.name}: published models here look at pictures"
        raise ModalityError(must_be("teacher", "pretrain", wanted, spec))
    own = modality.shape()[0]
    if kind == "transformers":
        from selftaught.encoders import huggingface

        net = huggingface.load(spec)
        if own not in (1, net.channels):
            wanted = f"a model for {own} channels, as the data have"
            raise ModalityError(must_be("teacher", "pretrain", wanted, f"{spec}, for {net.channels}"))
        return _published(net, net.channels, net.size, net.mean, net.std, modality)
    from selftaught.encoders import hub

    size, mean, std = hub.published_input(spec)
    channels = len(mean) if own == 1 else own  # timm can make its models for any number of channels
    net = hub.make(spec, (channels, *size), pretrained=True)
    return _published(net, channels, size, mean, std, modality)


def _from_model(model: Model, modality: Any) -> Frozen:
    def reread(x: Tensor) -> Tensor:
        return model.modality.normalise(modality.denormalise(x[:, None]), x.dtype)[:, 0]

    return Frozen(model.encoder, reread, tuple(model.modality.shape()[1:]))


def _published(
    net: nn.Module, channels: int, size: Sequence[int], mean: Sequence[float], std: Sequence[float], modality: Any
) -> Frozen:
    """``mean`` and ``std`` are for values in [0, 1]; one channel is shown as often as the model has channels."""
    scale = {"uint8": 255.0, "uint16": 65535.0}.get(modality.dtype, 1.0)
    if len(mean) != channels:  # there is no telling which channel is which
        mean, std = ([sum(each) / len(each)] for each in (mean, std))
    centre, spread = (torch.tensor(each).view(1, -1, 1, 1) for each in (mean, std))

    def reread(x: Tensor) -> Tensor:
        raw = modality.denormalise(x[:, None])[:, 0].movedim(-1, 1).to(x.dtype)
        raw = raw.expand(-1, channels, -1, -1) / scale
        return (raw - centre.to(raw)) / spread.to(raw)

    return Frozen(net, reread, tuple(size))
