"""Files of every kind, broken in every way, are read or refused: no traceback, no hang, no memory without bound."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz_files import KINDS

QUICK, LONG = 64, 3000  # about how many ways to break one file


def fuzz(folder: Path, cases: int) -> dict[str, dict[str, Any]]:
    """In a process of its own, whose memory is bounded."""
    words = [sys.executable, "-m", "tests.fuzz", str(folder), str(cases)]
    surroundings = {**os.environ, "SELFTAUGHT_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    root = Path(__file__).parents[1]
    done = subprocess.run(words, capture_output=True, text=True, cwd=root, env=surroundings)
    assert done.returncode == 0, done.stderr[-2000:]
    return {found["kind"]: found for found in map(json.loads, done.stdout.splitlines())}


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict[str, dict[str, Any]]:
    return fuzz(tmp_path_factory.mktemp("fuzz"), QUICK)


@pytest.mark.parametrize("kind", KINDS)
def test_broken_files_are_read_or_refused(found, kind):
    faults = found[kind]["faults"]
    assert not faults, "\n".join(map(str, faults[:10]))
    assert found[kind]["refused"] > QUICK / 5, "most of what was cut off is refused"


@pytest.mark.slow
def test_broken_files_are_read_or_refused_whatever_is_done_to_them(tmp_path):
    faults = {kind: one["faults"] for kind, one in fuzz(tmp_path, LONG).items() if one["faults"]}
    assert not faults, json.dumps(faults, indent=1)[:5000]
