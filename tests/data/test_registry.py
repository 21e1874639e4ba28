"""The collections of the paper, and cases found from path templates."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from mixcl.config.settings import FINETUNING_SETS, PRETRAINING_SETS, Collection, DataConfig
from mixcl.data.files.layout import match_cases
from mixcl.data.registry import COLLECTIONS, collections, folder
from mixcl.errors import InputError


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def find_cases(collection: Collection, root: Path) -> dict[str, tuple[Path, Path]]:
    """The cases of a collection, of which nothing may be missing."""
    pairs, missing = match_cases(collection, root)
    if missing:
        raise InputError("\n".join(missing.values()))
    return pairs


def test_counts_are_the_papers() -> None:
    assert sum(COLLECTIONS[name].count or 0 for name in PRETRAINING_SETS) == 765
    assert [COLLECTIONS[name].count for name in FINETUNING_SETS] == [41, 30]
    assert list(COLLECTIONS)[:7] == [*PRETRAINING_SETS, *FINETUNING_SETS]


def test_labels() -> None:
    assert len(COLLECTIONS["btcv"].names) == 13
    assert COLLECTIONS["btcv"].names[6] == "liver"
    assert COLLECTIONS["kits19"].names == {1: "kidney", 2: "kidney tumour"}
    assert COLLECTIONS["msd_lung"].names == {1: "lung tumour"}


def test_every_collection_says_where_it_comes_from() -> None:
    for collection in COLLECTIONS.values():
        assert collection.title
        assert collection.licence
        assert collection.url.startswith("http")
        assert collection.citation


def test_wanted_collections_in_order_and_once() -> None:
    own = Collection(names={1: "x"}, root="mine")
    data = DataConfig(collections={"mine": own}, pretrain=("kits19", "mine"), finetune=("btcv",))
    assert list(collections(data)) == ["kits19", "mine", "btcv"]
    assert collections(data)["mine"] is own


def test_unknown_collection_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"unknown collection 'kits_19' \(did you mean 'kits19'\?\)"):
        collections(DataConfig(pretrain=("kits_19",), finetune=()))


def test_collection_name_that_is_no_folder_name() -> None:
    own = {"../x": Collection(names={1: "x"})}
    with pytest.raises(ValidationError, match="names a folder"):
        DataConfig(collections=own)
    with pytest.raises(ValidationError, match="names a folder"):
        DataConfig(pretrain=("../x",))


def test_folder_expands_and_absolute_roots_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANS", str(tmp_path))
    monkeypatch.setenv("HOME", "/people/me")
    assert folder(Collection(names={1: "x"}, root="$SCANS/a"), Path("/raw")) == tmp_path / "a"
    assert folder(Collection(names={1: "x"}, root="~/a"), Path("/raw")) == Path("/people/me/a")
    assert folder(Collection(names={1: "x"}, root="a/b"), Path("/raw")) == Path("/raw/a/b")


def test_msd_layout_natural_order_and_hidden_files(tmp_path: Path) -> None:
    for kind in ("imagesTr", "labelsTr"):
        touch(tmp_path, *(f"{kind}/liver_{k}.nii.gz" for k in (10, 2, 0)), f"{kind}/._liver_1.nii.gz")
    touch(tmp_path, "imagesTr/notes.txt", "dataset.json", "imagesTs/liver_5.nii.gz")
    cases = find_cases(COLLECTIONS["msd_liver"], tmp_path)
    assert list(cases) == ["liver_0", "liver_2", "liver_10"]
    assert cases["liver_2"] == (tmp_path / "imagesTr/liver_2.nii.gz", tmp_path / "labelsTr/liver_2.nii.gz")


def test_other_layouts(tmp_path: Path) -> None:
    for name, image, label in (
        ("kits19", "case_00000/imaging.nii.gz", "case_00000/segmentation.nii.gz"),
        ("btcv", "RawData/Training/img/img0001.nii.gz", "RawData/Training/label/label0001.nii.gz"),
        ("nih_pancreas", "images/PANCREAS_0001.nii.gz", "labels/label0001.nii.gz"),
    ):
        root = tmp_path / name
        touch(root, image, label)
        assert list(find_cases(COLLECTIONS[name], root).values()) == [(root / image, root / label)]


def test_placeholder_twice_and_special_characters(tmp_path: Path) -> None:
    own = Collection(names={1: "x"}, image="a[1]/{case}/{case}_ct.nii", label="a[1]/{case}/{case}_seg.nii")
    touch(tmp_path, "a[1]/p1/p1_ct.nii", "a[1]/p1/p1_seg.nii", "a[1]/p1/p2_ct.nii", "a1/p3/p3_ct.nii")
    assert list(find_cases(own, tmp_path)) == ["p1"]


def test_missing_partner_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "imagesTr/a.nii.gz", "labelsTr/a.nii.gz", "imagesTr/b.nii.gz", "labelsTr/c.nii.gz")
    pairs, missing = match_cases(COLLECTIONS["msd_liver"], tmp_path)
    assert list(pairs) == ["a"]
    label, image = tmp_path / "labelsTr", tmp_path / "imagesTr"
    assert missing["b"].startswith(f"{label}/b.nii.gz: the label is missing for {image}/b.nii.gz")
    assert missing["c"].startswith(f"{image}/c.nii.gz: the image is missing for {label}/c.nii.gz")


def test_unlabelled_test_part_is_left_out_when_the_count_is_full(tmp_path: Path) -> None:
    """KiTS19 has 300 cases, 210 of them with labels."""
    kits = COLLECTIONS["kits19"].model_copy(update={"count": 2})
    touch(tmp_path, *(f"case_0000{k}/imaging.nii.gz" for k in range(3)))
    touch(tmp_path, *(f"case_0000{k}/segmentation.nii.gz" for k in range(2)))
    assert len(find_cases(kits, tmp_path)) == 2
    (tmp_path / "case_00001/segmentation.nii.gz").unlink()
    assert "case_00001/segmentation" in match_cases(kits, tmp_path)[1]["case_00001"]


def test_nothing_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"no such folder for MSD Task03 Liver; set data\.root"):
        find_cases(COLLECTIONS["msd_liver"], tmp_path / "nowhere")
    with monkeypatch.context() as patch:  # below a folder that may be entered and not be listed
        patch.setattr(os, "access", lambda path, mode: False)
        patch.setattr(Path, "iterdir", lambda path: pytest.fail(f"{path} was listed"))
        with pytest.raises(InputError, match="no such folder"):
            match_cases(COLLECTIONS["msd_liver"], tmp_path / "closed" / "nowhere")
    with pytest.raises(InputError, match=r"no file matches 'imagesTr/.* found are no files at all"):
        find_cases(COLLECTIONS["msd_liver"], tmp_path)
    touch(tmp_path, *(f"scans/{name}.nrrd" for name in "abcde"), "notes.txt")
    with pytest.raises(InputError, match=r"found are 5 .nrrd, 1 .txt \("):
        find_cases(COLLECTIONS["msd_liver"], tmp_path)


LAYOUTS = [
    ("msd_spleen", "Task09_Spleen/imagesTr/spleen_2.nii.gz", "Task09_Spleen/labelsTr/spleen_2.nii.gz"),
    ("msd_spleen", "Dataset009_Spleen/imagesTr/spleen_2_0000.nii.gz", "Dataset009_Spleen/labelsTr/spleen_2.nii.gz"),
    ("nih_pancreas", "Pancreas-CT/images/PANCREAS_0001.nii.gz", "Pancreas-CT/labels/label0001.nii.gz"),
    ("nih_pancreas", "NIH-Pancreas-CT/PANCREAS_0001.nii.gz", "NIH-Pancreas-CT/label0001.nii.gz"),
    ("kits19", "kits19/data/case_00000/imaging.nii.gz", "kits19/data/case_00000/segmentation.nii.gz"),
    ("kits19", "kits19/case_00000/imaging.nii.gz", "kits19/case_00000/segmentation.nii.gz"),
    ("kits19", "Task064_KiTS/imagesTr/case_00000_0000.nii.gz", "Task064_KiTS/labelsTr/case_00000.nii.gz"),
    ("btcv", "BTCV/RawData/Training/img/img0001.nii.gz", "BTCV/RawData/Training/label/label0001.nii.gz"),
    ("btcv", "BTCV/imagesTr/img0001.nii.gz", "BTCV/labelsTr/label0001.nii.gz"),
    ("btcv", "Synapse/img/img0001.nii.gz", "Synapse/label/label0001.nii.gz"),
    ("btcv", "BTCV/img0001.nii.gz", "BTCV/label0001.nii.gz"),
]


@pytest.mark.parametrize(("name", "image", "label"), LAYOUTS)
def test_the_layouts_people_have_are_found(tmp_path: Path, name: str, image: str, label: str) -> None:
    touch(tmp_path, image, label)
    collection = COLLECTIONS[name]
    (pair,) = find_cases(collection, folder(collection, tmp_path)).values()
    assert pair == (tmp_path / image, tmp_path / label)


def test_a_missing_partner_is_told_in_the_layout_that_is_there(tmp_path: Path) -> None:
    touch(tmp_path, "BTCV/img0001.nii.gz", "BTCV/label0001.nii.gz", "BTCV/img0002.nii.gz")
    _, missing = match_cases(COLLECTIONS["btcv"], tmp_path / "BTCV")
    assert missing["0002"].startswith(f"{tmp_path}/BTCV/label0002.nii.gz: the label is missing")


def test_a_table_lists_the_cases(tmp_path: Path) -> None:
    touch(tmp_path, "scans/a.nii.gz", "scans/b.nii", "drawn/a_by_me.nii.gz", "drawn/b.nii.gz")
    (tmp_path / "cases.csv").write_text(
        "image,label,case\nscans/a.nii.gz,drawn/a_by_me.nii.gz,first\nscans/b.nii,drawn/b.nii.gz,\n"
    )
    collection = Collection(names={1: "x"}, table="cases.csv")
    found = find_cases(collection, tmp_path)
    assert list(found) == ["first", "b"]
    assert found["first"] == (tmp_path / "scans/a.nii.gz", tmp_path / "drawn/a_by_me.nii.gz")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("image,mask\na.nii,b.nii\n", "its columns are 'image', 'mask'; name two of them image and label"),
        ("image,label\nt.csv,\n", "line 2 has no image or no label"),
        ("image,label\na.nii,b.nii\n", "line 2 lists .*a.nii, and there is no such file; add it, or take the line out"),
        ("image,label\nt.csv,t.csv\nt.csv,t.csv\n", "line 3 names the case 't.csv' again; add a column case"),
        ("image,label\n", "lists no case"),
        ("image,Image,label\na.nii,b.nii,c.nii\n", "has image for two columns"),
    ],
)
def test_a_wrong_table_is_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=said):
        find_cases(Collection(names={1: "x"}, table="t.csv"), tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        find_cases(Collection(names={1: "x"}, table="none.csv"), tmp_path)


def test_a_line_with_no_name_of_a_file_does_not_stop_the_others(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f"case,image,label\na,t.csv,t.csv\nb,{'x' * 5000}/i.nii,t.csv\n")
    pairs, missing = match_cases(Collection(names={1: "x"}, table="t.csv"), tmp_path)
    assert list(pairs) == ["a"]
    assert "line 3 lists what cannot be read (File name too long)" in missing["b"]


def test_a_wrong_line_does_not_stop_the_others(tmp_path: Path) -> None:
    """A name that no file could have, no file, or a name twice, of which nobody knows which is meant."""
    rows = [
        "a,t.csv,t.csv",
        f"{'x' * 300},t.csv,t.csv",
        "c,t.csv,",
        "d,t.csv,t.csv",
        "d,t.csv,t.csv",
        "e,~/t.csv,$HOME",
    ]
    (tmp_path / "t.csv").write_text("\n".join(["case,image,label", *rows]))
    touch(tmp_path, "$HOME")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path))
        pairs, faults = match_cases(Collection(names={1: "x"}, table="t.csv"), tmp_path)
    assert pairs.keys() == {"a", "e"}
    assert pairs["e"] == (tmp_path / "t.csv", tmp_path / "$HOME")
    said = [
        "line 3: .*its name is empty or too long",
        "line 4 has no image or no label",
        "line 6 names the case 'd' again",
    ]
    assert all(re.search(text, fault) for text, fault in zip(said, faults.values(), strict=True))


def test_a_wrong_file_name_does_not_stop_the_others(tmp_path: Path) -> None:
    """One too long once it is written safely, or that of another case but for how its letters are composed."""
    long = "\u00fc" * 60
    own = Collection(names={1: "x"}, image="ct/{case}.nii.gz", label="seg/{case}.nii.gz")
    for case in ("a", long, COMPOSED):
        touch(tmp_path, f"ct/{case}.nii.gz", f"seg/{case}.nii.gz")
    touch(tmp_path, f"ct/{APART}.nii.gz")
    pairs, faults = match_cases(own, tmp_path)
    assert list(pairs) == ["a"]
    assert faults.keys() == {long, COMPOSED}
    assert "its name is empty or too long" in faults[long]
    assert "but for the way letters are written; rename one" in faults[COMPOSED]


def test_a_faulty_name_of_a_label_is_not_hidden_by_its_image(tmp_path: Path) -> None:
    own = Collection(names={1: "x"}, image="ct/{case}.nii.gz", label="seg/{case}.nii.gz")
    touch(tmp_path, f"ct/{COMPOSED}.nii.gz", f"seg/{COMPOSED}.nii.gz", f"seg/{APART}.nii.gz")
    pairs, faults = match_cases(own, tmp_path)
    assert not pairs
    assert "but for the way letters are written; rename one" in faults[COMPOSED]


def test_a_folder_that_may_not_be_entered_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its names may be listed, and none of them looked at: what ``chmod -R 644`` leaves."""
    own = Collection(names={1: "x"}, image="ct/{case}.nii.gz", label="seg/{case}.nii.gz")
    touch(tmp_path, "ct/a.nii.gz", "seg/a.nii.gz")
    looked = Path.is_dir

    def is_dir(self: Path) -> bool:
        if self.parent.name == "ct":
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return looked(self)

    monkeypatch.setattr(Path, "is_dir", is_dir)
    with pytest.raises(InputError, match=r"ct/a\.nii\.gz: cannot be read .*mend the file or its permissions"):
        match_cases(own, tmp_path)


