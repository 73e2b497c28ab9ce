"""What a picture's first bytes say of it: format, size, channels, depth, orientation, without decoding.

Each ``read`` function takes the whole file as bytes and returns a ``Head``, or raises ``UnreadableError`` with the
reason. ``complete`` looks whether the file goes on to its end, which decoders are silent about: a truncated JPEG
decodes to a picture that is grey from some row on.

Sources: PNG (ISO/IEC 15948), WebP (RFC 9649), TIFF 6.0, Exif 2.3 (its block is itself a TIFF), BITMAPINFOHEADER.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import simplejpeg

from selftaught.errors import UnreadableError, first_line
from selftaught.formats import tiff

SIGNATURES = ((b"\xff\xd8\xff", "jpeg"), (b"\x89PNG\r\n\x1a\n", "png"), (b"BM", "bmp"), *tiff.SIGNATURES)
OTHERS = (
    (b"%PDF", "a PDF"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x00\x00\x00\x0cjP", "JPEG 2000"),
)
FTYP = {b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIF", b"avif": "AVIF"}


@dataclass(frozen=True, slots=True)
class Head:
    """``size`` is (Y, X) as stored, before ``orientation`` (Exif, 1 to 8) is undone; ``channels`` without alpha."""

    kind: str
    size: tuple[int, int]
    channels: int
    depth: int = 8  # bits a channel: 8, 16 or 32 (float)
    alpha: bool = False
    orientation: int = 1
    odd: bool = False  # True = a JPEG that turbojpeg does not decode


def kind_of(start: bytes) -> str:
    """ "jpeg", "png", "webp", "tiff" or "bmp" from the first 16 bytes; ``UnreadableError`` says what it is instead."""
    if not start:
        raise UnreadableError("the file is empty (0 bytes)")
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "webp"
    for signature, kind in SIGNATURES:
        if start.startswith(signature):
            return kind
    raise UnreadableError(f"not a picture that can be read: it {_what(start)}")


def read_head(data: bytes) -> Head:
    """The head of a whole file in memory."""
    kind = kind_of(data[:16])
    try:
        return _READERS[kind](data)
    except (struct.error, IndexError):
        raise UnreadableError(f"truncated {kind}: its header is cut off") from None
    except (ValueError, KeyError, ZeroDivisionError) as error:
        raise UnreadableError(f"broken {kind} header: {first_line(error)}") from None


def check_complete(data: bytes, head: Head) -> None:
    """Raises ``UnreadableError`` where the file ends too early or a PNG's checksum is wrong. JPEG: see ``pictures``."""
    check = {"png": _check_png, "webp": _check_webp, "bmp": _check_bmp, "tiff": _check_tiff}.get(head.kind)
    if check:
        try:
            check(data)
        except (struct.error, IndexError, ValueError, KeyError) as error:
            raise UnreadableError(f"truncated {head.kind}: {first_line(error)}") from None


def _what(start: bytes) -> str:
    for signature, name in OTHERS:
        if start.startswith(signature):
            return f"is {name}"
    if start[4:8] == b"ftyp":
        return f"is {FTYP.get(start[8:12], 'an MP4 or HEIF file')}"
    if all(9 <= byte < 127 for byte in start):
        return f"holds text ({start[:12].decode('ascii', 'replace').strip()!r} …)"
    return f"starts with the bytes {start[:4].hex(' ')}"


# --- JPEG ---------------------------------------------------------------------------------------------------------


def _jpeg(data: bytes) -> Head:
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError as error:
        if "subsampling" not in str(error):
            raise
        return _odd_jpeg(data)
    return Head("jpeg", (int(height), int(width)), 1 if colours == "Gray" else 3, orientation=_jpeg_orientation(data))


