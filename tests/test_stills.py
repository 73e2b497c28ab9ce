"""DICOM and NIfTI as pictures. The DICOM files are those that pydicom tests itself with; its package brings them."""

from __future__ import annotations

import gzip
import logging
import os
import struct
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image as Pictures
from pydicom.data import get_testdata_file
from pydicom.pixels.processing import apply_rescale, apply_windowing
from pydicom.pixels.utils import pixel_array
from pydicom.sequence import Sequence

import selftaught as st
from selftaught.commands.samples import infer
from selftaught.data.index import Index, build_index
from selftaught.data.source import open_source
from selftaught.errors import ConfigError, DataError, UnreadableError
from selftaught.formats import dicom, nifti, stills
from selftaught.modalities.image import Image

pytestmark = pytest.mark.usefixtures("cache")


def example(name: str) -> str:
    return str(get_testdata_file(name))


def changed(name: str, path: Path, **values: Any) -> str:
    """A copy of an example with other values in its header."""
    dataset = pydicom.dcmread(example(name))
    for key, value in values.items():
        if value is None:
            delattr(dataset, key)
        else:
            setattr(dataset, key, value)
    dataset.save_as(path)
    return str(path)


# --- DICOM ------------------------------------------------------------------------------------------------------------

COMPRESSED = [  # example, the same picture without compression, how far it may be off
    ("MR_small_RLE.dcm", "MR_small.dcm", 0),
    ("MR_small_jp2klossless.dcm", "MR_small.dcm", 0),
    ("MR_small_jpeg_ls_lossless.dcm", "MR_small.dcm", 0),
    ("MR_small_bigendian.dcm", "MR_small.dcm", 0),
    ("MR_small_implicit.dcm", "MR_small.dcm", 0),
    ("SC_rgb_rle.dcm", "SC_rgb_small_odd.dcm", None),
    ("SC_rgb_jpeg_gdcm.dcm", "SC_rgb_small_odd.dcm", None),
    ("JPEG2000.dcm", "", None),
    ("examples_palette.dcm", "", None),
    ("examples_ybr_color.dcm", "", None),
]


@pytest.mark.parametrize(("name", "plain", "off"), COMPRESSED, ids=[name for name, *_ in COMPRESSED])
def test_what_scanners_compress_with_is_read(name, plain, off):
    frame = stills.open_still(example(name))
    pixels = frame.decode()
    assert pixels.shape == frame.shape and pixels.dtype == frame.dtype and pixels.std() > 0
    if off is not None:
        assert abs(pixels.astype(int) - stills.open_still(example(plain)).decode().astype(int)).max() <= off


def test_a_compression_that_nobody_reads_is_named():
    with pytest.raises(UnreadableError, match="does not support 'JPEG Extended' for samples with 12-bit precision"):
        stills.open_still(example("JPGExtended.dcm")).decode()


def test_readings_windows_and_the_whole_range():
    """A CT has no window of its own here: 0 and 65,535 are its lowest and highest reading; "none" gives Hounsfield."""
    path = example("CT_small.dcm")
    dataset = pydicom.dcmread(path)
    units = apply_rescale(pixel_array(dataset), dataset)
    readings = stills.open_still(path, window="none").decode()
    assert readings.dtype == np.float32 and np.array_equal(readings[..., 0], units.astype(np.float32))
    whole = stills.open_still(path).decode()
    assert whole.dtype == np.uint16 and whole.min() == 0 and whole.max() == 65535
    assert np.corrcoef(whole.ravel(), units.ravel())[0, 1] > 0.9999
    bone = stills.open_still(path, window=(300.0, 1500.0)).decode()[..., 0]
    assert np.array_equal(bone == 0, units <= 300 - 0.5 - 1499 / 2 + 1499 / 131071)


