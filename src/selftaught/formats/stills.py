"""Everything that holds pictures, as pictures: a file is one, or has pages (TIFF), frames (DICOM, GIF, WebP) or slices
(NIfTI), which belong together; pictures and pages may be cut into tiles, which do too.

What a file is, its content says; a volume is known by its name, since its first bytes are a number and its packed ones
anybody's.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from selftaught.errors import UnreadableError
from selftaught.formats import animation, dicom, files, heads, nifti, pictures, tiff, tiff_parts, tiles

EXTENSIONS = pictures.EXTENSIONS | dicom.EXTENSIONS | nifti.EXTENSIONS | animation.EXTENSIONS
_TIFF = tuple(start for start, _ in tiff.SIGNATURES)


class Look(NamedTuple):
    """``count`` pictures, of which those of one ``group`` must stay on one side of a split ("" = nothing said)."""

    count: int
    group: str


def look(path: str, *, axis: int = 2, tile: int = 0) -> Look:
    """What is in a file, cheaply: 132 bytes of a picture, the header of the others. Raises ``UnreadableError``.

    ``tile``: side of the tiles that pictures and pages are cut into, pixels; 0 = only where they are too large.
    """
    if nifti.is_nifti(path):
        return Look(nifti.slices(path, axis), path)
    start = files.read(path, dicom.START)
    if dicom.is_dicom(start):
        return Look(*dicom.look(path))
    if animation.is_animation(start):
        return _several(animation.frames(files.read(path)), path)
    if heads.kind_of(start[:16]) == "tiff":
        pages = tiff.pages(lambda at, count: files.read_at(path, at, count))
        return _several(sum(tiles.count(page.size, tile) for page in _some(pages)), path)
    if not tile:
        return Look(1, "")
    return _several(tiles.count(pictures.Picture(files.read(path)).shape[:2], tile), path)


def _several(count: int, path: str) -> Look:
    """Pictures of one file belong together, where there are several."""
    return Look(count, path if count > 1 else "")


def _some(pages: list[tiff.Spot]) -> list[tiff.Spot]:
    if not pages:
        raise UnreadableError("a tiff without a page that is a picture")
    return pages


def open_still(path: str, part: int = 0, *, window: Any = "file", axis: int = 2, tile: int = 0) -> Any:
    """One picture, still encoded where that is possible: ``shape`` (Y, X, C), ``dtype``, ``numpy.asarray``."""
    if nifti.is_nifti(path):
        return nifti.read_slice(path, part, axis)
    data = files.content(path)
    start = bytes(data[: dicom.START])
    if dicom.is_dicom(start):
        return dicom.Frame(bytes(data), part, window)
    if start.startswith(_TIFF):
        return _page(data, part, tile)
    data = bytes(data)
    if animation.is_animation(start):
        return animation.Frame(data, part)
    picture = pictures.Picture(data)
    box = tiles.box(picture.shape[:2], tile, part)
    return tiles.Tile(picture, box) if tiles.side(picture.shape[:2], tile) else picture


def _page(data: tiff.Bytes, part: int, tile: int) -> Any:
    """A page of a TIFF, or a tile of one."""
    pages, before = _some(tiff.pages(lambda at, count: bytes(data[at : at + count]))), 0
    for page in pages:
        count = tiles.count(page.size, tile)
        if part < before + count:
            if tiles.side(page.size, tile):
                return tiff_parts.Part(data, page.at, tiles.box(page.size, tile, part - before))
            return pictures.Picture(tiff.with_page(bytes(data), page.at))
        before += count
    raise UnreadableError(f"holds {before:,} pictures, number {part + 1:,} was asked for")


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
