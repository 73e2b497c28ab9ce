"""What ``auto`` picks must build, must say why, and must follow the size of the data, the time and the machine."""

from __future__ import annotations

import pytest
import torch

from selftaught.encoders import check, make
from selftaught.encoders.auto import choose, times_seen
from selftaught.errors import EncoderError

SAMPLES = [
    ((1, 8, 8), 1_400),
    ((3, 32, 32), 50_000),
    ((3, 100, 100), 3_000),
    ((3, 112, 112), 11_000),
    ((4, 224, 224), 1_000_000),
    ((13, 50, 300), 500),
    ((6, 128), 2_000),
    ((2, 5_000), 100),
    ((1, 64, 96, 96), 60),
    ((3, 3, 3), 2),
]


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
@pytest.mark.parametrize(("shape", "count"), SAMPLES)
def test_every_choice_can_be_made(shape, count, device):
    choice = choose(shape, count, device=device, minutes=10, cores=2)
    assert len(choice.size) == len(shape) - 1
    check(choice.name, (shape[0], *choice.size), **choice.options)
    if choice.name == "small":
        encoder = make(choice.name, (shape[0], *choice.size), **choice.options).eval()
        with torch.no_grad():
            assert encoder(torch.zeros(1, shape[0], *choice.size)).pooled.shape == (1, encoder.dim)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize(("shape", "count"), SAMPLES)
def test_the_reason_is_one_sentence_that_names_the_choice(shape, count, device):
    choice = choose(shape, count, device=device, minutes=10, cores=2)
    assert choice.reason.startswith(f"{choice.name} at {choice.size[0]}")
    assert choice.reason.endswith(".") and choice.reason.count(". ") == 0 and "\n" not in choice.reason
    assert f"{count:,}" in choice.reason


def test_a_laptop_gets_small_at_a_reduced_size():
    choice = choose((3, 224, 224), 3_000, device="cpu", minutes=10, cores=2)
    assert choice.name == "small" and choice.size == (48, 48) and choice.options == {"width": 32}
    assert "two cores" in choice.reason and "3,000 pictures" in choice.reason and "10 minutes" in choice.reason


def test_pictures_are_not_enlarged():
    for side in (8, 20, 28, 40, 50, 70, 300):
        choice = choose((3, side, side), 5_000, device="cpu", minutes=10, cores=2)
        assert choice.size[0] <= choice.whole[0] <= max(16, side)


def test_whole_pictures_are_embedded_larger_than_their_crops():
    assert choose((3, 224, 224), 3_000, device="cpu", minutes=10, cores=2).whole == (64, 64)
    assert choose((3, 50, 50), 3_000, device="cpu", minutes=10, cores=2).whole == (48, 48)


def test_more_time_never_gives_less():
    """Cost of one view, in stem cells times width, grows with minutes and with cores, and shrinks with the count."""

    def cost(**change):
        asked = {"count": 3_000, "minutes": 10.0, "cores": 2, **change}
        count = asked.pop("count")
        choice = choose((3, 128, 128), count, device="cpu", **asked)
        return 1 / times_seen(choice.size, 1, minutes=1, cores=1, width=choice.options["width"])

    for name, values in (("minutes", (1.0, 10.0, 100.0, 1_000.0)), ("cores", (1, 4, 16, 64))):
        costs = [cost(**{name: value}) for value in values]
        assert costs == sorted(costs) and costs[-1] > costs[0]
    costs = [cost(count=value) for value in (100, 3_000, 30_000, 300_000)]
    assert costs == sorted(costs, reverse=True) and costs[-1] < costs[0]


def test_an_accelerator_gets_more():
    few, many, large = (
        choose((3, *size), count, device="cuda")
        for size, count in (((32, 32), 50_000), ((96, 96), 5_000), ((224, 224), 10**6))
    )
    assert (few.name, few.size) == ("resnet18", (32, 32))
    assert many.name == "resnet18"
    assert (large.name, large.size) == ("vit_small", (224, 224))


def test_it_looks_at_this_machine_where_nothing_is_said():
    choice = choose((3, 64, 64), 1_000)
    assert choice.name == "small" and "minutes" in choice.reason


@pytest.mark.parametrize("shape", [(3,), (3, 4, 5, 6, 7), (3, 0, 5)])
def test_samples_without_a_space_it_knows_are_refused(shape):
    with pytest.raises(EncoderError, match="1, 2 or 3 axes of space"):
        choose(shape, 100)
