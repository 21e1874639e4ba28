"""Files of every format: the same volume, read whatever harmless field is odd, and what cannot be is named."""

from __future__ import annotations

import gzip
import os
import re
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from helpers.faults import with_header
from helpers.preparing import settings
from helpers.series import LPS, write_series
from helpers.volumes import affine_of, save, scan, write_case
from pydicom.uid import DeflatedExplicitVRLittleEndian

from mixcl.data.files.raw import digest
from mixcl.data.files.volume import read_volume
from mixcl.data.prepare.run import prepare
from mixcl.data.store import Store
from mixcl.errors import InputError

IMAGE, LABEL = scan()
TURNED = affine_of() @ np.array([[0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])


def by_itk(path: Path, affine: np.ndarray[Any, Any], packed: bool = False) -> None:
    """A volume as SimpleITK writes it."""
    image = sitk.GetImageFromArray(IMAGE.transpose())
    lps = LPS @ affine
    edges = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(edges.tolist())
    image.SetDirection((lps[:3, :3] / edges).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    sitk.WriteImage(image, str(path), useCompression=packed)


def by_nibabel(path: Path, affine: np.ndarray[Any, Any]) -> None:
    nib.save(nib.Nifti1Pair(IMAGE, affine), path)


WRITERS: dict[str, Callable[[Path, Any], object]] = {
    "a.nrrd": by_itk,
    "packed.nrrd": lambda path, affine: by_itk(path, affine, True),
    "a.mha": by_itk,
    "packed.mha": lambda path, affine: by_itk(path, affine, True),
    "a.img": by_nibabel,
    "a.hdr": lambda path, affine: by_nibabel(path.with_suffix(".img"), affine),
    "A.NII.GZ": lambda path, affine: save(path.with_name("a.nii.gz"), IMAGE, affine).rename(path),
    "A.NII": lambda path, affine: save(path.with_name("a.nii"), IMAGE, affine).rename(path),
}


@pytest.mark.parametrize("affine", [affine_of(), TURNED], ids=["straight", "turned"])
@pytest.mark.parametrize("name", WRITERS)
def test_a_volume_is_the_same_in_every_format(tmp_path: Path, name: str, affine: Any) -> None:
    WRITERS[name](tmp_path / name, affine)
    volume = read_volume(tmp_path / name)
    np.testing.assert_array_equal(volume.data, IMAGE)
    np.testing.assert_allclose(volume.affine, affine, atol=1e-4)
    assert volume.data.dtype == np.int16
    assert volume.doubts == ()


def test_a_packed_file_without_gz_in_its_name_is_read_with_a_note(tmp_path: Path) -> None:
    save(tmp_path / "a.nii.gz", IMAGE).rename(tmp_path / "a.nii")
    volume = read_volume(tmp_path / "a.nii")
    np.testing.assert_array_equal(volume.data, IMAGE)
    assert [(doubt.kind, doubt.severity) for doubt in volume.doubts] == [("format", "note")]


def test_analyze_is_read_and_its_missing_orientation_told(tmp_path: Path) -> None:
    nib.save(nib.AnalyzeImage(IMAGE, affine_of()), tmp_path / "a.img")
    volume = read_volume(tmp_path / "a.img")
    np.testing.assert_array_equal(volume.data, IMAGE)
    assert [doubt.kind for doubt in volume.doubts] == ["orientation"]


def test_an_orientation_that_itk_passes_over_is_told_as_missing(tmp_path: Path) -> None:
    """ITK knows its names in one spelling alone."""
    path = tmp_path / "a.mha"
    by_itk(path, affine_of())
    assert read_volume(path).doubts == ()
    path.write_bytes(path.read_bytes().replace(b"TransformMatrix", b"transformmatrix"))
    assert "orientation" in [doubt.kind for doubt in read_volume(path).doubts]


@pytest.mark.parametrize("ending", ["nrrd", "mha", "img"])
def test_a_collection_in_another_format_is_prepared_like_nifti(tmp_path: Path, ending: str) -> None:
    """Found by the templates for .nii.gz, and kept the second time, whichever of its files is looked at."""
    write_case(tmp_path / "raw/own", "c", IMAGE, LABEL)
    other = tmp_path / f"raw/other/imagesTr/c.{ending}"
    other.parent.mkdir(parents=True)
    WRITERS[f"a.{ending}"](other, affine_of())
    save(tmp_path / "raw/other/labelsTr/c.nii.gz", LABEL)
    config = settings(tmp_path / "raw", names=("own", "other"))
    prepare(config, tmp_path, workers=1, progress=False)
    store = Store(config.data.store_dir(tmp_path), settings=config.data)
    (one,), (two,) = store.cases("own"), store.cases("other")
    assert np.array_equal(one.image(), two.image())
    assert prepare(config, tmp_path, workers=1, progress=False).collections[1].kept == 1
    if ending == "img":
        voxels = np.fromfile(other, np.int16)
        voxels[1000] += 500
        voxels.tofile(other)
        again = prepare(config, tmp_path, workers=1, progress=False)
        assert again.collections[1].made + again.collections[1].kept == 1


# --- fields of a header that only serve a warning ---------------------------------------------------


def quaternion(path: Path) -> None:
    """A rounding above length 1, beside a good sform."""
    with_header(path, qform_code=1, quatern_b=0.7072, quatern_c=0.7072, quatern_d=0.001)


HARMLESS: dict[str, Callable[[Path], object]] = {
    "no sign": lambda path: with_header(path, pixdim=[0, 1.0, 1.25, 3.0, 0, 0, 0, 0], qform_code=1),
    "long quaternion": quaternion,
    "very long quaternion": lambda path: with_header(path, qform_code=1, quatern_b=0.9, quatern_c=0.9),
    "no unit": lambda path: with_header(path, xyzt_units=255),
    "unknown codes": lambda path: with_header(path, sform_code=77, qform_code=-3),
    "nonsense beside": lambda path: with_header(path, dim_info=255, intent_code=9999, slice_code=77, cal_max=np.nan),
    "time axis of 0": lambda path: with_header(path, dim=[4, 24, 20, 14, 0, 1, 1, 1]),
}


@pytest.mark.parametrize("kind", HARMLESS)
def test_a_field_that_only_serves_a_warning_refuses_nothing(tmp_path: Path, kind: str) -> None:
    path = save(tmp_path / "a.nii.gz", IMAGE)
    HARMLESS[kind](path)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.data, IMAGE)
    np.testing.assert_allclose(volume.affine, affine_of(), atol=1e-4)


def test_a_quaternion_a_rounding_too_long_is_used_where_it_is_all_there_is(tmp_path: Path) -> None:
    turned = affine_of() @ np.diag([-1.0, -1.0, 1.0, 1.0])  # half a turn: the quaternion is (0, 0, 1)
    made = nib.Nifti1Image(IMAGE, None)
    made.set_qform(turned, 1)
    made.set_sform(None, 0)
    nib.save(made, tmp_path / "a.nii.gz")
    with_header(tmp_path / "a.nii.gz", quatern_b=0, quatern_c=0, quatern_d=1.0001)
    np.testing.assert_allclose(read_volume(tmp_path / "a.nii.gz").affine, turned, atol=0.01)


# --- what is refused, as what it is -----------------------------------------------------------------


def vector(path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((4, 5, 6, 2), np.float32), isVector=True), str(path))