@pytest.mark.parametrize("how", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_windows_agree_with_pydicom(tmp_path, how):
    path = changed(
        "CT_small.dcm", tmp_path / "a.dcm", WindowCenter=[40, 300], WindowWidth=[400, 1500], VOILUTFunction=how
    )
    dataset = pydicom.dcmread(path)
    expected = apply_windowing(apply_rescale(pixel_array(dataset), dataset), dataset).astype(np.float64)
    low, high = (dataset.RescaleSlope * edge + dataset.RescaleIntercept for edge in (-(2**15), 2**15 - 1))
    ours = stills.open_still(path).decode()[..., 0]
    np.testing.assert_allclose(ours / 65535, (expected - low) / (high - low), atol=2e-5)


def test_black_is_black_whichever_way_it_is_stored(tmp_path):
    plain = stills.open_still(example("MR_small.dcm")).decode().astype(int)
    path = changed("MR_small.dcm", tmp_path / "a.dcm", PhotometricInterpretation="MONOCHROME1")
    assert abs(65535 - plain - stills.open_still(path).decode()).max() <= 1


def test_windows_of_single_frames_and_padding(tmp_path):
    """Enhanced files state windows frame by frame; what is padding is not taken for the lowest reading."""
    dataset = pydicom.dcmread(example("MR_small.dcm"))
    window, rescale, group = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
    window.WindowCenter, window.WindowWidth = 500.0, 100.0
    rescale.RescaleSlope, rescale.RescaleIntercept = 2.0, 1.0
    group.FrameVOILUTSequence, group.PixelValueTransformationSequence = Sequence([window]), Sequence([rescale])
    dataset.PerFrameFunctionalGroupsSequence = Sequence([group])
    dataset.save_as(tmp_path / "a.dcm")
    readings = stills.open_still(str(tmp_path / "a.dcm"), window="none").decode()
    assert np.array_equal(readings[..., 0], 2.0 * pixel_array(dataset) + 1)
    shown = stills.open_still(str(tmp_path / "a.dcm")).decode()
    assert np.array_equal(shown == 65535, readings >= 500 - 0.5 + 99 / 2 - 99 / 131071)
    pixels = pixel_array(pydicom.dcmread(example("CT_small.dcm"))).copy()
    path = changed("CT_small.dcm", tmp_path / "b.dcm", PixelPaddingValue=int(pixels.min()))
    least = np.unique(pixels)[1]
    assert (stills.open_still(path).decode()[..., 0][pixels == least] == 0).all()


def test_frames_are_samples_of_one_group(tmp_path):
    path = example("SC_rgb_rle_2frame.dcm")
    assert stills.look(path).count == 2
    one, two = (stills.open_still(path, part).decode() for part in (0, 1))
    assert one.shape == (100, 100, 3) and one.dtype == np.uint8 and not np.array_equal(one, two)
    with pytest.raises(UnreadableError, match="has 2 frames, number 3"):
        stills.open_still(path, 2)


@pytest.mark.parametrize("name", ["rtplan.dcm", "test-SR.dcm", "waveform_ecg.dcm"])
def test_what_holds_no_pictures_says_what_it_is(name):
    with pytest.raises(UnreadableError, match=r"without pictures \([A-Z]+\)"):
        stills.look(example(name))


def patients(folder: Path) -> list[str]:
    """Four files of two made-up patients; what must never be found anywhere."""
    folder.mkdir()
    secrets = []
    for number in range(4):
        who = f"Zzyzx{number // 2}"
        facts = {"PatientName": f"{who}^Quux", "PatientID": f"{who}-4711", "PatientBirthDate": "19320401"}
        facts |= {"InstitutionName": f"{who} Hospital", "ReferringPhysicianName": f"Dr^{who}"}
        name = f"IM{number:06}" if number % 2 else f"1.2.{number}"  # as scanners name files
        changed("MR_small.dcm", folder / name, **facts)
        secrets += [who, "Quux", "4711", "19320401"]
    return sorted(set(secrets))


def index_of(path: Any, **options: Any) -> Index:
    return build_index(open_source(path, Image.extensions), Image(**options))


def test_files_without_an_extension_and_patients_as_groups(tmp_path):
    patients(tmp_path / "scans")
    (tmp_path / "scans" / "DICOMDIR").write_bytes(b"x" * 200)
    (tmp_path / "scans" / "README").write_text("no scan")
    assert infer(tmp_path / "scans") == "image"
    index = index_of(tmp_path / "scans")
    assert [index.name(row) for row in range(4)] == ["1.2.0", "1.2.2", "IM000001", "IM000003"]
    assert index.column("group").tolist() == ["1", "2", "1", "2"]


def test_nothing_of_a_patient_leaves_its_file(tmp_path, capfd, caplog):
    """Not into the run, its report, its cache, or anything printed; broken files included."""
    caplog.set_level(logging.DEBUG)
    secrets = patients(tmp_path / "scans")
    whole = (tmp_path / "scans" / "1.2.0").read_bytes()
    (tmp_path / "scans" / "cut.dcm").write_bytes(whole[: len(whole) // 2])
    settings: dict[str, Any] = {"encoder": {"name": "small", "width": 8}, "modality": {"name": "image", "size": 16}}
    for number in range(60):
        (tmp_path / "scans" / f"copy{number}.dcm").write_bytes(whole)
    run = st.pretrain(tmp_path / "scans", out=tmp_path / "run", steps=2, batch_size=8, workers=0, **settings)
    st.report(run.folder)
    st.embed(run.folder, tmp_path / "scans", out=str(tmp_path / "run" / "vectors.parquet"))
    told = "".join(capfd.readouterr()) + caplog.text
    written = [path for root in (tmp_path / "run", Path(os.environ["SELFTAUGHT_CACHE"])) for path in root.rglob("*")]
    assert len(written) > 10
    for path in written:
        data = path.read_bytes() if path.is_file() else b""
        for secret in secrets:
            assert secret.encode() not in data, (secret, path)
            assert secret not in told and secret not in str(path), secret


def test_dicom_inside_an_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(example("MR_small.dcm"), "a/one.dcm")
        archive.write(example("SC_rgb_rle_2frame.dcm"), "a/two.dcm")
    index = index_of(tmp_path / "a.zip")
    assert [index.name(row) for row in range(3)] == ["a/one.dcm", "a/two.dcm", "a/two.dcm[1]"]
    expected = stills.open_still(example("SC_rgb_rle_2frame.dcm"), 1).decode()
    assert np.array_equal(Image().read(index.item(2)).data.decode(), expected)


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small_RLE.dcm", "SC_rgb_jpeg_gdcm.dcm"])
def test_broken_dicom_is_one_sentence_without_values(tmp_path, name):
    """Cut off anywhere, or with bytes overwritten: a picture, or a reason; no warning."""
    whole = Path(example(name)).read_bytes()
    rng, path = np.random.default_rng(0), tmp_path / "a.dcm"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for at in rng.integers(132, len(whole), 60).tolist():
            for broken in (whole[:at], whole[:at] + bytes(rng.integers(0, 256, 4, np.uint8)) + whole[at + 4 :]):
                path.write_bytes(broken)
                try:
                    stills.look(str(path))
                    stills.open_still(str(path)).decode()
                except UnreadableError as error:
                    assert "\n" not in str(error)


def test_many_threads_leave_warnings_and_logs_as_they_were():
    level, filters = logging.getLogger("pydicom").level, list(warnings.filters)
    with ThreadPoolExecutor(8) as threads:
        looked = list(threads.map(stills.look, [example("CT_small.dcm")] * 200))
    assert len(set(looked)) == 1
    assert logging.getLogger("pydicom").level == level and warnings.filters == filters


def test_a_window_that_makes_no_sense_is_refused():
    for wrong in ("bone", "40", "40,0", "40,-5", "nan,5", "40,400,3"):
        with pytest.raises(ConfigError, match="file, none, or two numbers CENTRE,WIDTH"):
            Image(window=wrong)
    assert dicom.read_window("40, 400") == (40.0, 400.0)


def test_missing_packages_are_named(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(DataError, match="takes pydicom") as refused:
        index_of(example("CT_small.dcm"))
    assert refused.value.hint == "pip install 'selftaught[dicom]'"
    volume(tmp_path / "a.nii")
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(DataError, match="takes nibabel"):
        index_of(tmp_path / "a.nii")


# --- Pages and animations ---------------------------------------------------------------------------------------------


def paged(pictures: list[np.ndarray], kinds: list[int], order: str = "<", big: bool = False) -> bytes:
    """An uncompressed gray TIFF of several pages; ``kinds``: NewSubfileType of each."""
    head, width, entry = (16, "Q", "HHQQ") if big else (8, "I", "HHII")
    out = bytearray((b"II" if order == "<" else b"MM") + struct.pack(order + "H", 43 if big else 42))
    out += struct.pack(order + "HH", 8, 0) if big else b""
    link = len(out)
    out += bytes(head - link)
    for picture, kind in zip(pictures, kinds, strict=True):
        data, out = len(out), out + picture.tobytes()
        tags = {254: kind, 256: picture.shape[1], 257: picture.shape[0], 258: 8, 259: 1, 262: 1, 273: data, 277: 1}
        tags |= {278: picture.shape[0], 279: picture.size}
        struct.pack_into(order + width, out, link, len(out))
        out += struct.pack(order + ("Q" if big else "H"), len(tags))
        for tag, value in tags.items():
            out += struct.pack(order + entry, tag, 16 if big else 4, 1, value)
        link = len(out)
        out += struct.pack(order + width, 0)
    return bytes(out)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
def test_pages_are_samples_of_one_group_without_thumbnails_and_masks(tmp_path, order, big):
    rng = np.random.default_rng(0)
    pages = [rng.integers(0, 256, (9 + number, 11), dtype=np.uint8) for number in range(4)]
    (tmp_path / "a.tif").write_bytes(paged(pages, [2, 1, 0, 4], order, big))
    index = index_of(tmp_path)
    assert [index.name(row) for row in range(len(index))] == ["a.tif", "a.tif[1]"] and index.item(1).group == "1"
    for row, page in enumerate((pages[0], pages[2])):
        assert np.array_equal(np.asarray(Image().read(index.item(row)).data)[..., 0], page)
    with pytest.raises(UnreadableError, match="holds 2 pictures, number 3"):
        stills.open_still(str(tmp_path / "a.tif"), 2)
    with zipfile.ZipFile(tmp_path / "z.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(tmp_path / "a.tif", "a.tif")
    packed = index_of(tmp_path / "z.zip")
    assert len(packed) == 2 and np.array_equal(np.asarray(Image().read(packed.item(1)).data)[..., 0], pages[2])


def test_pages_that_libraries_write(tmp_path):
    pages = [np.random.default_rng(seed).integers(0, 256, (20, 30, 3), dtype=np.uint8) for seed in range(3)]
    first, *rest = map(Pictures.fromarray, pages)
    for compression in ("raw", "tiff_lzw", "tiff_deflate"):
        first.save(tmp_path / "a.tif", save_all=True, append_images=rest, compression=compression)
        shown = [stills.open_still(str(tmp_path / "a.tif"), part).decode() for part in range(3)]
        assert stills.look(str(tmp_path / "a.tif")).count == 3 and np.array_equal(shown, pages), compression


def test_pages_that_run_in_a_circle_or_out_of_the_file_are_refused(tmp_path):
    whole = bytearray(paged([np.zeros((4, 4), np.uint8)] * 2, [0, 0]))
    (first,) = struct.unpack_from("<I", whole, 4)
    struct.pack_into("<I", whole, len(whole) - 4, first)  # the last page says that the first follows
    (tmp_path / "a.tif").write_bytes(whole)
    with pytest.raises(UnreadableError, match="run in a circle"):
        stills.look(str(tmp_path / "a.tif"))
    struct.pack_into("<I", whole, len(whole) - 4, 10**9)
    (tmp_path / "a.tif").write_bytes(whole)
    with pytest.raises(UnreadableError, match="directory is missing"):
        stills.look(str(tmp_path / "a.tif"))


@pytest.mark.parametrize("ending", ["gif", "webp"])
def test_frames_of_animations(tmp_path, ending):
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250)]
    frames = [Pictures.new("RGB", (30, 20), colour) for colour in colours]
    path = tmp_path / f"a.{ending}"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=50, lossless=True)
    index = index_of(tmp_path)
    assert len(index) == 3 and len(set(index.column("group"))) == 1
    for row, colour in enumerate(colours):
        still = Image().read(index.item(row)).data
        assert still.shape == (20, 30, 3) and abs(np.asarray(still)[10, 15].astype(int) - colour).max() <= 6
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for at in rng.integers(0, len(whole), 40).tolist():
        for broken in (whole[:at], whole[:at] + bytes(rng.integers(0, 256, 4, np.uint8)) + whole[at + 4 :]):
            path.write_bytes(broken)
            try:
                for part in range(min(5, stills.look(str(path)).count)):
                    stills.open_still(str(path), part).decode()
            except UnreadableError as error:
                assert "\n" not in str(error)


def test_transparency_of_a_gif_is_white(tmp_path):
    picture = Pictures.new("RGBA", (8, 8), (0, 0, 0, 0))
    picture.putpixel((3, 4), (10, 20, 30, 255))
    picture.save(tmp_path / "a.gif")
    shown = stills.open_still(str(tmp_path / "a.gif")).decode()
    assert shown[0, 0].tolist() == [255] * 3 and abs(shown[4, 3].astype(int) - [10, 20, 30]).max() <= 4
    assert stills.look(str(tmp_path / "a.gif")) == (1, "")


# --- NIfTI ------------------------------------------------------------------------------------------------------------


def volume(
    path: Path, orientation: str = "RAS", *, dtype: type = np.int16, times: int = 0, slope: float = 1
) -> np.ndarray:
    """Values that tell places apart, (5, 6, 7[, times]) along right, front, head; stored in another orientation."""
    shape = (5, 6, 7, times) if times else (5, 6, 7)
    values = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    image = nib.Nifti1Image(values, np.eye(4))
    turn = nib.orientations.ornt_transform(nib.io_orientation(np.eye(4)), nib.orientations.axcodes2ornt(orientation))
    image = image.as_reoriented(turn.tolist())
    if slope != 1:
        image.header.set_slope_inter(slope, 3)
    nib.save(image, path)
    return values


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "PIR", "ASL"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_are_upright_however_they_are_stored(tmp_path, orientation, axis):
    values = volume(tmp_path / "a.nii.gz", orientation)
    path = str(tmp_path / "a.nii.gz")
    assert stills.look(path, axis=axis).count == values.shape[axis]
    shown = stills.open_still(path, 3, axis=axis)
    plane = values.take(3, axis=axis)  # the second axis of the two left points up
    assert shown.dtype == np.int16 and np.array_equal(shown[..., 0], np.rot90(plane))


def test_time_points_scaling_and_groups(tmp_path):
    values = volume(tmp_path / "a.nii", times=2)
    assert stills.look(str(tmp_path / "a.nii")).count == 14
    assert np.array_equal(stills.open_still(str(tmp_path / "a.nii"), 9)[..., 0], np.rot90(values[:, :, 2, 1]))
    with pytest.raises(UnreadableError, match="has 14 slices, number 15"):
        stills.open_still(str(tmp_path / "a.nii"), 14)
    volume(tmp_path / "b.nii.gz", dtype=np.uint8)
    index = index_of(tmp_path)
    assert len(index) == 21 and index.column("group").tolist() == ["1"] * 14 + ["2"] * 7
    assert len(index_of(tmp_path, axis=0)) == 15
    assert Image().read(index.item(20)).data.dtype == np.uint8


def test_broken_volumes_are_one_sentence(tmp_path):
    values = volume(tmp_path / "a.nii")
    whole = (tmp_path / "a.nii").read_bytes()
    rng = np.random.default_rng(0)
    for packed in (False, True):
        data = gzip.compress(whole) if packed else whole
        path = tmp_path / ("b.nii.gz" if packed else "b.nii")
        for at in rng.integers(0, len(data), 60).tolist():
            for broken in (data[:at], data[:at] + bytes(rng.integers(0, 256, 4, np.uint8)) + data[at + 4 :]):
                path.write_bytes(broken)
                os.utime(path, ns=(at, at))
                try:
                    count = stills.look(str(path)).count
                    assert 0 <= count
                    stills.open_still(str(path), 0)
                except UnreadableError as error:
                    assert "\n" not in str(error)
    assert values.size


def test_a_volume_is_unpacked_as_far_as_its_header_says_and_no_further(tmp_path):
    volume(tmp_path / "a.nii", dtype=np.uint8)
    whole = (tmp_path / "a.nii").read_bytes()
    (tmp_path / "bomb.nii.gz").write_bytes(gzip.compress(whole + bytes(2**26)))
    assert len(nifti._inflated((tmp_path / "bomb.nii.gz").read_bytes(), len(whole))) == len(whole)
    assert np.array_equal(
        stills.open_still(str(tmp_path / "bomb.nii.gz"), 3), stills.open_still(str(tmp_path / "a.nii"), 3)
    )
    claims = bytearray(whole)
    struct.pack_into("<3h", claims, 42, 30000, 30000, 30000)
    (tmp_path / "c.nii").write_bytes(claims)
    with pytest.raises(UnreadableError, match="claims 27,000,000,000,"):
        stills.open_still(str(tmp_path / "c.nii"))


def test_slices_train(tmp_path):
    for number in range(3):
        volume(tmp_path / f"{number}.nii.gz", dtype=np.float32)
    settings: dict[str, Any] = {
        "encoder": {"name": "small", "width": 8},
        "modality": {"name": "image", "size": 8},
        "quiet": True,
    }
    run = st.pretrain(tmp_path, out=tmp_path / "run", steps=2, batch_size=8, workers=1, **settings)
    assert run.metrics[-1]["step"] == 2


def test_real_scans_and_volumes_are_read(shared_data):
    scans = index_of(shared_data / "dicom_brain_mr")
    assert len(scans) == 129 and not scans.quarantine and len(set(scans.column("group"))) >= 2
    pixels = Image().read(scans.item(0)).data.decode()
    assert pixels.dtype == np.uint16 and 0 < pixels.mean() < 65535
    volumes = index_of(shared_data / "hippocampus_mri" / "images")
    assert len(set(volumes.column("group"))) == 130 and len(volumes) > 4000
    slice_ = np.asarray(Image().read(volumes.item(100)).data)
    assert slice_.ndim == 3 and slice_.std() > 0
