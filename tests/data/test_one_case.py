"""One bad case is one finding: the others are checked and prepared, whatever happens to it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.apart import check_or_end, prepare_or_end
from helpers.faults import with_header
from helpers.preparing import settings
from helpers.series import Edit, edit, put, write_series
from helpers.volumes import affine_of, save, scan, write_case

from mixcl.config.settings import Collection, DataConfig, Experiment
from mixcl.data.check import run as check_module
from mixcl.data.check.run import check
from mixcl.data.prepare import run as prepare_module
from mixcl.data.prepare.run import prepare
from mixcl.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
ENDS = {"raise": "ZeroDivisionError", "killed": "was killed", "memory": "too little memory", "crash": "SIGSEGV"}


def test_whatever_ends_a_case_is_its_own_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, case in enumerate(["good", *ENDS]):
        write_case(tmp_path / "raw/own", case, *scan(seed=number))
    config = settings(tmp_path / "raw")
    monkeypatch.setattr(check_module, "check_case", check_or_end)
    found = check(config, tmp_path, workers=2, progress=False)
    errors = {finding.case: finding.text for finding in found.findings if finding.severity == "error"}
    assert errors.keys() == ENDS.keys()
    monkeypatch.setattr(prepare_module, "prepare_case", prepare_or_end)
    with pytest.raises(InputError, match="4 faulty; the other 1 cases are prepared and stay so") as told:
        prepare(config, tmp_path, workers=2, progress=False)
    assert (tmp_path / "data/store/own/good/case.json").is_file()
    for case, word in ENDS.items():
        for text in (errors[case], next(line for line in str(told.value).splitlines() if f"/{case}.nii.gz" in line)):
            assert word in text
            assert f"imagesTr/{case}.nii.gz" in text


def test_a_header_that_promises_a_large_scan_does_not_stop_the_others(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for case, fields in {
        "good": {},
        "shape": {"dim": [3, 30000, 30000, 30000, 1, 1, 1, 1]},
        "odd": {"vox_offset": 353},
    }.items():
        image, _ = write_case(tmp_path / "raw/own", case, *scan())
        with_header(image, **fields)
    with pytest.raises(InputError, match="2 faulty; the other 1 cases are prepared") as told:
        prepare(settings(tmp_path / "raw"), tmp_path, workers=1)
    assert "shape.nii.gz: cut off: the header announces more voxels" in str(told.value)
    lines = [line for line in capfd.readouterr().err.splitlines() if "vox offset" in line]
    assert not lines  # nibabel's words, without the name of a file


BAD: dict[str, Edit] = {
    "empty-intercept": put("RescaleIntercept", None),
    "empty-spacing": put("PixelSpacing", None),
    "zero-spacing": put("PixelSpacing", [0, 0]),
    "no-rows": lambda part: delattr(part, "Rows"),
    "colour": lambda part: (put("SamplesPerPixel", 3)(part), put("PhotometricInterpretation", "RGB")(part)),
}


def test_a_bad_series_is_an_error_by_name_and_the_exit_code_tells(tmp_path: Path) -> None:
    image, label = scan()
    for case in ("good", *BAD):
        write_series(tmp_path / f"raw/own/{case}", image, affine_of())
        save(tmp_path / f"raw/own/{case}.nii.gz", label)
        if case in BAD:
            edit(next((tmp_path / f"raw/own/{case}").iterdir()), BAD[case])
    own = Collection(root="own", image="{case}", label="{case}.nii.gz", names={1: "organ"})
    data = DataConfig(root=str(tmp_path / "raw"), collections={"own": own}, pretrain=("own",), finetune=())
    found = check(Experiment(data=data), tmp_path, workers=1, progress=False)
    assert {finding.case for finding in found.findings if finding.severity == "error"} == set(BAD)
    names = {"own": {"root": "own", "image": "{case}", "label": "{case}.nii.gz", "names": {"1": "organ"}}}
    words = ["data.source=files", f"data.root={tmp_path / 'raw'}", "data.pretrain=[own]", "data.finetune=[]"]
    words.append(f"data.collections={json.dumps(names)}")
    sets = [word for item in words for word in ("--set", item)]
    for command, code in (("check", 1), ("prepare", 2)):
        line = [sys.executable, "-m", "mixcl", "data", command, "--profile", "smoke", "--out", str(tmp_path), *sets]
        done = subprocess.run(line, capture_output=True, text=True, check=False, cwd=ROOT)
        assert done.returncode == code, done.stdout + done.stderr
        for case in BAD:
            assert f"raw/own/{case}" in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
    assert (tmp_path / "data/store/own/good/case.json").is_file()
