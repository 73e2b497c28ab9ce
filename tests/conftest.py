"""Fixtures that several test files share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: tests are small, and their threads would only wait

from tests.ranks import Ranks  # noqa: E402

pytest.register_assert_rewrite("tests.small")

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def ranks() -> Iterator[Ranks]:
    """``ranks(function, world, *arguments)`` runs a module-level function on gloo processes; see tests/ranks.py."""
    pool = Ranks()
    yield pool
    pool.close()


@pytest.fixture
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, so that nobody's real one is touched."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("SELFTAUGHT_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data: ``SELFTAUGHT_DATA``, or ``shared/data`` beside the repository; skips where absent."""
    folder = Path(os.environ.get("SELFTAUGHT_DATA") or REPOSITORY.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"needs real data in SELFTAUGHT_DATA; {folder} is not there")
    return folder
