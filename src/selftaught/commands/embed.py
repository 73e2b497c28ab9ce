"""``selftaught embed RUN DATA --out embeddings.parquet``: one vector for each sample."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from selftaught.commands.files import writable, write_array, write_table
from selftaught.commands.run import Run, Speaker
from selftaught.config import command


@command
def embed(
    run: Annotated[str | os.PathLike[str], "", "folder of a finished run"],
    data: Annotated[Any, "", "what to embed, of the kind the run was trained on"],
    *,
    out: Annotated[str, "", "file to write: .parquet (path, part, embedding) or .npy (vectors alone)"],
    batch_size: Annotated[int, "in [1, inf)", "samples at a time"] = 256,
    workers: Annotated[int | None, "in [0, 4096]", "processes that read data"] = None,
    accept_unreadable: Annotated[bool, "", "go on although more than 5 % cannot be read"] = False,
    quiet: Annotated[bool, "", "print nothing but errors"] = False,
) -> Path:
    """Writes one vector for each sample; what cannot be read is left out and named.

    Returns the path written. Raises RunError, DataError, ConfigError, QuarantineError.
    """
    Run.open(run)
    path = writable(out, "embed", (".parquet", ".npy"))
    import numpy as np  # torch and the rest, only once all that is cheap was checked

    from selftaught.commands.choices import workers as choose_workers
    from selftaught.commands.model import load
    from selftaught.commands.samples import read_again

    model = load(run)
    samples = read_again(data, model.modality, accept_unreadable=accept_unreadable)
    bad = list(samples.index.quarantine)
    count, _ = choose_workers(workers, "cpu", 1)
    vectors = model.embed_index(samples.index, batch_size=batch_size, workers=count, unreadable=bad)
    kept = np.flatnonzero(np.isfinite(vectors).all(axis=1))
    _write(path, vectors[kept], samples.index.select(kept))
    say = Speaker(quiet)
    say(f"{len(kept):,} vectors of {vectors.shape[1]} numbers are in {path}")
    for name, reason in dict(bad).items():
        say(f"left out: {name}: {reason}")
    return path


def _write(path: Path, vectors: Any, index: Any) -> None:
    if path.suffix == ".npy":
        return write_array(path, vectors)
    import pyarrow as pa

    columns = {name: index.column(name).tolist() for name in ("path", "part")}
    flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
    write_table(path, {**columns, "embedding": flat})
