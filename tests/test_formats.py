"""Pictures and arrays from bytes: whole and as stored, or refused with the reason."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow

from selftaught.errors import DataError, UnreadableError
from selftaught.formats import arrays
from selftaught.formats.pictures import EXTENSIONS, Picture
from selftaught.formats.stills import look, open_still
from tests.tiff_files import written


def photo(height: int = 37, width: int = 53, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Smooth and coloured, so that JPEG keeps it and rows and columns cannot be confused."""
    rough = np.random.default_rng(seed).integers(0, 256, (6, 7, channels), dtype=np.uint8)
    return cv2.resize(rough, (width, height), interpolation=cv2.INTER_CUBIC).reshape(height, width, channels)


def saved(pixels: np.ndarray | Pillow.Image, kind: str, **options) -> bytes:
    picture = pixels if isinstance(pixels, Pillow.Image) else Pillow.fromarray(pixels.squeeze())
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def far(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(float) - b.astype(float)).mean())


# --- As stored ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "BMP", "JPEG"])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "LA", "RGBA", "I;16", "CMYK"])
def test_head_says_what_the_decoder_gives(kind, mode):
    """Every format and mode that Pillow writes: the shape from the head is that of the pixels, which are Pillow's."""
    if mode == "I;16":
        picture = Pillow.fromarray(np.random.default_rng(0).integers(0, 65536, (37, 53)).astype(np.uint16))
    else:
        picture = Pillow.fromarray(photo()).convert(mode)
    try:
        data = saved(picture, kind, **({"lossless": True} if kind == "WEBP" else {}))
    except OSError as error:
        assert "cannot write mode" in str(error)
        return  # Pillow cannot write this pair, so nobody has such a file from it
    decoded = Picture(data)
    pixels = decoded.decode()
    assert pixels.shape == decoded.shape and pixels.dtype == decoded.dtype and pixels.flags.c_contiguous
    reopened = Pillow.open(io.BytesIO(data))
    expected = np.asarray(reopened if mode == "I;16" and kind != "WEBP" else reopened.convert("RGB"))
    assert far(pixels, np.broadcast_to(expected.reshape(37, 53, -1)[..., : pixels.shape[2]], pixels.shape)) < 1.5


def test_sixteen_bits_stay_sixteen_bits():
    pixels = np.random.default_rng(1).integers(0, 65536, (20, 30, 3)).astype(np.uint16)
    for extension in (".png", ".tiff"):
        data = cv2.imencode(extension, pixels[..., ::-1])[1].tobytes()
        assert np.array_equal(np.asarray(Picture(data)), pixels)
    gray = cv2.imencode(".png", pixels[..., 0])[1].tobytes()
    assert np.array_equal(Picture(gray).decode(), pixels[..., :1])


def test_float_tiff_stays_float():
    pixels = np.random.default_rng(1).normal(size=(20, 30)).astype(np.float32)
    picture = Picture(cv2.imencode(".tiff", pixels)[1].tobytes())
    assert picture.dtype == np.float32 and np.array_equal(picture.decode()[..., 0], pixels)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_transparency_is_laid_onto_white(mode, kind):
    colour = photo()
    alpha = np.full((37, 53), 255, np.uint8)
    alpha[:10], alpha[10:20] = 0, 128
    picture = Pillow.fromarray(np.dstack([colour, alpha])).convert(mode)
    pixels = Picture(saved(picture, kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {}))).decode()
    assert pixels.shape[2] == (1 if mode == "LA" and kind != "WEBP" else 3)
    assert (pixels[:10] == 255).all()
    stored = np.asarray(picture)[..., : pixels.shape[2]]
    stored = np.broadcast_to(stored if mode == "RGBA" or pixels.shape[2] == 1 else stored[..., :1], pixels.shape)
    assert np.array_equal(pixels[20:], stored[20:])
    half = 255 - (255 - stored[10:20].astype(float)) * 128 / 255
    assert np.abs(pixels[10:20] - half).max() <= 1


def test_cmyk_jpeg_is_what_other_readers_show():
    data = saved(Pillow.fromarray(photo()).convert("CMYK"), "JPEG", quality=95)
    assert Picture(data).shape == (37, 53, 3)
    assert far(Picture(data).decode(), np.asarray(Pillow.open(io.BytesIO(data)).convert("RGB"))) < 2


