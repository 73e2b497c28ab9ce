"""Which samples are unlike the rest? Scores of models that learned without the outliers, against a forest on pixels.

    python benchmarks/outliers.py SHARED_DATA [--epochs 5] [--methods raw,autoencoder,…] [--folds 10] [--cells OUT]

mnist10k: one digit is left out of the training and is the outlier among all digits of the test part, ten folds. With
``--cells OUT`` (made by ``examples/crops_from_boxes.py``): crops of blood cells, platelets left out. For every run the
area under the ROC curve of the scores of ``selftaught outliers``: ``energy`` (the method's own: how badly it explains a
sample), and on the encoder's vectors ``knn``, ``mahalanobis`` and ``forest``, with the training samples as what is
usual; and (``raw``), once a fold, of these three on raw pixels. One line a run is appended to
``benchmarks/results/outliers.jsonl``; lines that are there are not measured again. The settings are the same for all
folds and were not chosen on these labels. Epochs, not minutes: the same result on any machine, whatever runs beside.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from sklearn.metrics import roc_auc_score

import selftaught as st
from selftaught.downstream import outliers

RESULTS = Path(__file__).parent / "results" / "outliers.jsonl"
METHODS = ("raw", "autoencoder", "denoising", "vae", "diffusion", "simclr")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder that holds the sets")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--folds", type=int, default=10)
    parser.add_argument("--cells", type=Path)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    lines = options.out.read_text(encoding="utf-8").splitlines() if options.out.exists() else []
    done = {(row["set"], row["fold"], row["method"], row["epochs"]) for row in map(json.loads, lines)}
    for name, fold, train, test, outlier in folds(options):
        for method in options.methods.split(","):
            if (name, fold, method, options.epochs) not in done:
                scores = raw_scores(train, test) if method == "raw" else scores_of(method, train, test, options.epochs)
                found = {score: round(float(roc_auc_score(outlier, values)), 4) for score, values in scores.items()}
                row = {"set": name, "fold": fold, "method": method, "epochs": options.epochs, **found}
                with options.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
                print(row, flush=True)


def folds(options: argparse.Namespace) -> Any:
    """(set, fold, training pictures, test pictures, which of these are outliers)."""
    digits = np.load(options.data / "mnist10k" / "mnist10k.npz")
    train, of_train = digits["train_images"], digits["train_labels"].ravel()
    test, of_test = digits["test_images"], digits["test_labels"].ravel()
    for digit in range(options.folds):
        yield "mnist10k", str(digit), train[of_train != digit], test, of_test == digit
    if options.cells:
        pictures = {split: cells_of(options.cells / split) for split in ("train", "test")}
        (known, names), (asked, truth) = pictures["train"], pictures["test"]
        yield "bccd", "Platelets", known[names != "Platelets"], asked, truth == "Platelets"


def cells_of(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """(N, 32, 32, 3) uint8 RGB and (N,) names of classes."""
    import cv2

    paths = sorted(folder.glob("*/*.png"))
    read = [np.asarray(cv2.imread(str(path)))[..., ::-1] for path in paths]
    pictures = [cv2.resize(each, (32, 32), interpolation=cv2.INTER_AREA) for each in read]
    return np.stack(pictures), np.array([path.parent.name for path in paths])


def raw_scores(train: np.ndarray, test: np.ndarray) -> dict[str, np.ndarray]:
    """Of pixels, without any learning. Higher = less like the training samples, as all scores here."""
    flat, asked = (each.reshape(len(each), -1) / 255.0 for each in (train, test))
    scores = (outliers.forest, outliers.knn, outliers.mahalanobis)
    return {score.__name__: score(flat, asked) for score in scores}


def scores_of(method: str, train: np.ndarray, test: np.ndarray, epochs: int) -> dict[str, np.ndarray]:
    """One training, and three scores of the test samples."""
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/train.npy", train)
        np.save(f"{folder}/test.npy", test)
        command = [sys.executable, "-m", "selftaught", "pretrain", f"{folder}/train.npy", "--out", f"{folder}/run"]
        command += ["--method", method, "--encoder", "small", "--encoder.width", "32", "--epochs", str(epochs)]
        command += ["--modality", "image", "--views.flip", "0", "--quiet"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(command)}\n{done.stderr[-3000:]}")
        path = st.outliers(
            f"{folder}/run",
            f"{folder}/test.npy",
            usual=f"{folder}/train.npy",
            out=f"{folder}/scores.parquet",
            quiet=True,
        )
        table = pq.read_table(path)
        return {name: table[name].to_numpy() for name in table.column_names if name not in ("path", "part")}


if __name__ == "__main__":
    main()
