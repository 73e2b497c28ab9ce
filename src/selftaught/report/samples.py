"""Single samples: what is confused with what, whose neighbours are whose, where all lie, and the worst mistakes."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from typing import Any

from selftaught.report.maps import COLOURS, matrix, natural, scatter
from selftaught.report.markup import Html, join, number, picture, tag
from selftaught.report.read import Run, real
from selftaught.report.scores import _PROTOCOLS, budget_name
from selftaught.report.training import command, missing, section

_QUERIES, _NEIGHBOURS, _MISTAKES = 12, 8, 24  # how many are shown
_BYTES = 2_500_000  # of thumbnails in one section, so that the page can still be mailed
Row = dict[str, Any]


def confusion(run: Run) -> Html:
    """The matrix of one set of predictions, and the pairs confused most."""
    title, anchor = "What is confused with what", "confusion"
    found = _predictions(run)
    if found is None:
        return section(title, anchor, missing("No predictions yet. They are made by:", command(run, "evaluate")))
    rows, which = found
    counts = Counter((_word(row["true"]), _word(row["predicted"])) for row in rows)
    classes = sorted({name for pair in counts for name in pair}, key=natural)
    wrong = sum(value for (true, guessed), value in counts.items() if true != guessed)
    told = f"{number(wrong)} of {number(len(rows))} test samples are wrong ({100 * wrong / len(rows):.1f} %). {which}"
    figure = tag(
        "figure", matrix(counts, classes), tag("figcaption", "Rows are the true classes, columns the predicted ones.")
    )
    return section(title, anchor, tag("div", figure, _pairs(counts), class_="beside"), lead=told)


def neighbours(run: Run) -> Html:
    """Queries on the left, the samples that the encoder puts nearest on the right, marked where labels are known."""
    title, anchor = "Nearest neighbours", "neighbours"
    if "neighbours" not in run.tables:
        return section(title, anchor, missing("No neighbours yet. They are made by:", command(run, "evaluate")))
    near: dict[Any, list[Row]] = defaultdict(list)
    for row in run.tables["neighbours"].to_pylist():
        near[row["query"]].append(row)
    if not near:
        return section(title, anchor, tag("p", "The table of neighbours is empty.", class_="missing"))
    labels, pictures = _labels(run), _Thumbnails(run)
    queries = list(near)
    step = max(1, len(queries) // _QUERIES)
    shown = [_neighbour_row(one, near[one], labels, pictures) for one in queries[::step][:_QUERIES]]
    lead = (
        f"Left: a query; then the samples whose features lie nearest, chosen without labels. {_agreement(near, labels)}"
    )
    key = (
        "✓ and a solid frame: same label as the query. ✗ and a dashed frame: another one. No mark: a label is unknown."
    )
    return section(title, anchor, tag("div", *shown, class_="queries"), tag("p", key, class_="note"), lead=lead)


def map_(run: Run) -> Html:
    """All samples (of the table) in the plane."""
    title, anchor = "The map", "map"
    if "map" not in run.tables:
        return section(title, anchor, missing("No map yet. It is made by:", command(run, "evaluate")))
    known = run.tables["map"].to_pylist()
    labels = _labels(run)
    names = [labels.get(row["id"], "") for row in known]
    titles = [f"{name or 'no label'} · sample {row['id']}" for name, row in zip(names, known, strict=True)]
    drawn = scatter([real(row["x"]) for row in known], [real(row["y"]) for row in known], names, titles)
    if drawn is None:
        return section(title, anchor, tag("p", "The map holds no finite point.", class_="missing"))
    classes = len({name for name in names if name})
    again = f" There are {classes} classes and {COLOURS} colours, so colours repeat." if classes > COLOURS else ""
    caption = (
        "Labels colour the points; they did not place them. Distances between far groups, and the size of a group, "
        "mean little." + again
    )
    lead = f"{number(len(known))} samples; points that lie together have similar features. Hover for the label."
    return section(title, anchor, tag("figure", drawn, tag("figcaption", caption)), lead=lead)


def mistakes(run: Run) -> Html:
    """Wrong predictions, the most confident first."""
    title, anchor = "Worst mistakes", "mistakes"
    found = _predictions(run)
    if found is None:
        return section(title, anchor, missing("No predictions yet. They are made by:", command(run, "evaluate")))
    rows, which = found
    wrong = [row for row in rows if _word(row["true"]) != _word(row["predicted"])]
    if not wrong:
        return section(title, anchor, lead=f"None of the {number(len(rows))} test samples is wrong. {which}")
    wrong.sort(key=lambda row: -real(row["confidence"]) if math.isfinite(real(row["confidence"])) else math.inf)
    pictures = _Thumbnails(run)
    cards = [_card(row, pictures) for row in wrong[:_MISTAKES]]
    lead = (
        f"The {len(cards)} most confident of {number(len(wrong))} wrong predictions. "
        "Look for wrong labels, for two things in one sample, and for what you would have got wrong too."
    )
    return section(title, anchor, tag("div", *cards, class_="cards"), lead=lead)


def _predictions(run: Run) -> tuple[list[Row], str] | None:
    """The predictions shown: one protocol, budget and seed (most labels first), never several mixed; and its name."""
    table = run.tables.get("predictions")
    if table is None or table.num_rows == 0:
        return None
    rows, told = table.to_pylist(), []
    for column, choose in (("protocol", _first_protocol), ("budget", _largest), ("seed", _lowest)):
        if column in table.column_names:
            value = choose(list(dict.fromkeys(row[column] for row in rows)))
            rows = [row for row in rows if value is None or row[column] == value]
            told.append(_named(column, value))
    return rows, f"Shown: {', '.join(told)}." if told else ""


def _first_protocol(values: list[Any]) -> Any:
    return min(values, key=lambda one: list(_PROTOCOLS).index(one) if one in _PROTOCOLS else len(_PROTOCOLS))


def _largest(values: list[Any]) -> Any:
    """The budget with the most labels: all, then percentages, then numbers per class, then numbers."""

    def size(budget: Any) -> tuple[int, float]:
        text = str(budget)
        kind = 3 if text == "all" else 2 if text.endswith("%") else 1 if text.endswith("/class") else 0
        amount = real(text.removesuffix("%").removesuffix("/class"))
        return kind, amount if math.isfinite(amount) else 0.0

    return max(values, key=size)


def _lowest(values: list[Any]) -> Any:
    return min((one for one in values if one is not None), default=None)


def _named(column: str, value: Any) -> str:
    if column == "protocol":
        return {"linear": "linear probe", "finetune": "fine-tuned", "knn": "kNN"}.get(value, str(value))
    return budget_name(value) if column == "budget" else f"seed {value}"


def _pairs(counts: Counter[tuple[str, str]]) -> Html | None:
    wrong = [(value, *pair) for pair, value in counts.items() if pair[0] != pair[1]]
    wrong.sort(key=lambda one: (-one[0], natural(one[1]), natural(one[2])))
    items = [
        tag("li", tag("b", true), " called ", tag("b", guessed), f": {number(value)}")
        for value, true, guessed in wrong[:10]
    ]
    return tag("div", tag("h3", "Most often"), tag("ol", *items), class_="pairs") if items else None


def _labels(run: Run) -> dict[Any, str]:
    """What is known of samples' labels, from the map and from the predictions."""
    known: dict[Any, str] = {}
    for name, column in (("predictions", "true"), ("map", "label")):
        table = run.tables.get(name)
        if table is not None and column in table.column_names:
            pairs = zip(table["id"].to_pylist(), table[column].to_pylist(), strict=True)
            known.update((one, _word(label)) for one, label in pairs if label not in (None, ""))
    return known


