"""Everything that holds pictures, as pictures: a file is one, or has frames (DICOM) or slices (NIfTI).

What a file is, its content says; a volume is known by its name, since its first bytes are a number and its packed ones
anybody's.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from selftaught.errors import UnreadableError
from selftaught.formats import dicom, files, heads, nifti, pictures

EXTENSIONS = pictures.EXTENSIONS | dicom.EXTENSIONS | nifti.EXTENSIONS


class Look(NamedTuple):
    """``count`` pictures, of which those of one ``group`` must stay on one side of a split ("" = nothing said)."""

    count: int
    group: str


def look(path: str, *, axis: int = 2) -> Look:
    """What is in a file, cheaply: 132 bytes of a picture, the header of the others. Raises ``UnreadableError``."""
    if nifti.is_nifti(path):
        return Look(nifti.slices(path, axis), path)
    start = files.read(path, dicom.START)
    if dicom.is_dicom(start):
        return Look(*dicom.look(path))
    heads.kind_of(start[:16])
    return Look(1, "")


def open_still(path: str, part: int = 0, *, window: Any = "file", axis: int = 2) -> Any:
    """One picture, still encoded where that is possible: ``shape`` (Y, X, C), ``dtype``, ``numpy.asarray``."""
    if nifti.is_nifti(path):
        return nifti.read_slice(path, part, axis)
    data = files.read(path)
    if dicom.is_dicom(data[: dicom.START]):
        return dicom.Frame(data, part, window)
    if part:
        raise UnreadableError(f"holds one picture, number {part + 1} was asked for")
    return pictures.Picture(data)


def is_bare_dicom(path: str) -> bool:
    """A DICOM file without an extension, as scanners write them (``IM000001``, or a number with dots)."""
    name = path.rsplit("/", 1)[-1]
    ending = name.rpartition(".")[2] if "." in name else ""
    if (ending and not ending.isdecimal()) or name.upper() == "DICOMDIR":
        return False
    try:
        return dicom.is_dicom(files.read(path, dicom.START))
    except UnreadableError:
        return False
