"""One pool of gloo processes for every test that needs several ranks.

    def gradients(rank, world, scale):          # module level, so that it has an import path
        ...                                     # torch.distributed is ready: rank of world, gloo, one thread each
        return {"loss": 1.0}                    # anything that pickles

    def test_two_are_one(ranks):                # the session fixture of conftest.py
        first, second = ranks(gradients, 2, 0.5)    # results in order of rank

Processes start when they are first needed and stay for the session; each call makes its own process group of ``world``
of them. ``LOCAL_RANK``, ``WORLD_SIZE``, … are set; a Fabric over the group is had from
``fabric_here()``. An exception in a rank is raised here with its traceback. Nothing waits for ever:
after ``timeout`` seconds, or 5 after one rank has failed, the pool is killed (and started again by the next call).
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from typing import Any

GRACE = 5.0


class Ranks:
    """Call it: ``ranks(function, world, *arguments, timeout=60)``."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[tuple[Any, Connection]] = []

    def __call__(self, function: Callable[..., Any], world: int, *arguments: Any, timeout: float = 60.0) -> list[Any]:
        while len(self._workers) < world:
            self._start()
        port = _free_port()
        for rank in range(world):
            task = (function.__module__, function.__qualname__, rank, world, port, arguments)
            self._workers[rank][1].send(task)
        return self._collect(world, time.monotonic() + timeout)

    def close(self) -> None:
        for process, connection in self._workers:
            connection.close()
            process.kill()
            process.join()
        self._workers = []

    def _start(self) -> None:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, list(sys.path)), daemon=True)
        process.start()
        theirs.close()
        self._workers.append((process, ours))

    def _collect(self, world: int, deadline: float) -> list[Any]:
        waiting = {self._workers[rank][1]: rank for rank in range(world)}
        results: list[Any] = [None] * world
        errors: list[str] = []
        while waiting:
            ready = wait(list(waiting), timeout=max(0.0, deadline - time.monotonic()))
            for connection in ready:
                rank = waiting.pop(connection)  # type: ignore[arg-type]
                try:
                    fine, results[rank] = connection.recv()  # type: ignore[union-attr]
                except EOFError:
                    fine, results[rank] = False, "the process died"
                if not fine:
                    errors.append(f"rank {rank} of {world}: {results[rank]}")
                    deadline = min(deadline, time.monotonic() + GRACE)
            if waiting and not ready:
                errors.append(f"ranks {sorted(waiting.values())} of {world} did not answer in time")
                break
        if errors:
            self.close()
            raise AssertionError("\n".join(errors))
        return results


def fabric_here(precision: str = "32-true") -> Any:
    """Inside a rank: a Fabric over the pool's process group, as ``make_fabric`` would make it."""
    from lightning_fabric import Fabric
    from lightning_fabric.strategies.ddp import DDPStrategy

    world = int(os.environ["WORLD_SIZE"])
    strategy: Any = DDPStrategy(broadcast_buffers=False, find_unused_parameters=True) if world > 1 else "auto"
    fabric = Fabric(accelerator="cpu", devices=world, strategy=strategy, precision=precision)  # type: ignore[arg-type]
    fabric.launch()
    return fabric


def _serve(connection: Connection, path: list[str]) -> None:
    """A rank: takes functions by import path until the parent goes away."""
    sys.path[:] = path
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        connection.send(_answer(*task))


def _answer(module: str, name: str, rank: int, world: int, port: int, arguments: tuple[Any, ...]) -> tuple[bool, Any]:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    here = {"RANK": rank, "LOCAL_RANK": rank, "NODE_RANK": 0, "WORLD_SIZE": world, "MASTER_PORT": port}
    os.environ.update({key: str(value) for key, value in here.items()} | {"MASTER_ADDR": "127.0.0.1"})
    try:
        dist.init_process_group("gloo", rank=rank, world_size=world, timeout=timedelta(seconds=30))
        try:
            return True, getattr(importlib.import_module(module), name)(rank, world, *arguments)
        finally:
            dist.destroy_process_group()
    except BaseException:
        return False, traceback.format_exc()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
