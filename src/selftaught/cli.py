"""Parses, prints, exit codes; nothing else.

The parser is made from the commands' signatures, which ``catalog`` reads without importing them, so that ``--help``
and every wrong name, flag or range are answered before torch loads. Flags with a dot set one option of a group:
``--method.temperature 0.2``.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from selftaught import catalog
from selftaught.catalog import REQUIRED, Parameter
from selftaught.errors import ConfigError, Interrupted, RequestError, SelftaughtError, WorkerError, nearest
from selftaught.formats import files

ORDER = (
    "demo", "inspect", "pretrain", "diagnose", "evaluate", "embed", "outliers", "energy", "generate", "report", "run",
    "methods", "modalities", "encoders",
)  # fmt: skip
EVERYWHERE = ("json", "debug", "trust", "outside", "help")
Options = dict[str, dict[str, str]]  # group -> option -> value as typed


class Parser(argparse.ArgumentParser):
    """argparse whose complaints are our errors, so that there is one form of sentence and one road to the exit code."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message[:1].upper()}{message[1:]}.", hint=f"See: {self.prog} --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line and returns the exit code: 0 done, 1 failed, 2 wrong request, 130 interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # before torch loads: its C++ side warns of what is meant so
    debug = "--debug" in words
    for flag, name in (("--trust", catalog.TRUST), ("--outside", files.OUTSIDE)):
        if flag in words:
            os.environ[name] = "1"  # of this process and its workers
    try:
        return _run([word for word in words if word not in ("--debug", "--trust", "--outside")])
    except SelftaughtError as error:
        return _complain(error, debug)
    except KeyboardInterrupt:
        return _complain(Interrupted("Interrupted."), debug)
    except BrokenPipeError:  # the reader of our output went away: `selftaught methods | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if "Connection closed by peer" in str(error):
            return _complain(WorkerError("Another process of this training ended."), debug)
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return _complain(SelftaughtError(f"Unexpected failure ({reason}).", hint="Run again with --debug."), debug)


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if words[0] in ("-V", "--version"):
        from importlib.metadata import version

        print(f"selftaught {version('selftaught')}")
        return 0
    name, *rest = words
    if name not in catalog.commands():
        hint = nearest(name, catalog.commands()) or "See: selftaught --help"
        raise ConfigError(f"selftaught has no command {name!r}.", hint=hint)
    given, as_json = parse(name, rest)
    if given is None:
        return 0
    result = _function(name)(**{**given, **_quiet(name, as_json)})
    if as_json:
        print(json.dumps(_plain(result), indent=2, ensure_ascii=False))
    return 0


def parse(name: str, words: list[str]) -> tuple[dict[str, Any] | None, bool]:
    """(what the user gave to command ``name``, whether --json); None where help was printed. Raises ConfigError."""
    parameters = catalog.parameters_of(catalog.commands()[name][1])
    words, groups = _dotted(name, words, parameters)
    parser = parser_of(name, parameters)
    if "-h" in words or "--help" in words:
        print(parser.format_help())
        return None, False
    given = vars(parser.parse_args(words))
    as_json = bool(given.pop("json", False))
    for group, options in groups.items():
        chosen = given.get(group)
        given[group] = {**({"name": chosen} if chosen is not None else {}), **options}
    return given, as_json


