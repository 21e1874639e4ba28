"""DICOM series: values and places against the volume they were written from, and every oddity by the names of files."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from helpers.series import LPS, Edit, edit, put, write_frames, write_series
from helpers.volumes import affine_of, save, scan
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import MRImageStorage, RLELossless, generate_uid

from mixcl.config.settings import Collection, DataConfig, Experiment
from mixcl.data.files import Volume
from mixcl.data.files.volume import read_volume
from mixcl.data.prepare.run import prepare
from mixcl.data.store import Store
from mixcl.errors import InputError

IMAGE, _ = scan()


def slices(folder: Path) -> list[Path]:
    """The files of a series from the first place to the last."""
    return sorted(folder.iterdir(), key=lambda path: pydicom.dcmread(path).ImagePositionPatient[2])


def assert_same(volume: Volume, image: np.ndarray[Any, Any] = IMAGE, affine: Any = None) -> None:
    """The same values in the same places, whatever the numbers of the voxels."""
    affine = affine_of() if affine is None else affine
    voxels = np.array([[3, 4, 5, 1], [20, 2, 7, 1], [0, 0, 0, 1]]).T
    world = affine @ voxels
    found = np.rint(np.linalg.inv(volume.affine) @ world).astype(int)
    for a, b in zip(voxels.T, found.T, strict=True):
        assert volume.data[tuple(b[:3])] == image[tuple(a[:3])]
    np.testing.assert_allclose(volume.affine @ found, world, atol=1e-3)


@pytest.fixture
def series(tmp_path: Path) -> Path:
    write_series(tmp_path / "ct", IMAGE, affine_of())
    return tmp_path / "ct"


# --- what is read ---------------------------------------------------------------------------------


@pytest.mark.parametrize("flip", [(1, 1, 1), (-1, -1, 1), (1, -1, -1)])
def test_a_series_is_the_volume_it_was_written_from(tmp_path: Path, flip: tuple[int, int, int]) -> None:
    affine = affine_of() @ np.diag([*flip, 1.0])
    write_series(tmp_path / "deep" / "series", IMAGE, affine)
    (tmp_path / "deep" / "LICENSE").write_text("no slice")
    volume = read_volume(tmp_path)
    assert_same(volume, IMAGE, affine)
    assert volume.data.dtype == np.int16
    assert volume.doubts == ()


@pytest.mark.parametrize(("high", "signed"), [(11, 0), (15, 0), (11, 1), (15, 1), (13, 0)])
def test_bits_that_do_not_count_are_left_out(series: Path, high: int, signed: int) -> None:
    """Twelve bits of sixteen, lowest, highest or between; the others hold anything."""
    bits, others = 12, np.random.default_rng(0)

    def packed(part: Any) -> None:
        hu = np.frombuffer(part.PixelData, np.uint16).astype(np.int64) - 1024
        values = (hu if signed else hu + 1024).clip(-2048 if signed else 0, 2047 if signed else 4095) & (2**bits - 1)
        rubbish = others.integers(0, 2**16, len(values)) & ~((2**bits - 1) << (high + 1 - bits))
        part.PixelData = ((values << (high + 1 - bits)) | rubbish).astype(np.uint16).tobytes()
        part.BitsStored, part.HighBit, part.PixelRepresentation = bits, high, signed
        part.RescaleIntercept = 0 if signed else -1024

    for path in slices(series):
        edit(path, packed)
    assert_same(read_volume(series), IMAGE.clip(-2048 if signed else -1024, 2047 if signed else 3071))


def test_a_collection_of_series_is_prepared_like_one_of_files(tmp_path: Path) -> None:
    for number in range(2):
        image, label = scan(seed=number)
        write_series(tmp_path / f"raw/dicom/CASE_{number}", image, affine_of())
        save(tmp_path / f"raw/dicom/seg{number}.nii.gz", label)
        save(tmp_path / f"raw/nifti/CASE_{number}.nii.gz", image)
        save(tmp_path / f"raw/nifti/seg{number}.nii.gz", label)
    sets = {
        "dicom": Collection(root="dicom", image="CASE_{case}", label="seg{case}.nii.gz", names={1: "x"}),
        "nifti": Collection(root="nifti", image="CASE_{case}.nii.gz", label="seg{case}.nii.gz", names={1: "x"}),
    }
    data = DataConfig(root=str(tmp_path / "raw"), collections=sets, pretrain=("dicom",), finetune=("nifti",))
    prepare(Experiment(data=data), tmp_path, workers=1, progress=False)
    store = Store(data.store_dir(tmp_path), settings=data)
    for one, other in zip(store.cases("dicom"), store.cases("nifti"), strict=True):
        assert np.array_equal(one.image(), other.image())
        assert np.array_equal(one.label(), other.label())
    again = prepare(Experiment(data=data), tmp_path, workers=1, progress=False)
    assert [c.kept for c in again.collections] == [2, 2]


def without_preamble(path: Path) -> None:
    path.write_bytes(path.read_bytes()[132:])


def without_meta(path: Path) -> None:
    part = pydicom.dcmread(path)
    del part.file_meta
    part.preamble = None
    part.save_as(path, enforce_file_format=False, implicit_vr=True, little_endian=True)


def run_lengths(path: Path) -> None:
    edit(path, lambda part: part.compress(RLELossless))


def by_gdcm(compressor: str) -> Callable[[Path], None]:
    """Compressed without loss as GDCM does, with the header of before."""

    def compress(path: Path) -> None:
        part, made = pydicom.dcmread(path), path.with_suffix(".new")
        writer = sitk.ImageFileWriter()
        writer.SetImageIO("GDCMImageIO")
        writer.SetFileName(str(made))
        writer.UseCompressionOn()
        writer.SetCompressor(compressor)
        writer.Execute(sitk.GetImageFromArray(part.pixel_array))
        other = pydicom.dcmread(made)
        part.file_meta.TransferSyntaxUID = other.file_meta.TransferSyntaxUID
        part.PixelData = other.PixelData
        part["PixelData"].is_undefined_length = True
        part.save_as(path)
        made.unlink()
        assert part.file_meta.TransferSyntaxUID.is_compressed

    return compress


@pytest.mark.parametrize("way", [without_preamble, without_meta, run_lengths, by_gdcm("JPEG"), by_gdcm("JPEG2000")])
def test_every_way_of_storing_slices_is_read(tmp_path: Path, way: Callable[[Path], None]) -> None:
    image, _ = scan((64, 64, 8))
    write_series(tmp_path / "ct", image, affine_of())
    for path in slices(tmp_path / "ct"):
        way(path)
    volume = read_volume(tmp_path / "ct")
    assert_same(volume, image)
    np.testing.assert_array_equal(np.sort(volume.data, axis=None), np.sort(image, axis=None))


@pytest.mark.parametrize("signed", [0, 1])
def test_compressed_pixels_lose_the_bits_that_do_not_count(tmp_path: Path, signed: int) -> None:
    """A stream without a sign, and bits above BitsStored: decoders hand both on as they are."""
    image, _ = scan((64, 64, 8))
    write_series(tmp_path / "ct", image, affine_of())
    stored = 13 if signed else 12
    for number, path in enumerate(slices(tmp_path / "ct")):
        part = pydicom.dcmread(path)
        hu = np.frombuffer(part.PixelData, np.uint16).astype(np.int64) - 1024
        packed = hu & 0x1FFF if signed else (hu + 1024) & 0xFFF | (number % 8) << 13
        part.PixelData = packed.astype(np.uint16).tobytes()
        part.save_as(path)
        by_gdcm("JPEG2000")(path)
        edit(path, lambda part: setattr(part, "PixelRepresentation", signed))
        edit(path, lambda part: [setattr(part, "BitsStored", stored), setattr(part, "HighBit", stored - 1)])
        edit(path, lambda part: setattr(part, "RescaleIntercept", 0 if signed else -1024))
    assert_same(read_volume(tmp_path / "ct"), image.clip(-4096 if signed else -1024, 4095 if signed else 3071))


def test_what_is_taken_for_hounsfield_units_or_for_a_ct_is_told(series: Path) -> None:
    for path in slices(series):
        edit(path, lambda part: [delattr(part, key) for key in ("RescaleSlope", "RescaleIntercept")])
        edit(path, lambda part: setattr(part, "SOPClassUID", MRImageStorage))
    assert [doubt.kind for doubt in read_volume(series).doubts] == ["rescale", "modality"]


def test_a_table_for_values_is_refused(series: Path) -> None:
    edit(slices(series)[0], lambda part: setattr(part, "ModalityLUTSequence", [pydicom.Dataset()]))
    with pytest.raises(InputError, match="ModalityLUTSequence"):
        read_volume(series)


@pytest.mark.parametrize("in_folder", [False, True])
def test_an_enhanced_file_of_many_frames_is_read(tmp_path: Path, in_folder: bool) -> None:
    path = write_frames(tmp_path / "frames.dcm", IMAGE, affine_of())
    assert_same(read_volume(tmp_path if in_folder else path))


def test_orientations_that_differ_by_a_rounding_are_one(series: Path) -> None:
    edit(slices(series)[3], lambda part: setattr(part, "ImageOrientationPatient", [-1, 1e-7, 0, 0, -1, 0]))
    edit(slices(series)[4], lambda part: setattr(part, "PixelSpacing", [1.25001, 1.0]))
    assert_same(read_volume(series))


def test_places_rounded_to_a_tenth_are_even(tmp_path: Path) -> None:
    write_series(tmp_path, IMAGE, affine_of((1, 1, 0.625)))
    for path in slices(tmp_path):
        edit(path, lambda part: setattr(part, "ImagePositionPatient", [round(x, 1) for x in part.ImagePositionPatient]))
    assert read_volume(tmp_path).affine[2, 2] == pytest.approx(0.625, abs=0.01)


def test_large_values_keep_their_size(tmp_path: Path) -> None:
    """57343 HU of an implant are not -8193 or -150: they end at the top of the window."""
    image, label = scan()
    write_series(tmp_path / "raw/own/c", image, affine_of((1.5, 1.5, 2.0)))
    save(tmp_path / "raw/own/c_seg.nii.gz", label, affine_of((1.5, 1.5, 2.0)))

    def implant(part: Any) -> None:
        pixels = part.pixel_array.copy()
        pixels[5, 5] = 58367
        part.PixelData = pixels.tobytes()

    edit(slices(tmp_path / "raw/own/c")[6], implant)
    assert read_volume(tmp_path / "raw/own/c").data.max() == 57343
    own = Collection(root="own", image="{case}", label="{case}_seg.nii.gz", names={1: "organ"})
    data = DataConfig(root=str(tmp_path / "raw"), collections={"own": own}, pretrain=("own",), finetune=())
    prepare(Experiment(data=data), tmp_path, workers=1, progress=False)
    (case,) = Store(data.store_dir(tmp_path)).cases("own")
    assert case.image().max() == 250


def test_scalings_of_their_own_are_applied_slice_by_slice_and_told(series: Path) -> None:
    def other_slope(part: Any) -> None:
        part.RescaleSlope, part.RescaleIntercept = "0.5", "-1024"
        part.PixelData = ((part.pixel_array.astype(int)) * 2).astype(np.uint16).tobytes()

    edit(slices(series)[5], other_slope)
    volume = read_volume(series)
    assert_same(volume)
    assert [doubt.kind for doubt in volume.doubts] == ["rescale"]


def test_copies_byte_for_byte_are_left_out_with_a_warning(series: Path) -> None:
    shutil.copy(slices(series)[4], series / "copy of a slice")
    volume = read_volume(series)
    assert_same(volume)
    (doubt,) = volume.doubts
    assert (doubt.kind, doubt.severity) == ("doubled slices", "warning")
    assert "left out" in doubt.text


# --- what is refused, by name ---------------------------------------------------------------------


def raw(key: str, value: bytes) -> Edit:
    """An entry whose bytes make no number."""
    number = Tag(key)
    return lambda part: part._dict.__setitem__(number, RawDataElement(number, "DS", len(value), value, 0, False, True))


def colour(part: Any) -> None:
    part.SamplesPerPixel, part.PhotometricInterpretation, part.PlanarConfiguration = 3, "RGB", 0
    part.BitsAllocated = part.BitsStored = 8
    part.HighBit, part.PixelData = 7, bytes(part.Rows * part.Columns * 3)


ONE_SLICE: dict[str, tuple[Edit, str, str]] = {
    "empty intercept": (put("RescaleIntercept", None), "intercept", "has an empty RescaleIntercept"),
    "empty spacing": (put("PixelSpacing", None), "spacing", "has an empty PixelSpacing"),
    "spacing of 0": (put("PixelSpacing", [0, 0]), "spacing", "impossible PixelSpacing of 0 x 0 mm"),
    "one spacing": (put("PixelSpacing", 1), "spacing", "for PixelSpacing, which is not 2 finite numbers"),
    "decimal comma": (raw("PixelSpacing", b"0,7\\0,7 "), "spacing", r"has '0,7\\\\0,7' for PixelSpacing"),
    "no rows": (lambda part: delattr(part, "Rows"), "dicom", "lacks Rows"),
    "no place": (lambda part: delattr(part, "ImagePositionPatient"), "dicom", "lacks ImagePositionPatient"),
    "empty place": (put("ImagePositionPatient", None), "dicom", "has an empty ImagePositionPatient"),
    "colour": (colour, "dicom", "is a picture in colours"),
    "inverted": (put("PhotometricInterpretation", "MONOCHROME1"), "dicom", "has inverted grey values"),
    "slope of 0": (put("RescaleSlope", 0), "intercept", "has a RescaleSlope of 0"),
    "fewer rows": (put("Rows", 10), "dicom", "differ from the other slices in Rows and Columns"),
    "turned": (put("ImageOrientationPatient", [0, 1, 0, -1, 0, 0]), "dicom", "differ .* in ImageOrientationPatient"),
    "no direction": (put("ImageOrientationPatient", [0, 0, 0, 0, 0, 0]), "dicom", "is no pair of directions"),
    "other pixels": (put("PixelSpacing", [1.3, 1.0]), "dicom", "differ from the other slices in PixelSpacing"),
    "a localizer": (put("ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"]), "dicom", "belong to a localizer"),
    "aside": (put("ImagePositionPatient", [-10, 30, 48]), "dicom", "do not lie in a line"),
    "more rows": (put("Rows", 4000), "damaged", "is cut off: 960 of 192000 bytes"),
    "many frames": (put("NumberOfFrames", 3), "damaged", "is cut off"),
}


@pytest.mark.parametrize("kind", ONE_SLICE)
def test_a_slice_that_does_not_fit_is_named(series: Path, kind: str) -> None:
    change, name, sentence = ONE_SLICE[kind]
    path = slices(series)[6].rename(series / "bad.dcm")
    edit(path, change)
    with pytest.raises(InputError, match=sentence) as error:
        read_volume(series)
    assert error.value.kind == name
    assert str(series) in str(error.value)
    assert "bad.dcm" in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_slices_are_told_by_their_neighbours(series: Path) -> None:
    before, middle, after = slices(series)[4:7]
    middle.unlink()
    with pytest.raises(InputError, match=r"slices are missing in 1 places.* 6 mm apart, not 3") as error:
        read_volume(series)
    assert f"between {before.name} and {after.name}" in str(error.value)


def test_two_phases_in_one_series_are_told_apart(series: Path) -> None:
    for path in slices(series):
        edit(path, put("AcquisitionNumber", 1))
    write_series(series, IMAGE + 30, affine_of(), AcquisitionNumber=2)
    said = r"2 slices lie in each of its 14 places.*[12] in 14 \(.*\), [12] in 14 .*keep the files of one phase"
    with pytest.raises(InputError, match=said):
        read_volume(series)


def test_doubled_slices_are_named(series: Path) -> None:
    again = slices(series)[4]
    shutil.copy(again, series / "again.dcm")
    edit(series / "again.dcm", put("InstanceNumber", 77))
    with pytest.raises(InputError, match=r"slices are doubled") as error:
        read_volume(series)
    assert "again.dcm" in str(error.value)
    assert again.name in str(error.value)


def test_two_series_are_listed(series: Path) -> None:
    write_series(series, IMAGE, affine_of(), series=generate_uid())
    with pytest.raises(InputError, match=r"28 DICOM slices of 2 series: .* in 14 .*; keep the files of one"):
        read_volume(series)


@pytest.mark.parametrize("degrees", [5.0, 20.0])
def test_a_tilted_gantry_is_refused_whatever_the_format(tmp_path: Path, degrees: float) -> None:
    tilted = affine_of()
    tilted[1, 2] = np.tan(np.deg2rad(degrees)) * tilted[2, 2]
    lps = LPS @ tilted
    write_series(tmp_path / "ct", IMAGE, affine_of())
    for k, path in enumerate(slices(tmp_path / "ct")):
        edit(path, put("ImagePositionPatient", list((lps @ [0, 0, k, 1])[:3])))
    save(tmp_path / "ct.nii", IMAGE, tilted)
    for path in (tmp_path / "ct", tmp_path / "ct.nii"):
        with pytest.raises(InputError, match=rf"is tilted: its axes are {degrees:.0f} degrees") as error:
            read_volume(path)
        assert error.value.kind == "shear"


def test_frames_with_scalings_of_their_own_are_read(tmp_path: Path) -> None:
    """GDCM would apply the first one to all of them."""
    path = write_frames(tmp_path / "frames.dcm", IMAGE, affine_of(), intercepts=[-1024] * 13 + [-1000])
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.data[:, :, -1].min(), IMAGE[:, :, 13].min() + 24)
    assert_same(volume)


def test_frames_that_are_missing_are_told(tmp_path: Path) -> None:
    """GDCM would take the voxels for cubes of 1 mm."""
    affine = affine_of()
    path = write_frames(tmp_path / "frames.dcm", IMAGE, affine)

    def jump(part: Any) -> None:
        for frame in part.PerFrameFunctionalGroupsSequence[7:]:
            x, y, z = frame.PlanePositionSequence[0].ImagePositionPatient
            frame.PlanePositionSequence[0].ImagePositionPatient = [x, y, z + 9]

    edit(path, jump)
    with pytest.raises(InputError, match="slices are missing"):
        read_volume(path)


def test_frames_without_places_are_called_multi_frame(series: Path) -> None:
    path = slices(series)[0]

    def frames(part: Any) -> None:
        part.NumberOfFrames = 2
        part.PixelData = part.PixelData * 2

    edit(path, frames)
    with pytest.raises(InputError, match=r"is multi-frame \(2 frames\) without a place for each"):
        read_volume(series)


def test_a_full_disk_is_no_damaged_scan(series: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compressed pixels go through a file: where that does not fit, no scan is to be got again."""
    for path in slices(series):
        edit(path, lambda part: part.compress(RLELossless))

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pydicom.Dataset, "save_as", full)
    with pytest.raises(InputError, match=r"a temporary file, which cannot be written .*TMPDIR") as told:
        read_volume(series)
    assert told.value.kind == "machine"


