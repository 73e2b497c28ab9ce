"""Vision models of the library transformers, from a folder or by their name on the hub: teachers that stay frozen.

Only what looks at pictures is kept (of CLIP the vision tower). What one vector of a picture is differs from model to
model: the model's own pooling where the weights that were loaded hold all of it (transformers fills in random numbers
where they do not), else the class token, else the mean over places.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from selftaught.encoders import hub
from selftaught.errors import EncoderError, first_line, must_be
from selftaught.types import Features

CLASS_TOKENS = ("cls_token", "class_embedding")  # how the parameter is called that such a token starts from
POOLERS = ("pooler", "head")  # how parts are called that pool


class VisionTeacher(nn.Module):
    """A frozen model of transformers with what it was trained to be given."""

    def __init__(self, net: Any, *, pools: bool, facts: dict[str, Any]) -> None:
        """``pools``: whether its own pooling was trained. ``facts``: its image processor's size, mean and std."""
        super().__init__()
        self.net, self.pools = net, pools
        self.channels: int = net.config.num_channels
        self.size: tuple[int, int] = facts["size"]
        self.mean: tuple[float, ...] = facts["mean"]  # per channel, for values in [0, 1]; as is std
        self.std: tuple[float, ...] = facts["std"]
        names = [name.rsplit(".", 1)[-1] for name, _ in net.named_parameters()]
        self.has_class_token = any(name in CLASS_TOKENS for name in names)
        with torch.inference_mode():
            self.dim: int = self(torch.zeros(1, self.channels, *self.size)).pooled.shape[1]

    def forward(self, x: Tensor) -> Features:
        """(B, C, *size), standardised by ``mean`` and ``std`` -> features."""
        given = self.net(pixel_values=x)
        last, pooled = given.last_hidden_state, getattr(given, "pooler_output", None)
        if self.pools and pooled is not None:
            return Features(pooled.flatten(1))
        if last.ndim == 4:  # (B, D, Y, X)
            return Features(last.mean((2, 3)))
        return Features(last[:, 0] if self.has_class_token else last.mean(1))


def load(spec: str) -> VisionTeacher:
    """``spec``: a folder made by ``save_pretrained``, or a name on the hub such as ``facebook/dinov2-small``.

    Raises EncoderError where the package is missing, the weights are out of reach or do not fit, or are not for
    pictures.
    """
    if importlib.util.find_spec("transformers") is None:
        hint = "Install it: pip install 'selftaught[transformers]'"
        raise EncoderError(f"The teacher {spec!r} needs the package transformers.", hint=hint)
    from transformers import AutoConfig, AutoModel

    hub.refuse_out_of_reach(spec, "config.json")
    with _quiet():
        try:
            config = AutoConfig.from_pretrained(spec)
            if hasattr(config, "mask_ratio"):
                config.mask_ratio = 0.0  # MAE hides most of what it sees unless told otherwise
            net, found = AutoModel.from_pretrained(spec, config=config, dtype=torch.float32, output_loading_info=True)
        except (
            Exception
        ) as error:  # no such model, none that AutoModel knows, a file cut short: each says it its own way
            raise EncoderError(_not_one(spec), hint=f"transformers says: {first_line(error)}") from error
    missing = [name for name in found["missing_keys"] if not name.startswith(("text_model.", "logit_"))]
    net = getattr(net, "vision_model", net)
    if getattr(net, "main_input_name", "") != "pixel_values":
        raise EncoderError(_not_one(spec), hint=f"{type(net).__name__} does not take pictures.")
    lost = [name for name in missing if not any(part in POOLERS for part in name.split("."))]
    if lost:
        hint = f"Its weights have no {lost[0]!r}" + (f" and {len(lost) - 1} others." if len(lost) > 1 else ".")
        raise EncoderError(must_be("teacher", "pretrain", "a model with all of its weights", spec), hint=hint)
    return VisionTeacher(net.eval(), pools=not missing, facts=_facts(spec))


def _facts(spec: str) -> dict[str, Any]:
    """Size, mean and spread from the model's ``preprocessor_config.json``."""
    from transformers.image_processing_base import ImageProcessingMixin

    try:
        with _quiet():
            given, _ = ImageProcessingMixin.get_image_processor_dict(spec)
        asked = given["crop_size"] if given.get("do_center_crop") else given["size"]
        edges: dict[str, Any] = asked if isinstance(asked, dict) else {"shortest_edge": asked}
        sides = [edges.get(name) or edges["shortest_edge"] for name in ("height", "width")]
        plain = not given.get("do_normalize", True)
        mean, std = ([0.0], [1.0]) if plain else (given["image_mean"], given["image_std"])
        return {"size": (int(sides[0]), int(sides[1])), "mean": tuple(mean), "std": tuple(std)}
    except (OSError, KeyError, TypeError, ValueError) as error:
        hint = f"Its preprocessor_config.json does not say it ({type(error).__name__}: {first_line(error)})"
        wanted = "a model that says how large its pictures are and how they are standardised"
        raise EncoderError(must_be("teacher", "pretrain", wanted, spec), hint=hint) from error


def _not_one(spec: str) -> str:
    return must_be("teacher", "pretrain", "a run, a timm name, or a vision model of transformers", spec)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without bars, and without the table of weights that are missing: what matters of it is said here."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
