"""What is a pre-training worth with 10, 50 or 100 labels? Against training from scratch, on medical pictures.

    python benchmarks/few_labels.py SHARED_DATA [--cells OUT] [--epochs 10] [--methods simclr,rotation,…] [--seeds 3]

pneumoniamnist (chest X-rays, 28 pixels; AUROC matters, for three in four are ill), and with ``--cells OUT`` crops of
blood cells in three classes, made by ``examples/crops_from_boxes.py``. Each method learns from the training part
without labels, with three seeds; then ``selftaught evaluate`` with so many labels in all, drawn three times, on the
test part: linear probe and fine-tuning, each against the same encoder untrained (linear) and trained from scratch
(fine-tuning) on the same labels. One line a run is appended to ``benchmarks/results/few_labels.jsonl``; lines that are
there are not measured again, and ``make docs`` makes a table of docs/benchmarks.md of them. The settings are the tool's
own and were not chosen on these labels. Epochs, not minutes: the same result on any machine, whatever runs beside.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import mean

RESULTS = Path(__file__).parent / "results" / "few_labels.jsonl"
METHODS = ("simclr", "rotation", "vae")
BUDGETS = ("10", "50", "100")
METRICS = ("auroc", "accuracy")
ENCODER = ("--encoder", "small", "--encoder.width", "32")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder that holds the sets")
    parser.add_argument("--cells", type=Path)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    lines = options.out.read_text(encoding="utf-8").splitlines() if options.out.exists() else []
    done = {(row["set"], row["method"], row["seed"], row["epochs"]) for row in map(json.loads, lines)}
    for seed in range(options.seeds):
        for name, (train, test, labels, size) in sets(options).items():
            for method in options.methods.split(","):
                if (name, method, seed, options.epochs) in done:
                    continue
                facts = {"set": name, "method": method, "seed": seed, "epochs": options.epochs}
                facts["scores"] = measured(method, seed, options.epochs, train, test, labels, size)
                with options.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(facts) + "\n")
                print(facts, flush=True)


def sets(options: argparse.Namespace) -> dict[str, tuple[str, str, str, int]]:
    """Name -> (training part, test part, labels, pixels of a view)."""
    digits = f"{options.data / 'pneumoniamnist' / 'pneumoniamnist.npz'}::"
    found = {"pneumoniamnist": (f"{digits}train_images", f"{digits}test_images", "y", 28)}
    if options.cells:
        found["bccd"] = (str(options.cells / "train"), str(options.cells / "test"), "folders", 48)
    return found


def measured(method: str, seed: int, epochs: int, train: str, test: str, labels: str, size: int) -> list[dict]:
    """[{protocol, features, budget, metric, value}], the mean over three draws of the labels."""
    with tempfile.TemporaryDirectory() as folder:
        run = f"{folder}/run"
        view = ["--modality.size", str(size), "--seed", str(seed), "--epochs", str(epochs)]
        call("pretrain", train, "--out", run, "--method", method, *ENCODER, *view, "--quiet")
        asked = ["--labels", labels, "--test", test, "--protocols", "linear,finetune", "--controls", "random,scratch"]
        told = call("evaluate", run, train, *asked, "--budgets", ",".join(BUDGETS), "--json", "--quiet")
    values = defaultdict(list)
    for row in json.loads(told)["rows"]:
        if row["metric"] in METRICS:
            values[row["protocol"], row["features"], row["budget"], row["metric"]].append(row["value"])
    names = ("protocol", "features", "budget", "metric")
    return [{**dict(zip(names, key, strict=True)), "value": round(mean(each), 4)} for key, each in values.items()]


def call(*words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "selftaught", *words], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(words)}\n{done.stderr[-3000:]}")
    return done.stdout


if __name__ == "__main__":
    main()
