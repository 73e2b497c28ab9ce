"""What "auto" comes to for the batch: by device, by how much data there is, and by what the method compares."""

from __future__ import annotations

from typing import Any

import pytest

from selftaught import catalog
from selftaught.commands.choices import batch_size
from selftaught.errors import ConfigError, DataError

ONE: dict[str, Any] = {"devices": 1, "accumulate": 1}


def test_by_device_and_by_what_is_compared() -> None:
    assert batch_size(None, 10_000, device="cpu", **ONE) == 128
    assert batch_size(None, 10_000, device="cpu", small=True, **ONE) == 64
    for small in (False, True):  # a large one costs an accelerator little
        assert batch_size(None, 10_000, device="cuda", small=small, **ONE) == 256


@pytest.mark.parametrize("count", [5, 16, 100, 300, 1000])
def test_few_data_give_several_steps_an_epoch(count: int) -> None:
    for small in (False, True):
        assert 2 <= batch_size(None, count, device="cpu", small=small, **ONE) <= max(2, count // 2)


def test_it_splits_evenly() -> None:
    assert batch_size(None, 1000, device="cpu", devices=3, accumulate=2) % 6 == 0


def test_what_does_not_fit_is_refused() -> None:
    assert batch_size(20, 20, device="cpu", **ONE) == 20
    with pytest.raises(ConfigError, match=r"\[2, 20\].*Got 21"):
        batch_size(21, 20, device="cpu", **ONE)
    with pytest.raises(DataError, match="1 sample to train on"):
        batch_size(None, 1, device="cpu", **ONE)


def test_methods_say_it_without_being_imported() -> None:
    assert catalog.constant("method", "denoising", "small_batches") is True
    assert catalog.constant("method", "simclr", "small_batches", False) is False
