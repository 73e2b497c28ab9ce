"""What there is, by name, without importing it.

A method, a modality or a command is a file; its file name is its public name. Names, one-line summaries and
hyper-parameters are read from the syntax tree, so that a wrong name or an impossible value is answered before torch
loads. A hyper-parameter is written where it is used::

    def __init__(self, *, temperature: Annotated[float, "in (0, inf)", "softness of the comparison"] = 0.1): ...

The first string is the range (an interval, ``one of a, b``, or ""), the second the help.
Users' own parts come as ``my_file.py:MyMethod`` or through the entry points ``selftaught.methods`` and
``selftaught.modalities``.
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import EllipsisType
from typing import Any

from selftaught.errors import EncoderError, MethodError, ModalityError, RequestError, RunError, must_be, nearest

ROOT = Path(__file__).parent
FOLDERS = {"method": "methods", "modality": "modalities", "encoder": "encoders"}
ERRORS: dict[str, type[RequestError]] = {"method": MethodError, "modality": ModalityError, "encoder": EncoderError}
REQUIRED = ...  # the default of a parameter that has none
TRUST = "SELFTAUGHT_TRUST"  # in the environment: "1" = code that a run names may be run


@dataclass(frozen=True, slots=True)
class Parameter:
    """One argument of a method, modality, encoder or command, as its signature states it."""

    name: str
    kind: str  # "float", "int", "bool", "str", "tuple[float, float]", …; "" = anything
    default: Any | EllipsisType = REQUIRED
    constraint: str = ""  # "in (0, inf)"; "" = none
    help: str = ""
    choices: tuple[Any, ...] = ()  # of a Literal, or of "one of a, b"
    optional: bool = False  # None is a value, which flags and YAML also call "auto"
    positional: bool = False

    def wanted(self) -> str:
        """What a value must be, in words: "a float in (0, inf) or None"."""
        words = _in_words(self)
        return f"{words} or None" if self.optional else words


def names(kind: str) -> list[str]:
    """All methods, modalities or encoder files, sorted: the package's own and those that entry points add."""
    own = {path.stem for path in (ROOT / FOLDERS[kind]).glob("*.py")} - {"base", "__init__"}
    return sorted(own | set(_entry_points(kind)))


def signature(kind: str, name: str) -> list[Parameter]:
    """The hyper-parameters of a method or modality, read without importing it. Raises when there is no such name."""
    node = _class(kind, name)
    for part in node.body:
        if isinstance(part, ast.FunctionDef) and part.name == "__init__":
            return parameters_of(part)[1:]  # without self
    return []


def title(kind: str, name: str) -> str:
    """The class's own spelling, for sentences: "SimCLR"."""
    return _class(kind, name).name


def summary(kind: str, name: str) -> str:
    """The first line of the file's docstring (of the class's for the user's own file)."""
    tree = _tree(_locate(kind, name)[0])
    return (ast.get_docstring(tree) or ast.get_docstring(_class(kind, name)) or "").split("\n")[0]


def constant(kind: str, name: str, attribute: str, default: Any = None) -> Any:
    """A literal class attribute (``default_method = "simclr"``), or ``default`` where the class does not state one."""
    for part in _class(kind, name).body:
        target = part.target if isinstance(part, ast.AnnAssign) else None
        if isinstance(part, ast.Assign) and len(part.targets) == 1:
            target = part.targets[0]
        if isinstance(target, ast.Name) and target.id == attribute and part.value is not None:  # type: ignore[union-attr]
            return _literal(part.value)  # type: ignore[union-attr]
    return default


def load(kind: str, name: str, *, said_by: str | os.PathLike[str] | None = None) -> type:
    """The class itself; imports its file. Raises MethodError, ModalityError or EncoderError for an unknown name.

    ``said_by``: a folder that names it, where the user did not: a file of somebody else's is then imported, which runs
    it, only if the user trusts the folder (``--trust``, or the environment's ``SELFTAUGHT_TRUST=1``); else RunError.
    """
    if said_by is not None and ".py:" in name and os.environ.get(TRUST) != "1":
        message = f"{os.fspath(said_by)!r} needs code of its own ({name}), which loading it would run."
        raise RunError(message, hint="If you trust it, look at that file and add --trust.")
    path, class_name = _locate(kind, name)
    if path.parent.parent == ROOT:
        module = importlib.import_module(f"selftaught.{path.parent.name}.{path.stem}")
    elif ":" in name:
        module = _import_file(path)
    else:
        module = importlib.import_module(_entry_points(kind)[name].split(":")[0])
    return getattr(module, class_name or _class(kind, name).name)