def test_jpeg_of_unusual_chroma_sampling_is_read():
    """Factors 1x2, 1x2, 1x1, which turbojpeg has no name for: a plain grey block, its scan written by hand."""
    data = bytearray(saved(np.full((16, 8, 3), 128, np.uint8), "JPEG", subsampling=0))
    frame, scan = data.index(b"\xff\xc0"), data.index(b"\xff\xda")
    data[frame + 11], data[frame + 14], data[frame + 17] = 0x12, 0x12, 0x11
    (length,) = struct.unpack_from(">H", data, scan + 2)
    head, end = bytes(data[: scan + 2 + length]), b"\xff\xd9"
    picture = Picture(head + b"\x28\xa0\x00" + end)  # (00 1010) twice for Y, (00 00) twice for Cb and once for Cr
    assert picture.head.odd and picture.shape == (16, 8, 3)
    assert np.abs(picture.decode().astype(int) - 128).max() <= 1
    with pytest.raises(UnreadableError, match="end marker"):
        Picture(head + b"\x28\xa0\x00").decode()


@pytest.mark.parametrize("channels", [2, 4, 5, 13])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("how", [(False, 1, "<"), (True, 1, ">"), (True, 2, "<")])
def test_tiff_of_many_channels(channels, planar, how):
    pixels = np.random.default_rng(channels).integers(0, 65536, (21, 18, channels)).astype(np.uint16)
    data = written(pixels, codec="deflate" if how[0] else "", planar=planar, predictor=how[1], order=how[2])
    picture = Picture(data)
    assert picture.shape == (21, 18, channels) and np.array_equal(picture.decode(), pixels)
    with pytest.raises(UnreadableError):
        Picture(data[:300] if not how[0] else data.replace(data[8:40], bytes(32))).decode()


@pytest.mark.parametrize("planar", [False, True])
def test_tiff_of_tiles(planar):
    pixels = np.random.default_rng(1).integers(0, 256, (40, 57, 3), dtype=np.uint8)
    data = written(pixels, codec="deflate", planar=planar, predictor=2, tile=16)
    assert np.array_equal(Picture(data).decode(), pixels)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_tiff_by_opencv_and_by_us_agree(compression, mode, orientation):
    exif = Pillow.Exif()
    exif[274] = orientation
    alpha = np.tile(np.linspace(0, 255, 53).astype(np.uint8), (37, 1))
    picture = Pillow.fromarray(np.dstack([photo(), alpha])).convert(mode)
    pixels = Picture(saved(picture, "TIFF", compression=compression, exif=exif)).decode()
    stored = np.asarray(picture).astype(float).reshape(37, 53, -1)
    if mode == "RGBA":
        stored = 255 - (255 - stored[..., :3]) * stored[..., 3:] / 255
    expected = {1: stored, 3: np.rot90(stored, 2), 6: np.rot90(stored, -1)}[orientation]
    assert np.abs(pixels - expected).max() <= 1.5


def test_tiff_of_many_channels_with_another_compression_says_so():
    data = bytearray(written(photo(channels=4)))
    at = data.rindex(struct.pack("<HHII", 259, 4, 1, 1))
    data[at + 8] = 5
    with pytest.raises(UnreadableError, match="4 channels compressed by LZW"):
        Picture(bytes(data)).decode()


# --- Orientation --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_is_undone(orientation, kind):
    from PIL import ImageOps

    exif = Pillow.Exif()
    exif[274] = orientation
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind == "JPEG" else {}
    data = saved(photo(), kind, exif=exif, **options)
    picture = Picture(data)
    expected = np.asarray(ImageOps.exif_transpose(Pillow.open(io.BytesIO(data))))
    assert picture.shape == expected.shape == picture.decode().shape
    assert far(picture.decode(), expected) < 1.5


def test_broken_exif_costs_no_picture():
    exif = Pillow.Exif()
    exif[274] = 6
    data = saved(photo(), "JPEG", exif=exif)
    at = data.index(b"Exif\0\0") + 6
    assert Picture(data[: at + 4] + b"\xff\xff\xff\xff" + data[at + 8 :]).decode().shape == (37, 53, 3)


