"""What there is to know of data before a training: gathered once, for the terminal, the page and ``--json`` alike."""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from selftaught.commands.pictures import cell_of
from selftaught.commands.samples import Samples
from selftaught.data.keys import Permutation
from selftaught.data.labels import Labels
from selftaught.errors import UnreadableError
from selftaught.formats import arrays, files
from selftaught.ops import likeness

THREADS = 8
HASHED = 200_000  # files of equal size that are read to the end, to tell copies
MOST_PAIRS = 1000  # kept of each kind


@dataclass(slots=True)
class Looked:
    """Some samples, looked at: one entry each, in the order of ``rows``; ``bad`` could not be read."""

    rows: list[int] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    types: list[str] = field(default_factory=list)
    missing: list[float] = field(default_factory=list)  # share of readings that are not there
    cells: list[bytes] = field(default_factory=list)  # PNG
    hashes: list[np.ndarray | None] = field(default_factory=list)
    thumbnails: list[np.ndarray] = field(default_factory=list)
    bad: list[tuple[str, str]] = field(default_factory=list)


def look_at(samples: Samples, most: int, seed: int = 0) -> Looked:
    """``most`` samples (0 = all), drawn by key, decoded whole, so that what is cut off shows."""
    count = len(samples.index)
    drawn = Permutation(count, seed, stream="inspect")(np.arange(min(most or count, count)))
    found = Looked()
    with ThreadPoolExecutor(THREADS) as threads:
        for row, answer in threads.map(lambda row: (row, _look_at(samples, row)), np.sort(drawn).tolist()):
            if isinstance(answer, str):
                found.bad.append((samples.index.name(row), answer))
                continue
            found.rows.append(row)
            for name, value in answer.items():
                getattr(found, name).append(value)
    return found


def _look_at(samples: Samples, row: int) -> dict[str, Any] | str:
    """What one sample is like, or why it cannot be read."""
    modality = samples.modality
    try:
        sample = modality.read(samples.index.item(row))
        data = sample.data
        shape, kind = tuple(data.shape), str(data.dtype)
        observed = [mask.mean() for mask in sample.observed.values()]
        picture = cell_of(modality, modality.plain(sample).streams["plain"][0])
    except UnreadableError as error:
        return str(error)
    except OSError as error:
        return f"cannot be opened: {error.strerror}"
    cell = cv2.imencode(".png", picture[..., ::-1])[1].tobytes()
    facts = {"shapes": shape, "types": kind, "cells": cell, "thumbnails": likeness.thumbnail(picture)}
    facts["hashes"] = likeness.perceptual_hash(picture) if modality.name == "image" else None
    return {**facts, "missing": 1 - float(np.mean(observed)) if observed else 0.0}


# --- Copies -----------------------------------------------------------------------------------------------------------


def copies(parts: Sequence[Samples]) -> tuple[list[list[tuple[int, int]]], bool]:
    """Groups of samples that hold the same bytes, as (which of ``parts``, row); and whether all were compared.

    Only files of equal size are read. Rows of arrays, and frames of one file, are not compared here.
    """
    by_size: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for number, samples in enumerate(parts):
        seen: set[str] = set()
        paths, sizes = samples.index.column("path"), samples.index.column("size")
        for row, (path, size) in enumerate(zip(paths, sizes, strict=True)):
            if path not in seen and not arrays.is_array(path):
                seen.add(path)
                by_size[int(size)].append((number, row))
    alike = [entries for entries in by_size.values() if len(entries) > 1]
    asked = [entry for entries in alike for entry in entries]
    with ThreadPoolExecutor(THREADS) as threads:
        digests = list(threads.map(lambda entry: _digest(parts[entry[0]], entry[1]), asked[:HASHED]))
    by_content: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for entry, digest in zip(asked, digests, strict=False):
        if digest:
            by_content[digest].append(entry)
    return [entries for entries in by_content.values() if len(entries) > 1], len(asked) <= HASHED


