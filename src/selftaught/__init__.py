"""Learns from data that nobody labelled, says whether it works, and measures what it was worth.

::

    import selftaught as st

    run = st.pretrain("pictures/", out="runs/first")
    st.diagnose(run)
    st.evaluate(run, "pictures/", labels="folders")
    vectors = st.load("runs/first").embed("pictures/")  # (N, D) float32

Every command of the command line is a function here, with the same arguments and the same errors. Importing the package
is cheap: torch is imported where it is used.
"""

from __future__ import annotations

import importlib
import inspect as _signatures  # ``inspect`` is a command here
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selftaught.commands.demo import demo
    from selftaught.commands.diagnose import diagnose
    from selftaught.commands.embed import embed
    from selftaught.commands.energy import energy
    from selftaught.commands.evaluate import evaluate
    from selftaught.commands.generate import generate
    from selftaught.commands.inspect import inspect
    from selftaught.commands.inventory import encoders, methods, modalities
    from selftaught.commands.model import Model, load
    from selftaught.commands.outliers import outliers
    from selftaught.commands.pretrain import pretrain
    from selftaught.commands.report import report
    from selftaught.commands.run import Run
    from selftaught.errors import SelftaughtError

__all__ = [
    "Model",
    "Run",
    "SelftaughtError",
    "demo",
    "diagnose",
    "embed",
    "encoders",
    "energy",
    "evaluate",
    "generate",
    "inspect",
    "load",
    "methods",
    "modalities",
    "outliers",
    "pretrain",
    "report",
]

_HOME = {
    "Model": "commands.model",
    "Run": "commands.run",
    "SelftaughtError": "errors",
    "demo": "commands.demo",
    "diagnose": "commands.diagnose",
    "embed": "commands.embed",
    "encoders": "commands.inventory",
    "energy": "commands.energy",
    "evaluate": "commands.evaluate",
    "generate": "commands.generate",
    "inspect": "commands.inspect",
    "load": "commands.model",
    "methods": "commands.inventory",
    "modalities": "commands.inventory",
    "outliers": "commands.outliers",
    "pretrain": "commands.pretrain",
    "report": "commands.report",
}
_PARTS = ("encoders", "methods", "modalities", "report")  # names of parts as well as of commands


class _PartAndCommand(ModuleType):
    """A part of the package that shares its name with a command: ``st.report(run)`` and ``selftaught.report.page``."""

    def __call__(self, *args: Any, **given: Any) -> Any:
        return _find(self.__name__.rpartition(".")[2])(*args, **given)

    @property
    def __signature__(self) -> _signatures.Signature:
        return _signatures.signature(_find(self.__name__.rpartition(".")[2]))


class _Package(ModuleType):
    """Makes such a part callable at the moment the import system binds it here, whoever imports it first."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _PARTS and isinstance(value, ModuleType):
            value.__class__ = _PartAndCommand
        super().__setattr__(name, value)


def _find(name: str) -> Any:
    return getattr(importlib.import_module(f"selftaught.{_HOME[name]}"), name)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'selftaught' has no attribute {name!r}")
    return importlib.import_module(f"selftaught.{name}") if name in _PARTS else _find(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


sys.modules[__name__].__class__ = _Package
