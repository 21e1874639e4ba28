"""Preparation of real CT: sizes of organs, laterality, axes, and patches.

The scans are not part of this repository; see the fixture ``realct``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.realct import COLLECTION

from mixcl.config.settings import DataConfig, Experiment
from mixcl.data.files.grid import resample_nearest, resampled_affine, spacing_of, to_ras
from mixcl.data.files.volume import label_map, read_volume
from mixcl.data.patches import read_patch
from mixcl.data.prepare.run import Report, prepare
from mixcl.data.registry import COLLECTIONS
from mixcl.data.store import Case, Store, read_json

TARGET = (1.5, 1.5, 2.0)
CASES = ["ircad/01", "ircad/17", "total/09", "sarcoma/018"]


@pytest.fixture(scope="module")
def prepared(realct: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Store]:
    out = tmp_path_factory.mktemp("realct")
    data = DataConfig(root=str(realct), collections=COLLECTION, pretrain=("ircad", "sarcoma"), finetune=("total",))
    report = prepare(Experiment(data=data), out, workers=1, progress=False)
    return report, Store(data.store_dir(out), settings=data)


def find(store: Store, name: str) -> Case:
    collection, end = name.split("/")
    return next(case for case in store.cases(collection) if case.id.endswith(end))


def centre(case: Case, value: int) -> np.ndarray:
    """Centre of a label in RAS+ mm."""
    voxels = np.argwhere(np.asarray(case.label()) == value).mean(axis=0)
    return (case.affine @ [*voxels, 1])[:3]


def test_no_false_alarm(prepared: tuple[Report, Store]) -> None:
    report, _ = prepared
    assert report.faults == report.warnings == report.duplicates == ()
    assert [c.found for c in report.collections] == [2, 1, 1]


@pytest.mark.parametrize("name", CASES)
def test_volumes_of_organs(prepared: tuple[Report, Store], name: str) -> None:
    """In ml, before and after, within 2 % for all that is over 10 ml; nothing that was there is lost."""
    case = find(prepared[1], name)
    record = read_json(case.path / "case.json")
    before = abs(np.linalg.det(case.source_affine[:3, :3])) / 1000
    after = np.prod(TARGET) / 1000
    checked = 0
    for value, voxels in record["source_voxels"].items():
        assert record["voxels"][value] > 0
        if value != "0" and voxels * before > 10:
            assert record["voxels"][value] * after == pytest.approx(voxels * before, rel=0.02), case.names[int(value)]
            checked += 1
    assert checked >= 1


@pytest.mark.parametrize("name", CASES)
def test_place_of_organs_in_the_world(prepared: tuple[Report, Store], realct: Path, name: str) -> None:
    """The centre of the largest label stays where it was, in mm, whatever the axes of the file."""
    case = find(prepared[1], name)
    folder = realct / f"{ {'ircad': 'ircad', 'total': 's0', 'sarcoma': 'sts'}[case.collection] }{case.id}"
    label = read_volume(folder / ("seg_btcv13.nii.gz" if case.collection == "total" else "seg.nii.gz"))
    value = max(case.foreground(), key=lambda v: int((label.data == v).sum()))
    voxels = np.argwhere(label.data == value).mean(axis=0)
    np.testing.assert_allclose(centre(case, value), (label.affine @ [*voxels, 1])[:3], atol=1.0)


@pytest.mark.parametrize(("name", "right", "left"), [("ircad/01", 8, 9), ("total/09", 2, 3)])
def test_sides(prepared: tuple[Report, Store], name: str, right: int, left: int) -> None:
    """The first axis runs to the patient's right, the last one up."""
    case = find(prepared[1], name)
    label = np.asarray(case.label())
    first, second = (np.argwhere(label == value).mean(axis=0) for value in (right, left))
    assert first[0] > second[0] + 50
    liver = np.argwhere(label == (1 if case.collection == "ircad" else 6)).mean(axis=0)
    assert liver[2] > first[2]


@pytest.mark.parametrize("name", CASES)
def test_patches(prepared: tuple[Report, Store], name: str) -> None:
    """96^3 around each label; s0009 is narrower than that and is padded."""
    case = find(prepared[1], name)
    for value, voxels in case.foreground().items():
        image, label = read_patch(case, voxels[len(voxels) // 2] - 48, 96, (-150, 250))
        assert image.shape == label.shape == (96, 96, 96)
        assert image.min() >= 0
        assert image.max() <= 1
        assert label[48, 48, 48] == value


@pytest.mark.parametrize("case", ["case_00021", "case_00030", "case_00061"])
def test_kits_label_maps(realct: Path, case: str) -> None:
    """Slices come first in the files and last after orientation; volumes in ml stay within 2 %."""
    label = read_volume(realct / "kits19_labels" / f"{case}.nii.gz")
    small = label_map(label, COLLECTIONS["kits19"].stored)
    slices = label.data.shape[0]
    assert slices < 100 < label.data.shape[1]
    turned, affine = to_ras(small, label.affine)
    assert turned.shape[2] == slices
    spacing = spacing_of(affine)
    assert spacing[2] == pytest.approx(5.0)
    assert np.linalg.det(affine[:3, :3]) > 0
    result = resample_nearest(turned, spacing, TARGET)
    np.testing.assert_allclose(spacing_of(resampled_affine(affine, turned.shape, TARGET)), TARGET)
    for value in COLLECTIONS["kits19"].names:
        before = (small == value).sum() * np.prod(spacing) / 1000
        after = (result == value).sum() * np.prod(TARGET) / 1000
        assert after == pytest.approx(before, rel=0.02 if before > 10 else 0.2)