def test_another_format_takes_the_place_of_the_one_named(tmp_path: Path) -> None:
    """Where the format of the template is there, it is taken; what the other template names is no substitute."""
    own = Collection(names={1: "x"}, image="{case}.nii.gz", label="{case}.seg.nrrd")
    touch(tmp_path, "a.nrrd", "a.seg.nrrd", "b.NII.GZ", "b.seg.nrrd", "c.nii.gz", "c.mha", "c.seg.nrrd", "d.json")
    found = find_cases(own, tmp_path)
    assert {case: image.name for case, (image, _) in found.items()} == {"a": "a.nrrd", "b": "b.NII.GZ", "c": "c.nii.gz"}
    assert [label.name for _, label in found.values()] == ["a.seg.nrrd", "b.seg.nrrd", "c.seg.nrrd"]
    (tmp_path / "a.nrrd").unlink()
    _, missing = match_cases(own, tmp_path)
    assert missing.keys() == {"a"}
    assert "the image is missing for" in missing["a"]


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("{case}.nii.gz", "{case}_seg.nii.gz"), ("{case}_ct.nii.gz", "{case}.nii.gz"),
        ("{case}/{case}.nii", "{case}/{case}_seg.nii"), ("{case}.nrrd", "{case}.nii.gz"),
    ],
)  # fmt: skip
def test_image_and_label_side_by_side(tmp_path: Path, image: str, label: str) -> None:
    """No file is both: the template that says more of its name takes it."""
    own = Collection(names={1: "x"}, image=image, label=label)
    for case in ("p1", "p2"):
        touch(tmp_path, image.replace("{case}", case), label.replace("{case}", case))
    assert find_cases(own, tmp_path) == {
        case: (tmp_path / image.replace("{case}", case), tmp_path / label.replace("{case}", case))
        for case in ("p1", "p2")
    }
    (tmp_path / label.replace("{case}", "p2")).unlink()
    _, missing = match_cases(own, tmp_path)
    assert list(missing) == ["p2"]
    assert missing["p2"].startswith(f"{tmp_path / label.replace('{case}', 'p2')}: the label is missing")


