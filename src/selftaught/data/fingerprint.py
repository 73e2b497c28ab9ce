"""A digest that changes when the data do: what a cached index and a resumed run are compared with."""

from __future__ import annotations

import hashlib
import os

import numpy as np

from selftaught.data.entries import Source, stat
from selftaught.data.keys import Permutation

EVERY_FILE = 200_000
SAMPLED = 10_000


def fingerprint_of(source: Source) -> str:
    """sha256 (hex) over relative paths, sizes and modification times; of arrays from memory, over what they hold.

    Above 200,000 files, asking for every size would take 7 of the 10 seconds that a million files cost (listing names
    takes 2.7): all names are still compared, every directory's time (a file added, removed or replaced moves it),
    and the sizes and times of 10,000 files, always the same ones. A few files overwritten in place among a million can
    go unnoticed; a rewrite of one in a thousand is missed with probability e^-10.
    """
    if source.content:
        return hashlib.sha256(source.content.encode()).hexdigest()
    digest = hashlib.sha256()
    digest.update("\0".join(source.paths).encode("utf-8", "surrogateescape"))
    if len(source.paths) <= EVERY_FILE:
        chosen = range(len(source.paths))
    else:
        chosen = np.sort(Permutation(len(source.paths), 0, stream="fingerprint")(np.arange(SAMPLED))).tolist()
        for directory in source.directories:
            digest.update(b"%d;" % os.stat(os.path.join(source.root, directory)).st_mtime_ns)
    for row in chosen:
        digest.update(b"%d,%d;" % stat(source.full(row)))
    return digest.hexdigest()
