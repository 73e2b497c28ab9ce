"""Two processes are one: gathered samples and batch statistics, with gradients, on gloo."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from selftaught.nn import batchwise
from tests.ranks import Ranks


def whole_batch(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) * 2 + 5


def network(*, act: bool = False) -> nn.Module:
    torch.manual_seed(1)
    norm: nn.Module = nn.BatchNorm2d(3)
    if act:
        from timm.layers.norm_act import BatchNormAct2d

        norm = BatchNormAct2d(3)
    return nn.Sequential(nn.Conv2d(2, 3, 3), norm, nn.Tanh(), nn.Conv2d(3, 2, 2)).double()


def train_with_batch_norm(rank: int, world: int, act: bool, steps: int = 3) -> dict[str, Tensor]:
    """Three steps in a row with a loss that is a sum over samples; gradients are summed over ranks by hand."""
    net = batchwise.convert_batch_norm(network(act=act))
    share = slice(rank * 6 // world, (rank + 1) * 6 // world)
    for _ in range(steps):
        net.zero_grad()
        z = net(whole_batch((6, 2, 5, 4))[share]).flatten(1)
        (batchwise.gather(z).std(0).sum() / world + z.square().sum()).backward()
        with torch.no_grad():
            for parameter in net.parameters():
                assert parameter.grad is not None
                parameter -= 1e-3 * batchwise.total(parameter.grad)
    return {name: value.detach() for name, value in net.state_dict().items()}


@pytest.mark.parametrize("act", [False, True], ids=["torch", "timm"])
def test_batch_norm_over_ranks_is_one_process(ranks: Ranks, act: bool) -> None:
    if act:
        pytest.importorskip("timm")
    alone = train_with_batch_norm(0, 1, act)
    for state in ranks(train_with_batch_norm, 2, act):
        for name, value in alone.items():
            torch.testing.assert_close(state[name], value, atol=1e-11, rtol=1e-11, msg=name)


def gathered(rank: int, world: int) -> dict[str, Any]:
    own = whole_batch((8, 3)).chunk(world)[rank].requires_grad_()
    everything = batchwise.gather(own)
    weight = torch.arange(24.0, dtype=torch.float64).view(8, 3) * (rank + 1)
    (everything.square() * weight).sum().backward()
    return {"everything": everything.detach(), "gradient": own.grad, "rank": batchwise.rank()}


@pytest.mark.parametrize("world", [2, 4])
def test_gather_keeps_the_order_and_sums_the_gradient(ranks: Ranks, world: int) -> None:
    whole = whole_batch((8, 3))
    results = ranks(gathered, world)
    weight = torch.arange(24.0, dtype=torch.float64).view(8, 3) * sum(range(1, world + 1))
    for rank, result in enumerate(results):
        assert result["rank"] == rank
        assert torch.equal(result["everything"], whole)
        torch.testing.assert_close(result["gradient"], (2 * whole * weight).chunk(world)[rank])


def test_one_process_is_left_alone() -> None:
    tensor = torch.ones(2, 3, requires_grad=True)
    assert batchwise.gather(tensor) is tensor
    assert (batchwise.rank(), batchwise.world()) == (0, 1)
    net, native = batchwise.convert_batch_norm(network()), network()
    x = whole_batch((6, 2, 5, 4))
    assert torch.equal(net(x), native(x))
    assert list(net.state_dict()) == list(native.state_dict())


def test_converting_keeps_parameters_and_activation() -> None:
    pytest.importorskip("timm")
    net = network(act=True)
    before = dict(net.named_parameters())
    batchwise.convert_batch_norm(net)
    assert all(parameter is before[name] for name, parameter in net.named_parameters())
    norm = net.get_submodule("1")
    assert isinstance(norm, batchwise.BatchNorm) and isinstance(norm.act, nn.ReLU)
    assert (norm(whole_batch((6, 3, 5, 4))) >= 0).all()


def bf16_and_evaluation(rank: int, world: int) -> tuple[torch.dtype, bool]:
    norm = batchwise.BatchNorm(3)
    x = torch.randn(4, 3, 2, generator=torch.Generator().manual_seed(rank))
    half = norm(x.bfloat16())
    norm.eval()
    native = nn.BatchNorm1d(3).eval()
    native.load_state_dict(norm.state_dict())
    return half.dtype, torch.equal(norm(x), native(x))


def test_batch_norm_keeps_the_type_and_evaluates_as_torch_does(ranks: Ranks) -> None:
    assert ranks(bf16_and_evaluation, 2) == [(torch.bfloat16, True)] * 2


def fails_on_one(rank: int, world: int) -> Tensor:
    if rank == 1:
        raise ValueError("rank 1 has had enough")
    return batchwise.total(torch.ones(1))


def test_an_error_in_one_rank_comes_back(ranks: Ranks) -> None:
    with pytest.raises(AssertionError, match="rank 1 has had enough"):
        ranks(fails_on_one, 2)
    assert len(ranks(gathered, 2)) == 2  # and the pool lives on