def test_a_folder_of_a_series_out_of_reach_is_named(series: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A series without some of its slices is another scan."""
    (series / "closed").mkdir()
    listed = os.scandir

    def scandir(path: object) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(InputError, match=r"closed: cannot be read \(Permission denied\)"):
        read_volume(series)


def test_an_unknown_compression_is_named(series: Path) -> None:
    for path in slices(series):
        edit(path, lambda part: part.compress(RLELossless))
        edit(path, lambda part: setattr(part.file_meta, "TransferSyntaxUID", "1.2.840.10008.1.2.4.102"))
    with pytest.raises(InputError, match=r"compressed as MPEG-4 .*, which cannot be read; needs to be decompressed"):
        read_volume(series)


def test_a_slice_that_is_cut_off_is_named(series: Path) -> None:
    path = slices(series)[3]
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(InputError, match=rf"{path.name} is cut off: 660 of 960 bytes of pixels") as error:
        read_volume(series)
    assert error.value.kind == "damaged"


def structures(part: Any) -> None:
    part.SOPClassUID = part.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.481.3"
    for key in ("PixelData", "ImagePositionPatient"):
        delattr(part, key)


def test_segments_are_called_so(series: Path) -> None:
    """Beside a series they are passed over; in the place of a label map they are named."""
    path = write_frames(series.parent / "segments.dcm", IMAGE, affine_of())
    edit(
        path,
        lambda part: (put("SOPClassUID", "1.2.840.10008.5.1.4.1.1.66.4")(part), put("SeriesInstanceUID", "1.2")(part)),
    )
    with pytest.raises(InputError, match=r"segments.dcm holds segments, which are converted into a label map"):
        read_volume(path)
    path.rename(series / "segments.dcm")
    assert_same(read_volume(series))


def test_what_is_no_series_is_named_as_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for number in range(104):
        save(tmp_path / f"labels/organ{number}.nii.gz", np.zeros((2, 2, 2), np.uint8))
    write_series(tmp_path / "structures", IMAGE[:, :, :1], affine_of())
    edit(next((tmp_path / "structures").iterdir()), structures)
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/a.txt").write_text("hello")
    write_series(tmp_path / "single", IMAGE[:, :, :1], affine_of())
    sentences = {
        "empty": "an empty folder; put the files of a DICOM series there",
        "labels": r"a folder of 104 NIfTI files \(organ0.nii.gz\), .*; merge them into one label map",
        "structures": r"DICOM files without a CT series: 1 RT Structure Set Storage \(holds no image\)",
        "texts": r"a folder of 1 files that are no DICOM \(1 .txt\)",
        "single": "holds 1 DICOM slice",
    }
    for folder, sentence in sentences.items():
        with pytest.raises(InputError, match=sentence) as error:
            read_volume(tmp_path / folder)
        assert str(tmp_path / folder) in str(error.value)
    with pytest.raises(InputError, match=r"a DICOM file that is no CT scan \(RT Structure Set Storage"):
        read_volume(next((tmp_path / "structures").iterdir()))


@pytest.mark.parametrize("content", [b"", bytes(5000)])
def test_a_slice_of_nothing_is_named(series: Path, content: bytes) -> None:
    """As a full disk or a broken copy leaves it; without the last ones a scan would only seem shorter."""
    slices(series)[-1].write_bytes(content)
    with pytest.raises(InputError, match=r"\.dcm is empty, or zeros alone"):
        read_volume(series)
