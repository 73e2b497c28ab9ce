"""``vit_tiny``, ``vit_small``, ``vit_base``: timm's vision transformer for series, pictures and volumes.

timm's ``VisionTransformer`` with a patch projection over 1, 2 or 3 axes. In 2-D ``encoder.net.state_dict()`` is timm's
state dict, so weights move both ways unchanged. The last patch of an axis is padded with zeros (the mean).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from selftaught.encoders.transformer import Transformer
from selftaught.errors import EncoderError, must_be

SIZES = {  # dim, depth, heads: those of timm's models of the same names
    "vit_tiny": (192, 12, 3),
    "vit_small": (384, 12, 6),
    "vit_base": (768, 12, 12),
}
CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
CELLS = {1: 64, 2: 8, 3: 6}  # the fewest cells per axis that ``patch=None`` leaves, by the number of axes


class Patches(nn.Module):
    """Input -> patches -> tokens over 1, 2 or 3 axes: what timm's ``PatchEmbed`` is in 2-D, with the same weights."""

    dynamic_img_pad = True

    def __init__(
        self,
        img_size: Sequence[int],
        patch_size: Sequence[int],
        in_chans: int,
        embed_dim: int,
        bias: bool = True,
        dynamic_img_pad: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.img_size, self.patch_size = tuple(img_size), tuple(patch_size)
        self.grid_size = tuple(-(-size // step) for size, step in zip(img_size, patch_size, strict=True))
        self.num_patches = math.prod(self.grid_size)
        conv = CONVOLUTIONS[len(self.patch_size)]
        step: Any = self.patch_size
        self.proj = conv(in_chans, embed_dim, kernel_size=step, stride=step, bias=bias, device=device, dtype=dtype)

    def feat_ratio(self) -> int:
        return max(self.patch_size)

    def forward(self, x: Tensor) -> Tensor:
        missing = [-size % step for size, step in zip(x.shape[2:], self.patch_size, strict=True)]
        if any(missing):
            x = F.pad(x, [pad for size in reversed(missing) for pad in (0, size)])
        return self.proj(x).flatten(2).transpose(1, 2)


def make(
    name: str,
    shape: Sequence[int],
    *,
    patch: int | Sequence[int] | None = None,
    pool: str = "mean",
    attend: str = "none",
    class_token: bool = True,
    registers: int = 0,
    dim: int | None = None,
    depth: int | None = None,
    heads: int | None = None,
    drop_path: float = 0.0,
    pretrained: bool = False,
) -> Transformer:
    """``vit_tiny``, ``vit_small``, ``vit_base``. ``patch``: cells per token along each axis, None = by size: the
    largest of 16, 8, 4, 2, 1 that leaves at least 64 tokens of a series, 8 a side of a picture, 6 a side of a volume.
    """
    size = SIZES[name]
    dim, depth, heads = dim or size[0], depth or size[1], heads or size[2]
    space = tuple(shape[1:])
    _check(name, shape, pool=pool, class_token=class_token, dim=dim, heads=heads)
    if pretrained and (len(space) != 2 or (dim, depth, heads) != size or registers or not class_token):
        raise EncoderError(
            must_be("pretrained", name, "False unless it is timm's model of that name, on pictures", True)
        )
    patches = default_patch(space) if patch is None else _per_axis(name, patch, len(space))
    net = VisionTransformer(
        img_size=space, patch_size=patches, in_chans=shape[0], num_classes=0,  # type: ignore[arg-type]
        embed_dim=dim, depth=depth, num_heads=heads, class_token=class_token, reg_tokens=registers,
        global_pool="token" if pool == "first" else "avg", fc_norm=False, drop_path_rate=drop_path, embed_layer=Patches,
    )  # fmt: skip
    if pretrained:
        net.load_state_dict(_published(name, shape, patches))
    options = {
        "patch": list(patches), "pool": pool, "attend": attend, "class_token": class_token, "registers": registers,
        "dim": dim, "depth": depth, "heads": heads, "drop_path": drop_path,
    }  # fmt: skip
    return Transformer(name, shape, net, options=options, pooling=pool, attend=attend)


def _published(name: str, shape: Sequence[int], patch: Sequence[int]) -> dict[str, Tensor]:
    """timm's weights of the same model, its patches and positions resampled to ours."""
    from selftaught.encoders import hub

    whole = [-(-size // step) * step for size, step in zip(shape[1:], patch, strict=True)]
    twin = hub.make(f"{name}_patch16_224", (shape[0], *whole), pretrained=True, patch_size=tuple(patch))
    return twin.net.state_dict()  # type: ignore[union-attr]


def default_patch(space: Sequence[int]) -> tuple[int, ...]:
    """The largest of 16, 8, 4, 2, 1 that leaves at least ``CELLS`` cells: per axis, but square in a picture."""
    fewest = CELLS[len(space)]
    sizes = [min(space)] * 2 if len(space) == 2 else space
    return tuple(next((step for step in (16, 8, 4, 2) if -(-size // step) >= fewest), 1) for size in sizes)


def _per_axis(name: str, patch: int | Sequence[int], axes: int) -> tuple[int, ...]:
    patches = (patch,) * axes if isinstance(patch, int) else tuple(patch)
    if len(patches) != axes or min(patches) < 1:
        raise EncoderError(must_be("patch", name, f"{axes} ints in [1, inf) or one", patch))
    return patches


def _check(name: str, shape: Sequence[int], *, pool: str, class_token: bool, dim: int, heads: int) -> None:
    if len(shape) - 1 not in CONVOLUTIONS or min(shape) < 1:
        raise EncoderError(must_be("shape", name, "(C, *space) with 1, 2 or 3 axes of space", tuple(shape)))
    if pool == "first" and not class_token:
        raise EncoderError(must_be("pool", name, "mean or last without a class token", pool))
    if dim % heads:
        raise EncoderError(must_be("dim", name, f"a multiple of heads ({heads})", dim))