def elsewhere(path: Path) -> None:
    path.write_bytes(b"NRRD0004\ntype: short\ndimension: 3\nsizes: 24 20 14\ndata file: /dev/zero\nencoding: raw\n\n")


def promising(path: Path) -> None:
    """54 TB of voxels in a hundred bytes."""
    head = b"NRRD0004\ntype: short\ndimension: 3\nsizes: 30000 30000 30000\nencoding: raw\nendian: little\n\n"
    path.write_bytes(head)


TEXT = b"NRRD0004\ntype: short\ndimension: 3\nsizes: 2 3 4\nencoding: ascii\n\n"
REFUSED: dict[str, tuple[str, Callable[[Path], object], str, str]] = {
    "vector": ("a.nrrd", vector, "dimension", "2 numbers a voxel; keep one 3-D volume"),
    "2-D": (
        "a.mha",
        lambda path: sitk.WriteImage(sitk.GetImageFromArray(IMAGE[:, :, 3]), str(path)),
        "dimension",
        "has 2 dimensions",
    ),
    "elsewhere": ("a.nrrd", elsewhere, "format", "its voxels lie in another file; write both into one"),
    "elsewhere too": (
        "a.mhd",
        lambda path: path.write_text("ObjectType = Image\nNDims = 3\nElementDataFile = a.raw\n"),
        "format",
        "its voxels lie in another file",
    ),
    "promising": ("a.nrrd", promising, "damaged", "cut off: the header announces more voxels"),
    "as text": (
        "a.nrrd",
        lambda path: path.write_bytes(TEXT + b" ".join(b"%d" % value for value in range(24))),
        "format",
        "holds its voxels in an unusual way; write it anew",
    ),
    "cut": (
        "a.mha",
        lambda path: (by_itk(path, affine_of()), path.write_bytes(path.read_bytes()[:-500])),
        "damaged",
        "cut off or damaged",
    ),
    "zip": ("a.nii", lambda path: path.write_bytes(b"PK\x03\x04rest"), "format", "a zip archive; unpack it"),
    "picture": ("a.nii", lambda path: path.write_bytes(b"\x89PNG\r\n rest"), "format", "a PNG picture, no volume"),
    "pipe": ("a.nii", os.mkfifo, "unreadable", "is a folder, a pipe or a device, no file"),
    "device": ("a.nii", lambda path: path.symlink_to("/dev/zero"), "unreadable", "a pipe or a device"),
    "half a pair": (
        "a.img",
        lambda path: (by_nibabel(path, affine_of()), path.with_suffix(".hdr").unlink()),
        "missing",
        "a.hdr: no such file",
    ),
    "sheared": ("a.nrrd", lambda path: by_itk(path, sheared()), "shear", "is tilted"),
    "huge voxels": ("a.nrrd", lambda path: by_itk(path, affine_of((1, 1, 50))), "spacing", "implausibly large"),
}