def parser_of(name: str, parameters: Sequence[Parameter]) -> argparse.ArgumentParser:
    """The parser of one command: values stay strings, ``config`` parses them."""
    summary = (_docstring(name) or "").split("\n\n")
    parser = Parser(
        f"selftaught {name}", description=summary[0], epilog=_options(parameters), allow_abbrev=False,
        argument_default=argparse.SUPPRESS, add_help=True, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    for one in parameters:
        if one.positional:
            many: dict[str, Any] = {} if one.default is REQUIRED else {"nargs": "?"}
            parser.add_argument(one.name, metavar=one.name.upper(), help=_help(one), **many)
        elif one.kind == "bool":
            parser.add_argument(_flag(one.name), dest=one.name, metavar="[true|false]", help=_help(one))
        elif one.constraint != "views":
            needed: dict[str, Any] = {"required": True} if one.default is REQUIRED else {}
            parser.add_argument(_flag(one.name), dest=one.name, metavar=_metavar(one), help=_help(one), **needed)
    parser.add_argument("--json", action="store_true", default=False, help="print the result as JSON")
    parser.add_argument("--debug", action="store_true", help="show the traceback of a failure")
    parser.add_argument("--trust", action="store_true", help="run code that a run's folder names (my_file.py:MyMethod)")
    parser.add_argument("--outside", action="store_true", help="read files that a table names outside of its folder")
    return parser


def _dotted(
    name: str, words: list[str], parameters: Sequence[Parameter]
) -> tuple[list[str], dict[str, dict[str, str]]]:
    """Takes ``--group.option value`` out of the words; refuses flags that do not exist, with the nearest that does."""
    groups: Options = {one.name: {} for one in parameters if one.kind == "Group"}
    named = {one.name for one in parameters if not one.positional and one.constraint != "views"} | set(EVERYWHERE)
    flags = {name.rstrip("_") for name in named}
    switches = {one.name for one in parameters if one.kind == "bool"}
    kept: list[str] = []
    rest = iter(_switched_on(words, switches))
    for word in rest:
        if not word.startswith("--") or word == "--":
            kept.append(word)
            continue
        flag, equals, value = word[2:].partition("=")
        group, dot, option = flag.partition(".")
        if dot and group.replace("-", "_") in groups and option:
            if not equals and (value := next(rest, None)) is None:
                raise ConfigError(f"The flag --{flag} needs a value.")
            groups[group.replace("-", "_")][option.replace("-", "_")] = value
        elif not dot and flag.replace("-", "_") in flags:
            kept.append(word.replace("_", "-") if not equals else f"{_flag(flag)}={value}")
        else:
            raise ConfigError(f"{name} has no flag --{flag}.", hint=_nearest_flag(flag, flags, groups, parameters))
    return kept, {group: options for group, options in groups.items() if options}


def _switched_on(words: list[str], switches: set[str]) -> list[str]:
    """``--preview DATA`` as ``--preview=true DATA``: a switch takes the next word only if that is true or false."""
    following = [*words, ""][1:]
    return [
        f"{word}=true" if word[2:].replace("-", "_") in switches and after not in ("true", "false") else word
        for word, after in zip(words, following, strict=True)
    ]


def _nearest_flag(flag: str, flags: set[str], groups: dict[str, Any], parameters: Sequence[Parameter]) -> str:
    """Also finds ``--method.temperature`` for ``--temperature``."""
    import difflib

    known = {_flag(one): _flag(one) for one in flags}
    known |= {f"--{group}.": f"--{group}.OPTION" for group in groups}
    for one in parameters:
        if one.kind == "Group" and one.constraint != "encoder":
            known |= {_flag(option): f"--{one.name}.{option}" for option in _group_options(one) if option not in flags}
    close = difflib.get_close_matches(f"--{flag}", list(known), n=1, cutoff=0.6)
    return f"Did you mean {known[close[0]]}?" if close else "See the flags with --help"


def _group_options(one: Parameter) -> dict[str, Parameter]:
    if one.constraint == "views":
        return {each.name: each for each in catalog.function("commands.views", "change_plan") if each.name != "plan"}
    return {
        each.name: each for name in catalog.names(one.constraint) for each in catalog.signature(one.constraint, name)
    }


def _options(parameters: Sequence[Parameter]) -> str:
    groups = [one for one in parameters if one.kind == "Group"]
    if not groups:
        return ""
    lines = ["options of the parts:"]
    for one in groups:
        where = "" if one.constraint == "views" else f"; see: selftaught {_plural(one.constraint)} NAME"
        lines.append(f"  --{one.name}.OPTION VALUE  {one.help}{where}")
        if one.constraint == "views":
            lines += [
                f"    --views.{each.name} ({each.wanted()}): {each.help}" for each in _group_options(one).values()
            ]
    return "\n".join(lines)


def _plural(kind: str) -> str:
    return catalog.FOLDERS[kind]


def _flag(name: str) -> str:
    return "--" + name.rstrip("_").replace("_", "-")  # from_ is --from, a word that Python keeps for itself


def _metavar(one: Parameter) -> str:
    return "|".join(map(str, one.choices)) if one.choices else "NAME" if one.kind == "Group" else one.kind.split("[")[0]


def _help(one: Parameter) -> str:
    default = "" if one.default is REQUIRED else f"default {'auto' if one.default is None else one.default}"
    notes = ", ".join(note for note in (one.constraint if one.kind != "Group" else "", default) if note)
    return (f"{one.help} ({notes})" if notes else one.help).replace("%", "%%")


def _overview() -> str:
    names = sorted(catalog.commands(), key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))
    lines = [f"  {name:<12}{(_docstring(name) or '').splitlines()[0]}" for name in names]
    return "\n".join([
        "usage: selftaught COMMAND … [--json] [--debug] [--trust] [--outside]",
        "",
        "Learns from your unlabelled data, says whether it works, and measures what it was worth.",
        "",
        *lines,
        "",
        "selftaught COMMAND --help explains one.",
    ])  # fmt: skip


def _docstring(name: str) -> str | None:
    import ast

    return ast.get_docstring(catalog.commands()[name][1])


def _function(name: str) -> Any:
    return getattr(importlib.import_module(catalog.commands()[name][0]), name)


def _quiet(name: str, as_json: bool) -> dict[str, Any]:
    """--json leaves standard output to the result alone."""
    has = {one.name for one in catalog.parameters_of(catalog.commands()[name][1])}
    return {"quiet": True} if as_json and "quiet" in has else {}


def _plain(result: Any) -> Any:
    if hasattr(result, "as_dict"):
        return result.as_dict()
    return os.fspath(result) if isinstance(result, os.PathLike) else result


def _complain(error: SelftaughtError, debug: bool) -> int:
    if not debug and os.environ.get("LOCAL_RANK", "0") != "0" and isinstance(error, RequestError | WorkerError):
        return error.exit_code  # the first process says the same, or why it ended
    if debug:
        import traceback

        traceback.print_exc()
    print(f"{error} {error.hint}".strip() if error.hint else str(error), file=sys.stderr)
    return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