@functools.cache
def commands() -> dict[str, tuple[str, ast.FunctionDef]]:
    """Command name -> (module, syntax tree): every function marked ``@command`` in ``commands/``."""
    found = {}
    for path in sorted((ROOT / "commands").glob("*.py")):
        for node in _tree(path).body:
            marks = [mark.id for mark in getattr(node, "decorator_list", []) if isinstance(mark, ast.Name)]
            if isinstance(node, ast.FunctionDef) and "command" in marks:
                found[node.name] = (f"selftaught.commands.{path.stem}", node)
    return found


def function(module: str, name: str) -> list[Parameter]:
    """The parameters of a function of the package, unimported: ``function("commands.views", "change_plan")``."""
    path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
    for node in _tree(path).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return parameters_of(node)
    raise LookupError(f"no function {name!r} in {module}")


@functools.cache
def timm_names() -> list[str]:
    """Every model that timm registers, without importing timm (which takes seconds)."""
    spec = importlib.util.find_spec("timm")
    if spec is None or spec.origin is None:
        return []
    mark = re.compile(r"^@register_model\s*\n(?:@.*\n)*def\s+(\w+)", re.MULTILINE)
    files = (Path(spec.origin).parent / "models").glob("*.py")
    return sorted({name for path in files for name in mark.findall(path.read_text(encoding="utf-8"))})


def teacher_kind(spec: str) -> str:
    """What a teacher is, by its name: "run", "timm", "transformers" (a folder, or owner/model on the hub), "" = no."""
    folder = Path(spec)
    if (folder / "run.yaml").is_file():
        return "run"
    if spec.split(".")[0] in timm_names():
        return "timm"
    named = re.fullmatch(r"[\w.-]+/[\w.-]+", spec) is not None and not folder.exists()
    return "transformers" if named or (folder / "config.json").is_file() else ""


@functools.cache
def encoder_names() -> dict[str, Path]:
    """Our own encoders and the file of each: a file's class gives its name, its table ``SIZES`` one name each."""
    found = {}
    for path in sorted((ROOT / FOLDERS["encoder"]).glob("*.py")):
        for node in _tree(path).body:
            if isinstance(node, ast.ClassDef) and node.name.lower() == path.stem not in ("base", "transformer"):
                found[path.stem] = path
            elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "SIZES":
                table = _literal(node.value)
                found |= dict.fromkeys(table if isinstance(table, dict) else (), path)
    return found


