"""Everything that holds pictures, as pictures: a file is one, or has pages (TIFF), frames (DICOM, GIF, WebP) or slices
(NIfTI), which belong together.

What a file is, its content says; a volume is known by its name, since its first bytes are a number and its packed ones
anybody's.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from selftaught.errors import UnreadableError
from selftaught.formats import animation, dicom, files, heads, nifti, pictures, tiff

EXTENSIONS = pictures.EXTENSIONS | dicom.EXTENSIONS | nifti.EXTENSIONS | animation.EXTENSIONS
_TIFF = tuple(start for start, _ in tiff.SIGNATURES)


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
    if animation.is_animation(start):
        return _several(animation.frames(files.read(path)), path)
    if heads.kind_of(start[:16]) == "tiff":
        return _several(len(_pages(path)), path)
    return Look(1, "")


def _several(count: int, path: str) -> Look:
    """Pictures of one file belong together, where there are several."""
    return Look(count, path if count > 1 else "")


def _pages(path: str) -> list[int]:
    found = tiff.pages(lambda at, count: files.read_at(path, at, count))
    if not found:
        raise UnreadableError("a tiff without a page that is a picture")
    return found


def open_still(path: str, part: int = 0, *, window: Any = "file", axis: int = 2) -> Any:
    """One picture, still encoded where that is possible: ``shape`` (Y, X, C), ``dtype``, ``numpy.asarray``."""
    if nifti.is_nifti(path):
        return nifti.read_slice(path, part, axis)
    data = files.read(path)
    if dicom.is_dicom(data[: dicom.START]):
        return dicom.Frame(data, part, window)
    if animation.is_animation(data[: dicom.START]):
        return animation.Frame(data, part)
    if part == 0 and not data.startswith(_TIFF):
        return pictures.Picture(data)
    return _page(data, part)


def _page(data: bytes, part: int) -> pictures.Picture:
    """A page of a TIFF; the first as it is where there is no other before it."""
    pages = tiff.pages(lambda at, count: data[at : at + count]) if data.startswith(_TIFF) else [0]
    if part >= len(pages):
        raise UnreadableError(f"holds {len(pages)} pictures, number {part + 1} was asked for")
    return pictures.Picture(tiff.with_page(data, pages[part]))


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
