"""Pictures that are larger than memory: cut into tiles that are samples, of which only what they touch is read."""

from __future__ import annotations

import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image as Pillow

import selftaught as st
from selftaught.data.index import build_index
from selftaught.data.source import open_source
from selftaught.errors import ConfigError, UnreadableError
from selftaught.formats import files, stills, tiff, tiff_parts, tiles
from selftaught.formats.pictures import Picture
from selftaught.modalities.image import Image
from selftaught.types import Item, ViewGroup
from tests.tiff_files import written

PLAN = (ViewGroup(),)
pytestmark = pytest.mark.usefixtures("cache")


def photo(height: int = 90, width: int = 130, channels: int = 3, dtype: str = "uint8") -> np.ndarray:
    """(Y, X, C) smooth noise over the whole range."""
    noise = np.random.default_rng(0).random((height, width, channels), np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 4).reshape(height, width, channels)
    stretched = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    return stretched if dtype == "float32" else (stretched * np.iinfo(dtype).max).astype(dtype)


def joined(path: Path, size: tuple[int, int], tile: int) -> np.ndarray:
    """The whole picture, from its tiles."""
    shown: np.ndarray | None = None
    for part in range(stills.look(str(path), tile=tile).count):
        still = stills.open_still(str(path), part, tile=tile)
        y0, x0, y1, x1 = tiles.box(size, tile, part)
        pixels = still.decode()
        assert pixels.shape == still.shape == (y1 - y0, x1 - x0, still.shape[2]) and pixels.dtype == still.dtype
        shown = np.zeros((*size, pixels.shape[2]), pixels.dtype) if shown is None else shown
        shown[y0:y1, x0:x1] = pixels
    assert shown is not None
    return shown


HOW: dict[str, dict[str, Any]] = {
    "strips": {},
    "one strip": {"rows": 90},
    "deflated strips": {"codec": "deflate", "predictor": 2, "rows": 7},
    "tiles": {"tile": 32},
    "deflated tiles": {"tile": 16, "codec": "deflate", "predictor": 2},
    "JPEG tiles": {"tile": 32, "codec": "jpeg"},
    "JPEG strips": {"rows": 16, "codec": "jpeg"},
    "planes in strips": {"planar": True},
    "planes in tiles": {"planar": True, "tile": 32, "codec": "deflate"},
    "big endian": {"order": ">", "tile": 48},
    "BigTIFF": {"big": True, "tile": 32, "codec": "deflate"},
    "BigTIFF, big endian, strips": {"big": True, "order": ">", "rows": 5},
}


@pytest.mark.parametrize("tile", [25, 64, 100])
@pytest.mark.parametrize("how", HOW)
def test_tiles_of_a_tiff_are_the_whole_picture(tmp_path, monkeypatch, how, tile):
    monkeypatch.setattr(files, "LARGE", 0)  # mapped, as large files are
    (tmp_path / "a.tif").write_bytes(written(photo(), **HOW[how]))
    whole = Picture((tmp_path / "a.tif").read_bytes()).decode()
    assert np.array_equal(joined(tmp_path / "a.tif", (90, 130), tile), whole)


@pytest.mark.parametrize(("channels", "dtype"), [(1, "uint16"), (2, "uint8"), (5, "uint16"), (1, "float32")])
def test_channels_and_depths_of_tiles(tmp_path, channels, dtype):
    pixels = photo(channels=channels, dtype=dtype)
    data = bytearray(written(pixels, tile=32))
    if dtype == "float32":
        data = bytearray(tiff_of_floats(pixels[..., 0]))
    (tmp_path / "a.tif").write_bytes(data)
    assert np.array_equal(joined(tmp_path / "a.tif", (90, 130), 40), pixels)


