"""Files broken in every way, read in a process of its own: ``python -m tests.fuzz FOLDER CASES [KIND …]``.

Cut off at every kind of place, bytes overwritten, blocks repeated, removed and filled with one value. Whatever is done
to a file, reading it gives a value or one sentence of ours, within seconds and a bounded memory: the process may take
one more gigabyte than it had before, and a case that takes longer than ``SECONDS`` counts as hanging. Prints a line of
JSON for each kind (all of ``fuzz_files.KINDS``): how many were read and refused, and what must not happen.
"""

from __future__ import annotations

import collections
import json
import os
import resource
import signal
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from selftaught.errors import SelftaughtError
from tests import fuzz_files

SECONDS = 10
ROOM = 2**30


def damaged(whole: bytes, count: int, rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    """(what was done, the file afterwards): about ``count`` ways, half of them cuts, which lie close at both ends."""
    size = len(whole)
    near = [at for at in range(min(size, count // 4))] + [size - at for at in range(1, min(size, count // 8))]
    for at in sorted({*near, *rng.integers(0, size, count // 8).tolist()}):
        yield f"cut at {at}", whole[:at]
    for _ in range(count // 2):
        # where heads, directories and footers lie, breaking one byte changes most
        at = int(rng.integers(0, size) if rng.random() < 0.4 else min(size - 1, rng.integers(0, 256)))
        at = size - 1 - at if rng.random() < 0.3 else at
        length = int(rng.choice([1, 2, 4, 8, 32]))
        kind = int(rng.integers(0, 6))
        if kind == 0:
            yield f"noise at {at}", whole[:at] + rng.bytes(length) + whole[at + length :]
        elif kind == 1:
            yield f"ff at {at}", whole[:at] + b"\xff" * length + whole[at + length :]
        elif kind == 2:
            yield f"zeros at {at}", whole[:at] + bytes(length) + whole[at + length :]
        elif kind == 3:
            yield f"removed at {at}", whole[:at] + whole[at + length :]
        elif kind == 4:
            yield f"twice at {at}", whole[: at + length] + whole[at:]
        else:
            huge = struct.pack("<Q" if rng.random() < 0.5 else ">Q", 2 ** int(rng.integers(20, 63)))[:length]
            yield f"a huge number at {at}", whole[:at] + huge + whole[at + len(huge) :]


def attempt(read: Callable[[Path], Any], path: Path) -> str:
    """ "read", "refused", or what must not happen."""

    def hang(*_: Any) -> None:
        raise TimeoutError(f"still reading after {SECONDS} s")

    signal.signal(signal.SIGALRM, hang)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        read(path)
    except SelftaughtError as error:
        words = str(error)
        return "refused" if words and "\n" not in words and len(words) < 1000 else f"no sentence: {words!r}"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"[:300]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return "read"


def main(folder: str, cases: str, *kinds: str) -> int:
    wanted = list(kinds or fuzz_files.KINDS)
    places = {kind: Path(folder, str(number)) for number, kind in enumerate(wanted)}
    for place in places.values():
        place.mkdir(parents=True)
    made = {kind: fuzz_files.KINDS[kind](place) for kind, place in places.items()}
    for kind, one in made.items():  # with whatever has to be imported, before memory is counted
        if (outcome := attempt(one.read, one.path)) != "read":
            print(f"the whole {kind} is not read: {outcome}", file=sys.stderr)
            return 1
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, resource.getrlimit(resource.RLIMIT_AS)[1]))
    for kind, one in made.items():
        print(json.dumps({"kind": kind, **_break(one, int(cases))}), flush=True)
    return 0


def _break(made: fuzz_files.Made, cases: int) -> dict[str, Any]:
    whole, outcomes = made.damage.read_bytes(), collections.Counter(read=0, refused=0)
    faults = []
    for what, content in damaged(whole, cases, np.random.default_rng(len(whole))):
        made.damage.unlink()  # another file, for HDF5 takes one that it has open for the same
        made.damage.write_bytes(content)
        outcome = attempt(made.read, made.path)
        if outcome in outcomes:
            outcomes[outcome] += 1
        else:
            faults.append((what, outcome))
    return {**outcomes, "faults": faults}


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
