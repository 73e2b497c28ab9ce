"""Where the training runs: device, number of processes, precision. Checked before anything starts.

Lightning Fabric starts the processes (``--devices N`` starts N - 1 more copies of this command; under torchrun and srun
they are there already) and wraps the model in DistributedDataParallel.
"""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy

from selftaught.errors import ConfigError, must_be
from selftaught.train.devices import find_device, refuse_devices

PRECISIONS = ("auto", "32-true", "bf16-mixed")


def make_fabric(
    accelerator: str = "auto",
    devices: int | None = None,
    *,
    nodes: int | None = None,
    precision: str = "auto",
    caller: str = "pretrain",
) -> Fabric:
    """A launched Fabric. ``devices``: processes on this machine; None = what torchrun or SLURM started, else 1.

    Raises ConfigError where there are fewer devices than asked for, before any process is started.
    """
    device = find_device(accelerator, caller=caller)
    devices, nodes = _processes(device, devices, nodes, caller)
    precision, _ = choose_precision(device, precision, caller=caller)
    # Buffers are equal on all ranks by construction; parameters without gradient (unused heads) are nobody's mistake.
    ddp = DDPStrategy(broadcast_buffers=False, find_unused_parameters=True)
    strategy = ddp if devices * nodes > 1 else "auto"
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces what the run already says
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*srun.*available.*")  # on a login node Fabric points at srun; a choice
        fabric = Fabric(accelerator=device, devices=devices, num_nodes=nodes, strategy=strategy, precision=precision)  # type: ignore[arg-type]
    fabric.launch()
    return fabric


def choose_precision(device: str, precision: str = "auto", *, caller: str = "pretrain") -> tuple[str, str]:
    """(precision, why): bf16 where the hardware multiplies in it, else float32. ``device``: "cpu", "cuda" or "mps"."""
    if precision not in PRECISIONS:
        raise ConfigError(must_be("precision", caller, f"one of {', '.join(PRECISIONS)}", precision))
    if precision != "auto":
        return precision, "as asked for"
    if device == "cuda":
        fine = torch.cuda.is_bf16_supported(including_emulation=False)
        return ("bf16-mixed", "the GPU computes in bf16") if fine else ("32-true", "the GPU does not compute in bf16")
    found = _bf16_instructions() if device == "cpu" else ""
    return ("bf16-mixed", f"the processor has {found}") if found else ("32-true", f"no bf16 instructions on {device}")


def _bf16_instructions() -> str:
    try:
        words = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return ""
    return next((word for word in ("amx_bf16", "avx512_bf16") if word in words), "")


def _processes(device: str, devices: int | None, nodes: int | None, caller: str) -> tuple[int, int]:
    """(processes per node, nodes); what a launcher has started already must be what was asked for."""
    started = _started()
    if started is not None:
        for name, asked, there in (("devices", devices, started[0]), ("nodes", nodes, started[1])):
            if asked is not None and asked != there:
                raise ConfigError(must_be(name, caller, f"{there}, as the launcher has started", asked))
        return started
    devices = 1 if devices is None else devices
    refuse_devices(devices, device, caller=caller)
    if nodes not in (None, 1) and "NODE_RANK" not in os.environ:
        raise ConfigError(
            must_be("nodes", caller, "1 without a launcher", nodes),
            hint="Start it with torchrun or srun.",
        )
    return devices, nodes or 1


def _started() -> tuple[int, int] | None:
    """(processes per node, nodes) that torchrun or srun started, or None."""
    if TorchElasticEnvironment.detect():
        here = int(os.environ["LOCAL_WORLD_SIZE"])
        return here, int(os.environ["WORLD_SIZE"]) // here
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if SLURMEnvironment.detect():
            nodes = int(os.environ.get("SLURM_NNODES", "1"))
            return int(os.environ["SLURM_NTASKS"]) // nodes, nodes
    return None
