"""Writes docs/benchmarks.md from the rows in benchmarks/results: ``make docs``, ``make bench-methods``."""

from __future__ import annotations

import json
import statistics
import sys
from collections import defaultdict
from pathlib import Path

from selftaught import catalog

sys.path[:0] = [str(Path(__file__).parents[1] / "benchmarks"), str(Path(__file__).parent)]
import benchmark_tables  # noqa: E402  scripts beside this one and the benchmarks, no package
import label_free  # noqa: E402
from methods import DROPS  # noqa: E402

PAGE = Path(__file__).with_name("benchmarks.md")
ROWS = Path(__file__).parents[1] / "benchmarks" / "results" / "methods.jsonl"
MINUTES = 1.5  # of the plain tables
HEAD = """# Every method at equal wall-clock

Made by `make bench-methods` (hours, in the background; it goes on where it stopped). Each run has {minutes:g} minutes
of wall-clock on two cores, start-up included (planned in steps before the first one; the last column is what it took),
with the small convnet at 48 pixels (`msn`, `mae` and others that drop tokens: a small vision transformer, so they
compare with the untrained one of that kind, further down) and each method's own defaults. Nothing here was tuned on
these sets, but `simsiam`'s predictor and `deep_infomax`'s second view, which were chosen on scenes100's training part,
and `byol`'s last batch norm, chosen on clothing112's training part and checked on scenes100's after its row on
clothing112's test part had looked bad. kNN and linear use all labels of the training part, fine-tuning 10 labels per
class, drawn once; accuracy on the test part in per cent. `supcon` learns from the training labels; `distill` from a
`simclr` run of the same time, which is extra. Ordered by kNN.

So short a time favours methods that see each picture often, and those with small views or teachers see it less. A
method that stands low here after {minutes:g} minutes is slow to start, not refuted. A small vision transformer, which
`msn` has, sees the data two or three times in that time.

**One row is not much.** The same 27 methods were measured twice on scenes100, same seed: half of them moved by more
than 1.5 points of kNN, `swav` by 7.2 (124 steps, then 190), `vicreg` by 6.2, `mmcr` by 5.3. Neighbours in the table are
not apart, and 600 test pictures add a standard error of 2 points (`dinov2`'s linear accuracy is no clear gain over the
untrained encoder). Rows that took 42, 60 and 118 seconds were measured again, those of 74 to 112 were not; since then
a row outside of 68 to 117 seconds is, by a rule fixed before (`benchmarks/results/methods_discarded.jsonl`).
"""
NOTES = {  # what stands under the untrained encoder, and why
    "scenes100": """
Every method on the convnet stands above the untrained one in kNN with each seed (`swav` by 1.5 points at least, all
others by 2.7 or more). In linear accuracy `dinov2`, after three epochs, is level with it (60.4, 60.2), and in
fine-tuning `cpc` is (55.6, 55.6). `msn` is level with the untrained encoder of its own, the transformer (46.6 / 61.4 /
48.1), after two epochs; after five minutes, nine epochs, one seed: 51.0 / 64.2 / 51.5. Four of the 600 test pictures
show what training pictures show (`selftaught inspect`): up to .7 points, for all rows alike.

Methods that predict the missing part have one seed so far. On the convnet, `diffusion` is under the untrained one in
kNN alone, and `split_brain` and `bigan` are within a point of it in linear accuracy alone. On the transformer, after
five to eight epochs, `i_jepa` is under the untrained one (health: "rank falling"), `capi` level with it, and
`next_embedding` under in kNN and above in linear accuracy by less than two points. All others are above in both.
""",
    "clothing112": """
Under or near the untrained encoder: `swav` and `dino`, whose small views leave time for some 130 steps. Without them
(`--method.small 0`, on the training part by cross-validation, kNN / linear, untrained 37.1 / 42.0): `swav` 41.7 / 51.8
instead of 37.3 / 42.6, `dino` 39.8 / 47.8 instead of 36.9 / 44.5. `deep_infomax`, `byol`, `ibot`, `smog`,
`deepcluster_v2` and `ressl` are within one standard error (2.3 points) of its kNN and above its linear accuracy;
`dinov2`, five epochs, is above the one and level with the other. `msn` is level with the untrained encoder of its own,
the transformer (22.0 / 22.6).

Of the methods that predict the missing part, `diffusion` is under (17.5 / 29.0). Its kNN among pictures of the training
part rises as it learns, .27 to .34, and does not carry over to the test part. More noise (levels to the power of one
half: .27) and the paper's own, the same view for both (.26), were worse at that. `data2vec` and `split_brain` are under
in linear accuracy alone, and `image_gpt` in kNN alone; `mae`, `i_jepa`, `capi` and `next_embedding` are level with the
untrained transformer in kNN and above it in linear accuracy (by 3.2 to 7.3) and fine-tuning (by 4.3 to 9.1).
""",
    "mnist10k": """
Under the untrained encoder: `msn`, which in that time sees less than one pass of the data (47 steps) on its transformer
(untrained 48.4 / 88.9, fine-tuned 18.2) and is named as collapsing by health; after five minutes, 205 steps, it is
healthy, 52.0 / 79.4 / 24.8, above in all but linear accuracy. `dinov2` in linear accuracy alone, after one pass.

Of the methods that predict the missing part, those on the transformer see one or two passes as well: `mae`, `i_jepa`,
`capi`, `image_gpt` and `next_embedding` are under the untrained one in linear accuracy, `aim` too but above in kNN (by
8.3); fine-tuned, all are above it. `diffusion` is level with the untrained convnet, `simmim` in kNN alone.
`colourisation` and `split_brain` need colours. "Views apart" was said of methods that never compare views, which is
corrected since.
""",
}
TABLE = """
## {name}: {seeds} seed{s}

| method | kNN | linear | 10 labels, fine-tuned | effective rank | images/s | memory | epochs | seconds |
|---|---|---|---|---|---|---|---|---|
"""

