"""Every image model of timm, by name, for any number of channels and any size the model allows.

Vision transformers (``VisionTransformer`` and ``Eva``) are opened up; the others run whole, through timm's
``forward_features`` and ``forward_head``. A model is first built without weights, on torch's meta device: that finds
its grid, and refuses a size it cannot take, in a fraction of a second.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import timm
import torch
from timm.layers.patch_embed import PatchEmbed
from timm.models import group_parameters
from timm.models.eva import Eva
from timm.models.resnet import ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from selftaught.encoders.base import WEIGHTS_ELSEWHERE, Encoder
from selftaught.encoders.closed import Layout, TimmModel
from selftaught.encoders.transformer import Transformer
from selftaught.encoders.whole import quiet_eval
from selftaught.errors import EncoderError, must_be, nearest

OURS = ("small", "vit_tiny", "vit_small", "vit_base")
STEMS = ("auto", "small", "standard")
SMALL_UP_TO = 64  # pixels of the shorter side: up to here ``stem: auto`` keeps a ResNet's full resolution
PATIENCE = 5.0  # seconds to wait for an answer from where the published weights are


def make(
    name: str,
    shape: Sequence[int],
    *,
    pretrained: bool = False,
    stem: str = "auto",
    attend: str = "none",
    **options: Any,
) -> Encoder:
    """A timm model. ``options`` go to ``timm.create_model``; ``attend`` is for the transformers that are opened up.

    ``stem``, for ResNets: "small" is the CIFAR stem (He et al., 2015, section 4.2: 3x3, stride 1, no max-pool),
    "standard" timm's own; "auto" is small where the shorter side has at most 64 pixels and no weights are loaded.
    ResNets that start from nothing get ``zero_init_last=False``: timm's own start, residual branches that give nothing,
    is for long training (Goyal et al. 2017); in some hundred steps the loss falls further without (docs/log.md).
    """
    check_name(name, shape)
    weights = published(name) if pretrained else None
    stem = _resolve(stem, name, shape, pretrained)
    shadow, layout = _trial(name, shape, stem, options)
    if type(shadow) is ResNet and not pretrained:
        options.setdefault("zero_init_last", False)
    resizes = {"dynamic_img_size": True} if type(shadow) is Eva else {}  # else its rotary table is fixed
    net = _create(name, shape, stem, {**resizes, **options}, weights)
    chosen = {name: value for name, value in options.items() if name not in WEIGHTS_ELSEWHERE}  # it has them now
    if type(net) is ResNet:
        chosen = {"stem": "standard" if stem == "standard" else "small", **chosen}
    if layout.kind == "opened":
        setattr(net.patch_embed, "strict_img_size", False)  # noqa: B010  ``Transformer`` interpolates positions
        encoder = Transformer(name, shape, net, options={**chosen, "attend": attend}, attend=attend)
        encoder.grid(shape)  # refuses what is no multiple of the patch
        return encoder
    if attend != "none":
        raise EncoderError(must_be("attend", name, "none", attend), hint="Only vision transformers can do more.")
    return TimmModel(name, shape, net, layout=layout, look=partial(_look, shadow), options=chosen)


def check_name(name: str, shape: Sequence[int]) -> None:
    """Refuses names that timm does not have, and inputs that are no pictures."""
    if not timm.is_model(name):
        hint = nearest(name, [*OURS, *timm.list_models()]) or "See: selftaught encoders."
        raise EncoderError(must_be("encoder", "selftaught", "one of ours or a timm model", name), hint=hint)
    if len(shape) != 3 or min(shape) < 1:
        raise EncoderError(
            must_be("shape", name, "(C, Y, X), since timm's models take pictures", tuple(shape)),
            hint="For series and volumes: small, vit_tiny, vit_small, vit_base.",
        )


def published(name: str) -> dict[str, Any]:
    """Where timm finds the weights: a file of the local cache, or {} = the network, which answered.

    Raises EncoderError where there are none, or none within reach.
    """
    facts = timm.get_pretrained_cfg(name)
    if facts is None or not facts.has_weights:
        raise EncoderError(must_be("pretrained", name, "False: timm has no weights for it", True))
    if not facts.hf_hub_id:
        return {}
    import huggingface_hub as hub

    names = [facts.hf_hub_filename] if facts.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
    for file in names:
        path = hub.try_to_load_from_cache(facts.hf_hub_id, file)
        if isinstance(path, str):
            return {"file": path}
    if error := _silence():
        raise _out_of_reach(name, error) from error
    return {}


def refuse_out_of_reach(spec: str, file: str) -> None:
    """A folder, a name whose ``file`` is in the local cache, or one that the network may have; else EncoderError."""
    import huggingface_hub as hub

    if os.path.isdir(spec) or isinstance(hub.try_to_load_from_cache(spec, file), str):
        return
    if error := _silence():
        hint = f"Connect to the network, or give a folder made by save_pretrained. ({_said(error)})"
        raise EncoderError(f"There is no folder {spec!r}, and no model of that name within reach.", hint=hint)


def _silence() -> Exception | None:
    """Why the place of the published weights does not answer; asked soon, where libraries would try for minutes."""
    import huggingface_hub as hub

    try:
        hub.get_session().head(hub.constants.ENDPOINT, timeout=PATIENCE)
    except Exception as error:  # no name server, no route, a proxy's refusal, offline mode
        return error
    return None


def published_input(name: str) -> tuple[tuple[int, int], tuple[float, ...], tuple[float, ...]]:
    """What the published weights were trained on: size in pixels, mean and spread of the channels for values in [0, 1].

    Raises EncoderError where timm has no such model, or no weights for it.
    """
    check_name(name, (3, 224, 224))
    facts = timm.get_pretrained_cfg(name)
    if facts is None or not facts.has_weights:
        raise EncoderError(must_be("teacher", "pretrain", "a run, or a timm name that has weights", name))
    return tuple(facts.input_size[1:]), tuple(facts.mean), tuple(facts.std)  # type: ignore[return-value]


def layers_of(net: Any) -> dict[str, int]:
    """Parameter of ``encoder.net`` -> its layer as timm groups them, 0 nearest to the input."""
    groups = group_parameters(net, net.group_matcher(coarse=False))
    return {f"net.{name}": int(layer) for layer, names in groups.items() for name in names}


def _create(
    name: str, shape: Sequence[int], stem: str, options: dict[str, Any], weights: dict[str, Any] | None = None
) -> nn.Module:
    """The timm model without its classifier; ``weights`` None = as initialised."""
    size: Any = shape[1] if shape[1] == shape[2] else tuple(shape[1:])
    wanted = {"num_classes": 0, "in_chans": shape[0], "pretrained": weights is not None, **options}
    wanted["pretrained_cfg_overlay"] = weights or None
    try:
        net = timm.create_model(name, img_size=size, **wanted)
    except TypeError as error:
        if "'img_size'" not in str(error):
            raise  # an unknown option: ``make`` of the package has the sentence
        net = timm.create_model(name, **wanted)  # takes any size as it is
    except OSError as error:
        raise _out_of_reach(name, error) from error
    if stem != "standard":
        _small_stem(net, name, shape[0], demanded=stem == "small")
    return net


def _small_stem(net: nn.Module, name: str, channels: int, *, demanded: bool) -> None:
    if type(net) is not ResNet:
        if demanded:
            raise EncoderError(must_be("stem", name, "standard, being no ResNet", "small"))
        return
    net.conv1 = nn.Conv2d(channels, int(net.bn1.num_features), 3, padding=1, bias=False)  # type: ignore[arg-type]
    nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")  # as timm's own
    net.maxpool = nn.Identity()


def _trial(name: str, shape: Sequence[int], stem: str, options: dict[str, Any]) -> tuple[nn.Module, Layout]:
    """The model on the meta device and what it gives. Raises EncoderError where it cannot take the shape."""
    try:
        return _try_shape(name, shape, stem, options)
    except EncoderError:
        raise
    except Exception as error:  # each model has its own way to say no
        if "unexpected keyword" in str(error):
            raise
        raise EncoderError(
            must_be("size", name, "one that the model can take", tuple(shape[1:])),
            hint=_sizes(name, shape, stem, options) or f"timm says: {error}",
        ) from error


def _try_shape(name: str, shape: Sequence[int], stem: str, options: dict[str, Any]) -> tuple[nn.Module, Layout]:
    with torch.device("meta"):
        net = _create(name, shape, stem, options)
        return net, _look(net, shape)


def _look(net: nn.Module, shape: Sequence[int]) -> Layout:
    """Runs the model on two samples without values."""
    parts: Any = net
    with quiet_eval(net):
        x = torch.zeros(2, *shape, device="meta")
        features = parts.forward_features(x)
        dim = parts.forward_head(features, pre_logits=True).shape[-1]
        if type(net) in (VisionTransformer, Eva) and type(parts.patch_embed) is PatchEmbed:
            return Layout("opened", dim)
        depth = _depth(net, x)
    if isinstance(features, Tensor) and features.ndim == 4:
        last = getattr(net, "output_fmt", "NCHW") == "NHWC"
        grid, width = (features.shape[1:3], features.shape[3]) if last else (features.shape[2:], features.shape[1])
        return Layout("maps last" if last else "maps", dim, width, tuple(grid), depth=depth)
    if isinstance(features, Tensor) and features.ndim == 3:
        prefix = getattr(net, "num_prefix_tokens", 0)
        rows = round(math.sqrt((features.shape[1] - prefix) * shape[1] / shape[2]))
        columns = (features.shape[1] - prefix) // max(1, rows)
        if rows * columns == features.shape[1] - prefix:
            return Layout("tokens", dim, features.shape[2], (rows, columns), prefix, depth)
    return Layout("vector", dim, dim)


def _depth(net: Any, x: Tensor) -> int:
    """How many layers ``forward_intermediates`` can return."""
    with contextlib.suppress(Exception):  # models differ in whether they have it, and what they refuse with
        return len(net.forward_intermediates(x, intermediates_only=True))
    return 0


def _sizes(name: str, shape: Sequence[int], stem: str, options: dict[str, Any]) -> str:
    """Sizes near the one refused that the model does take, in words; "" where none was found."""
    fits = []
    for size in _candidates(name, shape):
        with contextlib.suppress(Exception):
            _try_shape(name, (shape[0], *size), stem, options)
            fits.append("x".join(map(str, size)))
    return f"It takes {' or '.join(dict.fromkeys(fits))}." if fits else ""


def _candidates(name: str, shape: Sequence[int]) -> Iterator[tuple[int, ...]]:
    for step in (16, 32):
        yield tuple(max(step, side // step * step) for side in shape[1:])
    facts = timm.get_pretrained_cfg(name)
    if facts is not None:
        yield tuple(facts.input_size[1:])


def _resolve(stem: str, name: str, shape: Sequence[int], pretrained: bool) -> str:
    """small, standard, or auto = small if it turns out to be a ResNet."""
    if stem not in STEMS:
        raise EncoderError(must_be("stem", name, f"one of {', '.join(STEMS)}", stem))
    if stem == "small" and pretrained:
        raise EncoderError(must_be("stem", name, "standard with published weights", stem))
    large = min(shape[1:]) > SMALL_UP_TO
    return "standard" if stem == "auto" and (pretrained or large) else stem


def _out_of_reach(name: str, error: Exception) -> EncoderError:
    return EncoderError(
        must_be("pretrained", name, "False while its published weights are out of reach", True),
        hint=f"Connect to the network, or start from random weights. ({_said(error)})",
    )


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
