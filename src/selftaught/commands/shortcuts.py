"""Can the labels be told without a look at the pixels? By a file's size, ending, folder or name: then a model may learn
what the place was that a sample comes from, instead of what it shows.

Source: Geirhos et al. 2020, "Shortcut Learning in Deep Neural Networks" (arXiv:2004.07780).
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Sequence

from selftaught.commands.inspection import Looked
from selftaught.commands.samples import Samples
from selftaught.data.labels import Labels
from selftaught.formats import arrays, files

AT_LEAST = 20  # samples with a label, to say anything
FOLDER, NAME = "the folder", "the name of the file, but for numbers,"
_NUMBERS = re.compile(r"\d+")


def shortcuts(samples: Samples, looked: Looked, labels: Labels, *, by_folder: bool) -> list[dict[str, object]]:
    """[{fact, by_path, right, guessing}] of what alone tells at least half of the labels that guessing would miss.

    ``right``: share of samples whose label is the most frequent one among the *others* that are alike in that fact;
    ``guessing``: share of the most frequent label. ``by_folder``: labels are folders, so that paths tell them anyway.
    """
    places = [place for place, row in enumerate(looked.rows) if labels.values[row] >= 0]
    if len(places) < AT_LEAST:
        return []
    truth = [int(labels.values[looked.rows[place]]) for place in places]
    guessing = Counter(truth).most_common(1)[0][1] / len(truth)
    found = []
    for fact, said in _facts(samples, looked, by_folder).items():
        right = _told_by([said[place] for place in places], truth)
        if guessing < 1 and right - guessing >= (1 - guessing) / 2:
            by_path = fact in (FOLDER, NAME)
            found.append({"fact": fact, "by_path": by_path, "right": round(right, 4), "guessing": round(guessing, 4)})
    return found


def _facts(samples: Samples, looked: Looked, by_folder: bool) -> dict[str, Sequence[object]]:
    """What is known of every sample looked at without its content, by how it is called in a sentence."""
    found: dict[str, Sequence[object]] = {"the size": looked.shapes, "the type of the values": looked.types}
    column = samples.index.column("path")
    paths = [str(column[row]) for row in looked.rows]
    if any(arrays.is_array(path) for path in paths):
        return found
    found["the ending of the file"] = [files.extension(path) for path in paths]
    if not by_folder:
        found[FOLDER] = [os.path.dirname(path) for path in paths]
        found[NAME] = [_NUMBERS.sub("", os.path.splitext(os.path.basename(path))[0]) for path in paths]
    return found


def _told_by(facts: Sequence[object], truth: Sequence[int]) -> float:
    """Share of labels that the others of the same fact would have guessed; those without others count as missed."""
    alike: dict[object, Counter[int]] = defaultdict(Counter)
    for fact, label in zip(facts, truth, strict=True):
        alike[fact][label] += 1
    right = 0
    for fact, label in zip(facts, truth, strict=True):
        others = alike[fact].copy()
        others[label] -= 1
        most = max(others.values())
        right += most > 0 and others[label] == most and sum(count == most for count in others.values()) == 1
    return right / len(truth)
