"""kNN, linear probe and fine-tuning of one run's encoder, on a given split: one JSON line.

    python benchmarks/probe_run.py RUN TRAIN TEST LABELS

kNN (k = 20) and the linear probe use all labels, fine-tuning 10 labels per class, drawn once.
"""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np

import selftaught as st
from selftaught.commands.samples import read_again
from selftaught.data.labels import read_labels
from selftaught.downstream.neighbors import knn_predict
from selftaught.downstream.probe import linear_probe


def main() -> None:
    run, train, test, labels = sys.argv[1:]
    model = st.load(run)
    features, targets, classes = [], [], set()
    for data in (train, test):
        samples = read_again(data, model.modality)
        found = read_labels(samples.index, labels, samples.source)
        features.append(model.embed_index(samples.index))
        targets.append(np.asarray(found.values))
        classes.add(tuple(found.classes))
    assert len(classes) == 1, "train and test have other classes"
    count = len(classes.pop())
    (x, ask), (y, truth) = features, targets
    found = {
        "knn": (knn_predict(x, y, ask, classes=count).argmax(1) == truth).mean(),
        "linear": (linear_probe(x, y, ask, classes=count).argmax(1) == truth).mean(),
    }
    command = [sys.executable, "-m", "selftaught", "evaluate", run, train, "--test", test, "--labels", labels, "--json"]
    command += ["--budgets", "10/class", "--protocols", "finetune", "--controls", "raw", "--seeds", "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    rows = json.loads(done.stdout)["summary"]
    tuned = [row["mean"] for row in rows if (row["metric"], row["features"]) == ("accuracy", "pretrained")]
    print(json.dumps({**{name: round(float(value), 4) for name, value in found.items()}, "finetune_10": tuned[0]}))


if __name__ == "__main__":
    main()
