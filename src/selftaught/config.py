"""The signature is the configuration: one description serves Python, YAML and flags.

``@command`` turns a plain function into one whose arguments are checked the same way wherever they come from: unknown
names fail with the nearest one, values are parsed and held to the range that the annotation states. Later wins:
defaults < ``config`` (a YAML file or a shipped recipe) < what the caller gave. A *group* (method, encoder, modality,
views) is a name, or a mapping with ``name`` and the part's own options, which are read from that part's signature.
"""

from __future__ import annotations

import functools
import math
import numbers
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from selftaught import catalog
from selftaught.catalog import REQUIRED, Parameter
from selftaught.errors import ConfigError, OutOfMemory, cannot_write, first_line, is_out_of_memory, must_be, nearest

SPECIAL = {"moco", "distill", "dino"}  # methods that "auto" may come to mean besides the modalities' own
SCHEMA = 1  # of run.yaml
RECIPES = Path(__file__).parent / "recipes"
Group = str | Mapping[str, Any] | Any  # a name, {"name": …, option: …}, or (in Python) the object itself
Function = TypeVar("Function", bound=Callable[..., Any])


def command(function: Function) -> Function:
    """Marks a function as a command: its arguments are resolved and checked before it runs."""

    @functools.wraps(function)
    def checked(*args: Any, **given: Any) -> Any:
        _, node = catalog.commands()[function.__name__]
        parameters = catalog.parameters_of(node)
        places = [one.name for one in parameters if one.positional]
        if len(args) > len(places):
            raise ConfigError(f"{function.__name__} takes {len(places)} positional arguments. Got {len(args)} instead.")
        request = resolve(function.__name__, parameters, {**dict(zip(places, args, strict=False)), **given})
        try:
            return function(**request)
        except OSError as error:
            raise (cannot_write(error) or error) from error
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            hint = "Try a smaller --batch-size, fewer --workers or a smaller --encoder."
            raise OutOfMemory(f"There is not enough memory ({first_line(error)}).", hint=hint) from error

    return checked  # type: ignore[return-value]


def resolve(caller: str, parameters: Iterable[Parameter], given: Mapping[str, Any]) -> dict[str, Any]:
    """Every parameter with its value: defaults < config file < ``given``; checked and parsed. Raises ConfigError."""
    known = {one.name: one for one in parameters}
    layers = [given]
    if "config" in known and given.get("config") is not None:
        layers.insert(0, read_yaml(given["config"]))
    merged: dict[str, Any] = {}
    for layer in layers:
        _refuse_unknown(caller, known, layer)
        for name, value in layer.items():
            is_group = known[name].kind == "Group"
            merged[name] = merge(merged.get(name), value) if is_group else value
    values = validate(caller, known.values(), merged)
    for one in known.values():
        if one.kind == "Group":
            values[one.name] = check_group(one.constraint, values[one.name], values)
    return values


