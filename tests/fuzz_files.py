"""Whole files of every kind that is read, and how: what ``fuzz.py`` breaks."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from selftaught import config
from selftaught.data.index import build_index
from selftaught.data.labels import read_labels
from selftaught.data.source import open_source
from selftaught.formats import files
from selftaught.modalities.image import Image
from selftaught.modalities.series import Series
from tests.tiff_files import written


@dataclass
class Made:
    """``read(path)`` reads all that there is; ``damage`` is the file to break, mostly the same."""

    path: Path
    read: Callable[[Path], Any]
    damage: Path


def pixels(seed: int = 0, side: int = 24) -> np.ndarray:
    return cv2.GaussianBlur(
        np.random.default_rng(seed).integers(0, 256, (side, side + 4, 3), dtype=np.uint8), (0, 0), 1
    )


def _read(path: Path, modality: Any = Image) -> None:
    """Every sample, through the front door, as a run would: index, heads, pixels."""
    reader = modality()
    index = build_index(open_source(path, reader.extensions, cache=_cache(path)), reader, _cache(path))
    for row in range(len(index)):
        for stream in reader.read(index.item(row)).streams.values():
            np.asarray(stream)


def _cache(path: Path) -> Path:
    return path.parent / "cache"


def _file(name: str, content: bytes, modality: Any = Image) -> Callable[[Path], Made]:
    def make(folder: Path) -> Made:
        path = folder / name
        path.write_bytes(content)
        return Made(path, lambda path: _read(path, modality), path)

    return make


def encoded(extension: str, pixels: np.ndarray, *options: int) -> bytes:
    done, data = cv2.imencode(extension, pixels, list(options))
    assert done
    return data.tobytes()


def _tiles(content: bytes) -> Callable[[Path], Made]:
    """A TIFF that is cut into tiles and, as large ones are, mapped."""

    def read(path: Path) -> None:
        large, files.LARGE = files.LARGE, 0
        try:
            _read(path, lambda: Image(tile=20))
        finally:
            files.LARGE = large

    def make(folder: Path) -> Made:
        path = folder / "one.tif"
        path.write_bytes(content)
        return Made(path, read, path)

    return make


def gif() -> bytes:
    from PIL import Image as Pillow

    held, frames = io.BytesIO(), [Pillow.fromarray(pixels(seed)) for seed in range(3)]
    frames[0].save(held, "GIF", save_all=True, append_images=frames[1:])
    return held.getvalue()


def _dicom(folder: Path) -> Made:
    from pydicom.data import get_testdata_file

    path = folder / "one.dcm"
    path.write_bytes(Path(str(get_testdata_file("CT_small.dcm"))).read_bytes())
    return Made(path, _read, path)


def _nifti(name: str) -> Callable[[Path], Made]:
    def make(folder: Path) -> Made:
        import nibabel

        path = folder / name
        volume = np.random.default_rng(0).integers(0, 900, (12, 10, 8)).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), path)
        return Made(path, _read, path)

    return make


def _array(name: str) -> Callable[[Path], Made]:
    def make(folder: Path) -> Made:
        path, x = folder / name, np.stack([pixels(seed) for seed in range(6)])
        if name.endswith(".npy"):
            np.save(path, x)
        elif name.endswith(".npz"):
            np.savez_compressed(path, x=x, y=np.arange(6) % 2)
        else:
            import h5py

            with h5py.File(path, "w") as file:
                file.create_dataset("x", data=x, compression="gzip")
        return Made(path, _read, path)

    return make


def _series(folder: Path) -> Made:
    path = folder / "series.npz"
    np.savez(path, x=np.random.default_rng(0).normal(size=(6, 2, 50)).astype(np.float32))
    return Made(path, lambda path: _read(path, Series), path)


def _archive(name: str) -> Callable[[Path], Made]:
    def make(folder: Path) -> Made:
        path = folder / name
        members = {f"{'ab'[seed % 2]}/{seed}.png": encoded(".png", pixels(seed)) for seed in range(4)}
        if name.endswith(".zip"):
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                for member, content in members.items():
                    archive.writestr(member, content)
        else:
            with tarfile.open(path, "w:gz" if name.endswith("gz") else "w") as archive:
                for member, content in members.items():
                    info = tarfile.TarInfo(member)
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
        return Made(path, _read, path)

    return make


def _manifest(name: str) -> Callable[[Path], Made]:
    def make(folder: Path) -> Made:
        path, rows = folder / name, [f"{seed}.png" for seed in range(4)]
        for seed, row in enumerate(rows):
            (folder / row).write_bytes(encoded(".png", pixels(seed)))
        said = {"path": rows, "label": ["a", "b", "a", "b"], "group": ["1", "1", "2", "2"]}
        if name.endswith(".parquet"):
            pq.write_table(pa.table(said), path)
        elif name.endswith(".arrow"):
            with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, pa.table(said).schema) as writer:
                writer.write_table(pa.table(said))
        elif name.endswith(".jsonl"):
            lines = [dict(zip(said, values, strict=True)) for values in zip(*said.values(), strict=True)]
            path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        else:
            lines = [said.keys(), *zip(*said.values(), strict=True)]
            path.write_text("".join(",".join(line) + "\n" for line in lines))
        return Made(path, _read, path)

    return make


def _inline(folder: Path) -> Made:
    path = folder / "pictures.parquet"
    pictures = [{"bytes": encoded(".png", pixels(seed)), "path": f"{seed}.png"} for seed in range(4)]
    pq.write_table(pa.table({"image": pictures, "label": [0, 1, 0, 1]}), path)
    return Made(path, _read, path)


def _labels(folder: Path) -> Made:
    path, root = folder / "labels.csv", folder / "data"
    root.mkdir()
    for seed in range(4):
        (root / f"{seed}.png").write_bytes(encoded(".png", pixels(seed)))
    path.write_text("path,label,split\n" + "".join(f"{seed}.png,{'ab'[seed % 2]},train\n" for seed in range(4)))
    index = build_index(open_source(root, Image.extensions), Image(), folder / "cache")
    return Made(path, lambda path: read_labels(index, str(path)), path)


def _yaml(folder: Path) -> Made:
    path = folder / "config.yaml"
    path.write_text("method:\n  name: simclr\n  temperature: 0.2\nsteps: 10\nviews: {scale: [0.2, 1.0]}\nlr: 1e-3\n")
    return Made(path, _resolve, path)


def _resolve(path: Path) -> None:
    """As the command does it, up to where it would start."""
    from selftaught import catalog

    _, node = catalog.commands()["pretrain"]
    config.resolve("pretrain", catalog.parameters_of(node), {"data": "x", "out": "y", "config": str(path)})


def _saved(name: str) -> Callable[[Path], Made]:
    """A file of a finished run, which ``st.load`` reads."""

    def make(folder: Path) -> Made:
        import selftaught as st
        from selftaught.commands.model import modality_state, save_encoder
        from selftaught.encoders import make as make_encoder

        run, image = folder / "run", Image(size=16)
        image.fit([image.from_array(pixels(seed)) for seed in range(4)])
        encoder = make_encoder("small", image.shape(), width=4)
        save_encoder(run / "encoder", encoder, modality_state("image", {}, image), {"step": 1})
        (run / "run.yaml").write_text("schema: 1\n")
        return Made(run, lambda path: st.load(path).embed(pixels()[None]), run / name)

    return make


KINDS: dict[str, Callable[[Path], Made]] = {
    "jpg": _file("one.jpg", encoded(".jpg", pixels())),
    "progressive jpg": _file("one.jpg", encoded(".jpg", pixels(), cv2.IMWRITE_JPEG_PROGRESSIVE, 1)),
    "png": _file("one.png", encoded(".png", pixels())),
    "16-bit png": _file("one.png", encoded(".png", pixels().astype(np.uint16) * 257)),
    "webp": _file("one.webp", encoded(".webp", pixels())),
    "bmp": _file("one.bmp", encoded(".bmp", pixels())),
    "tiff": _file("one.tif", encoded(".tif", pixels())),
    "plain tiff": _file("one.tif", encoded(".tif", pixels(), cv2.IMWRITE_TIFF_COMPRESSION, 1)),
    "tiff in tiles": _tiles(written(pixels(), tile=16, codec="deflate", predictor=2)),
    "bigtiff in tiles": _tiles(written(pixels(), tile=16, codec="jpeg", big=True)),
    "tiff in a strip": _tiles(written(pixels(), rows=99)),
    "gif": _file("one.gif", gif()),
    "dicom": _dicom,
    "nifti": _nifti("one.nii"),
    "packed nifti": _nifti("one.nii.gz"),
    "npy": _array("x.npy"),
    "npz": _array("x.npz"),
    "hdf5": _array("x.h5"),
    "series": _series,
    "zip": _archive("x.zip"),
    "tar": _archive("x.tar"),
    "packed tar": _archive("x.tar.gz"),
    "csv": _manifest("x.csv"),
    "jsonl": _manifest("x.jsonl"),
    "parquet": _manifest("x.parquet"),
    "arrow": _manifest("x.arrow"),
    "parquet with pictures": _inline,
    "labels": _labels,
    "yaml": _yaml,
    "safetensors": _saved("encoder/model.safetensors"),
    "encoder's json": _saved("encoder/config.json"),
    "preprocessing": _saved("encoder/preprocessing.json"),
}