def tiff_of_floats(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".tif", pixels)[1].tobytes()


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "tiff_adobe_deflate"])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "1", "P"])
def test_tiles_of_what_other_libraries_write(tmp_path, compression, mode):
    Pillow.fromarray(photo()).convert(mode).save(tmp_path / "a.tif", compression=compression)
    whole = Picture((tmp_path / "a.tif").read_bytes()).decode()
    assert np.array_equal(joined(tmp_path / "a.tif", (90, 130), 48), whole)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_tiles_are_upright(tmp_path, orientation):
    """They are cut from what is stored, and each is turned."""
    (tmp_path / "a.tif").write_bytes(written(photo(), tile=32, orientation=orientation))
    turned = {1: 0, 3: 2, 6: -1, 8: 1}[orientation]
    tile = stills.open_still(str(tmp_path / "a.tif"), 1, tile=40)
    assert np.array_equal(tile.decode(), np.rot90(photo()[0:40, 40:80], turned)) and tile.shape == (40, 40, 3)


@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
def test_tiles_of_other_pictures(tmp_path, ending):
    cv2.imwrite(str(tmp_path / f"a.{ending}"), photo())
    whole = Picture((tmp_path / f"a.{ending}").read_bytes()).decode()
    assert np.array_equal(joined(tmp_path / f"a.{ending}", (90, 130), 40), whole)
    assert stills.look(str(tmp_path / f"a.{ending}")) == (1, "")


def test_levels_of_a_pyramid_are_no_pictures_of_their_own(tmp_path):
    """Scanners of slides do not always say that a page is the first one made smaller."""
    page, half, label = photo(), photo()[::2, ::2], photo(40, 40)
    slide = written(page, tile=32)
    for other in (half, label):
        slide = written(other, tile=32, before=slide)
    found = tiff.pages(lambda at, count: slide[at : at + count])
    assert [spot.size for spot in found] == [(90, 130), (40, 40)]
    in_strips = written(half, before=written(page))  # pages of a document may have any sizes
    assert len(tiff.pages(lambda at, count: in_strips[at : at + count])) == 2
    (tmp_path / "a.svs").write_bytes(slide)
    assert stills.look(str(tmp_path / "a.svs"), tile=64) == (2 * 3 + 1, str(tmp_path / "a.svs"))
    last = stills.open_still(str(tmp_path / "a.svs"), 6, tile=64)
    assert np.array_equal(last.decode(), label)


def test_tiles_in_a_dataset(tmp_path):
    """Those of a picture are of one group, which splits keep together; what is small enough stays whole."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "large.tif").write_bytes(written(photo(), tile=32))
    cv2.imwrite(str(tmp_path / "photos" / "small.png"), photo(40, 40))
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for path in sorted((tmp_path / "photos").iterdir()):
            archive.write(path, path.name)
    image = Image(tile=64)
    for place in (tmp_path / "photos", tmp_path / "photos.zip"):
        index = build_index(open_source(str(place), image.extensions), image)
        items = {index.name(row): index.item(row) for row in range(len(index))}
        assert list(items) == ["large.tif", *[f"large.tif[{part}]" for part in range(1, 6)], "small.png"]
        assert [item.group for item in items.values()] == ["1"] * 6 + [""]
        assert all(max(np.asarray(image.read(item).data).shape) <= 64 for item in items.values())


@pytest.mark.parametrize("layout", ["yxc", "cyx"])
def test_tiles_of_an_array(tmp_path, layout):
    """One picture in a file, which is mapped."""
    pixels = photo()
    np.save(tmp_path / "a.npy", pixels.transpose(2, 0, 1) if layout == "cyx" else pixels)
    image = Image(tile=50, layout=layout)
    items = list(image.items(str(tmp_path / "a.npy")))
    assert len(items) == 2 * 3 and len({item.group for item in items}) == 1
    for item in items:
        y0, x0, y1, x1 = tiles.box((90, 130), 50, item.part)
        assert np.array_equal(np.asarray(image.read(item).data), pixels[y0:y1, x0:x1])


def test_a_run_learns_from_tiles_and_embeds_them(tmp_path, capsys):
    """The run knows how large they are."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "large.tif").write_bytes(written(photo(200, 300), tile=32))
    settings = {"encoder": {"name": "small", "width": 8}, "modality": {"name": "image", "size": 16, "tile": 50}}
    out, more = tmp_path / "run", {"method": "denoising", "steps": 3, "batch_size": 8, "workers": 0}
    run = st.pretrain(tmp_path / "photos", out=out, **settings, **more)
    assert "24 samples of image" in capsys.readouterr().out
    index = st.embed(run, tmp_path / "photos", out=tmp_path / "table.parquet", quiet=True)
    assert len(pq.read_table(index)) == 4 * 6


