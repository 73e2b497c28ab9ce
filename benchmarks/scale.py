"""From ten thousand files to a million: what an index takes to make and to open again, and what workers keep of it.

    python benchmarks/scale.py [--files 10000,100000,1000000] [--folder EMPTY_FOLDER] [--chart docs/pictures/scale.png]

Hard links of a hundred pictures, a thousand a folder, in a file system that is warm: they have just been made. One
process a count. Wall-clock seconds of the first start (every file is opened) and of the next one; the most memory that
the starting process had; and of each of two workers, after 40 batches of 256 that touch rows all over the index: its
private memory, and its share of what processes have in common (PSS). Loading is without decoding and views, which cost
the same whatever the number of files. Lines go to ``benchmarks/results/scale.jsonl``, the chart is drawn of them.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from loader import loading, order_and_keys, scans, write_links

RESULTS = Path(__file__).parent / "results" / "scale.jsonl"
CHARTS = {  # name -> {column: how it is called}
    "seconds until the first batch can be read": {
        "first_start_s": "first start",
        "second_start_s": "every later start",
    },
    "memory of a worker, MB": {"worker_private_mb": "private", "worker_pss_mb": "with its share of what is common"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", default="10000,100000,1000000")
    parser.add_argument("--folder", type=Path, help="an empty folder to make the files in; default: a temporary one")
    parser.add_argument("--chart", type=Path, default=Path("docs/pictures/scale.png"))
    parser.add_argument("--one", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measured(options.one, options.folder)))
        return
    rows = []
    for count in options.files.split(","):
        folder = ["--folder", str(options.folder)] if options.folder else []
        command = [sys.executable, __file__, "--one", count, *folder]
        rows.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))
        print(rows[-1], flush=True)
    RESULTS.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    draw(rows, options.chart)


def measured(files: int, place: Path | None) -> dict[str, float]:
    with tempfile.TemporaryDirectory(dir=place) as folder:
        write_links(Path(folder) / "pictures", files)
        index, figures = scans(Path(folder) / "pictures", Path(folder) / "cache", clock=time.perf_counter)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        figures |= {"starting_peak_mb": peak} | order_and_keys() | loading(index)
        figures["index_mb"] = os.path.getsize(index.path) / 2**20
    return {"files": files} | {name: round(value, 3) for name, value in figures.items()}


def draw(rows: list[dict[str, float]], path: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(CHARTS), figsize=(10, 3.4), layout="constrained")
    files = [row["files"] for row in rows]
    for axis, (title, columns) in zip(axes, CHARTS.items(), strict=True):
        for (column, name), style in zip(columns.items(), ("o-", "s--"), strict=True):
            axis.plot(files, [row[column] for row in rows], style, label=name)
        axis.set(title=title, xlabel="files", xscale="log", ylim=(0, None))
        axis.grid(alpha=0.3)
        axis.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
