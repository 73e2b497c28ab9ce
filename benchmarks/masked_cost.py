"""What a training step of MAE costs against a whole forward and backward pass of the same encoder: counted, and timed.

    python benchmarks/masked_cost.py [--encoder vit_small] [--size 224] [--batch 8] [--rounds 5]

The issue's bound: 45 % at ViT-S, 75 % masked, our default decoder; with the paper's (512 wide, 8 blocks) more than the
encoder alone. Operations are counted by torch (multiply-adds of matrices and attention), times are the median of rounds
that alternate. Memory is what autograd keeps for the backward pass.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from selftaught.encoders import make
from selftaught.methods.mae import MAE
from selftaught.train.clocks import clock_of
from selftaught.types import Batch, Stream


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="vit_small")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.manual_seed(0)
    x = torch.randn(options.batch, 1, 3, options.size, options.size)
    batch = Batch({"views": Stream(x)}, torch.arange(len(x)), torch.arange(len(x)))
    clock = clock_of(0, steps=1, steps_per_epoch=1, seed=0)
    steps = {"whole": lambda: encoder(x[:, 0]).pooled.sum()}
    encoder = make(options.encoder, (3, options.size, options.size), patch=16)
    for name, method in (("MAE", MAE()), ("MAE, the paper's decoder", MAE(width=512, depth=8, heads=16))):
        method.build({"encoder": encoder})
        steps[name] = step_of(method, encoder, batch, clock)
    counted = {name: operations(step) for name, step in steps.items()}
    kept = {name: saved(step) for name, step in steps.items()}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step().backward()
    for _ in range(options.rounds):
        for name, step in steps.items():
            began = time.perf_counter()
            step().backward()
            times[name].append(time.perf_counter() - began)
    for name in steps:
        took = statistics.median(times[name])
        flops, ms, mib = counted[name] / 1e9 / len(x), 1000 * took / len(x), kept[name] / 2**20 / len(x)
        shares = counted[name] / counted["whole"], took / statistics.median(times["whole"]), kept[name] / kept["whole"]
        words = zip((f"{flops:7.2f} GFLOP", f"{ms:6.1f} ms", f"{mib:6.1f} MiB kept"), shares, strict=True)
        print(f"{name:<26} an image: " + ", ".join(f"{word} ({share:.0%})" for word, share in words))


def step_of(method: MAE, encoder: object, batch: Batch, clock: object) -> Callable[[], torch.Tensor]:
    def step() -> torch.Tensor:
        ((value, count),) = method.loss(method({"encoder": encoder}, batch, clock), clock).values()  # type: ignore[dict-item, arg-type]
        return value / count

    return step


def operations(step: Callable[[], torch.Tensor]) -> int:
    """Forward and backward."""
    with FlopCounterMode(display=False) as counter:
        step().backward()
    return counter.get_total_flops()


def saved(step: Callable[[], torch.Tensor]) -> int:
    """Bytes that autograd keeps between forward and backward, each storage once, without weights."""
    sizes: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        step()
    return sum(sizes.values())


if __name__ == "__main__":
    main()
