"""Every method at equal wall-clock on real pictures: what ``make bench-methods`` runs, for hours, and goes on with.

    python benchmarks/methods.py SHARED_DATA [--minutes 1.5] [--methods a,b] [--sets scenes100,clothing112,mnist10k]
                                 [--encoder small|vit] [--batch-size N] [--keep FOLDER] [--repeat]

The small convnet at 48 pixels (a small vision transformer with ``--encoder vit``, and for methods that drop tokens),
everything else as the method has it. scenes100 with three seeds, the others with one. For each run: kNN and linear
accuracy with all labels, fine-tuning with 10 labels per class (one draw), effective rank, images a second, memory, the
last epoch. The untrained encoder is a row of its own ("untrained"). One line a run is appended to
``benchmarks/results/methods.jsonl``; lines that are there are not measured again. ``--keep`` moves each run into a
folder, for a probe to come. ``make docs`` makes docs/benchmarks.md of the lines.

A plan of ``--minutes`` rests on a rehearsal of seconds: where something else ran just then, it is far off.
A run outside of ``NEAR`` is measured again, three times at most; its row goes to ``methods_discarded.jsonl``.

With ``--repeat``, a seed above 0 takes the steps that seed 0 of its row took, instead of the time: the same spread,
whatever runs beside it. Speed, memory and seconds are then seed 0's alone.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

import selftaught as st
from selftaught import catalog

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "methods.jsonl"
SETS = {  # name -> (training data, test data, labels, seeds)
    "scenes100": ("scenes100/train", "scenes100/test", "folders", 3),
    "clothing112": ("clothing112/train", "clothing112/test", "folders", 1),
    "mnist10k": ("mnist10k/mnist10k.npz::train_images", "mnist10k/mnist10k.npz::test_images", "y", 1),
}
VIT = "--encoder vit_tiny --encoder.patch 6 --encoder.dim 128 --encoder.depth 4 --encoder.heads 4"
ENCODERS = {"small": ["--encoder", "small", "--encoder.width", "32"], "vit": VIT.split()}
KEY = ("set", "method", "seed", "minutes", "encoder", "batch_size")  # of a row; batch_size 0 = as the tool has it
DROPS = {name for name in catalog.names("method") if catalog.load("method", name)().needs().hides == "drop"}
TEACHERS = {"distill": "simclr", "beit": "vq_vae"}  # run of the same time that a method is given as its teacher
OF_TIME = ("seconds", "memory_mb", "images_per_second")
NEAR = (0.75, 1.3)  # of ``--minutes``, the start of the process included: fixed before the rows of 2026-11-23 were run
NO_COLOUR = {("mnist10k", "colourisation"), ("mnist10k", "split_brain")}  # they learn from colours
NOT_FOR_PICTURES = {"time_contrast": "a picture has no neighbour in time: the same as simclr"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder that holds the sets")
    parser.add_argument("--minutes", type=float, default=1.5)
    parser.add_argument("--methods", default="")
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--seeds", type=int, default=0, help="fewer seeds than usual")
    parser.add_argument("--encoder", choices=ENCODERS, default="small")
    parser.add_argument("--batch-size", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--repeat", action="store_true", help="seeds above 0 take the steps of seed 0")
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    lines = options.out.read_text(encoding="utf-8").splitlines() if options.out.exists() else []
    rows = list(map(json.loads, lines))
    done = {tuple(row[name] for name in KEY) for row in rows}
    first = {(row["set"], row["method"]): row["checks"][-1]["step"] for row in rows if _is_first(row, options)}
    wanted = options.methods.split(",") if options.methods else ["untrained", *catalog.names("method")]
    for name, method, seed in runs(options, wanted):
        encoder = "vit" if method in DROPS else options.encoder
        key = (name, method, seed, options.minutes, encoder, options.batch_size)
        if key in done:
            continue
        steps = {each: first[name, each] for each in _runs_of(method) if seed and options.repeat}
        for _ in range(3):
            row = {**dict(zip(KEY, key, strict=True)), **measured(options, name, method, seed, steps)}
            near = method == "untrained" or steps or NEAR[0] <= row["seconds"] / 60 / options.minutes <= NEAR[1]
            out = options.out if near else options.out.with_stem(f"{options.out.stem}_discarded")
            with out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(row if near else f"discarded: {row}", flush=True)
            if near:
                break


def runs(options: argparse.Namespace, wanted: list[str]) -> Iterator[tuple[str, str, int]]:
    """(set, method, seed) of each row: a whole table with one seed first."""
    seeds = {name: min(SETS[name][3], options.seeds or 99) for name in options.sets.split(",")}
    for seed in range(max(seeds.values())):
        for name in seeds:
            for method in wanted:
                if seed < seeds[name] and method not in NOT_FOR_PICTURES and (name, method) not in NO_COLOUR:
                    yield name, method, seed


def measured(options: argparse.Namespace, name: str, method: str, seed: int, steps: dict[str, int]) -> dict:
    """One training, of ``steps`` or of ``--minutes``, and its probes, each in a process of its own."""
    train, test, labels, _ = SETS[name]
    train, test = str(options.data / train), str(options.data / test)
    with tempfile.TemporaryDirectory() as folder:
        run, more = f"{folder}/run", ["--labels", labels]  # supcon learns from them, else they watch: ``checks``
        if method in TEACHERS:
            teacher = f"{folder}/teacher"
            pretrain(options, train, teacher, TEACHERS[method], seed, more + _taking(steps.get(TEACHERS[method])))
            more += ["--teacher", teacher]
        if method == "untrained":
            facts = pretrain(options, train, run, "simclr", seed, ["--steps", "1", "--lr", "1e-12", *more])
        else:
            facts = pretrain(options, train, run, method, seed, more + _taking(steps.get(method)))
        if steps:
            facts = {each: value for each, value in facts.items() if each not in OF_TIME} | {"repeats": steps[method]}
        command = [sys.executable, str(HERE / "probe_run.py"), run, train, test, labels]
        found = json.loads(call(command).splitlines()[-1])
        if options.keep:
            shutil.rmtree(Path(run) / "checkpoints")
            kept = options.keep / "-".join([name, method, str(seed), *_more(options)])
            shutil.rmtree(kept, ignore_errors=True)  # of a run that was discarded: moving would go into it
            shutil.move(run, kept)
        return {**facts, **found}


def _is_first(row: dict, options: argparse.Namespace) -> bool:
    """Whether this is the row that further seeds repeat: of seed 0 and of the same kind."""
    same = row["minutes"] == options.minutes and row["batch_size"] == options.batch_size
    return same and row["seed"] == 0 and row["encoder"] == ("vit" if row["method"] in DROPS else options.encoder)


def _runs_of(method: str) -> list[str]:
    return [method, TEACHERS[method]] if method in TEACHERS else [method]


def _taking(steps: int | None) -> list[str]:
    return ["--steps", str(steps)] if steps else []


def _more(options: argparse.Namespace) -> list[str]:
    """What is not usual about these runs, for their names."""
    usual = {"minutes": 1.5, "encoder": "small", "batch_size": 0}
    return [f"{name}_{getattr(options, name)}" for name, value in usual.items() if getattr(options, name) != value]


def pretrain(options: argparse.Namespace, train: str, run: str, method: str, seed: int, more: list[str]) -> dict:
    command = [sys.executable, "-m", "selftaught", "pretrain", train, "--out", run, "--method", method, "--quiet"]
    command += ["--seed", str(seed), "--modality.size", "48", "--modality.whole_size", "64", *more]
    command += [] if "--steps" in more else ["--minutes", str(options.minutes)]
    command += ENCODERS["vit" if method in DROPS else options.encoder]
    command += ["--batch-size", str(options.batch_size)] if options.batch_size else []
    peak, began = [0], time.perf_counter()
    process = psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    watcher = threading.Thread(target=_watch, args=(process, peak), daemon=True)
    watcher.start()
    _, complaint = process.communicate()
    if process.returncode:
        sys.exit(f"{' '.join(command)}\n{complaint[-3000:]}")
    facts = {"seconds": round(time.perf_counter() - began, 1), "memory_mb": round(peak[0] / 1e6)}
    opened = st.Run.open(run)
    last, health = opened.metrics[-1], opened.health
    facts |= {"images_per_second": round(last["samples"] / max(last["seconds"], 1e-9)), "epoch": round(last["epoch"])}
    measures, verdict = health["measures"][-1], health["verdicts"][-1]
    facts |= {name: round(measures[name], 3) for name in ("rankme", "alpha_req", "lidar", "alignment", "uniformity")}
    facts |= {"dim": measures["dim"], "verdict": verdict["name"]}
    watched = ("step", "rankme", "alpha_req", "lidar", "alignment", "uniformity", "knn")
    facts["checks"] = [{name: round(check[name], 4) for name in watched} for check in health["measures"]]
    return facts


def call(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr[-3000:]}")
    return done.stdout


def _watch(process: psutil.Popen, peak: list[int]) -> None:
    """The highest proportional memory of the process and its workers."""
    while process.poll() is None:
        try:
            tree = [process, *process.children(recursive=True)]
            peak[0] = max(peak[0], sum(each.memory_full_info().pss for each in tree))
        except psutil.Error:
            pass
        time.sleep(2)


if __name__ == "__main__":
    main()
