"""Memory and time of a contrastive loss over a global batch, with its gradient: in pieces and all at once.

    python benchmarks/large_batch.py [--batch 32768] [--dim 128] [--whole]

Two views of ``--batch`` samples in bf16 through NT-Xent, forward and backward, in a process of its own. ``--whole``
holds all products at once, for comparison where there is room. Prints the memory that the loss adds (peak minus before)
and seconds; on a GPU where there is one.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time

import torch

from selftaught.ops import similarity
from selftaught.ops.losses import nt_xent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32768)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--whole", action="store_true")
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    z = torch.randn(options.batch, 2, options.dim, device=device).bfloat16().requires_grad_()
    nt_xent(z[:64], z[:64], start=0, temperature=0.2).mean().backward()  # libraries are loaded now
    if options.whole:
        similarity.AT_ONCE = sys.maxsize
    before, began = _memory(device), time.perf_counter()
    nt_xent(z, z, start=0, temperature=0.2).mean().backward()
    seconds = _memory(device) - before, time.perf_counter() - began
    print(f"{options.batch} x 2 x {options.dim} on {device}: {seconds[0] / 2**20:.0f} MiB, {seconds[1]:.1f} s")


def _memory(device: str) -> int:
    """Peak so far, bytes."""
    if device == "cuda":
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