COMPOSED, APART = "M\u00fcller", "Mu\u0308ller"


def test_letters_composed_in_two_ways_are_one_name(tmp_path: Path) -> None:
    touch(tmp_path, f"{APART}/ct/{COMPOSED}.nii.gz", f"{APART}/seg/{APART}.nii.gz")
    own = Collection(names={1: "x"}, image="ct/{case}.nii.gz", label="seg/{case}.nii.gz")
    assert list(find_cases(own, tmp_path / COMPOSED)) == [COMPOSED]
    (tmp_path / "cases.csv").write_text(f"image,label\n{COMPOSED}/ct/{APART}.nii.gz,{COMPOSED}/seg/{COMPOSED}.nii.gz\n")
    assert list(find_cases(Collection(names={1: "x"}, table="cases.csv"), tmp_path)) == [COMPOSED]
    touch(tmp_path, f"{APART}/ct/{APART}.nii.gz")
    with pytest.raises(InputError, match="but for the way letters are written; rename one"):
        find_cases(own, tmp_path / COMPOSED)


ROWS = [["Image", "LABEL ", "Case"], ["scans/a.nii.gz", "drawn/a.nii.gz", "first"], ["", "", ""]]
TABLES = {
    "semicolons": "\n".join(";".join(row) for row in ROWS).encode(),
    "spaces": "\n".join(", ".join(row) for row in ROWS).encode(),
    "tabs": "\n".join("\t".join(row) for row in ROWS).encode(),
    "told": ("sep=;\r\n" + "\r\n".join(";".join(row) for row in ROWS)).encode(),
    "UTF-16": "\r\n".join("\t".join(row) for row in ROWS).encode("utf-16"),
    "UTF-16 without a mark": "\n".join(",".join(row) for row in ROWS).encode("utf-16-le"),
    "a mark of UTF-8": "\n".join(",".join(row) for row in ROWS).encode("utf-8-sig"),
    "empty lines": ("\n\n" + "\n\n".join(",".join(row) for row in ROWS) + "\n\n").encode(),
    "quotes": "\n".join(",".join(f'"{cell}"' for cell in row) for row in ROWS).encode(),
    "more columns": "\n".join(",".join(["x", *row, "y"]) for row in ROWS).encode().replace(b"x,,,,y", b",,,,"),
}


