"""A run folder: what is in it, whether a request may write to it, and what it says of the machine it was made on."""

from __future__ import annotations

import csv
import os
import platform
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from selftaught import config
from selftaught.commands.saved import read_json, refuse_version
from selftaught.errors import RunError, first_line, must_be

PACKAGES = (
    "selftaught",
    "torch",
    "numpy",
    "timm",
    "lightning-fabric",
    "opencv-python-headless",
    "pyarrow",
    "scikit-learn",
)
WRITTEN = ("schema", "derived", "request", "preprocessing", "fingerprint")  # what every run.yaml holds
# What may change when a run goes on: the result stays the same, or the same to rounding (devices).
FREE = ("resume", "preview", "quiet", "config", "workers", "cache_gb", "changed_data", "accept_unreadable", "devices")


class Speaker:
    """Prints for the user, from the first process alone; nothing when quiet."""

    def __init__(self, quiet: bool = False) -> None:
        first = os.environ.get("LOCAL_RANK", "0") == "0" and os.environ.get("RANK", "0") == "0"
        self.silent = quiet or not first

    def __call__(self, *lines: str) -> None:
        if not self.silent:
            print("\n".join(lines), flush=True)


@dataclass(frozen=True)
class Run:
    """One pre-training, as its folder tells it. Usable wherever a path is."""

    folder: Path

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Run:
        """Raises RunError where ``folder`` holds no run."""
        path = Path(folder)
        if not (path / "run.yaml").is_file():
            hint = "A run folder is made by: selftaught pretrain DATA --out RUN"
            raise RunError(must_be("run", "selftaught", "the folder of a run", str(path)), hint=hint)
        return cls(path)

    def __fspath__(self) -> str:
        return str(self.folder)

    @property
    def config(self) -> dict[str, Any]:
        """run.yaml: ``request`` as resolved, ``derived`` values, ``reasons`` for them. Raises RunError, ConfigError."""
        path = self.folder / "run.yaml"
        found = config.read_yaml(path)
        refuse_version(path, found.get("schema"), config.SCHEMA)
        if missing := [name for name in WRITTEN if name not in found]:
            raise RunError(
                f"{path} is incomplete: it lacks {', '.join(missing)}.", hint="Copy it again, or train again."
            )
        return found

    @property
    def health(self) -> dict[str, Any]:
        """health.json: measures over time and verdicts; empty before the first measure."""
        return self._json("health.json")

    @property
    def evaluation(self) -> dict[str, Any]:
        """evaluation.json; empty before the first ``evaluate``."""
        return self._json("evaluation.json")

    @property
    def environment(self) -> dict[str, Any]:
        return self._json("environment.json")

    @property
    def metrics(self) -> list[dict[str, float]]:
        """Rows of metrics.csv; what was not measured is left out of a row."""
        path = self.folder / "metrics.csv"
        if not path.is_file():
            return []
        with path.open(newline="", encoding="utf-8") as lines:
            try:
                return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(lines)]
            except (ValueError, TypeError, csv.Error) as error:
                raise RunError(f"{path} is broken: {first_line(error)}.") from None

    @property
    def finished(self) -> bool:
        """True once the last step is made and the encoder saved."""
        return (self.folder / "encoder" / "config.json").is_file()

    def as_dict(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        verdicts = self.health.get("verdicts", [])
        measures = self.health.get("measures", [])
        return {
            "run": str(self.folder),
            "finished": self.finished,
            "derived": self.config.get("derived", {}),
            "health": measures[-1] if measures else {},
            "verdicts": verdicts,
        }

    def _json(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        return read_json(path) if path.is_file() else {}


def check_place(out: str | os.PathLike[str], request: Mapping[str, Any], resume: str) -> Run | None:
    """The run that is at ``out`` already, or None for a fresh place; makes nothing.

    Raises RunError where another run, something else, or a place that cannot be written to is in the way.
    """
    path = Path(out)
    if (path / "run.yaml").is_file():
        run = Run(path)
        _refuse_other(run, request)
        if resume == "never":
            raise RunError(
                f"{path} holds a run already.", hint="Leave out --resume never to go on, or choose another --out."
            )
    elif resume == "must":
        raise RunError(f"There is no run to resume at {path}.", hint="Leave out --resume must to start it.")
    elif path.is_dir() and any(
        each.name != "lock" and not each.name.startswith(".run.yaml.") for each in path.iterdir()
    ):
        raise RunError(f"{path} is not empty and holds no run.", hint="Choose another --out, or empty it.")
    else:
        run = None
    _refuse_unwritable(path)
    return run


def _refuse_other(run: Run, request: Mapping[str, Any]) -> None:
    saved = run.config
    old, new = ({key: value for key, value in one.items() if key not in FREE} for one in (saved["request"], request))
    different = config.differences(old, {**new, "out": old.get("out")})
    if different:
        shown = "; ".join(f"{key} is {was!r} there and {now!r} here" for key, was, now in different[:3])
        more = f"; and {len(different) - 3} more" if len(different) > 3 else ""
        raise RunError(
            f"{run.folder} holds a run with another configuration: {shown}{more}.", hint="Choose another --out."
        )


def _refuse_unwritable(path: Path) -> None:
    """Walks up to what exists: it must be a directory, and a trial file settles what modes do not say."""
    there = path.absolute()
    while not there.exists() and not there.is_symlink():
        there = there.parent
    if not there.is_dir():
        raise RunError(must_be("out", "pretrain", f"a folder, but {there} is a file", str(path)))
    trial = there / f".selftaught-{os.getpid()}"
    try:
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise RunError(f"Cannot write to {there}: {error.strerror}.", hint="Choose another --out.") from error


def environment(device: str, threads: int, devices: int, fingerprint: str) -> dict[str, Any]:
    """Versions, hardware, threads, data fingerprint and the command, for environment.json."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "device": device,
        "devices": devices,
        "threads": threads,
        "fingerprint": fingerprint,
        "command": command_line(),
    }


def command_line() -> str:
    """The command as it was typed, quoted for a shell; "python" where it came through the API."""
    name = Path(sys.argv[0]).name
    return shlex.join(["selftaught", *sys.argv[1:]]) if name in ("selftaught", "__main__.py") else "Python"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