def _word(label: Any) -> str:
    return "" if label is None else str(label)


def _agreement(near: dict[Any, list[Row]], labels: dict[Any, str]) -> str:
    """Over all queries of the table, not only over those shown."""
    pairs = [(query, row["neighbour"]) for query, rows in near.items() for row in rows]
    marks = [labels[a] == labels[b] for a, b in pairs if labels.get(a) and labels.get(b)]
    if not marks:
        return ""
    shares = Counter(label for label in labels.values() if label)
    chance = sum((value / shares.total()) ** 2 for value in shares.values())
    return (
        f"{100 * sum(marks) / len(marks):.0f} % of the {number(len(marks))} neighbours in the table share their "
        "query's label; "
        f"by chance it would be {100 * chance:.0f} %."
    )


class _Thumbnails:
    """Pictures of samples by id, until the section's share of the page is used up."""

    def __init__(self, run: Run) -> None:
        table = run.tables.get("thumbnails")
        self.png = (
            dict(zip(table["id"].to_pylist(), table["png"].to_pylist(), strict=True)) if table is not None else {}
        )
        self.left = _BYTES

    def show(self, one: Any, alt: str) -> Html:
        data = self.png.get(one)
        size = len(data) * 4 // 3 if isinstance(data, bytes) else 0
        if size > self.left:
            return tag("span", "left out: page too large", class_="nopic")
        self.left -= size
        return picture(data, alt, title=alt)


def _neighbour_row(query: Any, rows: list[Row], labels: dict[Any, str], pictures: _Thumbnails) -> Html:
    rows = sorted(rows, key=lambda row: real(row["rank"]))[:_NEIGHBOURS]
    wanted = labels.get(query, "")
    first = tag(
        "div",
        pictures.show(query, f"query, sample {query}: {wanted or 'no label'}"),
        tag("span", wanted),
        class_="query",
    )
    return tag("div", first, *(_neighbour(row, wanted, labels, pictures) for row in rows), class_="neighbours")


def _neighbour(row: Row, wanted: str, labels: dict[Any, str], pictures: _Thumbnails) -> Html:
    label = labels.get(row["neighbour"], "")
    kind, sign = ("same", "✓") if label and label == wanted else ("other", "✗") if label and wanted else ("none", "")
    alike = real(row.get("similarity"))
    alt = f"{label or 'no label'}, sample {row['neighbour']}" + (
        f", similarity {alike:.2f}" if math.isfinite(alike) else ""
    )
    return tag(
        "div",
        pictures.show(row["neighbour"], alt),
        tag("span", sign, " ", label if kind != "same" else ""),
        class_=f"near {kind}",
    )


def _card(row: Row, pictures: _Thumbnails) -> Html:
    true, guessed, sure = _word(row["true"]), _word(row["predicted"]), real(row["confidence"])
    path = _word(row.get("path")) or f"sample {row['id']}"
    confident = f"{100 * sure:.0f} % sure" if math.isfinite(sure) else "confidence unknown"
    words = join(
        [
            tag("span", "called ", tag("b", guessed)),
            tag("span", "is ", tag("b", true)),
            tag("span", confident, class_="sure"),
        ]
    )
    shown = pictures.show(row["id"], f"{path}: is {true}, called {guessed}")
    return tag("div", shown, tag("div", words, tag("code", path[-60:], title=path), class_="words"), class_="card")
