"""A hundred kills at random moments: ``python -m tests.torture [--kills 100] [--seed 0] [--folder FOLDER]``.

Pictures and series, with one process and with two, from the first import to the last file. Every run is killed with
SIGKILL again and again (with two processes: either, or both at once), started again until it ends, and must then hold
the very bits of one that was never disturbed: the encoder, the method's weights, the losses of every step. What is
left running after a kill, or does not end, is a failure too. Prints a line for each run, and exits with 1 if one fails.

Processes are forked from one that has imported everything, so that most kills fall into work and not into imports.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import gc
import os
import random
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from sklearn.datasets import load_digits

from selftaught import cli
from selftaught.commands import preparation, training  # noqa: F401  # imported here, so that no child has to

KILLS_OF_A_RUN = 8
PATIENCE = 120.0  # seconds that anything may take
DETERMINED = ("step", "epoch", "samples", "loss", "lr", "gradient_norm", "rankme", "alpha_req", "lidar")
SMALL = ("--encoder", "small", "--encoder.width", "8", "--batch-size", "32", "--quiet")


@dataclass
class Job:
    """One kind of run. ``words``: the command without ``--out``."""

    name: str
    words: Sequence[str]
    processes: int
    length: float = 0.0  # seconds that it takes undisturbed
    expected: dict[str, object] = field(default_factory=dict)


def jobs(folder: Path) -> list[Job]:
    """Real pictures (handwritten digits) of which one is broken, and series with gaps."""
    digits: Any = load_digits()
    pictures = folder / "digits"
    pictures.mkdir()
    for number, picture in enumerate(digits.images[:320]):
        enlarged = cv2.resize(picture.astype(np.uint8) * 15, (24, 24), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(pictures / f"{number:03}.png"), enlarged)
    broken = pictures / "007.png"
    broken.write_bytes(broken.read_bytes()[:-40])
    rng = np.random.default_rng(0)
    waves = np.sin(np.arange(96) * rng.uniform(0.1, 0.9, (320, 1, 1)) + rng.uniform(0, 6, (320, 2, 1)))
    waves[rng.random(waves.shape) < 0.05] = np.nan
    np.savez(folder / "series.npz", x=waves.astype(np.float32))
    image = ("pretrain", str(pictures), "--modality.size", "16", "--method", "moco", "--steps", "300", *SMALL)
    series = ("pretrain", str(folder / "series.npz"), "--modality", "series", "--steps", "300", *SMALL)
    return [
        Job("pictures, one process", (*image, "--workers", "2", "--cache-gb", "0.01"), 1),
        Job("series, one process", (*series, "--workers", "1"), 1),
        Job("pictures, two processes", (*image, "--workers", "1"), 2),
        Job("series, two processes", (*series, "--workers", "0"), 2),
    ]


# --- Processes --------------------------------------------------------------------------------------------------------


class Attempt:
    """One start of a job: its processes, in a process group of their own."""

    def __init__(self, job: Job, out: Path) -> None:
        port = _free_port()
        self.log = out.with_name(f"{out.name}.log")
        self.group = 0
        self.ranks = [self._fork(job, out, rank, port) for rank in range(job.processes)]
        self.codes: dict[int, int] = {}

    def _fork(self, job: Job, out: Path, rank: int, port: int) -> int:
        child = os.fork()
        if child:
            with contextlib.suppress(OSError):
                os.setpgid(child, self.group)
            self.group = self.group or child
            return child
        try:
            os.setpgid(0, self.group)
            log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            for stream in (1, 2):
                os.dup2(log, stream)
            if job.processes > 1:  # as torchrun would start it
                here = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": job.processes, "MASTER_PORT": port}
                here |= {"LOCAL_WORLD_SIZE": job.processes, "GROUP_RANK": 0, "TORCHELASTIC_RUN_ID": "torture"}
                os.environ.update({key: str(value) for key, value in here.items()} | {"MASTER_ADDR": "127.0.0.1"})
            code = cli.main([*job.words, "--out", str(out)])
            sys.stdout.flush()
            os._exit(code)
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
            os._exit(70)

    def wait(self, seconds: float) -> bool:
        """Whether all ranks ended within so many seconds."""
        until = time.monotonic() + seconds
        while len(self.codes) < len(self.ranks):
            for rank in self.ranks:
                if rank not in self.codes:
                    found, status = os.waitpid(rank, os.WNOHANG)
                    if found:
                        self.codes[rank] = os.waitstatus_to_exitcode(status)
            if time.monotonic() > until:
                return False
            time.sleep(0.002)
        return True

    def kill(self, choice: random.Random) -> None:
        """One rank, or the whole group at once."""
        with contextlib.suppress(ProcessLookupError):
            if len(self.ranks) == 1 or choice.random() < 0.4:
                os.killpg(self.group, signal.SIGKILL)
            else:
                os.kill(choice.choice(self.ranks), signal.SIGKILL)

    def left(self) -> list[int]:
        """Processes of the group that are still there after a grace period."""
        until = time.monotonic() + 20
        while True:
            there = [int(name) for name in os.listdir("/proc") if name.isdigit() and _group_of(int(name)) == self.group]
            if not there or time.monotonic() > until:
                return there
            time.sleep(0.02)


def _group_of(process: int) -> int:
    """0 for one that is gone, or only waits to be reaped."""
    try:
        rest = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if rest[0] == "Z" else int(rest[2])


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


# --- What a run came to -----------------------------------------------------------------------------------------------


def result(out: Path) -> dict[str, object]:
    """All that is determined by the request: the bytes of the weights, and the numbers of every step."""
    weights = [out / "encoder" / "model.safetensors", out / "parts" / "method" / "model.safetensors"]
    found: dict[str, object] = {path.parent.name: path.read_bytes() for path in weights}
    with (out / "metrics.csv").open(newline="") as lines:
        found["steps"] = [{name: row[name] for name in DETERMINED if name in row} for row in csv.DictReader(lines)]
    found["quarantine"] = (out / "quarantine.csv").read_text()
    return found


def undisturbed(job: Job, out: Path) -> str:
    """ "" or what went wrong; notes what the job should come to, and how long it takes."""
    began = time.monotonic()
    attempt = Attempt(job, out)
    if not attempt.wait(PATIENCE) or set(attempt.codes.values()) != {0}:
        attempt.kill(random.Random(0))
        return f"undisturbed, it ended with {attempt.codes}: {attempt.log.read_text()[-500:]}"
    job.length, job.expected = time.monotonic() - began, result(out)
    return ""


def tortured(job: Job, out: Path, kills: int, choice: random.Random) -> tuple[int, str]:
    """(kills that hit, "" or what went wrong). A run that got far is not killed any more: the next one is."""
    hit = 0
    for number in range(kills + 1):
        attempt = Attempt(job, out)
        last = number == kills
        if not last and not attempt.wait(choice.uniform(0, job.length * 0.4)):
            attempt.kill(choice)
            hit += 1
        if not attempt.wait(PATIENCE):
            os.killpg(attempt.group, signal.SIGKILL)
            return hit, f"after kill {hit} a process did not end within {PATIENCE:.0f} s"
        if left := attempt.left():
            return hit, f"after kill {hit} processes were left: {left}"
        codes = set(attempt.codes.values())
        if codes == {0}:
            break
        if last or codes - {0, 1, -signal.SIGKILL}:
            return hit, f"it ended with {attempt.codes}: {attempt.log.read_text()[-500:]}"
    for name, expected in job.expected.items():
        if (found := result(out)[name]) != expected:
            shown = f": {found} instead of {expected}"[:300] if isinstance(expected, list | str) else ""
            return hit, f"its {name} differ{shown}"
    return hit, ""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="A hundred kills at random moments.")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", default="")
    options = parser.parse_args(argv)
    folder = Path(options.folder or tempfile.mkdtemp(prefix="torture-"))
    folder.mkdir(parents=True, exist_ok=True)
    os.environ |= {"SELFTAUGHT_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    choice, began, hits, failures = random.Random(options.seed), time.monotonic(), 0, 0
    made = jobs(folder)
    gc.freeze()
    for number, job in enumerate(made):
        if wrong := undisturbed(job, folder / f"whole-{number}"):
            print(f"FAILED {job.name}: {wrong}", flush=True)
            return 1
        print(f"{job.name}: {job.length:.0f} s undisturbed", flush=True)
    number = 0
    while hits < options.kills and failures < 5:
        job, out = made[number % len(made)], folder / f"run-{number}"
        kills = min(KILLS_OF_A_RUN, options.kills - hits)
        hit, wrong = tortured(job, out, kills, choice)
        hits, failures, number = hits + hit, failures + bool(wrong), number + 1
        state = f"FAILED ({wrong})" if wrong else "the same bits"
        print(f"{hits:4} kills, {time.monotonic() - began:5.0f} s  {job.name}: killed {hit} times, {state}", flush=True)
    print(f"{hits} kills over {number} runs in {time.monotonic() - began:.0f} s, {failures} failures", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
