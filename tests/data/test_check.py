"""``mixcl data check``: every planted fault is found under its name, in its own case alone, and nothing else is."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.faults import FAULTS, body, cut, mirrored
from helpers.volumes import write_case

from mixcl.config import load_profile
from mixcl.config.settings import Collection, DataConfig, Experiment
from mixcl.data.check.duplicates import profile_distance
from mixcl.data.check.findings import Check, Checked, Finding, page
from mixcl.data.check.label_rules import missing_organs, too_large
from mixcl.data.check.run import check
from mixcl.data.prepare.run import prepare
from mixcl.data.registry import BTCV_NAMES
from mixcl.errors import InputError

CLEAN = ("clean-1", "clean-2", "clean-3")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("corpus")
    for number, case in enumerate(CLEAN):
        write_case(root / "ward", case, *body(1000 + number))
    for case, (_, plant) in FAULTS.items():
        plant(root / "ward", case)
    image, label, affine = body(1000)
    write_case(root / "ward", "copy", image.astype(np.int32), label, affine)
    image, label, affine = body(1001)  # stored with another order of the axis from front to back
    write_case(root / "task", "leaked", image[:, ::-1], label[:, ::-1], mirrored(affine, 1, image.shape[1]))
    write_case(root / "task", "own", *body(2000))
    image, label, affine = body(1002)  # cropped, mirrored and noisier
    image = (image + np.random.default_rng(0).normal(0, 10, image.shape)).astype(np.int16)[::-1, 2:, 3:]
    write_case(root / "task", "alike", image, label[::-1, 2:, 3:], mirrored(affine, 0, image.shape[0]))
    return root


@pytest.fixture(scope="module")
def checked(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Check, Path]:
    sets = {name: Collection(root=name, names=BTCV_NAMES) for name in ("ward", "task")}
    data = DataConfig(root=str(corpus), collections=sets, pretrain=("ward",), finetune=("task",))
    out = tmp_path_factory.mktemp("out")
    return check(Experiment(data=data), out, workers=2, progress=False), out


def kinds_of(result: Check, case: str) -> set[str]:
    return {finding.kind for finding in result.findings if finding.case == case}


def test_there_are_more_than_75_kinds_of_planted_faults() -> None:
    assert len(FAULTS) >= 75


@pytest.mark.parametrize("case", FAULTS)
def test_a_planted_fault_is_found_under_its_name(checked: tuple[Check, Path], case: str) -> None:
    found = [finding for finding in checked[0].findings if finding.case == case]
    assert FAULTS[case][0] in {finding.kind for finding in found}, found
    for finding in found:
        assert case in finding.text  # names the file
        assert "\n" not in finding.text


@pytest.mark.parametrize("case", [*CLEAN, "own"])
def test_a_clean_case_raises_no_alarm(checked: tuple[Check, Path], case: str) -> None:
    assert kinds_of(checked[0], case) == set()


def test_the_same_scan_twice_is_found_whatever_its_file(checked: tuple[Check, Path]) -> None:
    result = checked[0]
    assert kinds_of(result, "copy") == {"duplicate"}
    leak = next(finding for finding in result.findings if finding.case == "leaked")
    assert (leak.kind, leak.severity) == ("leak", "error")
    assert "ward/clean-2" in leak.text
    alike = next(finding for finding in result.findings if finding.case == "alike")
    assert (alike.kind, alike.severity) == ("near duplicate", "warning")
    assert "ward/clean-3" in alike.text


def test_profiles_are_as_far_apart_as_a_loop_over_shifts_says() -> None:
    rng = np.random.default_rng(0)
    for n, m in ((40, 40), (31, 55), (55, 31), (30, 80)):
        a, b = (np.float32([rng.uniform(0, 700, k), rng.normal(20, 60, k)]) for k in (n, m))
        least, expected = int(0.8 * min(n, m)), math.inf
        for shift in range(least - m, n - least + 1):
            both = [(i, i - shift) for i in range(n) if 0 <= i - shift < m]
            assert len(both) >= least
            area = np.mean([abs(a[0, i] - b[0, k]) for i, k in both]) / max(np.mean([a[0, i] for i, _ in both]), 1)
            expected = min(expected, area + np.mean([abs(a[1, i] - b[1, k]) for i, k in both]) / 100)
        assert profile_distance(a, b) == pytest.approx(expected, rel=1e-4)


def test_a_leak_that_is_allowed_is_a_warning(corpus: Path, tmp_path: Path) -> None:
    for case in ("imagesTr/clean-2.nii.gz", "labelsTr/clean-2.nii.gz"):
        for name in ("before", "after"):
            (tmp_path / name / case).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(corpus / "ward" / case, tmp_path / name / case)
    sets = {name: Collection(root=name, names=BTCV_NAMES) for name in ("before", "after")}
    for allowed, severity in ((False, "error"), (True, "warning")):
        data = DataConfig(
            root=str(tmp_path), collections=sets, pretrain=("before",), finetune=("after",), pretrain_sees_test=allowed
        )
        (leak,) = check(Experiment(data=data), tmp_path, progress=False).findings
        assert (leak.kind, leak.severity, leak.case) == ("leak", severity, "clean-2")
    both = DataConfig(
        root=str(tmp_path), collections=sets, pretrain=("after",), finetune=("after",), pretrain_sees_test=True
    )
    (leak,) = check(Experiment(data=both), tmp_path, progress=False).findings
    assert (leak.kind, leak.severity, leak.collection) == ("leak", "warning", "after")
    assert leak.text in prepare(Experiment(data=both), tmp_path, workers=1, progress=False).warnings


def test_what_the_spacing_loses_is_told_before_training(corpus: Path, tmp_path: Path) -> None:
    """By name, case and voxels, as an error where nothing is left; preparing says the same of the same files."""
    image, label, affine = body(1000)
    speck = np.where(label == 1, 0, label)
    few = tuple(np.argwhere(label == 1)[0])  # a spleen of two voxels, which lie between those of 50 mm
    speck[few], speck[few[0], few[1], few[2] + 1] = 1, 1
    write_case(tmp_path / "raw/ward", "small", image, speck, affine)
    write_case(tmp_path / "raw/ward", "tiny", image, np.where(speck == 1, 1, 0).astype(np.uint8), affine)
    ward = {"ward": Collection(root="ward", names=BTCV_NAMES)}
    data = DataConfig(
        root=str(tmp_path / "raw"), collections=ward, pretrain=("ward",), finetune=(), spacing=(50.0, 50.0, 50.0)
    )
    result = check(Experiment(data=data), tmp_path, workers=1, progress=False)
    lost = {finding.case: finding for finding in result.findings if finding.kind == "lost label"}
    assert (lost["small"].severity, lost["tiny"].severity) == ("warning", "error")
    assert "small.nii.gz: at 50 x 50 x 50 mm nothing is left of " in lost["small"].text
    assert "spleen (2 voxels)" in lost["small"].text
    assert "choose a finer data.spacing" in lost["tiny"].text
    with pytest.raises(InputError, match=r"tiny.nii.gz: no labelled voxel is left at 50 x 50 x 50 mm of spleen"):
        prepare(Experiment(data=data), tmp_path, workers=1, progress=False)
    (tmp_path / "raw/ward/imagesTr/tiny.nii.gz").unlink()
    (tmp_path / "raw/ward/labelsTr/tiny.nii.gz").unlink()
    report = prepare(Experiment(data=data), tmp_path, workers=1, progress=False)
    assert lost["small"].text.replace(f"{tmp_path}/raw/ward/", "ward: ") in report.warnings


FOUR = {1: "liver", 2: "spleen", 3: "kidney", 4: "kidney tumour"}


def lacking(**scans: tuple[str, ...] | None) -> list[tuple[str, str, str]]:
    """Severity, case and sentence, up to what to do, of what is told of scans that have some of `FOUR`."""
    cases = [Checked("own", case, (), organs=None if has is None else frozenset(has)) for case, has in scans.items()]
    found = list(missing_organs(cases, "own", Collection(names=FOUR)))
    assert {finding.kind for finding in found} <= {"missing organ"}
    return [(finding.severity, finding.case, finding.text.partition("; what is in the scan")[0]) for finding in found]


def test_a_scan_that_lacks_a_declared_organ_is_told() -> None:
    every = tuple(FOUR.values())
    assert lacking(a=every, b=every) == []
    assert lacking(a=every, b=every, c=("liver",), d=None) == [
        ("warning", "c", "own/c: has no voxel of spleen, kidney, which most scans of its collection have"),
        ("note", "c", "own/c: has no voxel of kidney tumour, which most scans of its collection have"),
    ]
    assert lacking(a=("liver",), b=("liver",)) == [
        ("warning", "", "own: declares spleen, kidney, kidney tumour, of which none of its 2 scans has a voxel")
    ]
    assert lacking(a=("liver",)) == [
        ("warning", "", "own: declares spleen, kidney, kidney tumour, of which its only scan does not have a voxel")
    ]
    assert lacking(a=every, b=("liver",), c=("liver", "spleen"), d=("liver", "spleen")) == [
        ("warning", "", "own: declares kidney, of which only 1 of its 4 scans has a voxel"),
        ("warning", "b", "own/b: has no voxel of spleen, which most scans of its collection have"),
    ]
    assert lacking(a=None, b=None) == lacking() == []


@pytest.mark.parametrize("lesion", ["kidney tumour", "kidney cyst", "kidney nodules"])
def test_a_lesion_is_not_taken_for_its_organ(lesion: str) -> None:
    assert [doubt.kind for doubt in too_large({"kidney": 2600.0})] == ["organ size"]
    assert list(too_large({lesion: 2600.0})) == []


def test_a_liver_only_map_among_whole_ones_is_found(corpus: Path, tmp_path: Path) -> None:
    """On the files: merged organs count as one, and voxels of which nothing is known as none."""
    image, label, affine = body(1003)
    label = np.where(np.isin(label, [6, 2]), label, 0).astype(np.uint8)
    label[:20, :20] = 99
    write_case(tmp_path / "ward", "part", image, label, affine)
    for number in (1000, 1001):
        write_case(tmp_path / "ward", f"whole-{number}", *body(number))
    ward = Collection(root="ward", names=BTCV_NAMES, merge={"kidney": (2, 3)}, unknown=(99,))
    data = DataConfig(root=str(tmp_path), collections={"ward": ward}, pretrain=("ward",), finetune=())
    result = check(Experiment(data=data), tmp_path, workers=1, progress=False)
    (found,) = result.findings
    assert (found.kind, found.severity, found.case) == ("missing organ", "warning", "part")
    assert "has no voxel of spleen, gallbladder, " in found.text
    assert "kidney" not in found.text
    assert {case.case: len(case.organs or ()) for case in result.cases} == {
        "part": 2,
        "whole-1000": 12,
        "whole-1001": 12,
    }


def test_the_page_stands_alone_and_shows_every_scan(checked: tuple[Check, Path]) -> None:
    result, out = checked
    text = (out / "data" / "check.html").read_text()
    assert "http" not in text
    wrong, clean = text.split("<h2>Nothing found</h2>")
    for case in FAULTS:
        assert f"ward/{case}<" in wrong
    for case in CLEAN:
        assert f"ward/{case}\n" in clean
    pictures = re.findall(
        r'<img alt="an axial slice of (\S+) with outlines of its labels, of [^"]+" src="data:image', text
    )
    assert {"ward/clean-1", "task/own", "ward/copy"} <= set(pictures)
    assert text.count("<img ") == sum(bool(case.picture) for case in result.cases) > len(FAULTS) / 2
    assert text.count("data-worst=") == len({(f.collection, f.case) for f in result.findings} | {
        (case.collection, case.case) for case in result.cases
    })  # fmt: skip
    told = json.loads((out / "data" / "check.json").read_text())
    assert len(told["findings"]) == len(result.findings)


def test_the_page_takes_names_for_text() -> None:
    """A name that looks like HTML stays a name."""
    finding = Finding("odd & <i>", "warning", "<b>ward</b>", "x", "a <script>alert(1)</script> case")
    text = page(Check({"<b>ward</b>": (1, None)}, (Checked("<b>ward</b>", "x", (finding,)),), (finding,)))
    for part in ("<script>alert", "<b>ward", "odd & <i>"):
        assert part not in text
    assert "&lt;b&gt;ward&lt;/b&gt;/x</td>" in text
    assert "no picture" in text
    assert "Nothing is wrong." in page(Check({"a": (1, 1)}, (), ()))
    assert "Nothing is wrong." not in page(Check({}, (), ())) + Check({}, (), ()).to_markdown()


def test_phantoms_raise_no_alarm(tmp_path: Path) -> None:
    config = load_profile(
        "smoke",
        [
            "data.phantom.spacing=[4,4,4]",
            "data.phantom.counts={kits19: 3, msd_lung: 3}",
            "data.pretrain=[kits19, msd_lung]",
            "data.finetune=[]",
        ],
    )
    result = check(config, tmp_path, progress=False)
    assert result.findings == ()
    assert result.counts == {"kits19": (3, 3), "msd_lung": (3, 3)}


def test_real_scans_raise_no_alarm(realct: Path, tmp_path: Path) -> None:
    from helpers.realct import COLLECTION

    data = DataConfig(root=str(realct), collections=COLLECTION, pretrain=("ircad", "sarcoma"), finetune=("total",))
    result = check(Experiment(data=data), tmp_path, workers=1, progress=False)
    (lacking,) = result.findings  # it declares twelve organs, and one scan is all there is
    assert (lacking.kind, lacking.severity, lacking.collection, lacking.case) == (
        "missing organ",
        "warning",
        "ircad",
        "",
    )


def test_the_command_line_tells_by_its_exit_code(corpus: Path, tmp_path: Path) -> None:
    names = json.dumps({str(k): v for k, v in BTCV_NAMES.items()})
    sets = [
        "data.source=files", f"data.root={corpus}", "data.pretrain=[]", "data.finetune=[task]",
        f"data.collections={{task: {{root: task, names: {names}}}}}",
    ]  # fmt: skip
    command = [sys.executable, "-m", "mixcl", "data", "check", "--profile", "smoke"]
    words = [word for item in sets for word in ("--set", item)]
    done = subprocess.run([*command, "--out", str(tmp_path), *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Nothing is wrong." in done.stdout
    broken = tmp_path / "broken"
    shutil.copytree(corpus / "task", broken / "task")
    cut(broken / "task/imagesTr/own.nii.gz")
    words[words.index(f"data.root={corpus}")] = f"data.root={broken}"
    done = subprocess.run([*command, "--out", str(tmp_path), *words], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "own.nii.gz: cut off or damaged" in done.stdout
