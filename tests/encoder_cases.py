"""Encoders of every kind, small enough to test: ours over 1, 2 and 3 axes, timm's, and modules of the user's."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from selftaught.encoders import Encoder, make

TINY_VIT: dict[str, Any] = {"dim": 48, "depth": 2, "heads": 3}


class Maps(nn.Module):
    """A module of the user's that gives a map."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, stride=4, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


def vectors() -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(2 * 20, 7), nn.BatchNorm1d(7), nn.Dropout(0.5))


CASES: dict[str, tuple[Any, tuple[int, ...], dict[str, Any]]] = {
    "small 1-D": ("small", (5, 40), {"width": 8}),
    "small 2-D": ("small", (3, 21, 17), {"width": 8}),
    "small 3-D": ("small", (1, 9, 16, 12), {"width": 4, "depth": 2}),
    "vit 1-D": ("vit_tiny", (5, 37), {**TINY_VIT, "patch": 4}),
    "vit 2-D": ("vit_tiny", (13, 30, 20), {**TINY_VIT, "patch": (8, 4), "registers": 2}),
    "vit 3-D": ("vit_tiny", (1, 5, 12, 9), {**TINY_VIT, "patch": (2, 4, 4), "class_token": False}),
    "vit first": ("vit_small", (1, 16, 16), {**TINY_VIT, "pool": "first"}),
    "vit causal": ("vit_base", (2, 24), {**TINY_VIT, "patch": 4, "pool": "last", "attend": "causal"}),
    "resnet18": ("resnet18", (5, 33, 40), {"stem": "standard"}),
    "mobilenet": ("mobilenetv3_small_050", (1, 32, 32), {}),
    "convnext": ("convnext_atto", (3, 32, 32), {}),
    "timm vit": ("vit_tiny_patch16_224", (3, 32, 48), {"depth": 2}),
    "timm deit3": ("deit3_small_patch16_224", (3, 32, 32), {"depth": 2}),
    "timm dinov2": ("vit_small_patch14_reg4_dinov2", (3, 28, 28), {"depth": 2}),
    "timm siglip": ("vit_base_patch16_siglip_224", (3, 32, 32), {"depth": 2, "embed_dim": 96, "num_heads": 3}),
    "timm eva02": ("eva02_tiny_patch14_224", (3, 28, 28), {"depth": 2}),
    "timm dinov3": ("vit_small_patch16_dinov3", (3, 48, 32), {"depth": 2}),
    "timm rope mixed": ("vit_small_patch16_rope_mixed_224", (3, 32, 32), {"depth": 2}),
    "timm swin": ("swin_tiny_patch4_window7_224", (3, 32, 32), {"depths": (1, 1, 1, 1), "embed_dim": 24}),
    "timm beit": ("beit_base_patch16_224", (3, 32, 32), {"depth": 2, "embed_dim": 96, "num_heads": 3}),
    "timm one vector": ("coat_tiny", (3, 32, 32), {"serial_depths": (1, 1, 1, 1), "parallel_depth": 1}),
    "your maps": (Maps, (3, 18, 23), {}),
    "your vectors": (vectors, (2, 20), {}),
}
OPENED = [name for name in CASES if name.startswith("vit")] + [
    f"timm {name}" for name in ("vit", "deit3", "dinov2", "siglip", "eva02", "dinov3", "rope mixed")
]
TIMM = [name for name, (model, _, _) in CASES.items() if isinstance(model, str) and timm.is_model(model)]


@pytest.fixture(autouse=True)
def one_thread():
    """Tensors this small are faster without a team of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def case_of(name: str) -> tuple[Encoder, Tensor]:
    """One of the cases and four samples for it; tests leave weights and modes as they found them."""
    encoder = _made(name)
    torch.manual_seed(0)
    return encoder, torch.randn(4, *CASES[name][1])


@functools.cache
def _made(name: str) -> Encoder:
    model, shape, options = CASES[name]
    torch.manual_seed(0)
    return make(model if isinstance(model, str) else model(), shape, **options).eval()


def twin_of(encoder: Encoder, name: str, **options) -> Any:
    """The same model as timm makes it, with the encoder's weights."""
    twin: Any = timm.create_model(name, num_classes=0, **options).eval()
    twin.load_state_dict(net_of(encoder).state_dict(), strict=True)
    return twin


def net_of(encoder: Encoder) -> Any:
    return encoder.net