CHOOSING = """
## Choosing without labels

Which measure ranks these runs as their linear accuracy does (Spearman, within a set, runs of supervised methods left
out), and what choosing the moment within a run by it would have brought against taking the end (kNN of held-out
samples, points; the best moment there was: {best:+.1f}). `python benchmarks/label_free.py` says the same.

| measure | Spearman over {runs} runs | by its best moment |
|---|---|---|
"""
LAST_IS_BEST = """
No measure chooses a better moment than the end, so a run gives the encoder of its last step. RankMe, which falls where
features collapse, decides where it can do no harm: a run that ends in an alarm, and with less than half of its highest
RankMe, gives the encoder of that highest moment, and says so. Of the runs above the largest fall was to {kept:.0f} % of
the highest.
"""


def page() -> str:
    rows = _lines(ROWS.stem)
    tables: dict[str, dict[str, list[dict]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        for place in _places(row):
            tables[place][row["method"]].append(row)
    text = HEAD.format(minutes=MINUTES)
    for name in sorted(tables, key=lambda name: (", " in name, list(tables).index(name))):  # the plain ones first
        methods = tables[name]
        seeds = max(len(found) for found in methods.values())
        text += TABLE.format(name=name, seeds=seeds, s="" if seeds == 1 else "s")
        ordered = sorted(methods.items(), key=lambda item: -_mean(item[1], "knn"))
        text += "".join(_line(method, found) for method, found in ordered)
        text += NOTES.get(name, "")
        missing = [] if ", " in name else sorted(set(catalog.names("method")) - methods.keys() - {"time_contrast"})
        text += f"\nNot measured yet: {', '.join(f'`{each}`' for each in missing)}.\n" if missing else ""
    more = benchmark_tables.few_labels(_lines("few_labels")) + benchmark_tables.outliers(_lines("outliers"))
    return text + more + _choosing(rows)


def _lines(name: str) -> list[dict]:
    path = ROWS.with_name(f"{name}.jsonl")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def _places(row: dict) -> list[str]:
    """The tables that a row belongs to: the plain one of its set, or what is unusual about it."""
    small, usual = row["encoder"] == "small", row["minutes"] == MINUTES
    unusual = [f"batches of {row['batch_size']}"] if row["batch_size"] else []
    unusual += [] if small else ["a small vision transformer"]
    unusual += [] if usual else [f"{row['minutes']:g} minutes"]
    found = [", ".join([row["set"], *unusual])]
    if row["method"] in DROPS and usual:
        found.append(row["set"])  # it stands among the others, on the encoder that it needs
    return found


def _choosing(rows: list[dict]) -> str:
    """The table of measures without labels, once a set has runs enough."""
    found, gains = label_free.correlations(rows), label_free.choices(rows)
    if not found or not gains:
        return ""
    runs = next(iter(found.values()))[1]
    lines = [f"| {name} | {rho:.2f} | {100 * gains[name]:+.1f} |\n" for name, (rho, _) in found.items()]
    end = LAST_IS_BEST.format(kept=100 * label_free.left(rows)) if max(gains[name] for name in found) <= 0 else ""
    return CHOOSING.format(best=100 * gains["the best there was"], runs=runs) + "".join(lines) + end


def _line(method: str, rows: list[dict]) -> str:
    accuracy = (_percent(rows, name) for name in ("knn", "linear", "finetune_10"))
    rank = f"{_mean(rows, 'rankme'):.0f} of {rows[0]['dim']}"
    names = ("images_per_second", "memory_mb", "epoch", "seconds")
    speed, memory, epochs, seconds = (f"{_mean(rows, name):,.0f}" for name in names)
    shown = method if method == "untrained" else f"`{method}`"
    return f"| {shown} | {' | '.join(accuracy)} | {rank} | {speed} | {memory} MB | {epochs} | {seconds} |\n"


def _percent(rows: list[dict], name: str) -> str:
    values = [100 * row[name] for row in rows]
    spread = f" ({min(values):.1f} to {max(values):.1f})" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


def _mean(rows: list[dict], name: str) -> float:
    return statistics.mean(row[name] for row in rows if name in row)  # a repetition has no speed of its own


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
