"""The words around the figures: verdict, quarantine, configuration, environment, and how to read it all."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

from selftaught.report.markup import Html, number, table, tag
from selftaught.report.read import Run
from selftaught.report.training import badge, command, missing, section, verdict

_SECTIONS = {
    "pictures": "Data",
    "training": "Training",
    "worth": "Worth",
    "confusion": "Confusion",
    "neighbours": "Neighbours",
    "map": "Map",
    "mistakes": "Mistakes",
    "quarantine": "Quarantine",
    "configuration": "Configuration",
    "reading": "How to read it",
}
_QUARANTINED = 200  # lines shown


def header(run: Run) -> Html:
    """The verdict in a sentence, health in another, and the size of it all."""
    sentence = run.evaluation.get("sentence")
    parts = [run.fact("method"), run.fact("encoder"), run.fact("modality")]
    kind = " · ".join(str(one) for one in parts if isinstance(one, str))
    if isinstance(sentence, str) and sentence.strip():
        main = tag("h1", sentence)
    else:
        main = tag("h1", "Not evaluated yet: what this pre-training is worth is not known.")
    links = [tag("a", text, href=f"#{anchor}") for anchor, text in _SECTIONS.items()]
    top = tag("p", tag("b", run.name), f" · {kind}" if kind else "", class_="eyebrow")
    return tag("header", top, main, _health(run), _sizes(run), tag("nav", *links, aria_label="Sections"))


def quarantine(run: Run) -> Html:
    """What could not be read, by reason and by path."""
    title, anchor = "Quarantine", "quarantine"
    if run.quarantine is None:
        return section(
            title,
            anchor,
            missing(
                "No quarantine.csv: nothing is known of unreadable files. It is made by:", command(run, "pretrain")
            ),
        )
    if not run.quarantine:
        return section(title, anchor, lead="Every file that was found could be read.")
    reasons = Counter(reason for _, reason in run.quarantine)
    by_reason = table(
        ["Reason", "Files"],
        ([reason or "not said", number(count)] for reason, count in reasons.most_common(20)),
        caption="By reason",
    )
    count = len(run.quarantine)
    listed = table(["Path", "Reason"], run.quarantine[:_QUARANTINED], caption="By path", numbers=False)
    more = (
        tag("p", f"{number(count - _QUARANTINED)} more in quarantine.csv.", class_="note")
        if count > _QUARANTINED
        else None
    )
    files, were = ("file", "was") if count == 1 else ("files", "were")
    lead = f"{number(count)} {files} could not be read and {were} not trained on."
    return section(title, anchor, by_reason, tag("details", tag("summary", "Every path"), listed, more), lead=lead)


def configuration(run: Run) -> Html:
    """The command that makes this run again, and everything it resolved to."""
    title, anchor = "To make it again", "configuration"
    made = _shell(run.environment.get("command"))
    again = (
        tag("pre", made, class_="command", tabindex=0)
        if made
        else missing("No command was recorded. A run is made by:", command(run, "pretrain"))
    )
    if not run.config_text.strip():
        return section(title, anchor, again, missing("No run.yaml. It is made by:", command(run, "pretrain")))
    whole = tag("details", tag("summary", "The full configuration, run.yaml"), tag("pre", run.config_text, tabindex=0))
    return section(title, anchor, again, whole)


def environment(run: Run) -> Html:
    """Versions and hardware: what the numbers and the speed depend on."""
    title, anchor = "Environment", "environment"
    rows = [(name, value) for name, value in _flat(run.environment) if name != "command"]
    if not rows:
        return section(title, anchor, missing("No environment.json. It is made by:", command(run, "pretrain")))
    listed = table(["What", "Value"], rows, caption="environment.json", numbers=False)
    return section(title, anchor, tag("details", tag("summary", "Versions, hardware, data fingerprint"), listed))


def reading(run: Run) -> Html:
    """What the words mean, what is not known, and what could not be read."""
    words = {
        "points": "Percentage points: from 80.0 % to 84.2 % is +4.2 points.",
        "95 % interval": "From the spread over seeds. A seed draws which samples carry labels (and the split, where "
        "the data do not fix it) "
        "and starts the training. It does not cover other data, another pre-training, or wrong labels.",
        "raw input": "The same probe on the input itself (pixels). What the task needs no learning for.",
        "untrained": "The same encoder with random weights. What the architecture gives for nothing.",
        "from scratch": "The same encoder trained on the same labels only, with the same epochs and augmentation as "
        "fine-tuning.",
        "public weights": "An encoder of the same kind that somebody else trained on other data.",
        "linear, fine-tuned, kNN": "A linear classifier on frozen features; the whole encoder trained on the labels; "
        "a vote of the nearest labelled samples.",
    }
    unknown = [
        "One pre-training was run: how much another seed of it would differ is not measured here.",
        "The health measures need no labels, and so cannot know your task: they find a broken encoder, they do not "
        "prove a useful one.",
        "The test samples come from the same source as the others. How the encoder does on data from elsewhere is not "
        "known.",
    ]
    listed = [part for word, text in words.items() for part in (tag("dt", word), tag("dd", text))]
    problems = (
        [tag("h3", "What could not be read"), tag("ul", *(tag("li", note) for note in run.notes))] if run.notes else []
    )
    not_known = tag("ul", *(tag("li", one) for one in unknown))
    return section(
        "How to read it", "reading", tag("dl", *listed), tag("h3", "What this page does not know"), not_known, *problems
    )


def footer(run: Run) -> Html:
    """Whose page it is."""
    version = run.fact("selftaught")
    made = f"Made by selftaught{f' {version}' if isinstance(version, str) else ''} from the files of "
    return tag(
        "footer",
        tag("p", made, tag("code", str(run.folder)), ". No script, no network: this page can be kept and sent on."),
    )


def _health(run: Run) -> Html:
    found = verdict(run)
    return badge(*found) if found else missing("No health verdict yet. It is made by:", command(run, "diagnose"))


def _sizes(run: Run) -> Html | None:
    """A few numbers that say how big the job was; those not known are left out."""

    def last(name: str) -> float:
        finite = [value for value in run.metrics.get(name, []) if math.isfinite(value)]
        return finite[-1] if finite else math.nan

    speeds = sorted(value for value in run.metrics.get("samples_per_second", []) if math.isfinite(value))
    waits = [value for value in run.metrics.get("data_wait", []) if math.isfinite(value)]
    seconds = last("seconds")
    sizes = {
        "steps": number(last("step")),
        "epochs": number(last("epoch") + 1),  # the column counts from 0
        "samples seen": number(last("samples")),
        "time": _duration(seconds),
        "samples a second": number(round(speeds[len(speeds) // 2])) if speeds else "–",
        "waiting for data": f"{100 * sum(waits) / len(waits):.0f} %" if waits and max(waits) <= 1 else "–",
    }
    shown = [tag("div", tag("dt", name), tag("dd", text)) for name, text in sizes.items() if text != "–"]
    return tag("dl", *shown, class_="sizes") if shown else None


def _duration(seconds: float) -> str:
    if not math.isfinite(seconds) or seconds < 0:
        return "–"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _shell(made: Any) -> str:
    """The command as recorded: a string, or the list of its words."""
    import shlex

    if isinstance(made, list):
        return shlex.join(str(word) for word in made)
    return made.strip() if isinstance(made, str) else ""


def _flat(tree: Any, prefix: str = "") -> list[tuple[str, str]]:
    if isinstance(tree, dict):
        return [row for key, value in tree.items() for row in _flat(value, f"{prefix}.{key}" if prefix else str(key))]
    if isinstance(tree, list) and any(isinstance(one, (dict, list)) for one in tree):
        return [(prefix, json.dumps(tree))]
    text = ", ".join(map(str, tree)) if isinstance(tree, list) else str(tree)
    return [(prefix, text)] if prefix else []