# --- Scale --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("smallest", [1.0, 0.8, 0.6, 0.5, 0.3, 0.25, 0.13, 0.01])
@pytest.mark.parametrize("orientation", [1, 6])
def test_jpeg_is_decoded_at_the_next_scale_that_suffices(smallest, orientation):
    exif = Pillow.Exif()
    exif[274] = orientation
    picture = Picture(saved(photo(301, 403), "JPEG", quality=95, exif=exif))
    pixels = picture.decode(smallest)
    for got, full in zip(pixels.shape[:2], picture.shape[:2], strict=True):
        assert got >= smallest * full - 1e-9
        assert smallest > 5 / 8 and got == full or got <= (smallest + 1 / 8) * full + 1
    whole = cv2.resize(picture.decode(), pixels.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert far(whole, pixels) < (3 if smallest > 0.1 else 6)  # an eighth of a DCT block is its mean


def test_scale_is_for_jpeg_only():
    assert Picture(saved(photo(), "PNG")).decode(0.1).shape == (37, 53, 3)


# --- Broken -------------------------------------------------------------------------------------------------------


def cuts(data: bytes, count: int = 100) -> list[int]:
    return sorted({*np.linspace(1, len(data) - 1, count).astype(int).tolist(), len(data) - 1, len(data) - 2})


@pytest.mark.parametrize("kind", ["JPEG", "progressive", "PNG", "WEBP", "TIFF", "BMP"])
def test_truncated_files_are_refused_at_every_offset(kind, capfd):
    options = {"progressive": True} if kind == "progressive" else {}
    data = saved(photo(80, 90), "JPEG" if kind == "progressive" else kind, **options)
    assert Picture(data).decode().shape == (80, 90, 3)
    for cut in cuts(data):
        if kind == "TIFF" and cut > max(data.rindex(photo(80, 90).tobytes()[-9:]) + 9, 0):
            continue  # what follows the last pixel is not the picture
        with pytest.raises(UnreadableError) as caught:
            Picture(data[:cut]).decode()
        assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")  # decoders print their own warnings unless told not to


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
def test_overwritten_bytes_never_give_anything_but_a_picture_or_a_reason(kind):
    """Also under reduced scale. A flipped bit may well decode: what must not happen is another exception or a crash."""
    data, rng, refused = saved(photo(60, 70), kind), np.random.default_rng(0), 0
    for _ in range(120):
        broken, at = bytearray(data), int(rng.integers(0, len(data)))
        broken[at : at + 4] = rng.integers(0, 256, len(broken[at : at + 4]), dtype=np.uint8).tobytes()
        try:
            picture = Picture(bytes(broken))
            assert picture.shape[:2] > (0, 0) and picture.decode(0.5).ndim == 3
        except UnreadableError:
            refused += 1
    assert refused >= {"PNG": 100, "JPEG": 10}.get(kind, 0)


def test_png_with_a_wrong_checksum_is_refused():
    data = bytearray(saved(photo(), "PNG"))
    data[len(data) // 2] ^= 1
    with pytest.raises(UnreadableError, match="checksum"):
        Picture(bytes(data)).decode()


def test_padding_and_trailing_bytes_of_cameras_are_accepted():
    data, expected = saved(photo(), "JPEG"), Picture(saved(photo(), "JPEG")).decode()
    assert np.array_equal(Picture(data + bytes(100)).decode(), expected)
    assert np.array_equal(Picture(data[:-2] + bytes(7) + data[-2:]).decode(), expected)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"this is a note about a picture\n", "text"),
        (b"GIF89a" + bytes(40), "animation"),
        (b"\0\0\0\x18ftypheic" + bytes(40), "HEIC"),
        (b"PK\x03\x04" + bytes(40), "ZIP"),
        (bytes(40), "starts with"),
    ],
)
def test_what_is_no_picture_is_named(tmp_path, content, reason):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    for asked in (look, open_still):
        with pytest.raises(UnreadableError, match=reason):
            asked(str(path))


def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path / "no.jpg", tmp_path):
        for asked in (look, open_still):
            with pytest.raises(UnreadableError, match="cannot be opened"):
                asked(str(path))


def test_decompression_bomb_is_refused_before_it_is_unpacked():
    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(1000))
    data = b"\x89PNG\r\n\x1a\n"
    for name, block in ((b"IHDR", head), (b"IDAT", body), (b"IEND", b"")):
        data += struct.pack(">I", len(block)) + name + block + struct.pack(">I", zlib.crc32(name + block))
    with pytest.raises(UnreadableError, match="60000 x 60000 pixels, more than"):
        Picture(data)


def test_content_counts_not_the_name(tmp_path):
    (tmp_path / "a.jpg").write_bytes(saved(photo(), "PNG"))
    assert look(str(tmp_path / "a.jpg")) == (1, "")
    assert np.array_equal(open_still(str(tmp_path / "a.jpg")).decode(), photo())
    assert {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".btf", ".svs"} == EXTENSIONS


def test_picture_is_cheap_to_pickle():
    data = saved(photo(), "JPEG")
    picture = Picture(data)
    picture.decode()
    sent = pickle.dumps(picture)
    assert len(sent) < len(data) + 400 and np.array_equal(pickle.loads(sent).decode(), picture.decode())


# --- Arrays -------------------------------------------------------------------------------------------------------


def test_npy_is_mapped_and_follows_a_rewrite(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.arange(12).reshape(4, 3))
    assert isinstance(arrays.open_array(path), np.memmap) and arrays.rows(path) == 4
    assert arrays.open_array(path) is arrays.open_array(path)
    np.save(path, np.arange(15).reshape(5, 3))
    assert arrays.rows(path) == 5
    with pytest.raises(ValueError):
        arrays.open_array(path)[0] = 1


