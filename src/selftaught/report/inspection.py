"""What an inspection found, on one page: findings first, then samples, look-alikes, sizes, classes, what is broken."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selftaught.report.markup import Html, join, number, picture, table, tag
from selftaught.report.page import head, write
from selftaught.report.training import section

_PAIRS = 12  # that are shown
_LISTED = 200  # lines of a list


Cells = Mapping[str, bytes]  # PNG by the name of a sample


def write_inspection(path: Path, found: Mapping[str, Any], cells: Cells, test_cells: Cells) -> Path:
    """``found`` as ``selftaught inspect`` returns it. Raises RunError where the page cannot be written."""
    return write(path, render(found, cells, test_cells))


def render(found: Mapping[str, Any], cells: Cells, test_cells: Cells) -> str:
    """The whole page as text."""
    within = found["look_alikes"], (cells, cells)
    across = found.get("test_look_alikes"), (cells, test_cells)
    parts = [
        _samples(found, cells),
        _pairs(*within, title="Look-alikes", lead="Pairs within the data that look the same, exact copies left out."),
        _pairs(
            *across, title="In the test data too", lead="What looks the same in these data (left) and the test data."
        ),
        _copies(found),
        _sizes(found),
        _classes(found),
        _unreadable(found),
        _next(found),
    ]
    body = tag("body", _header(found), tag("main", *(part for part in parts if part is not None)))
    return "<!doctype html>\n" + tag("html", head(f"{found['data']} · selftaught inspect"), body, lang="en")


def _header(found: Mapping[str, Any]) -> Html:
    said = found["findings"]
    title = said[0] if said else "Nothing is wrong with what was looked at."
    rest = tag("ul", *(tag("li", sentence) for sentence in said[1:])) if said[1:] else None
    facts = {
        "Samples": number(found["samples"]),
        "Looked at": number(found["looked_at"]),
        "Unreadable": number(len(found["unreadable"])),
        "Copies": number(sum(len(names) - 1 for names in found["copies"])),
        "A pass": f"{number(found['epoch_seconds'])} s" if "epoch_seconds" in found else "not timed",
    }
    sizes = tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in facts.items()), class_="sizes")
    top = tag("p", tag("b", found["data"]), f" · {found['modality']}", class_="eyebrow")
    return tag("header", top, tag("h1", title), tag("div", rest, class_="raised") if rest else None, sizes)


def _samples(found: Mapping[str, Any], cells: Cells) -> Html | None:
    shown = list(cells.items())[:24]
    if not shown:
        return None
    cards = [tag("figure", picture(data, name, title=name), class_="card") for name, data in shown]
    return section("Samples", "samples", tag("div", *cards, class_="gallery"), lead="Some of what was looked at.")


def _pairs(pairs: Any, cells: tuple[Cells, Cells], *, title: str, lead: str) -> Html | None:
    if not pairs:
        return None
    shown = []
    for one, other, *_ in pairs[:_PAIRS]:
        both = (picture(found.get(name), name, title=name) for found, name in zip(cells, (one, other), strict=True))
        shown.append(tag("figure", *both, tag("figcaption", one, tag("br"), other), class_="twins"))
    rows = ([one, other, bits] for one, other, bits in pairs[:_LISTED])
    listed = table(["One", "Other", "Bits that differ, of 64"], rows, caption="By name")
    more = tag("details", tag("summary", f"All {number(len(pairs))} pairs"), listed)
    return section(title, title.lower().replace(" ", "-"), tag("div", *shown, class_="gallery"), more, lead=lead)


def _copies(found: Mapping[str, Any]) -> Html | None:
    copies, across = found["copies"], found.get("test_copies", [])
    if not copies and not across:
        return None
    parts = []
    if across:
        parts.append(
            table(["These data", "Test data"], across[:_LISTED], caption="In the test data too", numbers=False)
        )
    if copies:
        rows = ([names[0], ", ".join(names[1:6])] for names in copies[:_LISTED])
        parts.append(table(["File", "Copies"], rows, caption="Within the data", numbers=False))
    return section("Exact copies", "copies", *parts)


def _sizes(found: Mapping[str, Any]) -> Html:
    marks = ("least", "lower", "middle", "upper", "most")
    axes = [name for name in ("height", "width", "length") if found.get(name)]
    by_axis = table(
        ["Axis", "Least", "Lower quarter", "Middle", "Upper quarter", "Most"],
        ([name, *(number(found[name][mark]) for mark in marks)] for name in axes),
        caption="Sizes of what was looked at",
    )
    counted = [
        table([title, "Number"], ([name, number(count)] for name, count in found[key].items()), caption=caption)
        for key, title, caption in (
            ("files", "Ending", "Files"),
            ("channels", "Channels", "Channels"),
            ("types", "Values", "Types of values"),
            ("left_alone", "Ending", "Left alone"),
        )
        if found[key]
    ]
    return section("Sizes and kinds", "sizes", by_axis if axes else None, *counted)


def _classes(found: Mapping[str, Any]) -> Html | None:
    if not found.get("classes"):
        return None
    rows = ([name, number(count)] for name, count in found["classes"].items())
    unlabelled = tag("p", f"{number(found['unlabelled'])} samples have no label.", class_="note")
    return section("Classes", "classes", table(["Class", "Samples"], rows, caption="Samples by class"), unlabelled)


def _unreadable(found: Mapping[str, Any]) -> Html | None:
    bad = found["unreadable"]
    if not bad:
        return None
    listed = table(["Path", "Reason"], bad[:_LISTED], caption="What cannot be read", numbers=False)
    more = tag("p", f"{number(len(bad) - _LISTED)} more.", class_="note") if len(bad) > _LISTED else None
    return section("Unreadable", "unreadable", listed, more)


def _next(found: Mapping[str, Any]) -> Html:
    timed = f"Timed with {found['timed']}, which is what auto chose here." if "timed" in found else None
    parts = [
        tag("pre", found["command"], class_="command", tabindex=0),
        tag("p", timed, class_="note") if timed else None,
    ]
    return section("Next", "next", join(parts))
