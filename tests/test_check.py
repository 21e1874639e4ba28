"""``mixcl data check``: every planted fault is found under its name, in its own case alone, and nothing else is."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from mixcl.config import Collection, DataConfig, Experiment, PhantomConfig, load_profile
from mixcl.data import phantom
from mixcl.data.check import check
from mixcl.data.findings import Check
from mixcl.data.registry import BTCV_NAMES

SPACING = (6.0, 6.0, 6.0)
Arrays = tuple[NDArray[Any], NDArray[Any], NDArray[np.float64]]


def body(number: int) -> Arrays:
    """Image, label map and affine of a phantom with BTCV's labels; each number another one."""
    made = phantom.make_case(PhantomConfig(seed=5, spacing=SPACING), "btcv", number)
    return made.image, phantom.labelled(made.truth, "btcv"), made.affine


def write(
    root: Path, case: str, image: NDArray[Any], label: NDArray[Any], affine: Any, label_affine: Any = None
) -> None:
    for folder, data, where in (("imagesTr", image, affine), ("labelsTr", label, label_affine)):
        path = root / folder / f"{case}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(data, affine if where is None else where), path)


def changed(
    change: Callable[[NDArray[Any], NDArray[Any], NDArray[Any]], tuple[Any, ...]],
) -> Callable[[Path, str], None]:
    """A fault that lies in the arrays or the affine."""

    def plant(root: Path, case: str) -> None:
        write(root, case, *change(*body(sum(map(ord, case)))))

    return plant


def file(change: Callable[[Path, Path], object]) -> Callable[[Path, str], None]:
    """A fault that lies in the files (image, label)."""

    def plant(root: Path, case: str) -> None:
        write(root, case, *body(sum(map(ord, case))))
        change(root / "imagesTr" / f"{case}.nii.gz", root / "labelsTr" / f"{case}.nii.gz")

    return plant


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def with_header(path: Path, **values: Any) -> None:
    """Overwrite fields of a NIfTI header, leaving the voxels alone."""
    raw = bytearray(gzip.decompress(path.read_bytes()))
    header = nib.Nifti1Header(bytes(raw[:348]), check=False)
    for key, value in values.items():
        header[key] = value
    raw[:348] = header.binaryblock
    path.write_bytes(gzip.compress(bytes(raw)))


def poked(value: float) -> Callable[[Any, Any, Any], tuple[Any, ...]]:
    def change(image: Any, label: Any, affine: Any) -> tuple[Any, ...]:
        image = image.astype(np.float32)
        image[5, 5, 5] = value
        return image, label, affine

    return change


def padded(image: Any, label: Any, affine: Any) -> tuple[Any, ...]:
    x, y = np.indices(image.shape[:2])
    corner = (x - image.shape[0] / 2) ** 2 + (y - image.shape[1] / 2) ** 2 > (0.7 * max(image.shape[:2])) ** 2
    corner[:2, :2] = True
    image = image.copy()
    image[corner] = -2048
    return image, label, affine


def shifted(affine: NDArray[Any]) -> NDArray[Any]:
    moved = affine.copy()
    moved[0, 3] += 9
    return moved


def mirrored(affine: NDArray[Any], axis: int, length: int) -> NDArray[Any]:
    """The affine of the same place with one axis counted from the other end."""
    turned = affine.copy()
    turned[:3, 3] += affine[:3, axis] * (length - 1)
    turned[:3, axis] *= -1
    return turned