@pytest.mark.parametrize("dtype", ["u1", "<f8", ">i2", "U5"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_uncompressed_members_are_mapped_where_they_lie(tmp_path, dtype, order):
    first, x = np.arange(7), np.asarray(np.arange(24).reshape(6, 4), dtype, order=order)
    np.savez(tmp_path / "a.npz", first=first, x=x)
    found = arrays.open_array(tmp_path / "a.npz")
    assert isinstance(found, np.memmap) and found.dtype == x.dtype and np.array_equal(found, x)
    assert np.array_equal(arrays.open_array(f"{tmp_path}/a.npz::first"), first)


def test_compressed_members_are_unpacked_once(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", x=np.arange(100))
    found = arrays.open_array(tmp_path / "a.npz")
    assert found is arrays.open_array(tmp_path / "a.npz", "x") and not found.flags.writeable


@pytest.mark.parametrize(
    ("names", "chosen", "labels"),
    [
        (["x", "y"], "x", "y"),
        (["train_images", "train_labels", "test_images", "test_labels"], "train_images", "train_labels"),
        (["train_x", "train_y", "test_x", "test_y", "classes"], "train_x", "train_y"),
        (["weird"], "weird", None),
        (["images", "target"], "images", "target"),
    ],
)
def test_which_member_is_meant(tmp_path, names, chosen, labels):
    path = tmp_path / "a.npz"
    np.savez(path, allow_pickle=False, **{name: np.arange(3) for name in names})
    assert arrays.keys(path) == names and arrays.choose_key(path) == chosen
    assert arrays.partner(path) == (f"{path}::{labels}" if labels else None)
    if "test_x" in names:
        assert arrays.partner(f"{path}::test_x") == f"{path}::test_y"


def test_unclear_and_unknown_members_are_named(tmp_path):
    np.savez(tmp_path / "a.npz", alpha=np.arange(3), beta=np.arange(3))
    with pytest.raises(DataError, match="does not say") as caught:
        arrays.open_array(tmp_path / "a.npz")
    assert "alpha, beta" in caught.value.hint and "a.npz::alpha" in caught.value.hint
    with pytest.raises(DataError, match="no array named 'alpa'") as caught:
        arrays.open_array(f"{tmp_path}/a.npz::alpa")
    assert caught.value.hint == "Did you mean 'alpha'?"


def test_pickles_are_never_loaded(tmp_path):
    objects = np.array([{"a": 1}, None], dtype=object)
    np.save(tmp_path / "a.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "b.npz", x=objects)
    np.savez_compressed(tmp_path / "c.npz", x=objects)
    for name in ("a.npy", "b.npz", "c.npz"):
        with pytest.raises(UnreadableError, match="pickled Python objects"):
            arrays.open_array(tmp_path / name)


@pytest.mark.parametrize("save", [np.save, np.savez, np.savez_compressed])
def test_truncated_arrays_are_refused(tmp_path, save):
    path = tmp_path / ("a.npy" if save is np.save else "a.npz")
    save(path, np.random.default_rng(0).random(500))
    whole = path.read_bytes()
    for cut in np.linspace(0, len(whole) - 1, 40).astype(int):
        path.write_bytes(whole[:cut])
        with pytest.raises(UnreadableError):
            np.array(arrays.open_array(path))


def test_broken_archives_are_refused(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"no archive")
    with pytest.raises(UnreadableError, match="not an .npz"):
        arrays.open_array(tmp_path / "a.npz")
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("x.npy", b"no array")
    with pytest.raises(UnreadableError, match="broken array"):
        arrays.open_array(tmp_path / "b.npz")
    with pytest.raises(UnreadableError, match="cannot be opened"):
        arrays.open_array(tmp_path / "c.npy")


@pytest.mark.parametrize("bits", [24, 32])
@pytest.mark.parametrize("sign", [1, -1])
def test_bmp_of_four_bytes_a_pixel_is_opaque(bits, sign):
    """The fourth byte of a plain 32-bit BMP is unused and mostly 0: taken for alpha it would make the picture white."""
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 3), dtype=np.uint8)
    rows = pixels[::-sign, :, ::-1]
    body = (np.dstack([rows, np.zeros((5, 8), np.uint8)]) if bits == 32 else rows).tobytes()
    head = struct.pack("<IiiHHIIiiII", 40, 8, 5 * sign, 1, bits, 0, len(body), 0, 0, 0, 0)
    data = b"BM" + struct.pack("<IHHI", 54 + len(body), 0, 0, 54) + head + body
    assert np.array_equal(Picture(data).decode(), pixels)
