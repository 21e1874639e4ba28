"""DICOM series: values and places against the volume they were written from, whatever the names of the files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from helpers.series import write_series
from helpers.volumes import affine_of, save, scan
from pydicom.uid import generate_uid

from mixcl.config.settings import Collection, DataConfig, Experiment
from mixcl.data.files.volume import read_volume
from mixcl.data.prepare.run import prepare
from mixcl.data.store import Store
from mixcl.errors import InputError


@pytest.mark.parametrize("flip", [(1, 1, 1), (-1, -1, 1), (1, -1, -1)])
def test_a_series_is_the_volume_it_was_written_from(tmp_path: Path, flip: tuple[int, int, int]) -> None:
    image, _ = scan()
    affine = affine_of() @ np.diag([*flip, 1.0])
    write_series(tmp_path / "deep" / "series", image, affine)
    (tmp_path / "deep" / "LICENSE").write_text("no slice")
    volume = read_volume(tmp_path)
    voxels = np.array([[3, 4, 5, 1], [20, 2, 11, 1], [0, 0, 0, 1]]).T
    world = affine @ voxels
    found = np.rint(np.linalg.inv(volume.affine) @ world).astype(int)  # the same places may have other numbers
    for a, b in zip(voxels.T, found.T, strict=True):
        assert volume.data[tuple(b[:3])] == image[tuple(a[:3])]
    assert np.allclose(volume.affine @ found, world, atol=1e-4)
    assert volume.data.dtype == np.int16


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


def test_what_is_no_series_is_one_sentence(tmp_path: Path) -> None:
    image, _ = scan()
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="0 DICOM slices"):
        read_volume(tmp_path / "empty")
    write_series(tmp_path / "two", image, affine_of())
    write_series(tmp_path / "two", image, affine_of(), series=generate_uid())
    with pytest.raises(InputError, match="of 2 series"):
        read_volume(tmp_path / "two")
    write_series(tmp_path / "gap", image, affine_of())
    middle = sorted((tmp_path / "gap").iterdir(), key=lambda p: pydicom.dcmread(p).ImagePositionPatient[2])[5]
    middle.unlink()
    with pytest.raises(InputError, match="missing or doubled"):
        read_volume(tmp_path / "gap")
    write_series(tmp_path / "cut", image, affine_of())
    first = next((tmp_path / "cut").iterdir())
    first.write_bytes(first.read_bytes()[:-300])
    with pytest.raises(InputError, match=r"damaged|decoded"):
        read_volume(tmp_path / "cut")
