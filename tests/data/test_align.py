"""Labels whose headers run otherwise than their images': NIH Pancreas-CT, whose scans are DICOM and labels NIfTI."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from helpers.series import write_series
from helpers.volumes import save
from numpy.typing import NDArray

from mixcl.config.settings import Collection, DataConfig, Experiment, PhantomConfig
from mixcl.data.check.findings import Check
from mixcl.data.check.run import check
from mixcl.data.phantom import scan
from mixcl.data.prepare.case import original_label
from mixcl.data.prepare.run import prepare
from mixcl.data.registry import COLLECTIONS
from mixcl.data.store import Store
from mixcl.errors import InputError

Arrays = tuple[NDArray[Any], NDArray[Any], NDArray[np.float64]]


def patient() -> Arrays:
    """A scan as a DICOM series counts it, [column, row, slice]: to the left, to the back, to the head; the pancreas."""
    made = scan.make_case(PhantomConfig(seed=5, spacing=(4.0, 4.0, 4.0)), "nih_pancreas", 1)
    label = scan.labelled(made.truth, "nih_pancreas")
    flips = np.diag([-1.0, -1.0, 1.0, 1.0])
    flips[:2, 3] = np.array(made.image.shape[:2]) - 1
    rows = slice(None, -8)  # cut at the back, so that the pancreas is not in the middle of the rows
    return made.image[::-1, ::-1][:, rows], label[::-1, ::-1][:, rows], made.affine @ flips


def from_back_to_front(data: NDArray[Any], affine: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """The same voxels in the same places with rows counted from the back, as dcm2niix writes them."""
    flip = np.diag([1.0, -1.0, 1.0, 1.0])
    flip[1, 3] = data.shape[1] - 1
    return data[:, ::-1], affine @ flip


def settings(root: Path, **changes: Any) -> Experiment:
    nih = COLLECTIONS["nih_pancreas"].model_copy(update={"count": None, "quirks": (), **changes})
    data = {"root": str(root), "collections": {"nih_pancreas": nih}, "pretrain": ("nih_pancreas",), "finetune": ()}
    return Experiment(data=DataConfig.model_validate(data))


def labelled_place(out: Path, config: Experiment) -> NDArray[np.float64]:
    """Where the prepared label lies in the patient: its centre, mm; that of the original scan lies there, too."""
    (case,) = Store(config.data.store_dir(out)).cases("nih_pancreas")
    prepared, original = (
        np.asarray((affine @ [*np.argwhere(label == 1).mean(axis=0), 1.0])[:3])
        for affine, label in ((case.affine, case.label()), (case.source_affine, original_label(case)))
    )
    np.testing.assert_allclose(prepared, original, atol=1.0)
    return prepared


def kinds(result: Check) -> list[tuple[str, str]]:
    return [(one.kind, one.severity) for one in result.findings]


@pytest.fixture
def case() -> tuple[Arrays, NDArray[np.float64]]:
    """The patient, and where the middle of the pancreas is, mm."""
    image, label, affine = patient()
    return (image, label, affine), (affine @ [*np.argwhere(label == 1).mean(axis=0), 1.0])[:3]


def write_dicom(root: Path, image: NDArray[Any], affine: NDArray[np.float64]) -> Path:
    write_series(root / "Pancreas-CT/PANCREAS_0001/study/series", image, affine)
    return root / "Pancreas-CT/TCIA_pancreas_labels-02-05-2017/label0001.nii.gz"


def test_series_with_a_label_in_their_order_raise_nothing(tmp_path: Path, case: Any) -> None:
    (image, label, affine), place = case
    save(write_dicom(tmp_path, image, affine), label, affine)
    config = settings(tmp_path)
    assert kinds(check(config, tmp_path, workers=1, progress=False)) == []
    prepare(config, tmp_path, workers=1, progress=False)
    np.testing.assert_allclose(labelled_place(tmp_path, config), place, atol=1.0)


def test_a_label_whose_rows_run_the_other_way_is_turned_and_named(tmp_path: Path, case: Any) -> None:
    """Whichever of the two runs from back to front: the series against the label, or a converted scan."""
    (image, label, affine), place = case
    save(write_dicom(tmp_path / "a", image, affine), *from_back_to_front(label, affine))
    save(tmp_path / "b/Pancreas-CT/PANCREAS_0001.nii.gz", *from_back_to_front(image, affine))
    save(tmp_path / "b/Pancreas-CT/label0001.nii.gz", label, affine)
    for root in (tmp_path / "a", tmp_path / "b"):
        config = settings(root)
        told = check(config, root, workers=1, progress=False)
        assert kinds(told) == [("axes", "note")]
        assert "label0001.nii.gz: its axes run" in told.findings[0].text
        assert "it is turned as both headers say" in told.findings[0].text
        report = prepare(config, root, workers=1, progress=False)
        assert ["it is turned" in text for text in report.warnings] == [True]
        np.testing.assert_allclose(labelled_place(root, config), place, atol=1.0)


def test_without_the_rule_it_is_an_error_that_says_what_to_set(tmp_path: Path, case: Any) -> None:
    (image, label, affine), _ = case
    save(write_dicom(tmp_path, image, affine), *from_back_to_front(label, affine))
    config = settings(tmp_path, label_grid="same")
    (told,) = check(config, tmp_path, workers=1, progress=False).findings
    assert (told.kind, told.severity) == ("axes", "error")
    assert "set label_grid: header" in told.text
    with pytest.raises(InputError, match="set label_grid: header"):
        prepare(config, tmp_path, workers=1, progress=False)


@pytest.mark.parametrize("header", ["none", "moved", "from back to front"])
def test_a_label_whose_header_cannot_be_believed_is_named_and_taken_by_its_voxels(
    tmp_path: Path, case: Any, header: str
) -> None:
    """Voxels in the order of the slices, header lost, without an origin, or lying about the rows."""
    (image, label, affine), place = case
    path = write_dicom(tmp_path, image, affine)
    if header == "none":
        bare = nib.Nifti1Image(label, None)
        bare.header.set_zooms((4.0, 4.0, 4.0))
        path.parent.mkdir(parents=True)
        nib.save(bare, path)
    else:
        wrong = {"moved": np.diag([-4.0, -4.0, 4.0, 1.0]), "from back to front": from_back_to_front(label, affine)[1]}
        save(path, label, wrong[header])
    config = settings(tmp_path)
    told = check(config, tmp_path, workers=1, progress=False)
    axes = [one for one in told.findings if one.kind in ("axes", "affine")]
    assert [one.severity for one in axes] == ["warning" if header == "from back to front" else "error"]
    assert "label0001.nii.gz" in axes[0].text
    assert "read by voxels" in axes[0].text
    if header != "from back to front":
        assert "set label_grid: voxels" in axes[0].text
        with pytest.raises(InputError, match="set label_grid: voxels"):
            prepare(config, tmp_path, workers=1, progress=False)
    else:
        prepare(config, tmp_path, workers=1, progress=False)
        assert np.abs(labelled_place(tmp_path, config) - place).max() > 4
    config = settings(tmp_path, label_grid="voxels")
    assert ("axes", "note") in kinds(check(config, tmp_path, workers=1, progress=False))
    assert prepare(config, tmp_path, workers=1, progress=False).collections[0].made == 1  # not what the header gave
    np.testing.assert_allclose(labelled_place(tmp_path, config), place, atol=1.0)
    assert prepare(config, tmp_path, workers=1, progress=False).collections[0].kept == 1


def test_labels_on_their_grid_are_kept_whatever_the_rule(tmp_path: Path, case: Any) -> None:
    (image, label, affine), _ = case
    save(write_dicom(tmp_path, image, affine), label, affine)
    for rule, kept in (("same", 0), ("header", 1), ("voxels", 1)):
        report = prepare(settings(tmp_path, label_grid=rule), tmp_path, workers=1, progress=False)
        assert report.collections[0].kept == kept
        assert report.warnings == ()


def test_voxels_do_not_help_a_label_of_another_shape(tmp_path: Path, case: Any) -> None:
    (image, label, affine), _ = case
    save(write_dicom(tmp_path, image, affine), label[:, :, 1:], affine)
    with pytest.raises(InputError, match=r"shape .* differs"):
        prepare(settings(tmp_path, label_grid="voxels"), tmp_path, workers=1, progress=False)


def test_a_collection_names_the_rule() -> None:
    assert COLLECTIONS["nih_pancreas"].label_grid == "header"
    assert Collection(names={1: "x"}).label_grid == "same"
