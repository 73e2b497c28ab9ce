"""``selftaught inspect DATA``: what is there, what is wrong with it, how long a pass takes, and what to type next."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any, cast

from selftaught.commands.files import writable
from selftaught.commands.run import Speaker
from selftaught.config import Group, command

THUMBNAILS = 24  # of samples; those of pairs come on top
PAIRS = 24  # of which both sides are kept for the page


@command
def inspect(
    data: Annotated[Any, "", "folder, archive, table or arrays, as for pretrain"],
    *,
    modality: Annotated[Group, "modality", "kind of data; auto = by content"] = "auto",
    labels: Annotated[Any, "", "to look at their balance: as for evaluate"] = None,
    test: Annotated[Any, "", "data to test on later: are any of them in DATA?"] = None,
    look: Annotated[int, "in [0, inf)", "samples decoded, drawn from all; 0 = all of them"] = 2000,
    timing: Annotated[bool, "", "train a few steps to say how long a pass takes"] = True,
    out: Annotated[str | None, "", "page to write: .html"] = None,
    quiet: Annotated[bool, "", "print nothing but errors"] = False,
) -> dict[str, Any]:
    """Looks at data before a training: counts, sizes, what is broken, copies and look-alikes, labels, time.

    Every file's head is read, ``look`` samples are decoded whole. Returns what it found: ``{"samples", "files",
    "findings", "command", …}``. Raises DataError, ModalityError, ConfigError.
    """
    page = None if out is None else writable(out, "inspect", (".html",))
    from selftaught.commands import findings
    from selftaught.commands import inspection as seen
    from selftaught.commands.samples import measure, open_samples, read_again
    from selftaught.commands.shortcuts import shortcuts
    from selftaught.data.labels import read_labels

    say = Speaker(quiet)
    asked = cast(dict[str, Any], modality)  # a name and its options, once resolved
    samples = open_samples(data, asked, accept_unreadable=True)
    import numpy as np

    measure(samples, np.arange(len(samples.index)), 0)
    looked = seen.look_at(samples, look)
    found: dict[str, Any] = {
        "data": str(data) if isinstance(data, str | Path) else type(data).__name__,
        "is_path": isinstance(data, str | Path),
        "modality": samples.modality.name,
        "samples": len(samples.index),
        "files": seen.kinds(samples),
        "left_alone": dict(samples.source.others),
        "bytes": int(sum(dict(zip(samples.index.column("path"), samples.index.column("size"), strict=True)).values())),
        "looked_at": len(looked.rows) + len(looked.bad),
        "unreadable": [*samples.index.quarantine, *looked.bad],
        **_shapes(looked),
    }
    parts = [samples]
    theirs = None
    if test is not None:
        parts.append(read_again(test, samples.modality, accept_unreadable=True))
        theirs = seen.look_at(parts[1], look)
        found["test_samples"] = len(parts[1].index)
    groups, whole = seen.copies(parts)
    found |= _copies(parts, groups, whole)
    found["look_alikes"] = _pairs(samples, samples, seen.look_alikes(looked), groups)
    if theirs is not None:
        found["test_look_alikes"] = _pairs(samples, parts[1], seen.look_alikes(looked, theirs), [])
    if labels is not None:
        known = read_labels(samples.index, labels, samples.source)
        found["classes"], found["unlabelled"] = seen.balance(known), known.unlabelled
        found["straddling_groups"] = seen.straddling(known)
        found["disagreeing_copies"] = seen.disagreeing(groups, known)
        by_folder = isinstance(labels, str) and labels == "folders"
        found["shortcuts"] = shortcuts(samples, looked, known, by_folder=by_folder)
    timed = seen.epoch_seconds(data, samples.modality.name, len(samples.index)) if timing else None
    if timed:
        found["epoch_seconds"], found["timed"] = round(timed[0], 1), timed[1]
    found["findings"] = findings.findings(found)
    found["command"] = findings.suggested(found, asked["name"])
    say(*findings.told(found))
    if page is not None:
        from selftaught.report.inspection import write_inspection

        theirs_shown = _cells(parts[1], theirs, found["test_look_alikes"], 1, samples=0) if theirs else {}
        shown = _cells(samples, looked, [*found["look_alikes"], *found.get("test_look_alikes", [])], 0)
        write_inspection(page, found, shown, theirs_shown)
        say(f"The page is {page}")
    return found


# --- What was found ---------------------------------------------------------------------------------------------------


def _shapes(looked: Any) -> dict[str, Any]:
    """Sizes of the axes, channels and types of what was looked at."""
    from selftaught.commands.inspection import spread

    image = all(len(shape) == 3 for shape in looked.shapes)  # (Y, X, C) against (C, T)
    channels = Counter(shape[2] if image else shape[0] for shape in looked.shapes)
    axes = {"height": 0, "width": 1} if image else {"length": 1}
    return {
        **{name: spread(shape[axis] for shape in looked.shapes) for name, axis in axes.items()},
        "channels": dict(channels.most_common()),
        "types": dict(Counter(looked.types).most_common()),
        "missing": float(sum(looked.missing) / max(1, len(looked.missing))),
    }


def _copies(parts: list[Any], groups: list[list[tuple[int, int]]], whole: bool) -> dict[str, Any]:
    """Copies within the data, and between them and the test data, by name."""
    own = [[parts[0].index.name(row) for number, row in entries if number == 0] for entries in groups]
    across = [
        [
            next(parts[0].index.name(row) for number, row in entries if number == 0),
            next(parts[1].index.name(row) for number, row in entries if number == 1),
        ]
        for entries in groups
        if len({number for number, _ in entries}) > 1
    ]
    more = {"test_copies": across} if len(parts) > 1 else {}
    return {"copies": [names for names in own if len(names) > 1], "all_compared": whole, **more}


def _pairs(ours: Any, theirs: Any, pairs: list[tuple[int, int, int]], copies: list[list[tuple[int, int]]]) -> list[Any]:
    """[name, name, bits that differ], exact copies left out."""
    copied = {frozenset((one[1], other[1])) for entries in copies for one in entries for other in entries}
    return [
        [ours.index.name(one), theirs.index.name(other), bits]
        for one, other, bits in pairs
        if frozenset((one, other)) not in copied
    ]


def _cells(of: Any, looked: Any, pairs: list[Any], place: int, *, samples: int = THUMBNAILS) -> dict[str, bytes]:
    """PNG by name: some samples, evenly spread, and those of the first pairs; ``place``: which of two is meant."""
    cells = {of.index.name(row): cell for row, cell in zip(looked.rows, looked.cells, strict=True)}
    wanted = list(cells)[:: max(1, len(cells) // max(1, samples))][:samples]
    wanted += [name for pair in pairs[:PAIRS] for name in (pair[:2] if place == 0 else pair[1:2])]
    return {name: cells[name] for name in wanted if name in cells}
