"""Equal wall-clock against lightly: the same minutes of pre-training on the same pictures, then the same probes.

    python benchmarks/equal_time.py TRAIN TEST --peer-python /path/to/python-with-lightly [--minutes 10] [--seeds 3]

TRAIN and TEST are folders with one sub-folder per class; labels are used by the probes alone. Three arms,
alternating: lightly's SimCLR loop with ResNet-18 at 64 pixels, ours with the same network and size, and ours with
everything left to ``auto``. kNN (k = 20, temperature 0.07) and a linear probe on all labels, by the same code for all
arms. One row per arm and seed is appended to --out, so that the run can be stopped and gone on with; the table at the
end reads that file.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent


def call(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr[-3000:]}")
    return done.stdout


def lightly(options: argparse.Namespace, folder: str, seed: int) -> dict:
    weights = f"{folder}/lightly.pt"
    command = [options.peer_python, str(HERE / "lightly_simclr.py"), options.train, "--size", "64"]
    command += ["--seconds", str(options.minutes * 60), "--seed", str(seed), "--save", weights]
    facts = json.loads(call(command).strip().splitlines()[-1])
    return {"images_per_second": facts["images_per_second"], **scores(options, weights)}


def ours(options: argparse.Namespace, folder: str, seed: int, *extra: str) -> dict:
    run = f"{folder}/run"
    command = [sys.executable, "-m", "selftaught", "pretrain", options.train, "--out", run, "--quiet"]
    call([*command, "--minutes", str(options.minutes), "--seed", str(seed), *extra])
    found = scores(options, run)
    if options.controls and not extra:
        found["controls"] = controls(options, run)
    return found


def controls(options: argparse.Namespace, run: str) -> list[dict]:
    """Accuracy with 10 labels per class, three draws of the labels: pre-trained, raw pixels, untrained, scratch."""
    command = [sys.executable, "-m", "selftaught", "evaluate", run, options.train, "--test", options.test]
    command += ["--labels", "folders", "--budgets", "10/class", "--protocols", "knn,linear,finetune", "--json"]
    found = json.loads(call([*command]))
    wanted = ("protocol", "features", "mean", "low", "high")
    return [{name: row[name] for name in wanted} for row in found["summary"] if row["metric"] == "accuracy"]


def scores(options: argparse.Namespace, trained: str) -> dict:
    """In a process of its own, so that no arm inherits another's memory or threads."""
    command = [sys.executable, str(HERE / "probe_folder.py"), trained, options.train, options.test]
    return json.loads(call(command).strip().splitlines()[-1])


ARMS = {
    "lightly resnet18": lightly,
    "selftaught resnet18": lambda options, folder, seed: ours(
        options, folder, seed, "--encoder", "resnet18", "--encoder.stem", "standard", "--modality.size", "64",
        "--batch-size", "64",
    ),
    "selftaught auto": ours,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train")
    parser.add_argument("test")
    parser.add_argument("--peer-python", required=True)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--controls", action="store_true", help="also our own controls at 10 labels per class (auto)")
    parser.add_argument("--out", required=True, help="a .jsonl file; rows that it holds are not measured again")
    options = parser.parse_args()
    out = Path(options.out)
    rows = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    done = {(row["train"], row["arm"], row["seed"], row["minutes"]) for row in rows}
    for seed in range(options.seeds):
        for arm in options.arms.split(","):
            if (options.train, arm, seed, options.minutes) in done:
                continue
            with tempfile.TemporaryDirectory() as folder:
                found = ARMS[arm](options, folder, seed)
            row = {"train": options.train, "arm": arm, "seed": seed, "minutes": options.minutes, **found}
            rows.append(row)
            with out.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(row, flush=True)
    for arm in ARMS:
        mine = [
            row for row in rows if (row["arm"], row["train"], row["minutes"]) == (arm, options.train, options.minutes)
        ]
        for measure in ("knn", "linear"):
            values = [row[measure] for row in mine]
            if values:
                spread = f"{min(values):.3f} to {max(values):.3f}"
                print(f"{arm:20} {measure:7} {statistics.mean(values):.3f} ({spread}, {len(values)} seeds)")


if __name__ == "__main__":
    main()
