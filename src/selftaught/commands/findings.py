"""What an inspection found, in sentences: for the terminal and the page."""

from __future__ import annotations

import os
import shlex
from typing import Any

ROUGH = 10  # how many times more samples the largest class may have than the smallest before it is said
FEW = 5  # samples below which a class is named
SHOWN = 3  # examples in a sentence
BY_FORM = "A model may learn that instead."
BY_PATH = (
    "Harmless where files are named after their labels; if it is a place or a day, a model may learn that instead."
)


def findings(found: dict[str, Any]) -> list[str]:
    """What the user should know before anything else, worst first."""
    said, bad = [], found["unreadable"]
    if bad:
        said.append(f"Unreadable: {many(len(bad), 'file')}, for one {bad[0][0]}: {bad[0][1]}.")
        if is_too_much(found):
            said.append("That is more than 5 %: a training stops there unless it gets --accept-unreadable.")
    across = found.get("test_copies", [])
    if across:
        said.append(f"In the test data too: {many(len(across), 'file')}, for one {across[0][0]}, there {across[0][1]}.")
    near = [pair for pair in found.get("test_look_alikes", []) if pair[:2] not in across]
    if near:
        said.append(
            f"Looks the same as in the test data: {many(len(near), 'pair')}, for one {near[0][0]} and {near[0][1]}."
        )
    copies = found["copies"]
    if copies:
        count = sum(len(names) - 1 for names in copies)
        said.append(f"Exact copies of other files: {count:,}, for one {copies[0][1]} of {copies[0][0]}.")
    alike = found["look_alikes"]
    if alike:
        said.append(f"Looks the same: {many(len(alike), 'pair')}, for one {alike[0][0]} and {alike[0][1]}.")
    return said + _of_labels(found) + _of_kinds(found)


def is_too_much(found: dict[str, Any]) -> bool:
    """Whether a training would stop for what cannot be read."""
    bad = len(found["unreadable"])
    return bad > 0.05 * (found["samples"] + bad) and found["samples"] + bad >= 20


def _of_labels(found: dict[str, Any]) -> list[str]:
    classes, said = found.get("classes"), []
    if not classes:
        return []
    names = list(classes)
    if classes[names[0]] > ROUGH * max(1, classes[names[-1]]):
        rare = f"{names[-1]} {classes[names[-1]]:,}"
        said.append(f"Classes are out of balance: {names[0]} has {classes[names[0]]:,} samples, {rare}.")
    few = [name for name in names if classes[name] < FEW]
    if few:
        said.append(f"Fewer than {FEW} samples: {many(len(few), 'class')} ({_some(few)}).")
    if found["unlabelled"]:
        said.append(f"Without a label: {many(found['unlabelled'], 'sample')}.")
    groups = found["straddling_groups"]
    if groups:
        said.append(f"In more than one split: {many(len(groups), 'group')} ({_some(groups)}).")
    for one in found["shortcuts"]:
        said.append(
            f"The labels can be told without looking: by {one['fact']} alone, {one['right']:.0%} of them are right "
            f"(guessing: {one['guessing']:.0%}). {BY_PATH if one['by_path'] else BY_FORM}"
        )
    if found["disagreeing_copies"]:
        said.append(f"Exact copies with different labels: {many(found['disagreeing_copies'], 'set')}.")
    return said


def _of_kinds(found: dict[str, Any]) -> list[str]:
    said = []
    for names, what in ((found["channels"], "channels"), (found["types"], "values")):
        if len(names) > 1:
            (usual, count), *others = names.items()
            rest = ", ".join(f"{number:,} have {name}" for name, number in others[:SHOWN])
            said.append(f"Most samples have {usual} {what} ({count:,} of those looked at); {rest}.")
    if found["missing"] > 0:
        said.append(f"{found['missing']:.1%} of the readings are missing.")
    return said


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")


def many(count: int, what: str) -> str:
    """ "1 file", "3 files", "2 classes"."""
    plural = {"class": "classes"}.get(what, f"{what}s")
    return f"{count:,} {what if count == 1 else plural}"


def suggested(found: dict[str, Any], modality: str) -> str:
    """A training of about a hundred passes, ten minutes at least and eight hours at most: what to type, or to call."""
    if not found["is_path"]:
        return f'st.pretrain(data, out="runs/first", minutes={minutes_of(found)})'
    name = os.path.splitext(os.path.basename(found["data"].rstrip("/")))[0] or "first"
    words = ["selftaught", "pretrain", found["data"], "--out", f"runs/{name}", "--minutes", str(minutes_of(found))]
    if modality != "auto":
        words += ["--modality", modality]
    if is_too_much(found):
        words.append("--accept-unreadable")
    return shlex.join(words)


def minutes_of(found: dict[str, Any]) -> int:
    return round(min(480.0, max(10.0, 100 * found.get("epoch_seconds", 0.0) / 60)))


# --- For people -------------------------------------------------------------------------------------------------------


def told(found: dict[str, Any]) -> list[str]:
    files = ", ".join(f"{count:,} {ending}" for ending, count in found["files"].items())
    lines = [f"{many(found['samples'], 'sample')} ({found['modality']}) in {files}, {size_of(found['bytes'])}"]
    if found["left_alone"]:
        left = ", ".join(f"{count:,} {ending or 'without an ending'}" for ending, count in found["left_alone"].items())
        lines.append(f"Left alone: {left}")
    lines.append(f"Looked at {found['looked_at']:,}:")
    for name in ("height", "width", "length"):
        if found.get(name):
            marks = found[name]
            half = f"half of them {marks['lower']:.0f} to {marks['upper']:.0f}"
            lines.append(f"  {name:<9}{marks['least']:.0f} to {marks['most']:.0f}, {half}")
    lines.append("  channels " + ", ".join(f"{name} ({count:,})" for name, count in found["channels"].items()))
    lines.append("  values   " + ", ".join(f"{name} ({count:,})" for name, count in found["types"].items()))
    if "classes" in found:
        classes = list(found["classes"].items())
        more = f", and {len(classes) - 8} more" if len(classes) > 8 else ""
        lines.append("Classes: " + ", ".join(f"{name} {count:,}" for name, count in classes[:8]) + more)
    if "epoch_seconds" in found:
        lines.append(f"A pass takes about {duration(found['epoch_seconds'])} on this machine ({found['timed']})")
    lines += [f"! {sentence}" for sentence in found["findings"]] or ["Nothing is wrong with what was looked at."]
    return [*lines, f"Next: {found['command']}"]


def size_of(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:,.0f} {unit}"
        count /= 1000
    return ""


def duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