def validate(caller: str, parameters: Iterable[Parameter], values: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` parsed, in range, completed with the defaults. Raises ConfigError in the one sentence form."""
    known = {one.name: one for one in parameters}
    _refuse_unknown(caller, known, values)
    result = {}
    for name, one in known.items():
        value = values.get(name, one.default)
        if value is REQUIRED:
            raise ConfigError(f"The {name!r} parameter of {caller} must be given.", hint=one.help)
        result[name] = parse(one, value, caller) if name in values else value
    return result


def parse(parameter: Parameter, value: Any, caller: str) -> Any:
    """One value as the type that the signature states, or ConfigError."""
    if parameter.kind == "Group":
        return value
    if isinstance(value, str) and parameter.default is None and value.lower() in ("auto", "none", "null"):
        value = None
    if value is None and parameter.optional:
        return None
    parsed = _convert(parameter.kind, value)
    if parsed is not _WRONG and _inside(parameter, parsed):
        return parsed
    shown = _number(value) if isinstance(value, str) and _number(value) is not None else value
    hint = nearest(str(value), map(str, parameter.choices)) if parameter.choices else ""
    raise ConfigError(must_be(parameter.name, caller, parameter.wanted(), shown), hint=hint or _default(parameter))


def merge(old: Any, new: Any) -> Any:
    """A group laid over another: options add up, unless ``new`` names another part (its options are its own)."""
    if old is None or not isinstance(new, str | Mapping):
        return new
    below, above = as_group(old), as_group(new)
    if not isinstance(below, dict) or above.get("name", below.get("name")) != below.get("name"):
        return above
    return {**below, **above}


def as_group(value: Any) -> Any:
    """ "simclr" -> {"name": "simclr"}; a mapping as a new dict; any other object as it is."""
    if isinstance(value, str):
        return {"name": value}
    return dict(value) if isinstance(value, Mapping) else value


def check_group(kind: str, value: Any, others: Mapping[str, Any]) -> Any:
    """A group with its name known and its options parsed. ``auto`` names are checked against all that may be meant."""
    group = as_group({} if value is None else value)
    if not isinstance(group, dict):
        return group
    name, options = group.get("name", "auto"), {key: each for key, each in group.items() if key != "name"}
    if kind == "views":
        return validate_given("views", catalog.function("commands.views", "change_plan"), group)
    if not isinstance(name, str):
        raise ConfigError(must_be(kind, "selftaught", "a name", name))
    if kind == "encoder":
        return {"name": name, **validate_given(name, catalog.encoder_signature(name), options)}
    if name != "auto":
        return {"name": name, **validate_given(catalog.title(kind, name), catalog.signature(kind, name), options)}
    maybe = {one.name: one for each in candidates(kind, others) for one in catalog.signature(kind, each)}
    return {"name": name, **validate_given(kind, maybe.values(), options)}


def candidates(kind: str, others: Mapping[str, Any]) -> list[str]:
    """What ``auto`` may come to mean: every modality, or the methods that ``commands.choices`` picks from."""
    modalities = catalog.names("modality")
    if kind == "modality":
        return modalities
    if others.get("from_") is not None:  # the method of that run, whichever it is
        return catalog.names("method")
    chosen = others.get("modality")
    chosen = chosen.get("name", "auto") if isinstance(chosen, Mapping) else chosen
    if isinstance(chosen, str) and chosen != "auto":
        modalities = [chosen]
    return sorted({catalog.constant("modality", one, "default_method", "simclr") for one in modalities} | SPECIAL)


def validate_given(caller: str, parameters: Iterable[Parameter] | None, values: Mapping[str, Any]) -> dict[str, Any]:
    """As ``validate``, without adding the defaults: what is not given stays the part's own business.

    ``parameters`` None: whoever takes the values checks them; strings are read as YAML reads them.
    """
    if parameters is None:
        return {name: _from_text(value) for name, value in values.items()}
    checked = validate(caller, [one for one in parameters if one.name != "plan"], values)
    return {name: checked[name] for name in values}


def differences(old: Any, new: Any, at: str = "") -> list[tuple[str, Any, Any]]:
    """(dotted key, old value, new value) wherever two nested configurations differ."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = [*old, *(key for key in new if key not in old)]
        inside = [differences(old.get(key), new.get(key), f"{at}.{key}" if at else str(key)) for key in keys]
        return [each for part in inside for each in part]
    return [] if _plain(old) == _plain(new) else [(at, old, new)]


def read_yaml(source: str | os.PathLike[str]) -> dict[str, Any]:
    """A YAML mapping from a file, or from the shipped recipe of that name. Raises ConfigError with the line."""
    import yaml

    path = Path(source)
    if not path.is_file() and (RECIPES / f"{source}.yaml").is_file():
        path = RECIPES / f"{source}.yaml"
    if not path.is_file():
        recipes = sorted(each.stem for each in RECIPES.glob("*.yaml"))
        wrong = must_be("config", "selftaught", f"a YAML file or a recipe ({', '.join(recipes)})", str(source))
        raise ConfigError(wrong, hint=nearest(str(source), recipes))
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(content, Mapping):
        raise ConfigError(must_be("config", "selftaught", "a file of 'key: value' lines", str(path)))
    return dict(content)


def to_yaml(values: Mapping[str, Any]) -> str:
    """Nested plain values as YAML, in the order given; objects are described in words."""
    import yaml

    return yaml.safe_dump(_plain(values), sort_keys=False, allow_unicode=True, width=120)


def save_yaml(path: Path, values: Mapping[str, Any]) -> None:
    """Written whole or not at all."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fresh.write_text(to_yaml(values), encoding="utf-8")
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value] if len(value) <= 100 else f"{len(value)} values"
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, os.PathLike):
        return str(value)
    shape = getattr(value, "shape", None)
    of_what = f" of shape {tuple(shape)}" if shape is not None else ""
    return f"{type(value).__module__}.{type(value).__qualname__}{of_what}"


def _from_text(value: Any) -> Any:
    import yaml

    return yaml.safe_load(value) if isinstance(value, str) else value


_WRONG = object()
_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def _convert(kind: str, value: Any) -> Any:
    """``value`` as ``kind``, or _WRONG. Strings are read as YAML and flags write them ("1e-3", "false", "0.2,1")."""
    if " | " in kind:
        tried = (_convert(one, value) for one in kind.split(" | "))
        return next((each for each in tried if each is not _WRONG), _WRONG)
    if match := re.fullmatch(r"Sequence\[(.*)\]", kind):
        return _convert_tuple([match[1], "..."], value)
    if match := re.fullmatch(r"tuple\[(.*)\]", kind):
        return _convert_tuple([part.strip() for part in match[1].split(",")], value)
    if kind in ("float", "int"):
        number = _number(value)
        if number is None or math.isnan(number) or (kind == "int" and not float(number).is_integer()):
            return _WRONG
        return float(number) if kind == "float" else int(number)
    if kind == "bool":
        return value if isinstance(value, bool) else _WORDS.get(str(value).lower(), _WRONG)
    if kind == "str":
        return os.fspath(value) if isinstance(value, str | os.PathLike) else _WRONG
    return value


def _convert_tuple(kinds: list[str], value: Any) -> Any:
    if isinstance(value, str):
        value = [part.strip() for part in value.strip("[]()").split(",") if part.strip()]
    elif isinstance(value, numbers.Number):
        value = [value]
    if "..." in kinds and isinstance(value, list | tuple):
        kinds = kinds[:1] * len(value)
    if not isinstance(value, list | tuple) or len(value) != len(kinds):
        return _WRONG
    parts = tuple(_convert(kind, part) for kind, part in zip(kinds, value, strict=True))
    return _WRONG if any(part is _WRONG for part in parts) else parts


def _number(value: Any) -> int | float | None:
    if isinstance(value, bool) or not isinstance(value, numbers.Real | str):
        return None
    try:
        return int(value) if isinstance(value, str | numbers.Integral) else float(value)
    except ValueError:
        pass
    try:
        return float(value)
    except ValueError:
        return None


def _inside(parameter: Parameter, value: Any) -> bool:
    parts = value if isinstance(value, tuple) else (value,)
    if parameter.choices and not all(part in parameter.choices for part in parts):
        return False
    match = re.fullmatch(r"in ([\[(])\s*(\S+),\s*(\S+)\s*([\])])", parameter.constraint)
    if match is None:
        return all(not isinstance(part, float) or math.isfinite(part) for part in parts)
    low, high = float(match[2]), float(match[3])
    above = [part >= low if match[1] == "[" else part > low for part in parts]
    below = [part <= high if match[4] == "]" else part < high for part in parts]
    return all(above) and all(below)


def _default(parameter: Parameter) -> str:
    if parameter.default is REQUIRED:
        return ""
    return f"The default is {'auto' if parameter.default is None else parameter.default}."


def _refuse_unknown(caller: str, known: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    for name in given:
        if name not in known:
            hint = nearest(str(name), known) or f"It has: {', '.join(known)}."
            raise ConfigError(f"{caller} has no parameter {str(name)!r}.", hint=hint)