def sheared() -> np.ndarray[Any, Any]:
    affine = affine_of()
    affine[1, 2] = 1.0
    return affine


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_read_is_named_as_what_it_is(tmp_path: Path, kind: str) -> None:
    name, write, fault, sentence = REFUSED[kind]
    write(tmp_path / name)
    with pytest.raises(InputError, match=sentence) as error:
        read_volume(tmp_path / name)
    assert error.value.kind == fault
    assert str(tmp_path / "a") in str(error.value)
    assert "\n" not in str(error.value)


def test_oblique_axes_are_told_of_every_format(tmp_path: Path) -> None:
    c, s = np.cos(0.5), np.sin(0.5)
    oblique = np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]) @ affine_of()
    by_itk(tmp_path / "a.nrrd", oblique)
    save(tmp_path / "a.nii", IMAGE, oblique)
    for path in tmp_path.iterdir():
        (doubt,) = read_volume(path).doubts
        assert (doubt.kind, "by 29 degrees" in doubt.text) == ("orientation", True)


def repacked(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Write the voxels of an .nrrd or .mha file anew, packed as before."""
    raw = path.read_bytes()
    mark = b"\n\n" if path.suffix == ".nrrd" else b"LOCAL\n"
    at = raw.index(mark) + len(mark)
    if path.name.startswith("packed"):
        pack = gzip.compress if path.suffix == ".nrrd" else zlib.compress
        rest = pack(change(zlib.decompress(raw[at:], 47)))
    else:
        rest = change(raw[at:])
    path.write_bytes(re.sub(rb"CompressedDataSize = \d+", b"CompressedDataSize = %d" % len(rest), raw[:at]) + rest)


@pytest.mark.parametrize("name", ["a.nrrd", "packed.nrrd", "a.mha", "packed.mha"])
def test_bytes_behind_the_voxels_are_told_as_of_nifti(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    by_itk(path, affine_of(), name.startswith("packed"))
    sound = path.read_bytes()
    repacked(path, lambda voxels: voxels)
    assert not read_volume(path).doubts
    repacked(path, lambda voxels: voxels + bytes(1000))
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.data, IMAGE)
    (doubt,) = volume.doubts
    assert (doubt.kind, doubt.text) == (
        "header", f"{path}: holds more bytes than its header announces; is all of the scan read?"
    )  # fmt: skip
    repacked(path, lambda voxels: voxels + bytes(2**22))
    with pytest.raises(InputError, match="holds far more bytes than its header announces; convert the scan anew"):
        read_volume(path)
    path.write_bytes(sound)
    repacked(path, lambda voxels: voxels[:-100])
    with pytest.raises(InputError, match="cut off"):
        read_volume(path)


def test_a_packed_size_that_is_too_small_is_no_scan(tmp_path: Path) -> None:
    """MetaImage's reader stops there and makes up the rest."""
    path = tmp_path / "packed.mha"
    by_itk(path, affine_of(), True)
    raw = path.read_bytes()
    size = int(re.search(rb"CompressedDataSize = (\d+)", raw)[1])  # type: ignore[index]
    path.write_bytes(raw.replace(b"CompressedDataSize = %d" % size, b"CompressedDataSize = %d" % (size // 2)))
    with pytest.raises(InputError, match=r"packed\.mha: cut off"):
        read_volume(path)


def test_voxels_in_two_packed_parts(tmp_path: Path) -> None:
    """NRRD reads the second one; MetaImage's reader leaves it away without a word."""
    for name in ("packed.nrrd", "packed.mha"):
        by_itk(tmp_path / name, affine_of(), True)
        raw = IMAGE.tobytes(order="F")
        at = (tmp_path / name).read_bytes().index(b"\n\n" if name.endswith("nrrd") else b"LOCAL\n")
        head = (tmp_path / name).read_bytes()[: at + (2 if name.endswith("nrrd") else 6)]
        parts = gzip.compress(raw[:5000]) + gzip.compress(raw[5000:])
        head = re.sub(rb"CompressedDataSize = \d+", b"CompressedDataSize = %d" % len(parts), head)
        (tmp_path / name).write_bytes(head + parts)
    np.testing.assert_array_equal(read_volume(tmp_path / "packed.nrrd").data, IMAGE)
    with pytest.raises(InputError, match=r"packed\.mha: cut off"):
        read_volume(tmp_path / "packed.mha")


def test_no_more_is_read_than_the_header_promises(tmp_path: Path) -> None:
    """A gigabyte of zeros behind a small scan, packed to a megabyte, is neither kept nor unpacked."""
    path = save(tmp_path / "a.nii", IMAGE)
    with gzip.open(tmp_path / "a.nii.gz", "wb", compresslevel=1) as file:
        file.write(path.read_bytes())
        for _ in range(64):
            file.write(bytes(2**22))
    tracemalloc.start()
    with pytest.raises(InputError, match="holds far more bytes than its header announces"):
        read_volume(tmp_path / "a.nii.gz")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2**23


def test_values_beyond_32_bits_are_clipped_and_never_wrap(tmp_path: Path) -> None:
    image = IMAGE.astype(np.float64)
    image[5, 5, 5], image[6, 5, 5] = 1e300, -1e300
    write_case(tmp_path / "raw/own", "far", image, LABEL, affine_of((1.5, 1.5, 2.0)))
    write_case(tmp_path / "raw/own", "high", np.where(IMAGE > 200, 70000, IMAGE), LABEL, affine_of((1.5, 1.5, 2.0)))
    config = settings(tmp_path / "raw")
    prepare(config, tmp_path, workers=1, progress=False)
    far, high = Store(config.data.store_dir(tmp_path)).cases("own")
    assert (far.image()[5, 5, 5], far.image()[6, 5, 5]) == (250, -150)
    np.testing.assert_array_equal(high.image(), np.clip(np.where(IMAGE > 200, 70000, IMAGE), -150, 250))


def test_a_few_bytes_behind_the_voxels_are_told(tmp_path: Path) -> None:
    scan = nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)).to_bytes()
    (tmp_path / "few.nii.gz").write_bytes(gzip.compress(scan + b"notes"))
    (doubt,) = read_volume(tmp_path / "few.nii.gz").doubts
    assert "holds more bytes than its header announces" in doubt.text


@pytest.mark.parametrize(
    ("slope", "inter", "known"),
    [
        (np.inf, 0, False),
        (np.nan, 0, False),
        (1, np.nan, False),
        (2, -np.inf, False),
        (np.nan, np.nan, True),
        (0, 0, True),
    ],
)
def test_a_scaling_that_is_no_number_is_refused(tmp_path: Path, slope: float, inter: float, known: bool) -> None:
    raw = bytearray(nib.Nifti1Image(np.full((4, 4, 4), 7, np.int16), np.eye(4)).to_bytes())
    struct.pack_into("<ff", raw, 112, slope, inter)
    path = tmp_path / "scan.nii"
    path.write_bytes(bytes(raw))
    if known:  # as nibabel reads it: nothing is scaled
        assert (read_volume(path).data == 7).all()
    else:
        with pytest.raises(InputError, match="so that no value is known"):
            read_volume(path)


def test_a_deflated_slice_is_not_unpacked(tmp_path: Path) -> None:
    write_series(tmp_path, np.zeros((8, 8, 3), np.int16), np.diag([2.0, 2.0, 2.0, 1.0]))
    for file in tmp_path.iterdir():  # the note of the syntax stands before what would be unpacked
        part = pydicom.dcmread(file)
        part.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        part.save_as(file)
    with pytest.raises(InputError, match="is deflated as a whole"):
        read_volume(tmp_path)


def test_a_huge_file_beside_the_slices_is_not_read(tmp_path: Path) -> None:
    write_series(tmp_path, np.zeros((8, 8, 3), np.int16), np.diag([2.0, 2.0, 2.0, 1.0]))
    before = digest(tmp_path)
    with (tmp_path / "sparse.bin").open("wb") as file:
        file.truncate(2**33)
    started = time.process_time()
    assert read_volume(tmp_path).data.shape == (8, 8, 3)
    assert digest(tmp_path) != before
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    ("space", "doubts"), [(b"left-posterior-superior", 0), (b"scanner-xyz", 1), (b"3D-right-handed", 1)]
)
def test_a_space_of_no_patient_is_told(tmp_path: Path, space: bytes, doubts: int) -> None:
    path = tmp_path / "a.nrrd"
    by_itk(path, affine_of())
    path.write_bytes(path.read_bytes().replace(b"space: left-posterior-superior", b"space: " + space))
    assert [doubt.kind for doubt in read_volume(path).doubts] == ["orientation"] * doubts


@pytest.mark.parametrize(("name", "field"), [("a.nrrd", b"space directions"), ("a.mha", b"ElementSpacing")])
def test_a_header_without_a_size_of_a_voxel_is_refused(tmp_path: Path, name: str, field: bytes) -> None:
    path = tmp_path / name
    by_itk(path, affine_of())
    head, _, rest = path.read_bytes().partition(field)
    path.write_bytes(head + rest.partition(b"\n")[2])
    with pytest.raises(InputError, match="gives no size of a voxel") as told:
        read_volume(path)
    assert told.value.kind == "spacing"
