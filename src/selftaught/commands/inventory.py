"""What there is: ``selftaught methods``, ``modalities``, ``encoders``; with a NAME, what can be set on it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from selftaught import catalog
from selftaught.config import command


@command
def methods(
    name: Annotated[str | None, "", "one of them: its options"] = None,
    *,
    quiet: Annotated[bool, "", "print nothing"] = False,
) -> dict[str, Any]:
    """Lists the methods, by family; with a NAME, its options and their ranges.

    Returns ``{name: {"summary", "family"}}``, or the options of one: ``{option: {"must be", "default", "help"}}``.
    """
    return _list("method", name, "family", quiet)


@command
def modalities(
    name: Annotated[str | None, "", "one of them: its options"] = None,
    *,
    quiet: Annotated[bool, "", "print nothing"] = False,
) -> dict[str, Any]:
    """Lists the kinds of data; with a NAME, its options and their ranges.

    Returns ``{name: {"summary", "default_method"}}``, or the options of one.
    """
    return _list("modality", name, "default_method", quiet)


@command
def encoders(
    name: Annotated[str | None, "", "one of them: its options; or a part of a name, to search timm's"] = None,
    *,
    quiet: Annotated[bool, "", "print nothing"] = False,
) -> dict[str, Any]:
    """Lists the encoders, timm's image models included; with a NAME, its options and their ranges.

    Returns ``{name: {"from"}}``; with a NAME its options, or the names that contain it. Raises EncoderError where
    there is none.
    """
    own, timm = catalog.encoder_names(), catalog.timm_names()
    if name is None:
        listed = {**dict.fromkeys(own, {"from": "selftaught"}), **dict.fromkeys(timm, {"from": "timm"})}
        _say(
            quiet, *own, f"and {len(timm)} image models of timm by name; to search: selftaught encoders PART-OF-A-NAME"
        )
        return listed
    found = [each for each in timm if name in each]
    if name in own or not found:
        return _options(name, catalog.encoder_signature(name) or [], quiet)
    _say(quiet, *found)
    return dict.fromkeys(found, {"from": "timm"})


def _say(quiet: bool, *lines: str) -> None:
    if not quiet:
        print("\n".join(lines))


def _width(words: Iterable[str]) -> int:
    """Of a column that holds them all, with a gap."""
    return max(map(len, words), default=0) + 2


def _list(kind: str, name: str | None, fact: str, quiet: bool) -> dict[str, Any]:
    if name is not None:
        return _options(catalog.title(kind, name), catalog.signature(kind, name), quiet)
    listed = {
        each: {"summary": catalog.summary(kind, each), fact: catalog.constant(kind, each, fact, "")}
        for each in catalog.names(kind)
    }
    inside = sorted(listed.items(), key=lambda pair: (pair[1][fact], pair[0]))
    wide, wider = _width(listed), _width(facts[fact] for facts in listed.values())
    _say(quiet, *(f"{each:<{wide}}{facts[fact]:<{wider}}{facts['summary']}" for each, facts in inside))
    return listed


def _options(title: str, parameters: list[catalog.Parameter], quiet: bool) -> dict[str, Any]:
    options = {one.name: {"must be": one.wanted(), "default": one.default, "help": one.help} for one in parameters}
    width = _width(options)
    lines = [
        f"  {key:<{width}}{each['help']} ({each['must be']}; default {each['default']})"
        for key, each in options.items()
    ]
    _say(quiet, f"{title}:" if options else f"{title} has no options.", *lines)
    return options
