"""``small``: a residual convnet for series, pictures and volumes that learns in minutes on a laptop.

A stem, then four stages of basic residual blocks (He et al., 2015, arXiv:1512.03385) of 1, 2, 4 and 8 times ``width``
channels, each stage but the first halving the grid. The stem's stride adapts to the input, axis by axis: the smallest
power of two that leaves at most 128 cells of a series, 32 of a picture's side, 16 of a volume's side. So an input of 8
ends on one cell and one of 48 by 48 on 3 by 3. Masks are drawn on the last grid and enlarged to the stem's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from selftaught.encoders.base import Context, Encoder, normal_layers, refuse_partial, whole_grid
from selftaught.errors import EncoderError, must_be
from selftaught.ops.tokens import shrink, to_map, to_tokens
from selftaught.types import Tokens

STAGES = 4
CELLS = {1: 128, 2: 32, 3: 16}  # the most cells per axis that the stem leaves, by the number of axes
CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
SMALLEST = 4  # cells of the shortest axis: below, the stages see nothing but their padding


class Small(Encoder):
    """N-D residual convnet. ``width``: channels of the first stage; ``depth``: blocks per stage; ``stride``: the
    stem's, one for all axes or one each, None = by size; ``pool``: "mean" over the last grid.
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        width: int = 32,
        depth: int = 1,
        stride: int | Sequence[int] | None = None,
        pool: str = "mean",
    ) -> None:
        check(shape, width=width, depth=depth, stride=stride, pool=pool)
        channels, space = shape[0], tuple(shape[1:])
        axes = len(space)
        strides = stem_stride(space) if stride is None else _per_axis(stride, axes)
        options = {"width": width, "depth": depth, "stride": list(strides), "pool": pool}
        super().__init__("small", shape, dim=8 * width, options=options, hides=["replace"], pooling=pool, depth=STAGES)
        self.stride = strides
        self.stem = _stem(channels, width, strides)
        widths = [width * 2**stage for stage in range(STAGES)]
        self.stages = nn.ModuleList(
            nn.Sequential(*_stage(before, after, depth, axes, first=stage == 0))
            for stage, (before, after) in enumerate(zip([width, *widths], widths, strict=False))
        )
        self.mask_vector = nn.Parameter(torch.randn(width) * 0.02, requires_grad=False)

    def grid(self, shape: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        check_shape(shape, channels=self.shape[0], axes=len(self.stride))
        start = tuple(-(-size // stride) for size, stride in zip(shape[1:], self.stride, strict=True))
        return start, _halved(start, STAGES - 1)

    def layers(self) -> dict[str, int]:
        parts = {name: name.split(".") for name, _ in self.named_parameters()}
        return {name: int(part[1]) + 1 if part[0] == "stages" else 0 for name, part in parts.items()}

    def embed(self, x: Tensor, valid: Tensor | None = None) -> Tokens:
        if valid is not None:
            x = x.masked_fill(~valid[:, None], 0)
        maps = self.stem(x)
        grid = tuple(maps.shape[2:])
        return whole_grid(to_tokens(maps), grid, None if valid is None else shrink(valid, grid))

    def context(
        self,
        tokens: Tokens,
        *,
        hidden: Tensor | None = None,
        attend: str | Tensor | None = None,
        layers: Sequence[int] = (),
    ) -> tuple[Context, list[Tensor]]:
        refuse_partial(tokens, attend, self.name)
        wanted = normal_layers(layers, self.depth, self.name)
        values = self._replace(tokens, hidden, _halved(tokens.grid, STAGES - 1))
        maps, outputs = to_map(values, tokens.grid), []
        for stage in self.stages:
            maps = stage(maps)
            outputs.append(maps)
        grid = tuple(maps.shape[2:])
        valid = None if tokens.valid is None else shrink(tokens.valid.unflatten(1, tokens.grid), grid)
        last = whole_grid(to_tokens(maps), grid, valid)
        return Context(last.values, last.position, grid, valid), [to_tokens(outputs[layer]) for layer in wanted]


class Residual(nn.Module):
    """Two convolutions, three cells wide, added to a shortcut."""

    def __init__(self, before: int, after: int, axes: int, *, stride: int = 1) -> None:
        super().__init__()
        conv, norm = CONVOLUTIONS[axes], NORMS[axes]
        self.conv1 = conv(before, after, 3, stride, padding=1, bias=False)
        self.norm1 = norm(after)
        self.conv2 = conv(after, after, 3, padding=1, bias=False)
        self.norm2 = norm(after)
        self.act = nn.ReLU(inplace=True)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or before != after:
            self.shortcut = nn.Sequential(conv(before, after, 1, stride, bias=False), norm(after))

    def forward(self, x: Tensor) -> Tensor:
        change = self.norm2(self.conv2(self.act(self.norm1(self.conv1(x)))))
        return self.act(change + self.shortcut(x))


def stem_stride(space: Sequence[int]) -> tuple[int, ...]:
    """The smallest power of two per axis that leaves no more than ``CELLS`` cells."""
    most = CELLS[len(space)]
    return tuple(1 << max(0, (-(-size // most) - 1).bit_length()) for size in space)


def check(
    shape: Sequence[int],
    *,
    width: int = 32,
    depth: int = 1,
    stride: int | Sequence[int] | None = None,
    pool: str = "mean",
) -> None:
    """Refuses what ``Small`` cannot be built for."""
    check_shape(shape)
    for name, value in {"width": width, "depth": depth}.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise EncoderError(must_be(name, "small", "an int in [1, inf)", value))
    if stride is not None:
        strides = _per_axis(stride, len(shape) - 1)
        if len(strides) != len(shape) - 1 or min(strides) < 1:
            raise EncoderError(must_be("stride", "small", f"{len(shape) - 1} ints in [1, inf) or one", stride))
    if pool != "mean":
        raise EncoderError(must_be("pool", "small", "mean", pool), hint="A convnet has no first or last token.")


def check_shape(shape: Sequence[int], *, channels: int | None = None, axes: int | None = None) -> None:
    """Refuses inputs that are no series, picture or volume, or not the one that the encoder was built for."""
    space = tuple(shape[1:])
    if len(space) not in CONVOLUTIONS or (axes is not None and len(space) != axes):
        wanted = "1, 2 or 3 axes" if axes is None else f"{axes} axes"
        raise EncoderError(must_be("shape", "small", f"(C, *space) with {wanted} of space", tuple(shape)))
    if shape[0] < 1 or (channels is not None and shape[0] != channels):
        wanted = "at least one channel" if channels is None else f"{channels} channels"
        raise EncoderError(must_be("shape", "small", f"(C, *space) with {wanted}", tuple(shape)))
    if min(space) < SMALLEST:
        raise EncoderError(must_be("size", "small", f"at least {SMALLEST} along every axis", space))


def _stem(channels: int, width: int, strides: Sequence[int]) -> nn.Sequential:
    axes = len(strides)
    kernel = tuple(max(3, 2 * stride - 1) for stride in strides)  # odd, and neighbours overlap
    padding = tuple(size // 2 for size in kernel)
    conv = CONVOLUTIONS[axes](channels, width, kernel, tuple(strides), padding, bias=False)  # type: ignore[arg-type]
    return nn.Sequential(conv, NORMS[axes](width), nn.ReLU(inplace=True))


def _stage(before: int, after: int, depth: int, axes: int, *, first: bool) -> list[Residual]:
    blocks = [Residual(before, after, axes, stride=1 if first else 2)]
    return blocks + [Residual(after, after, axes) for _ in range(depth - 1)]


def _halved(grid: Sequence[int], times: int) -> tuple[int, ...]:
    return tuple(-(-size // 2**times) for size in grid)


def _per_axis(value: int | Sequence[int], axes: int) -> tuple[int, ...]:
    return (value,) * axes if isinstance(value, int) else tuple(value)
