"""A run folder made from real data, without torch: scikit-learn's digits, an autoencoder learned without labels, and
logistic regressions on its hidden layer, on raw pixels and on an untrained one. Every figure in it was measured.
"""

from __future__ import annotations

import csv
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier, MLPRegressor

BUDGETS = {"1/class": 1, "5/class": 5, "10/class": 10, "all": 0}
HIDDEN, EPOCHS, SEEDS, TEST = 48, 25, 3, 360


def make_run(folder: Path) -> Path:
    """Everything a finished run holds that the report reads. Takes about three seconds."""
    for part in ("pictures", "tables", "encoder"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    digits = load_digits()
    pixels, labels = digits.data / 16.0, digits.target
    encoder, untrained = _pretrain(folder, pixels)
    features = {"pretrained": _hidden(encoder, pixels), "random": _hidden(untrained, pixels), "raw": pixels}
    _evaluate(folder, features, labels)
    _pictures(folder, digits.images)
    _tables(folder, features["pretrained"], labels, digits.images)
    _write_facts(folder, len(pixels))
    return folder


def _pretrain(folder: Path, pixels: np.ndarray) -> tuple[MLPRegressor, MLPRegressor]:
    model = MLPRegressor(hidden_layer_sizes=(HIDDEN,), random_state=0, batch_size=128, learning_rate_init=2e-3)
    model.partial_fit(pixels[:128], pixels[:128])
    untrained = MLPRegressor(hidden_layer_sizes=(HIDDEN,), random_state=1, batch_size=128).partial_fit(pixels[:128], pixels[:128])
    rows, measures = [], []
    for epoch in range(EPOCHS):
        for part in range(len(pixels) // 128):
            batch = pixels[part * 128 : (part + 1) * 128]
            model.partial_fit(batch, batch)
            step = len(rows) + 1
            row = {"step": step, "epoch": epoch, "seconds": 0.02 * step, "samples": 128 * step, "loss": model.loss_}
            rows.append({**row, "lr": 2e-3, "samples_per_second": 6400.0, "data_wait": 0.04})
        measures.append({"step": len(rows), "seconds": 0.02 * len(rows), "dim": HIDDEN, **_health(_hidden(model, pixels[-TEST:]))})
        rows[-1] |= {name: measures[-1][name] for name in ("rankme", "uniformity")}
    names = list(dict.fromkeys(name for row in rows for name in row))
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
    rank = f"Healthy: effective rank {measures[-1]['rankme']:.0f} of {HIDDEN}, and no dimension is dead."
    verdicts = [{"step": len(rows), "level": "ok", "name": "healthy", "sentence": rank}]
    _json(folder / "health.json", {"measures": measures, "verdicts": verdicts, "samples": TEST, "held_out": True})
    return model, untrained


def _hidden(model: MLPRegressor, pixels: np.ndarray) -> np.ndarray:
    return np.maximum(pixels @ model.coefs_[0] + model.intercepts_[0], 0.0)


def _health(features: np.ndarray) -> dict[str, float]:
    share = np.linalg.svd(features, compute_uv=False)
    share = share / share.sum() + 1e-7
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-9)
    distance = np.square(unit[:, None] - unit[None]).sum(-1)[np.triu_indices(len(unit), 1)]
    return {
        "rankme": float(np.exp(-(share * np.log(share)).sum())),
        "uniformity": float(np.log(np.exp(-2 * distance).mean())),
        "spread_min": float(features.std(0).min()),
        "dead_share": float((features.std(0) < 1e-6).mean()),
    }


def _evaluate(folder: Path, features: dict[str, np.ndarray], labels: np.ndarray) -> None:
    rows = list(_rows(features, labels))
    keys = dict.fromkeys((row["protocol"], row["budget"], row["features"]) for row in rows)
    values = {key: np.array([row["value"] for row in rows if (row["protocol"], row["budget"], row["features"]) == key]) for key in keys}
    common = {"data": "digits", "task": "classify", "metric": "accuracy"}
    summary, gains = [], []
    for (protocol, budget, name), value in values.items():
        mean, low, high = _interval(value)
        row = {"protocol": protocol, "budget": budget, "features": name, "mean": mean, "low": low, "high": high, "n": SEEDS}
        summary.append({**common, **row})
        against = values[("linear", budget, "pretrained")]
        if name != "pretrained":
            gain, low, high = _interval(against - value)
            gains.append({"protocol": "linear", "metric": "accuracy", "budget": budget, "against": name, "gain": gain, "low": low, "high": high, "n": SEEDS})
    ten = next(one for one in gains if one["budget"] == "10/class" and one["against"] == "scratch")
    sentence = f"With 10 labels per class pre-training is worth {100 * ten['gain']:+.1f} points (95 % CI {100 * ten['low']:.1f} to {100 * ten['high']:.1f}) over training from scratch."
    _json(folder / "evaluation.json", {"rows": rows, "summary": summary, "gains": gains, "sentence": sentence, "notes": []})


def _interval(value: np.ndarray) -> tuple[float, float, float]:
    half = 4.303 * value.std(ddof=1) / np.sqrt(len(value))  # Student's t, 2 degrees of freedom
    return float(value.mean()), float(value.mean() - half), float(value.mean() + half)


def _rows(features: dict[str, np.ndarray], labels: np.ndarray) -> Iterator[dict[str, Any]]:
    train, test = np.arange(len(labels) - TEST), np.arange(len(labels) - TEST, len(labels))
    for budget, count in BUDGETS.items():
        for seed in range(SEEDS):
            order = np.random.default_rng(seed).permutation(train)
            chosen = np.concatenate([order[labels[order] == one][: count or None] for one in range(10)])
            row = {"data": "digits", "task": "classify", "layer": "pooled", "budget": budget, "split": 0, "seed": seed, "metric": "accuracy"}
            row |= {"n_train": len(chosen), "n_test": TEST, "seen": False}
            for name, values in features.items():
                fitted = LogisticRegression(max_iter=300).fit(values[chosen], labels[chosen])
                yield {**row, "protocol": "linear", "features": name, "value": fitted.score(values[test], labels[test])}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                scratch = MLPClassifier(hidden_layer_sizes=(HIDDEN,), max_iter=60, random_state=seed).fit(features["raw"][chosen], labels[chosen])
            yield {**row, "protocol": "finetune", "features": "scratch", "value": scratch.score(features["raw"][test], labels[test])}


def _pictures(folder: Path, images: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    tiles = [_big(one, 64) for one in images[:48]]
    (folder / "pictures/samples.png").write_bytes(_grid(tiles, 8))
    views = [_view(one, rng) for one in tiles[:12] for _ in range(4)]
    (folder / "pictures/views.png").write_bytes(_grid(views, 8))


def _view(tile: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    y, x = rng.integers(0, 20, 2)
    cut = cv2.resize(np.ascontiguousarray(tile[y : y + 44, x : x + 44]), (64, 64))
    return cv2.GaussianBlur(cut, (0, 0), float(rng.uniform(0.3, 2.0)))


def _big(image: np.ndarray, size: int) -> np.ndarray:
    return cv2.resize((image * 15.9).astype(np.uint8), (size, size), interpolation=cv2.INTER_CUBIC)


def _grid(tiles: list[np.ndarray], columns: int) -> bytes:
    padded = [np.pad(one, 3, constant_values=255) for one in tiles]
    return _png(np.vstack([np.hstack(padded[i : i + columns]) for i in range(0, len(padded), columns)]))


def _png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


def _tables(folder: Path, features: np.ndarray, labels: np.ndarray, images: np.ndarray) -> None:
    count, ids = len(labels), np.arange(len(labels))
    fitted = LogisticRegression(max_iter=300).fit(features[:200], labels[:200])
    chance = fitted.predict_proba(features[-TEST:])
    guessed, test = chance.argmax(1), ids[-TEST:]
    predictions = {
        "id": test, "path": [f"digits.npz#{i}" for i in test], "true": labels[-TEST:].astype(str), "predicted": guessed.astype(str),
        "confidence": chance.max(1), "protocol": ["linear"] * TEST, "budget": ["all"] * TEST, "seed": [0] * TEST,
    }  # fmt: skip
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    queries = ids[:: count // 20]
    alike = unit[queries] @ unit.T
    alike[np.arange(len(queries)), queries] = -1
    nearest = np.argsort(-alike, axis=1)[:, :8]
    neighbours = {
        "query": np.repeat(queries, 8), "rank": np.tile(np.arange(1, 9), len(queries)), "neighbour": nearest.ravel(),
        "similarity": np.take_along_axis(alike, nearest, 1).ravel(),
    }  # fmt: skip
    place = PCA(2, random_state=0).fit_transform(features)
    write_table(folder, "predictions", predictions)
    write_table(folder, "neighbours", neighbours)
    write_table(folder, "map", {"id": ids, "x": place[:, 0], "y": place[:, 1], "label": labels.astype(str)})
    write_table(folder, "thumbnails", {"id": ids, "png": [_png(_big(one, 48)) for one in images]})


def write_table(folder: Path, name: str, columns: dict[str, Any]) -> None:
    (folder / "tables").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), folder / "tables" / f"{name}.parquet")


def _write_facts(folder: Path, count: int) -> None:
    config = {"schema": 1, "data": "digits.npz", "modality": "image", "method": "autoencoder", "encoder": "mlp", "epochs": EPOCHS, "samples": count}
    (folder / "run.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    made = "selftaught pretrain digits.npz --out runs/digits --method autoencoder --encoder mlp --epochs 25"
    _json(folder / "environment.json", {"command": made, "versions": {"numpy": np.__version__}, "threads": 2})
    (folder / "quarantine.csv").write_text("path,reason\nscan_017.png,the file is empty\n\"odd, name.jpg\",not a picture\n")


def _json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value))