SPARSE = """
import resource, sys
import numpy as np
from selftaught.formats import stills
from selftaught.modalities.image import Image

image, path = Image(), sys.argv[1]
items = list(image.items(path))
assert len(items) == 40 * 40, len(items)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for item in items[::97]:
    assert np.asarray(image.read(item).data).shape == (1024, 1024, 3)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def sparse(path: Path, side: int = 40_000, tile: int = 512) -> None:
    """A BigTIFF of ``side`` squared RGB pixels in uncompressed tiles, which are holes in the file."""
    count, size, start = (-(-side // tile)) ** 2, tile * tile * 3, 2**20
    places = [start + number * size for number in range(count)]
    tags = {256: [side], 257: [side], 258: [8] * 3, 259: [1], 262: [2], 277: [3], 284: [1], 322: [tile], 323: [tile],
            324: places, 325: [size] * count}  # fmt: skip
    at = 24 + 20 * len(tags) + 8  # of values that do not fit into the directory
    entries = values = b""
    for tag, found in tags.items():
        stored = struct.pack(f"<{len(found)}Q", *found)
        entries += struct.pack("<HHQ", tag, 16, len(found)) + (stored if len(found) == 1 else struct.pack("<Q", at))
        if len(found) > 1:
            values, at = values + stored, at + len(stored)
    with path.open("wb") as file:
        file.write(struct.pack("<2sHHHQQ", b"II", 43, 8, 0, 16, len(tags)) + entries + struct.pack("<Q", 0) + values)
        assert file.tell() <= start
        file.truncate(start + count * size)


def test_forty_thousand_pixels_wide_in_bounded_memory(tmp_path):
    """4.8 GB of pixels, cut without being asked for; 16 tiles of 3 MB, and the file is never read whole."""
    sparse(tmp_path / "slide.tif")
    done = subprocess.run([sys.executable, "-c", SPARSE, str(tmp_path / "slide.tif")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 100  # MB


def test_what_cannot_be_cut_is_named(tmp_path, monkeypatch):
    data = written(photo(), tile=32)
    (tmp_path / "short.tif").write_bytes(data[: len(data) // 2])
    with pytest.raises(UnreadableError, match="truncated tiff"):
        stills.look(str(tmp_path / "short.tif"))
    for at in (written(photo(), tile=32), written(photo())):
        with pytest.raises(UnreadableError, match="bytes at byte"):
            tiff_parts._bytes(memoryview(at), len(at) - 10, 100)
    monkeypatch.setattr("selftaught.formats.pictures.MAX_PIXELS", 5000)
    (tmp_path / "one.tif").write_bytes(written(photo(), rows=90, codec="deflate"))
    with pytest.raises(UnreadableError, match="130 x 90 pixels are compressed in one piece: save it in tiles"):
        stills.open_still(str(tmp_path / "one.tif"), 0, tile=40)
    cv2.imwrite(str(tmp_path / "small.png"), photo(30, 30))
    for tile in (0, 64):  # its index was made when it was larger
        with pytest.raises(UnreadableError, match="holds 1 pictures, number 4 was asked for"):
            stills.open_still(str(tmp_path / "small.png"), 3, tile=tile)
    with pytest.raises(UnreadableError, match="claims 40,000,000 x 30 pixels: 4,000,000 tiles, more than 1,000,000"):
        tiles.count((30, 40_000_000), 20)
    with pytest.raises(ConfigError, match=r"'tile' parameter of Image must be an int in \[8, 16384\], or 0"):
        Image(tile=4)


def test_tiles_that_nobody_asked_for_are_announced(tmp_path):
    sparse(tmp_path / "slide.tif")
    image = Image()
    image.fit([image.read(Item(str(tmp_path / "slide.tif"), part)) for part in (0, 900)])
    said = "Some pictures are too large to be read whole (over 268 million pixels): each of their tiles of 1,024 pixels"
    assert image.advice(PLAN)[0].startswith(said)
    assert image.side == 1024
