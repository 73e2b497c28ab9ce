"""kNN, linear probe and fine-tuning of one run's encoder, on a given split: one JSON line.

    python benchmarks/probe_run.py RUN TRAIN TEST LABELS

kNN (k = 20) and the linear probe use all labels, fine-tuning 10 labels per class, drawn once: what ``selftaught
evaluate`` does with its defaults, without its controls and tables.
"""

from __future__ import annotations

import json
import sys

from selftaught.commands.measuring import Measuring
from selftaught.commands.run import Run
from selftaught.downstream.evaluate import evaluate

NAMES = {"knn": "knn", "linear": "linear", "finetune": "finetune_10"}  # protocol -> in the row


def main() -> None:
    run, train, test, labels = sys.argv[1:]
    asked = Measuring(Run.open(run), train, test=test, labels=labels, workers=None, accept_unreadable=False)
    given = {"classes": asked.labels.classes, "split": asked.labels.split, "seeds": 1, "metrics": ("accuracy",)}
    vectors = {"pretrained": asked.embed(asked.model.encoder)}
    tuning = asked.trainers(("finetune",), (), epochs=30, least=200)
    with_all = evaluate(vectors, asked.labels.values, protocols=("knn", "linear"), budgets=("all",), **given)
    with_ten = evaluate(
        {}, asked.labels.values, trainers=tuning, protocols=("finetune",), budgets=("10/class",), **given
    )
    summary = [*with_all.summary, *with_ten.summary]
    print(json.dumps({NAMES[row["protocol"]]: round(row["mean"], 4) for row in summary}))


if __name__ == "__main__":
    main()
