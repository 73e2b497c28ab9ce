"""Changes to the views that a method asks for: ``--views.flip 0``, ``--views.colour 0.5``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

if TYPE_CHECKING:
    from selftaught.types import Plan, ViewGroup


def change_plan(
    plan: Plan,
    *,
    scale: Annotated[tuple[float, float] | None, "in (0, 1]", "share of the sample that a crop keeps, from, to"] = None,
    ratio: Annotated[tuple[float, float] | None, "in (0, inf)", "aspect of a crop, from, to"] = None,
    flip: Annotated[float | bool | None, "in [0, 1]", "probability of mirroring; false = never"] = None,
    colour: Annotated[float | None, "in [0, inf)", "strength of brightness, contrast, saturation and hue"] = None,
    colour_p: Annotated[float | None, "in [0, 1]", "probability of the change of colour"] = None,
    gray: Annotated[float | None, "in [0, 1]", "probability of no colour at all"] = None,
    blur: Annotated[float | None, "in [0, 1]", "probability of blur"] = None,
    solarise: Annotated[float | None, "in [0, 1]", "probability of inverting the bright part"] = None,
    noise: Annotated[float | None, "in [0, inf)", "strength of jitter, scaling and drift of sensors"] = None,
) -> Plan:
    """The plan with what is not None put into every group of it."""
    flip = 0.5 * flip if isinstance(flip, bool) else flip
    places = {name: value for name, value in (("scale", scale), ("ratio", ratio), ("flip", flip)) if value is not None}
    strengths = {
        "colour": colour,
        "colour_p": colour_p,
        "gray": gray,
        "blur": blur,
        "solarise": solarise,
        "noise": noise,
    }
    return tuple(
        _change(group, places, {name: one for name, one in strengths.items() if one is not None}) for group in plan
    )


def _change(group: ViewGroup, places: dict[str, Any], strengths: dict[str, Any]) -> ViewGroup:
    photometry = tuple(replace(each, **strengths) for each in group.photometry)
    return replace(group, geometry=replace(group.geometry, **places), photometry=photometry)
