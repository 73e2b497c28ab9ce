"""Models that are not opened up: they take a whole input and give a map, tokens or one vector.

``embed`` gives the input's own cells (pixels, samples) as tokens, ``context`` is the whole model. Hidden cells of the
output grid are enlarged to the input's and set to zero, the mean after normalising. ``wrap`` makes an encoder of any
module of yours.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from selftaught.encoders.base import Context, Encoder, normal_layers, refuse_partial, whole_grid
from selftaught.errors import EncoderError, must_be
from selftaught.ops.tokens import to_map, to_tokens
from selftaught.types import Tokens


class Whole(Encoder):
    """Base of the models that are not opened up; subclasses write ``_run`` and ``_output_grid``."""

    def grid(self, shape: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        if len(shape) != len(self.shape) or shape[0] != self.shape[0]:
            axes = len(self.shape) - 1
            raise self._refuse(f"({self.shape[0]}, *space) with {axes} axes of space", "shape", tuple(shape))
        return tuple(shape[1:]), self._output_grid(tuple(shape))

    def embed(self, x: Tensor, valid: Tensor | None = None) -> Tokens:
        if valid is not None and not bool(valid.all()):
            raise self._refuse("without padding", "valid", f"{int((~valid).sum())} cells of padding")
        return whole_grid(to_tokens(x), tuple(x.shape[2:]))

    def context(
        self,
        tokens: Tokens,
        *,
        hidden: Tensor | None = None,
        attend: str | Tensor | None = None,
        layers: Sequence[int] = (),
    ) -> tuple[Context, list[Tensor]]:
        refuse_partial(tokens, attend, self.name)
        if hidden is not None and not self.hides:
            raise EncoderError(must_be("encoder", "a masked method", "able to hide tokens", self.name))
        if layers and not self.depth:
            raise self._refuse("empty: this model gives its last output only", "layers", tuple(layers))
        wanted = normal_layers(layers, self.depth, self.name)
        coarse = self._output_grid((self.shape[0], *tokens.grid)) if hidden is not None else ()
        return self._run(to_map(self._replace(tokens, hidden, coarse), tokens.grid), wanted)

    def _run(self, x: Tensor, layers: list[int]) -> tuple[Context, list[Tensor]]:
        """(B, C, *space) -> what ``context`` returns."""
        raise NotImplementedError

    def _output_grid(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        raise NotImplementedError


class Custom(Whole):
    """A module of the user's. ``config`` names its class, so that loading can say what it needs."""

    def __init__(self, module: nn.Module, shape: Sequence[int]) -> None:
        output = _probe(module, tuple(shape))
        maps = output.ndim > 2
        super().__init__(
            "custom", shape, dim=output.shape[1], options={"class": _class_of(module)},
            hides=["replace"] if maps else [], gives_tokens=maps,
        )  # fmt: skip
        self.net = module
        self._grids = {self.shape: tuple(output.shape[2:])}

    def _run(self, x: Tensor, layers: list[int]) -> tuple[Context, list[Tensor]]:
        output = self.net(x)
        return as_context(output if output.ndim > 2 else output.unflatten(1, (-1, *[1] * (x.ndim - 2)))), []

    def _output_grid(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if shape not in self._grids:
            self._grids[shape] = tuple(_probe(self.net, shape).shape[2:])
        return self._grids[shape] or (1,) * (len(shape) - 1)


def wrap(module: nn.Module, shape: Sequence[int]) -> Encoder:
    """Any module that maps a batch (B, C, *space) to (B, D) or (B, D, *grid), as an encoder of (C, *space) ``shape``.

    It is run once on two samples of zeros in eval mode. Raises EncoderError where it fails or gives anything else.
    """
    return module if isinstance(module, Encoder) else Custom(module, shape)


def as_context(maps: Tensor) -> Context:
    """(B, D, *grid) -> tokens of the whole grid."""
    tokens = whole_grid(to_tokens(maps), tuple(maps.shape[2:]))
    return Context(tokens.values, tokens.position, tokens.grid)


@contextlib.contextmanager
def quiet_eval(module: nn.Module) -> Iterator[None]:
    """Eval mode without gradients; every part gets its own mode back."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def _probe(module: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """What the module gives for two samples of zeros: (2, D) or (2, D, *grid)."""
    parameter = next(iter(module.parameters()), torch.empty(0))
    zeros = torch.zeros(2, *shape, device=parameter.device, dtype=parameter.dtype)
    try:
        with quiet_eval(module):
            output = module(zeros)
    except Exception as error:  # whatever a stranger's code raises
        reason = f"It raised {type(error).__name__}: {error}"
        raise EncoderError(
            must_be("encoder", "your module", f"able to take a batch of shape (2, {_comma(shape)})", _class_of(module)),
            hint=reason,
        ) from error
    fits = isinstance(output, Tensor) and output.ndim in (2, len(shape) + 1) and len(output) == 2
    if not fits or not output.is_floating_point():
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        wanted = f"a module that gives floats of shape (B, D) or (B, D, {'*grid'}) for B samples"
        raise EncoderError(
            must_be("encoder", "your module", wanted, got),
            hint="Wrap it in a module whose forward returns that tensor.",
        )
    return output


def _class_of(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"


def _comma(shape: Sequence[int]) -> str:
    return ", ".join(map(str, shape))