def encoder_signature(name: str) -> list[Parameter] | None:
    """The options of an encoder; None where they are timm's to check. Raises EncoderError for an unknown name."""
    own = encoder_names()
    if name not in own:
        if name == "auto" or name.startswith("hf-hub:") or name.split(".")[0] in timm_names():
            return None
        hint = nearest(name, [*own, *timm_names(), "auto"]) or "See: selftaught encoders"
        raise EncoderError(must_be("encoder", "selftaught", "a known encoder", name), hint=hint)
    for node in _tree(own[name]).body:
        if isinstance(node, ast.ClassDef) and node.name.lower() == name:
            node = next(each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__")
            return [one for one in parameters_of(node) if not one.positional]
        if isinstance(node, ast.FunctionDef) and node.name == "make":
            return [one for one in parameters_of(node) if not one.positional and one.name != "pretrained"]
    return []


def parameters_of(node: ast.FunctionDef) -> list[Parameter]:
    """The parameters of a function's syntax tree, positional ones first; ``*args`` and ``**kwargs`` are left out."""
    listed = node.args.posonlyargs + node.args.args
    defaults: list[ast.expr | None] = [None] * (len(listed) - len(node.args.defaults)) + list(node.args.defaults)
    first = [_parameter(one, default, True) for one, default in zip(listed, defaults, strict=True)]
    pairs = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
    return first + [_parameter(one, default, False) for one, default in pairs]


def _parameter(argument: ast.arg, default: ast.expr | None, positional: bool) -> Parameter:
    annotation, constraint, text = argument.annotation, "", ""
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value).endswith("Annotated"):
        annotation, *notes = annotation.slice.elts  # type: ignore[attr-defined]
        constraint, text = ([_literal(note) for note in notes] + ["", ""])[:2]
    kinds = _union(annotation) if annotation is not None else [""]
    optional = "None" in kinds
    kind = " | ".join(kind for kind in kinds if kind != "None")
    choices: tuple[Any, ...] = ()
    if match := re.fullmatch(r"(?:typing\.)?Literal\[(.*)\]", kind, re.DOTALL):
        choices, kind = ast.literal_eval(f"({match[1]},)"), "str"
    elif constraint.startswith("one of "):
        choices, constraint = tuple(word.strip() for word in constraint[7:].split(",")), ""
    value = REQUIRED if default is None else _literal(default)
    return Parameter(argument.arg, kind, value, constraint, text, choices, optional or value is None, positional)


def _union(annotation: ast.expr) -> list[str]:
    if isinstance(annotation, ast.BinOp) and isinstance(annotation.op, ast.BitOr):
        return _union(annotation.left) + _union(annotation.right)
    return [ast.unparse(annotation)]


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)


def _in_words(parameter: Parameter) -> str:
    if parameter.choices:
        return "one of " + ", ".join(repr(choice) for choice in parameter.choices)
    plain = {"float": "a float", "int": "an int", "bool": "a bool", "str": "a str"}
    if parameter.kind.startswith("tuple["):
        parts = [part.strip() for part in parameter.kind[6:-1].split(",")]
        words = f"{parts[0]}s" if "..." in parts else f"{len(parts)} {parts[0]}s"
    else:
        words = plain.get(parameter.kind, parameter.kind or "a value")
    return f"{words} {parameter.constraint}".strip()


def _class(kind: str, name: str) -> ast.ClassDef:
    """The syntax tree of the class: the one asked for, or the one whose name is the file's without underscores."""
    path, wanted = _locate(kind, name)
    for node in _tree(path).body:
        if isinstance(node, ast.ClassDef) and (wanted or path.stem.replace("_", "")) in (node.name, node.name.lower()):
            return node
    raise ERRORS[kind](must_be(kind, "selftaught", f"a class in {path.name}", name))


def _locate(kind: str, name: str) -> tuple[Path, str]:
    """(file, class name or "") of a name. Raises the kind's error, with the nearest name, where there is none."""
    if ".py:" in name:
        path, class_name = name.rsplit(":", 1)
        if not Path(path).is_file():
            raise ERRORS[kind](must_be(kind, "selftaught", "a file that exists, as in my_file.py:MyClass", name))
        return Path(path), class_name
    known = names(kind)
    if name not in known:
        hint = nearest(name, known) or f"Known: {', '.join(known)}."
        raise ERRORS[kind](must_be(kind, "selftaught", f"a known {kind}, or FILE.py:CLASS", name), hint=hint)
    own = ROOT / FOLDERS[kind] / f"{name}.py"
    if own.is_file():
        return own, ""
    module, _, class_name = _entry_points(kind)[name].partition(":")
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ERRORS[kind](must_be(kind, "selftaught", f"a {kind} whose module {module} is installed", name))
    return Path(spec.origin), class_name


@functools.cache
def _entry_points(kind: str) -> dict[str, str]:
    from importlib.metadata import entry_points  # 30 ms, so only where a name is asked for

    return {point.name: point.value for point in entry_points(group=f"selftaught.{FOLDERS[kind]}")}


def _import_file(path: Path) -> Any:
    name = f"selftaught_user_{path.stem}"
    if (module := sys.modules.get(name)) is not None and module.__file__ == str(path.resolve()):
        return module
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))
