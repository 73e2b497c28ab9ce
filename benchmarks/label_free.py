"""Which measure without labels ranks finished runs as linear accuracy does? Spearman over the rows of the table.

    python benchmarks/label_free.py [ROWS.jsonl]

Rows of one data set are compared with each other alone (accuracies of two sets say nothing about encoders), and the
correlations are averaged over sets, weighted by their rows. Untrained rows and those that saw labels are left out.
Second question: would choosing the moment within a run by the measure have been better than its end?
Sources: RankMe (Garrido et al. 2023), alpha-ReQ (Agrawal et al. 2022: best near 1), LiDAR (Thilak et al. 2024),
alignment and uniformity (Wang & Isola 2020).
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import rankdata, spearmanr

ROWS = Path(__file__).parent / "results" / "methods.jsonl"
LEFT_OUT = {"untrained", "supcon"}
Row = dict
MEASURES: dict[str, Callable[[Row], float]] = {  # higher = said to be better
    "RankMe": lambda row: row["rankme"],
    "alpha-ReQ, nearness to 1": lambda row: -abs(row["alpha_req"] - 1),
    "LiDAR": lambda row: row["lidar"],
    "alignment": lambda row: -row["alignment"],
    "uniformity": lambda row: -row["uniformity"],
}
TOGETHER = {
    "RankMe and LiDAR": ("RankMe", "LiDAR"),
    "RankMe, alpha-ReQ and LiDAR": ("RankMe", "alpha-ReQ, nearness to 1", "LiDAR"),
    "LiDAR and alignment": ("LiDAR", "alignment"),
}


def ranked(rows: Sequence[Row]) -> dict[str, np.ndarray]:
    """measure -> (N,) ranks of runs of one set; a combination is the mean of its measures' ranks."""
    ranks = {name: rankdata([value(row) for row in rows]) for name, value in MEASURES.items()}
    means = {name: np.mean([ranks[one] for one in several], axis=0) for name, several in TOGETHER.items()}
    return ranks | means


def correlations(rows: Sequence[Row], truth: str = "linear", *, least: int = 10) -> dict[str, tuple[float, int]]:
    """measure -> (Spearman's correlation with ``truth``, runs), best first; sets of fewer than ``least`` runs wait."""
    sets: dict[tuple, list[Row]] = defaultdict(list)
    for row in rows:
        if row["method"] not in LEFT_OUT:
            sets[row["set"], row["minutes"], row["encoder"]].append(row)
    found: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for mine in (each for each in sets.values() if len(each) >= least):
        for name, ranks in ranked(mine).items():
            rho = float(spearmanr(ranks, [row[truth] for row in mine])[0])  # type: ignore[arg-type]
            found[name].append((rho, len(mine)))
    total = {
        name: (sum(rho * count for rho, count in each) / sum(n for _, n in each), sum(n for _, n in each))
        for name, each in found.items()
    }
    return dict(sorted(total.items(), key=lambda item: -item[1][0]))


def choices(rows: Sequence[Row]) -> dict[str, float]:
    """measure -> kNN of held-out samples where it is best within a run, less that at the run's end; mean over runs.

    "the best there was" is how much the right choice would have gained. The start of a run takes no part.
    """
    gains: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        checks = row.get("checks", [])[1:]
        if row["method"] in LEFT_OUT or len(checks) < 3:
            continue
        knn = np.array([check["knn"] for check in checks])
        for name, ranks in (ranked(checks) | {"the best there was": knn}).items():
            gains[name].append(float(knn[int(np.argmax(ranks))] - knn[-1]))
    return {name: float(np.mean(each)) for name, each in gains.items()}


def left(rows: Sequence[Row], name: str = "rankme") -> float:
    """The smallest share that a run has at its end of its highest ``name``, from the first check after step 0 on."""
    runs = [[check[name] for check in row.get("checks", [])[1:]] for row in rows if row["method"] not in LEFT_OUT]
    return min((values[-1] / max(values) for values in runs if values), default=1.0)


def main() -> None:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    gains = choices(rows)
    for name, (rho, count) in correlations(rows).items():
        print(f"{name:28} Spearman {rho:6.2f} over {count} runs; choosing by it within a run {100 * gains[name]:+.1f}")
    print(f"{'the best there was':28} {100 * gains['the best there was']:+.1f} points of kNN")


if __name__ == "__main__":
    main()