@pytest.mark.parametrize("kind", TABLES)
def test_tables_as_spreadsheets_write_them(tmp_path: Path, kind: str) -> None:
    touch(tmp_path, "scans/a.nii.gz", "drawn/a.nii.gz")
    (tmp_path / "cases.csv").write_bytes(TABLES[kind])
    found = find_cases(Collection(names={1: "x"}, table="cases.csv"), tmp_path)
    assert found == {"first": (tmp_path / "scans/a.nii.gz", tmp_path / "drawn/a.nii.gz")}


def test_a_table_of_windows_keeps_its_umlauts(tmp_path: Path) -> None:
    touch(tmp_path, f"{COMPOSED}.nii.gz", f"{COMPOSED}_seg.nii.gz")
    text = f"image;label\n{COMPOSED}.nii.gz;{COMPOSED}_seg.nii.gz\n"
    (tmp_path / "cases.csv").write_bytes(text.encode("cp1252"))
    assert list(find_cases(Collection(names={1: "x"}, table="cases.csv"), tmp_path)) == [COMPOSED]


def test_a_workbook_is_named(tmp_path: Path) -> None:
    (tmp_path / "cases.xlsx").write_bytes(b"PK\x03\x04")
    with pytest.raises(InputError, match="a workbook of a spreadsheet, no text; save it as CSV"):
        find_cases(Collection(names={1: "x"}, table="cases.xlsx"), tmp_path)
