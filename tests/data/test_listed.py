"""Collections listed by a table: files anywhere, links, DICOM series."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.series import write_series
from helpers.volumes import affine_of, save, scan, write_case

from mixcl.config.settings import Collection, DataConfig, Experiment
from mixcl.data.check.run import check
from mixcl.data.prepare.run import prepare
from mixcl.data.store import Store
from mixcl.errors import InputError


def listed(root: Path, **more: object) -> Experiment:
    own = Collection.model_validate({"root": "own", "table": "cases.csv", "names": {1: "organ"}, **more})
    return Experiment(data=DataConfig(root=str(root), collections={"own": own}, pretrain=("own",), finetune=()))


def table(root: Path, *rows: str) -> None:
    (root / "own").mkdir(parents=True, exist_ok=True)
    (root / "own/cases.csv").write_text("\n".join(["case,image,label", *rows]) + "\n")


def test_files_may_lie_outside_the_collections_folder(tmp_path: Path) -> None:
    far = write_case(tmp_path / "archive", "a", *scan(seed=1))
    write_case(tmp_path / "beside", "b", *scan(seed=2))
    write_series(tmp_path / "pacs/c", scan(seed=3)[0], affine_of())
    save(tmp_path / "pacs/c.nii.gz", scan(seed=3)[1])
    table(
        tmp_path / "raw",
        f"far,{far[0]},{far[1]}",
        "near,../../beside/imagesTr/b.nii.gz,../../beside/labelsTr/b.nii.gz",
        "series,../../pacs/c,../../pacs/c.nii.gz",
    )
    config = listed(tmp_path / "raw")
    assert prepare(config, tmp_path / "out", workers=1, progress=False).collections[0].made == 3
    again = prepare(config, tmp_path / "out", workers=1, progress=False)
    assert (again.collections[0].made, again.collections[0].kept) == (0, 3)
    assert [case.id for case in Store(tmp_path / "out/data/store").cases("own")] == ["far", "near", "series"]
    told = check(config, tmp_path / "out", workers=1, progress=False)
    assert {one.kind for one in told.findings} <= {"range", "field of view", "padding"}  # tiny scans without a body


def test_a_linked_root_is_the_same_as_the_folder_itself(tmp_path: Path) -> None:
    write_case(tmp_path / "disk/own", "a", *scan())
    table(tmp_path / "disk", "a,imagesTr/a.nii.gz,labelsTr/a.nii.gz")
    (tmp_path / "raw").symlink_to(tmp_path / "disk")
    out = tmp_path / "out"
    assert prepare(listed(tmp_path / "raw"), out, workers=1, progress=False).collections[0].made == 1
    report = prepare(listed(tmp_path / "disk"), out, workers=1, progress=False)
    assert report.collections[0].kept == 1


def test_one_label_for_two_scans_is_told(tmp_path: Path) -> None:
    """A cell copied down in a spreadsheet: the grids fit, and nothing else would tell."""
    for number, case in enumerate("ab"):
        write_case(tmp_path / "own", case, *scan(seed=number))
    table(tmp_path, "a,imagesTr/a.nii.gz,labelsTr/a.nii.gz", "b,imagesTr/b.nii.gz,labelsTr/a.nii.gz")
    told = check(listed(tmp_path), tmp_path / "out", workers=1, progress=False)
    found = [one for one in told.findings if one.kind == "label twice"]
    assert [(one.case, one.severity) for one in found] == [("b", "warning")]
    assert "labelsTr/a.nii.gz: is listed as the label of a and of b" in found[0].text


def test_a_quote_without_an_end_swallows_no_case(tmp_path: Path) -> None:
    table(tmp_path, 'a,imagesTr/a.nii.gz,"labelsTr/a.nii.gz', "b,imagesTr/b.nii.gz,labelsTr/b.nii.gz")
    with pytest.raises(InputError, match=r"cases.csv: the collection's table cannot be read"):
        prepare(listed(tmp_path), tmp_path / "out", workers=1, progress=False)
