"""End to end against lightly: its README's SimCLR loop and ours, same network, batch, folder, workers, alternating.

    python benchmarks/vs_lightly.py FOLDER --peer-python /path/to/python-with-lightly [--size 96] [--rounds 2]

ResNet-18 with the standard stem, batch 64, two loader workers, on two cores. Prints images per second (after a warm-
up) and the proportional resident memory of the whole process tree (PSS: pages shared with workers count once), and
the ratios. The targets are 2x at 96 pixels and 2.3x at 224 against lightly as it ships (fp32), 1.3x against its loop
in bf16, at no more memory. Short jobs save up to twenty times, up to 5 % of their time. Give a folder that the steps
go through more than once, as in use: lightly's loop starts its workers anew for every epoch, each with a copy of what
the process has freed by then.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

HERE = Path(__file__).parent
EVERY = 3.0  # seconds between two looks at memory; each walks the page tables of gigabytes, on the cores measured here


def tree_pss(process: psutil.Popen) -> int:
    """Proportional set size of a process and its children, bytes."""
    total = 0
    for one in [process, *process.children(recursive=True)]:
        try:
            total += one.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total


def run(command: list[str]) -> tuple[str, float]:
    """Standard output, and the peak memory of the process tree in MB (sampled)."""
    process = psutil.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    peak, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(EVERY):
            try:
                peak[0] = max(peak[0], tree_pss(process))
            except psutil.NoSuchProcess:
                return

    threading.Thread(target=watch, daemon=True).start()
    out, error = process.communicate()
    done.set()
    if process.returncode:
        sys.exit(f"{' '.join(command)}\n{error[-3000:]}")
    return out, peak[0] / 2**20


def lightly(options: argparse.Namespace, *extra: str) -> tuple[float, float]:
    command = [options.peer_python, str(HERE / "lightly_simclr.py"), options.folder, "--size", str(options.size)]
    command += ["--steps", str(options.steps), "--warm-up", str(options.warm_up), *extra]
    out, memory = run(command)
    return json.loads(out.strip().splitlines()[-1])["images_per_second"], memory


def ours(options: argparse.Namespace) -> tuple[float, float]:
    """The command line as a user would type it; speed from the rows of metrics.csv after the warm-up."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "selftaught", "pretrain", options.folder, "--out", f"{folder}/run", "--quiet"]
        command += ["--encoder", "resnet18", "--encoder.stem", "standard", "--modality.size", str(options.size)]
        command += ["--batch-size", "64", "--workers", "2", "--steps", str(options.steps)]
        _, memory = run(command)
        with open(f"{folder}/run/metrics.csv", newline="") as file:
            rows = [(int(row["step"]), float(row["seconds"])) for row in csv.DictReader(file)]
    first = next(row for row in rows if row[0] >= options.warm_up)
    last = rows[-1]
    return (last[0] - first[0]) * 64 / (last[1] - first[1]), memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--peer-python", required=True)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--warm-up", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--arms", default="lightly fp32,lightly bf16,selftaught")
    options = parser.parse_args()
    arms = {
        "lightly fp32": lambda: lightly(options),
        "lightly bf16": lambda: lightly(options, "--bf16"),
        "selftaught": lambda: ours(options),
    }
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in options.arms.split(",")}
    for number in range(options.rounds):
        for name in seen:
            speed, memory = arms[name]()
            seen[name].append((speed, memory))
            print(
                f"{time.strftime('%H:%M:%S')} round {number} {name:13} {speed:7.1f} images/s {memory:7.0f} MB",
                flush=True,
            )
    middle = {
        name: [statistics.median(column) for column in zip(*values, strict=True)] for name, values in seen.items()
    }
    for name in [each for each in seen if each != "selftaught" and "selftaught" in seen]:
        speed, memory = (ours / theirs for ours, theirs in zip(middle["selftaught"], middle[name], strict=True))
        print(f"{options.size} pixels against {name}: {speed:.2f}x images/s, {memory:.2f}x memory")


if __name__ == "__main__":
    main()