def _digest(samples: Samples, row: int) -> str:
    try:
        return hashlib.blake2b(files.content(samples.index.item(row).path), digest_size=16).hexdigest()
    except UnreadableError:
        return ""


def look_alikes(ours: Looked, theirs: Looked | None = None) -> list[tuple[int, int, int]]:
    """(row, row of theirs, bits that differ) of pairs that look the same, among what was looked at; nearest first."""
    mine, codes = _coded(ours)
    other, against = (mine, None) if theirs is None else _coded(theirs)
    if not mine or not other:
        return []
    found, second = [], theirs or ours
    pairs, bits = likeness.near_pairs(codes, against)
    for (one, two), far in zip(pairs.tolist(), bits.tolist(), strict=True):
        if likeness.apart(ours.thumbnails[mine[one]], second.thumbnails[other[two]]) <= likeness.NEAR:
            found.append((ours.rows[mine[one]], second.rows[other[two]], far))
    return found[:MOST_PAIRS]


def _coded(looked: Looked) -> tuple[list[int], np.ndarray]:
    """(places, codes (N, 8)) of what has enough contrast to be compared."""
    places = [place for place, code in enumerate(looked.hashes) if code is not None]
    codes = [code for code in looked.hashes if code is not None]
    return places, np.stack(codes) if codes else np.zeros((0, 8), np.uint8)


# --- Sizes and kinds --------------------------------------------------------------------------------------------------


def kinds(samples: Samples) -> dict[str, int]:
    """Files by ending, most frequent first."""
    endings = (
        files.extension(arrays.split_key(path)[0]) or "no extension" for path in set(samples.index.column("path"))
    )
    return dict(Counter(endings).most_common())


def spread(values: Iterable[float]) -> dict[str, float] | None:
    """Least, quartiles and most; None where there is nothing."""
    found = np.asarray(list(values), np.float64)
    if not found.size:
        return None
    marks = np.quantile(found, [0, 0.25, 0.5, 0.75, 1])
    return dict(zip(("least", "lower", "middle", "upper", "most"), marks.tolist(), strict=True))


def balance(labels: Labels) -> dict[str, int]:
    """Samples of each class, most frequent first."""
    counts = np.bincount(labels.values[labels.labelled], minlength=len(labels.classes))
    return {labels.classes[place]: int(counts[place]) for place in np.argsort(-counts, kind="stable")}


def straddling(labels: Labels) -> list[str]:
    """Groups (patients, speakers, volumes) of which there are samples in more than one split."""
    if labels.group is None or labels.split is None:
        return []
    splits: dict[str, set[str]] = defaultdict(set)
    for group, split in zip(labels.group.tolist(), labels.split.tolist(), strict=True):
        if group and split:
            splits[group].add(split)
    return sorted(group for group, found in splits.items() if len(found) > 1)


def disagreeing(groups: Sequence[Sequence[tuple[int, int]]], labels: Labels) -> int:
    """Groups of copies whose members have different labels."""
    found = 0
    for entries in groups:
        values = {int(labels.values[row]) for number, row in entries if number == 0} - {-1}
        found += len(values) > 1
    return found


def epoch_seconds(data: Any, modality: str, count: int) -> tuple[float, str] | None:
    """Seconds of a pass over ``count`` samples on this machine, by a training of a few steps; and what it trained."""
    import tempfile

    from selftaught.commands.pretrain import pretrain
    from selftaught.errors import SelftaughtError

    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(SelftaughtError):
        run = pretrain(
            data, out=f"{folder}/run", modality={"name": modality}, steps=6, accept_unreadable=True, quiet=True
        )
        rows = run.metrics
        speeds = [row["samples_per_second"] for row in rows[1:] if row.get("samples_per_second")]
        if speeds:
            derived = run.config["derived"]
            return count / float(np.median(speeds)), f"{derived['method']} on {derived['encoder']}"
    return None