def off(label: Any) -> Any:
    """The label map a third of the volume to the side, into the air."""
    return np.roll(label, label.shape[0] // 2, axis=0)


FAULTS: dict[str, tuple[str, Callable[[Path, str], None]]] = {
    "no-label": ("missing partner", file(lambda i, s: s.unlink())),
    "no-image": ("missing partner", file(lambda i, s: i.unlink())),
    "image-cut": ("damaged", file(lambda i, s: cut(i))),
    "label-cut": ("damaged", file(lambda i, s: cut(s))),
    "few-voxels": ("damaged", file(lambda i, s: i.write_bytes(gzip.compress(gzip.decompress(i.read_bytes())[:9000])))),
    "empty-file": ("damaged", file(lambda i, s: i.write_bytes(b""))),
    "not-packed": ("format", file(lambda i, s: i.write_bytes(gzip.decompress(i.read_bytes())))),
    "not-nifti": ("format", file(lambda i, s: i.write_bytes(gzip.compress(b"hello" * 200)))),
    "4d": ("dimension", changed(lambda i, s, a: (np.stack([i, i], -1), s, a))),
    "2d-label": ("dimension", changed(lambda i, s, a: (i, s[:, :, 0], a))),
    "complex": ("format", changed(lambda i, s, a: (i.astype(np.complex64), s, a))),
    "other-shape": ("shape", changed(lambda i, s, a: (i, s[:, :, 1:], a))),
    "moved": ("affine", changed(lambda i, s, a: (i, s, a, shifted(a)))),
    "other-axes": ("axes", changed(lambda i, s, a: (i, s[::-1], a, mirrored(a, 0, i.shape[0])))),
    "nan": ("nan", changed(poked(np.nan))),
    "infinite": ("nan", changed(poked(np.inf))),
    "constant": ("constant", changed(lambda i, s, a: (np.zeros_like(i), s, a))),
    "unsigned": ("intercept", changed(lambda i, s, a: ((i + 1024).clip(0).astype(np.uint16), s, a))),
    "twice": ("intercept", changed(lambda i, s, a: (i - 1024, s, a))),
    "8-bit": ("range", changed(lambda i, s, a: (((i.clip(-150, 250) + 150) / 400 * 255).astype(np.uint8), s, a))),
    "scaled": ("range", changed(lambda i, s, a: ((i / 1000).astype(np.float32), s, a))),
    "huge": ("range", changed(poked(3e7))),
    "padding": ("padding", changed(padded)),
    "unknown-label": ("unknown label", changed(lambda i, s, a: (i, np.where(s == 6, 77, s).astype(np.uint8), a))),
    "negative-label": ("unknown label", changed(lambda i, s, a: (i, np.where(s == 6, -1, s).astype(np.int16), a))),
    "fractional": ("fractional label", changed(lambda i, s, a: (i, (s * 0.7).astype(np.float32), a))),
    "empty-label": ("empty label", changed(lambda i, s, a: (i, np.zeros_like(s), a))),
    "label-is-image": ("unknown label", changed(lambda i, s, a: (i, i, a))),
    "no-spacing": ("spacing", file(lambda i, s: with_header(i, pixdim=[1, 0, 6, 6, 0, 0, 0, 0]))),
    "in-metres": ("field of view", changed(lambda i, s, a: (i, s, np.diag([0.006, 0.006, 0.006, 1.0])))),
    "too-large": ("spacing", changed(lambda i, s, a: (i, s, np.diag([25.0, 25.0, 25.0, 1.0])))),
    "too-coarse": ("thick slices", changed(lambda i, s, a: (i[:, :, ::2], s[:, :, ::2], a * [[1, 1, 2, 1]]))),
    "singular": ("header", file(lambda i, s: with_header(i, srow_z=[0, 0, 0, 0], sform_code=2, qform_code=0))),
    "left-right": ("laterality", changed(lambda i, s, a: (i[::-1], s[::-1], a))),
    "front-back": ("front and back", changed(lambda i, s, a: (i[:, ::-1], s[:, ::-1], a))),
    "head-feet": ("head and feet", changed(lambda i, s, a: (i[:, :, ::-1], s[:, :, ::-1], a))),
    "swapped": ("axes", changed(lambda i, s, a: (i.swapaxes(0, 1), s.swapaxes(0, 1), a))),
    "label-off": ("label off image", changed(lambda i, s, a: (i, off(s), a))),
    "too-big": ("organ size", changed(lambda i, s, a: (i, s, a * 1.9))),
    "no-orientation": ("orientation", file(lambda i, s: [with_header(p, sform_code=0, qform_code=0) for p in (i, s)])),
}
CLEAN = ("clean-1", "clean-2", "clean-3")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("corpus")
    for number, case in enumerate(CLEAN):
        write(root / "ward", case, *body(1000 + number))
    for case, (_, plant) in FAULTS.items():
        plant(root / "ward", case)
    image, label, affine = body(1000)
    write(root / "ward", "copy", image.astype(np.int32), label, affine)
    image, label, affine = body(1001)  # stored with another order of the axis from front to back
    write(root / "task", "leaked", image[:, ::-1], label[:, ::-1], mirrored(affine, 1, image.shape[1]))
    write(root / "task", "own", *body(2000))
    return root


@pytest.fixture(scope="module")
def checked(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Check, Path]:
    sets = {name: Collection(root=name, names=BTCV_NAMES) for name in ("ward", "task")}
    data = DataConfig(root=str(corpus), collections=sets, pretrain=("ward",), finetune=("task",))
    out = tmp_path_factory.mktemp("out")
    return check(Experiment(data=data), out, workers=2, progress=False), out


def kinds_of(result: Check, case: str) -> set[str]:
    return {finding.kind for finding in result.findings if finding.case == case}


def test_there_are_more_than_25_kinds_of_planted_faults() -> None:
    assert len(FAULTS) >= 25


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


def test_the_page_stands_alone_and_shows_what_is_wrong(checked: tuple[Check, Path]) -> None:
    result, out = checked
    text = (out / "data" / "check.html").read_text()
    assert "http" not in text.replace("http-equiv", "")
    for case in FAULTS:
        assert f"ward/{case}<" in text
    assert "clean-1<" not in text.replace("ward/clean-1;", "")
    assert text.count("data:image/png;base64,") >= 15
    told = json.loads((out / "data" / "check.json").read_text())
    assert len(told["findings"]) == len(result.findings)


def test_phantoms_raise_no_alarm(tmp_path: Path) -> None:
    config = load_profile("smoke", ["data.phantom.spacing=[4,4,4]", "data.phantom.counts={kits19: 3, msd_lung: 3}"])
    result = check(config, tmp_path, progress=False)
    assert [finding for finding in result.findings if finding.kind != "count"] == []


def test_real_scans_raise_no_alarm(realct: Path, tmp_path: Path) -> None:
    from test_realct_data import COLLECTION

    data = DataConfig(root=str(realct), collections=COLLECTION, pretrain=("ircad", "sarcoma"), finetune=("total",))
    result = check(Experiment(data=data), tmp_path, workers=1, progress=False)
    assert result.findings == ()


def test_the_command_line_tells_by_its_exit_code(corpus: Path, tmp_path: Path) -> None:
    names = json.dumps({str(k): v for k, v in BTCV_NAMES.items()})
    sets = [
        "data.source=files", f"data.root={corpus}", "data.pretrain=[task]", "data.finetune=[task]",
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