def _odd_jpeg(data: bytes) -> Head:
    """Chroma sampled in a way that turbojpeg has no name for; libjpeg decodes it. Also where the header is cut off."""
    for marker, start, _ in _segments(data):
        if marker in (0xC0, 0xC1, 0xC2):
            height, width, components = struct.unpack_from(">HHB", data, start + 1)
            channels = 1 if components == 1 else 3
            return Head("jpeg", (height, width), channels, orientation=_jpeg_orientation(data), odd=True)
    raise ValueError("it holds no picture")


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, start of the body, its length) of the segments before the pixels: a few bytes of each are looked at."""
    at = 2
    while data[at] == 0xFF and data[at + 1] not in (0xDA, 0xD9):
        (length,) = struct.unpack_from(">H", data, at + 2)
        yield data[at + 1], at + 4, length - 2
        at += 2 + length


def _jpeg_orientation(data: bytes) -> int:
    """From APP1; cameras write it first."""
    for marker, start, length in _segments(data):
        if marker == 0xE1 and data[start : start + 6] == b"Exif\0\0":
            return tiff.orientation(data[start + 6 : start + length])
    return 1


# --- PNG ----------------------------------------------------------------------------------------------------------


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(type, start of the body, length) of each chunk; ValueError where the file ends first."""
    at, name = 8, b""
    while name != b"IEND":
        if at + 12 > len(data):
            raise ValueError("the file ends before the picture does")
        length, name = struct.unpack_from(">I4s", data, at)
        if at + 12 + length > len(data):
            raise ValueError("the file ends before the picture does")
        yield name, at + 8, length
        at += 12 + length


def _png(data: bytes) -> Head:
    width, height, depth, colour = struct.unpack_from(">IIBB", data, 16)
    orientation, transparent = 1, False
    for name, start, length in _png_chunks(data):
        if name == b"eXIf":
            orientation = tiff.orientation(data[start : start + length])
        transparent |= name == b"tRNS"
        if name == b"IDAT":
            break
    channels = 1 if colour in (0, 4) else 3  # 2 RGB, 3 palette, 6 RGBA
    return Head(
        "png", (height, width), channels, 16 if depth == 16 else 8, colour in (4, 6) or transparent, orientation
    )


def _check_png(data: bytes) -> None:
    view = memoryview(data)
    for name, start, length in _png_chunks(data):
        (written,) = struct.unpack_from(">I", data, start + length)
        if zlib.crc32(view[start - 4 : start + length]) != written:
            raise ValueError(f"wrong checksum in its {name.decode('latin-1')} block")


# --- WebP ---------------------------------------------------------------------------------------------------------


def _webp(data: bytes) -> Head:
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (1 + int.from_bytes(data[at : at + 3], "little") for at in (24, 27))
        return Head("webp", (height, width), 3, alpha=bool(data[20] & 0x10), orientation=_webp_orientation(data))
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return Head("webp", (1 + (bits >> 14 & 0x3FFF), 1 + (bits & 0x3FFF)), 3, alpha=bool(bits >> 28 & 1))
    width, height = struct.unpack_from("<HH", data, 26)
    return Head("webp", (height & 0x3FFF, width & 0x3FFF), 3)


def _webp_orientation(data: bytes) -> int:
    at = 12
    while at + 8 <= len(data):
        name, length = struct.unpack_from("<4sI", data, at)
        if name == b"EXIF":
            block = data[at + 8 : at + 8 + length]
            return tiff.orientation(block.removeprefix(b"Exif\0\0"))
        at += 8 + length + length % 2
    return 1


def _check_webp(data: bytes) -> None:
    if len(data) < 8 + struct.unpack_from("<I", data, 4)[0]:
        raise ValueError("the file ends before the picture does")


# --- BMP and TIFF -------------------------------------------------------------------------------------------------


def _bmp(data: bytes) -> Head:
    offset, header, width, height, _, bits, compression = struct.unpack_from("<IIiiHHI", data, 10)
    gray = bits <= 8 and compression == 0 and _gray_palette(data[14 + header : offset])
    return Head("bmp", (abs(height), width), 1 if gray else 3, alpha=bits == 32)


def _gray_palette(entries: bytes) -> bool:
    """OpenCV gives one channel where the palette holds greys only."""
    blue, green, red = entries[0::4], entries[1::4], entries[2::4]
    return blue == green == red


def _check_bmp(data: bytes) -> None:
    offset, _, width, height, _, bits, compression = struct.unpack_from("<IIiiHHI", data, 10)
    row = (abs(width) * bits + 31) // 32 * 4
    if compression in (0, 3) and len(data) < offset + row * abs(height):
        raise ValueError("the file ends before the picture does")


def _tiff(data: bytes) -> Head:
    page = tiff.read_page(data)
    return Head("tiff", page.size, page.colours, page.depth, page.alpha, page.orientation)


def _check_tiff(data: bytes) -> None:
    page = tiff.read_page(data)
    if any(start + length > len(data) for start, length in page.blocks):
        raise ValueError("the file ends before the picture does")


_READERS = {"jpeg": _jpeg, "png": _png, "webp": _webp, "bmp": _bmp, "tiff": _tiff}
