"""The tables of docs/benchmarks.md that are not of every method: few labels, and what is unlike the rest."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable

FEW_LABELS = """
## Few labels: against training from scratch

`python benchmarks/few_labels.py SHARED_DATA --cells CELLS`: {epochs} epochs without labels, small convnet, {seeds}
seed{s}; then 10, 50 or 100 labels in all, drawn three times, scored on the test part in per cent. Linear probe:
pre-trained / the same encoder untrained. Fine-tuning: pre-trained / trained from scratch on the same labels. In
brackets what the pre-training brings, least to most over the seeds. pneumoniamnist: chest X-rays, ill or not, three in
four are; bccd: crops of blood cells (`examples/crops_from_boxes.py`), three classes, seven in eight are red cells.

| data | method | protocol | metric | 10 labels | 50 labels | 100 labels |
|---|---|---|---|---|---|---|
"""
OUTLIERS = """
## What is unlike the rest

`python benchmarks/outliers.py SHARED_DATA --cells CELLS`: {epochs} epochs on what is usual, then the area under the ROC
curve (per cent; 50 = guessing) of each score over the test part. mnist10k: one digit is left out of the training and is
the outlier, mean over {folds} folds (least to most); bccd: platelets are left out. `energy`: how badly the method
explains a sample (`autoencoder`: its squared error; `vae`: its bound on the likelihood; `simclr`: its own loss). kNN,
Mahalanobis and forest (scikit-learn's IsolationForest): of the encoder's vectors, or of raw pixels, against the
training samples. What is simple is explained well though it was never seen: ones, and platelets.

"""
SCORES = {"energy": "energy", "knn": "kNN", "mahalanobis": "Mahalanobis", "forest": "forest"}
BUDGETS = ("10", "50", "100")
PROTOCOLS = {"linear": "linear", "finetune": "fine-tuning"}
METRICS = {"auroc": "AUROC", "accuracy": "accuracy"}


def few_labels(rows: list[dict]) -> str:
    """Of ``benchmarks/results/few_labels.jsonl``; "" where there is nothing."""
    if not rows:
        return ""
    found: dict[tuple, dict[str, dict[int, float]]] = defaultdict(lambda: {"with": {}, "without": {}})
    for row in rows:
        for score in row["scores"]:
            trained = "with" if score["features"] == "pretrained" else "without"
            key = (row["set"], row["method"], score["protocol"], score["metric"], str(score["budget"]))
            found[key][trained][row["seed"]] = 100 * score["value"]
    seeds = len({row["seed"] for row in rows})
    text = FEW_LABELS.format(epochs=rows[0]["epochs"], seeds=seeds, s="" if seeds == 1 else "s")
    for name, method, protocol, metric in dict.fromkeys(key[:4] for key in sorted(found, key=_order)):
        cells = [_gain(found[name, method, protocol, metric, budget]) for budget in BUDGETS]
        text += f"| {name} | `{method}` | {PROTOCOLS[protocol]} | {METRICS[metric]} | {' | '.join(cells)} |\n"
    return text


def _order(key: tuple) -> tuple:
    name, method, protocol, metric, _ = key
    return name, list(PROTOCOLS).index(protocol), list(METRICS).index(metric), method


def _gain(values: dict[str, dict[int, float]]) -> str:
    one, other = values["with"], values["without"]
    if not one or not other:
        return "–"
    gains = [one[seed] - other[seed] for seed in sorted(one.keys() & other.keys())]
    spread = f"{min(gains):+.1f} to {max(gains):+.1f}" if len(gains) > 1 else f"{gains[0]:+.1f}"
    return f"{statistics.mean(one.values()):.1f} / {statistics.mean(other.values()):.1f} ({spread})"


def outliers(rows: list[dict]) -> str:
    """Of ``benchmarks/results/outliers.jsonl``; "" where there is nothing."""
    if not rows:
        return ""
    folds = {row["fold"] for row in rows if row["set"] == "mnist10k"}
    text = OUTLIERS.format(epochs=rows[0]["epochs"], folds=len(folds))
    for name in dict.fromkeys(row["set"] for row in rows):
        methods = [m for m in dict.fromkeys(row["method"] for row in rows) if _of(rows, name, m)]
        heads = ["raw pixels" if method == "raw" else f"`{method}`" for method in methods]
        text += f"| {name} | {' | '.join(heads)} |\n|---|{'---|' * len(methods)}\n"
        for score, said in SCORES.items():
            cells = (_area(row[score] for row in _of(rows, name, method) if score in row) for method in methods)
            text += f"| {said} | {' | '.join(cells)} |\n"
        text += "\n"
    return text


def _of(rows: list[dict], name: str, method: str) -> list[dict]:
    return [row for row in rows if row["set"] == name and row["method"] == method]


def _area(values: Iterable[float]) -> str:
    found = [100 * value for value in values]
    if not found:
        return "–"
    spread = f" ({min(found):.0f} to {max(found):.0f})" if len(found) > 1 else ""
    return f"{statistics.mean(found):.1f}{spread}"
