"""The samples of one shard, in order, as they come over the wire: WebDataset's tar files and Parquet.

Nothing but the record at hand is held. A connection that breaks is opened again and read up to where it was, so that
what a shard holds never depends on the network; a shard that is itself broken ends where it breaks, and is named.
"""

from __future__ import annotations

import os
import tarfile
import time
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from selftaught.data import archives, columnar, remote
from selftaught.errors import DataError, UnreadableError, WorkerError, first_line
from selftaught.formats import files

ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".parquet")
LARGEST = 2**31  # bytes of a sample


class Record(NamedTuple):
    """One sample as stored. ``columns``: what lies beside it, by name."""

    name: str
    content: bytes
    columns: dict[str, str]


def records(url: str, wanted: frozenset[str], skip: int = 0) -> Iterator[Record]:
    """The samples of a shard from number ``skip`` on: members whose extension is ``wanted``, or rows with bytes.

    Raises ``UnreadableError`` where the shard is broken, ``DataError`` for one that holds no samples at all, and
    ``WorkerError`` where it cannot be reached any more.
    """
    read = _rows if url.lower().endswith(".parquet") else _members
    tried = 0
    while True:
        try:
            with remote.opened(url) as file:
                for record in read(file, wanted, skip):
                    yield record
                    skip, tried = skip + 1, 0
            return
        except (UnreadableError, DataError):
            raise
        except Exception as error:  # every file system has its own
            tried += 1
            if tried == remote.TRIES:
                hint = "The run can be gone on with once it can be reached."
                raise WorkerError(f"{url} cannot be read any more: {first_line(error)}.", hint=hint) from error
            time.sleep(remote.PAUSE * 2 ** (tried - 1))


def count(url: str) -> int | None:
    """How many samples a shard says that it holds; None for a tar file, which does not say."""
    if not url.lower().endswith(".parquet"):
        return None

    def rows() -> int:
        with remote.opened(url) as file:
            return _parquet(file).metadata.num_rows

    return remote.patiently(rows)


# --- Tar --------------------------------------------------------------------------------------------------------------


def _members(file: BinaryIO, wanted: frozenset[str], skip: int) -> Iterator[Record]:
    """Neighbours of one key are one sample (WebDataset): one member is the sample, others say something of it."""
    key, sample, said = "", None, {}
    for name, content in _files(file):
        if archives.key(name) != key:
            if sample is not None:
                if skip:
                    skip -= 1
                else:
                    yield Record(*sample, said)
            key, sample, said = archives.key(name), None, {}
        extension = files.extension(name)
        if extension in wanted and sample is None:
            sample = (name, content())
        elif extension in archives.BESIDE:
            said.update(archives.values(content(archives.LONGEST), extension))
    if sample is not None and not skip:
        yield Record(*sample, said)


def _files(file: BinaryIO) -> Iterator[tuple[str, Callable[..., bytes]]]:
    """(name, what reads it) of the plain members of a tar file that is read from its start to its end."""
    try:
        with tarfile.open(fileobj=file, mode="r|*") as archive:
            for member in archive:
                if member.isreg() and 0 <= member.size <= LARGEST:

                    def content(most: int = LARGEST, member: tarfile.TarInfo = member) -> bytes:
                        held = archive.extractfile(member)
                        data = held.read(min(member.size, most)) if held else b""
                        if len(data) < min(member.size, most):
                            raise UnreadableError(f"breaks off within {member.name!r}")
                        return data

                    yield member.name, content
    except tarfile.TarError as error:
        raise UnreadableError(f"broken tar file: {first_line(error)}") from None


# --- Parquet ----------------------------------------------------------------------------------------------------------


def _rows(file: BinaryIO, wanted: frozenset[str], skip: int) -> Iterator[Record]:
    parquet = _parquet(file)
    binary = columnar.binary_column(parquet.schema_arrow, "The shard")
    if binary is None:
        raise DataError("The shards hold no column of bytes.", hint="A column like Hugging Face's 'image' is needed.")
    plain = columnar.plain_columns(parquet.schema_arrow)
    names = {each: columnar.class_names(parquet.schema_arrow, each) for each in plain}
    first, digits = 0, len(str(parquet.metadata.num_rows))
    for group in range(parquet.metadata.num_row_groups):
        size = parquet.metadata.row_group(group).num_rows
        if skip >= first + size:
            first += size
            continue
        for batch in parquet.iter_batches(columnar.FEW, row_groups=[group], columns=[binary, *plain]):
            columns = {each: columnar.strings(batch.column(each), names[each]) for each in plain}
            for row, value in enumerate(batch.column(binary).to_pylist()):
                if first >= skip:
                    data, said = columnar.held(value)
                    name = f"{first:0{digits}}{columnar.suffix(data, said)}"
                    yield Record(name, data, {each: values[row] for each, values in columns.items()})
                first += 1


def _parquet(file: BinaryIO) -> Any:
    try:
        return pq.ParquetFile(file)
    except pa.ArrowInvalid as error:
        raise UnreadableError(f"broken Parquet file: {first_line(error)}") from None


def stem(url: str) -> str:
    """What to call a shard: the last part of its URL, without what follows a question mark."""
    return os.path.basename(url.split("?")[0])
