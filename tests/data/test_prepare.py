"""Preparation: the geometry against MONAI, every fault of a file, and a run that is killed many times."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from helpers.broken import flip
from helpers.faults import with_header
from helpers.preparing import settings
from helpers.volumes import affine_of, save, scan, write_case

from mixcl.config.settings import Collection, DataConfig, Experiment
from mixcl.data.files.grid import resample_linear, resample_nearest, resampled_affine, to_ras
from mixcl.data.prepare import case as case_module
from mixcl.data.prepare import run as module
from mixcl.data.prepare.run import Report, prepare
from mixcl.data.store import Store
from mixcl.errors import InputError
from mixcl.lock import held

ROOT = Path(__file__).resolve().parents[2]


def run(raw: Path, out: Path, **changes: Any) -> Report:
    return prepare(settings(raw, **changes), out, workers=1, progress=False)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """One good case in ``own``; each test spoils another one beside it."""
    write_case(tmp_path / "raw/own", "good", *scan(seed=1))
    return tmp_path / "raw"


def test_a_label_is_turned_as_its_image_is(raw: Path, tmp_path: Path) -> None:
    """Two headers a hair apart, on either side of the angle at which the nearest axes change."""
    image, label = scan((24, 24, 14))
    for number, angle in enumerate((44.999, 45.001)):
        cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        affine = np.array([[cos, -sin, 0, 0], [sin, cos, 0, 0], [0, 0, 3, 0], [0, 0, 0, 1.0]])
        if number == 0:
            first = affine
    write_case(raw / "own", "oblique", image, label, first, affine)
    run(raw, tmp_path / "out")
    case = next(c for c in Store(tmp_path / "out/data/store").cases("own") if c.id == "oblique")
    assert case.image()[np.asarray(case.label()) == 1].mean() > 100  # the box is brighter than the body by 100


# --- what comes out -------------------------------------------------------------------------------


def test_record_and_report(raw: Path, tmp_path: Path) -> None:
    report = run(raw, tmp_path / "out")
    (case,) = Store(tmp_path / "out/data/store").cases("own")
    record = json.loads((case.path / "case.json").read_text())
    image = raw / "own/imagesTr/good.nii.gz"
    assert record["source"]["image"] == {
        "name": "imagesTr/good.nii.gz",
        "bytes": image.stat().st_size,
        "sha256": hashlib.sha256(image.read_bytes()).hexdigest(),
    }
    assert case.shape == (16, 17, 21)  # 24 * 1 / 1.5, 20 * 1.25 / 1.5 and 14 * 3 / 2, rounded
    assert case.source_shape == (24, 20, 14)
    np.testing.assert_allclose(case.source_affine, affine_of())
    centres = [
        affine @ [*((np.array(shape) - 1) / 2), 1]
        for affine, shape in ((case.source_affine, case.source_shape), (case.affine, case.shape))
    ]
    np.testing.assert_allclose(*centres, atol=1e-5)
    voxels = {str(v): int(n) for v, n in zip(*np.unique(case.label(), return_counts=True), strict=True)}
    assert record["voxels"] == voxels
    assert report.collections[0].found == report.collections[0].made == 1
    assert report.warnings == report.duplicates == report.faults == ()
    assert report.bytes == sum(p.stat().st_size for p in case.path.glob("*.np*"))
    written = json.loads((tmp_path / "out/data/report.json").read_text())
    assert written["collections"][0]["name"] == "own"
    assert "| own | 1 | any | 1 | 0 | 0 |" in report.to_markdown()


def test_window_and_padding(tmp_path: Path) -> None:
    """Values outside the window, such as a padding of -2048, are clipped without a word."""
    image, label = scan((12, 12, 12))
    image[0], image[-1] = -2048, 3071
    write_case(tmp_path / "raw/own", "c", image, label, affine_of((1.5, 1.5, 2.0)))
    report = run(tmp_path / "raw", tmp_path)
    (case,) = Store(tmp_path / "data/store").cases("own")
    np.testing.assert_array_equal(case.image(), np.clip(image, -150, 250))
    np.testing.assert_array_equal(case.label(), label)
    assert not report.warnings


@pytest.mark.parametrize("codes", ["LPS", "RAS", "SPR", "ILP"])
def test_orientation_does_not_matter(tmp_path: Path, codes: str) -> None:
    """The same anatomy stored along other axes gives the same arrays, bit for bit, and the same affine."""
    image, label = scan()
    turn = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(codes))
    affine = affine_of() @ nib.orientations.inv_ornt_aff(turn, image.shape)
    assert "".join(nib.aff2axcodes(affine)) == codes
    other = [nib.orientations.apply_orientation(part, turn) for part in (image, label)]
    write_case(tmp_path / "raw/own", "ras", image, label)
    write_case(tmp_path / "raw/own", "turned", other[0], other[1], affine)
    report = run(tmp_path / "raw", tmp_path)
    straight, turned = Store(tmp_path / "data/store").cases("own")
    np.testing.assert_array_equal(straight.image(), turned.image())
    np.testing.assert_array_equal(straight.label(), turned.label())
    np.testing.assert_allclose(straight.affine, turned.affine)
    assert report.duplicates == (("own/ras", "own/turned"),)


@pytest.mark.slow
def test_grid_agrees_with_monai() -> None:
    """MONAI's Orientation, and its SpatialResample onto our grid, on oblique, shrinking and growing grids."""
    import torch
    from monai.data import MetaTensor
    from monai.transforms import Orientation, SpatialResample

    rng = np.random.default_rng(0)
    labels = (("L", "R"), ("P", "A"), ("I", "S"))
    for _ in range(12):
        shape = 2 * rng.integers(3, 20, 3) + 1  # odd: no new voxel lies halfway between two old ones
        tilt, _ = np.linalg.qr(np.eye(3) + 0.2 * rng.normal(size=(3, 3)))
        affine = np.eye(4)
        affine[:3, :3] = tilt[:, rng.permutation(3)] * rng.choice([-1, 1], 3) * rng.uniform(0.5, 6, 3)
        affine[:3, 3] = rng.normal(size=3) * 100
        image = rng.normal(0, 300, shape).astype(np.float32)
        target = rng.uniform(0.7, 5, 3)
        turned, straight = to_ras(image, affine)
        spacing = np.sqrt((straight[:3, :3] ** 2).sum(axis=0))
        tensor = Orientation("RAS", labels=labels)(
            MetaTensor(torch.from_numpy(image)[None], affine=torch.tensor(affine))
        )
        for mode, resample in (("bilinear", resample_linear), ("nearest", resample_nearest)):
            result = resample(turned, spacing, target)
            grid = torch.tensor(resampled_affine(straight, turned.shape, target))
            to_grid = SpatialResample(mode=mode, padding_mode="border", align_corners=False)
            expected = to_grid(tensor, dst_affine=grid, spatial_size=result.shape)
            np.testing.assert_allclose(result, expected[0].numpy(), atol=2e-3)
        centres = [
            m @ [*((np.array(n) - 1) / 2), 1] for m, n in ((straight, turned.shape), (grid.numpy(), result.shape))
        ]
        np.testing.assert_allclose(*centres, atol=1e-6)
        boxes = np.array(turned.shape) * spacing, np.array(result.shape) * target
        assert (np.abs(boxes[0] - boxes[1]) <= target / 2 + 1e-6).all() or 1 in result.shape


def test_resampling_a_ramp_is_exact() -> None:
    """A linear function of place is reproduced by linear interpolation, up to the clamped border."""
    x, y, z = np.meshgrid(*map(np.arange, (31, 21, 11)), indexing="ij")
    ramp = (2 * x - 3 * y + 5 * z).astype(np.float32)
    result = resample_linear(ramp, (1, 1, 1), (0.7, 1.6, 2.0))
    middle = [(np.arange(m) - (m - 1) / 2) * step for m, step in zip(result.shape, (0.7, 1.6, 2), strict=True)]
    at = [np.clip(x + (n - 1) / 2, 0, n - 1) for x, n in zip(middle, ramp.shape, strict=True)]
    i, j, k = np.meshgrid(*at, indexing="ij")
    np.testing.assert_allclose(result, 2 * i - 3 * j + 5 * k, atol=1e-4)


# --- faults, one by one ---------------------------------------------------------------------------

Spoil = Callable[[Path, Path], None]
IMAGE, LABEL = scan()


def cut(path: Path, share: float) -> None:
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def pixdim(*edges: float) -> list[float]:
    return [1.0, *edges, 0, 0, 0, 0]


def with_value(data: np.ndarray[Any, Any], value: float, dtype: type) -> np.ndarray[Any, Any]:
    changed = data.astype(dtype)
    changed[5, 5, 5] = value
    return changed


def speck(label: np.ndarray[Any, Any], value: int) -> np.ndarray[Any, Any]:
    """A label of one voxel, where the new grid, with 2 voxels for 3 on the first axis, passes over it."""
    changed = label.copy()
    changed[4, 5, 5] = value
    return changed


FAULTS: dict[str, tuple[Spoil, str]] = {
    "no image": (lambda i, s: i.unlink(), r"imagesTr/bad.*: the image is missing for .*; add"),
    "no label": (lambda i, s: s.unlink(), r"labelsTr/bad.nii.gz: the label is missing for .*; add it, or"),
    "dangling link": (lambda i, s: (i.unlink(), i.symlink_to("gone")), r"imagesTr/bad.nii.gz: no such file; add"),
    "empty file": (lambda i, s: i.write_bytes(b""), r"imagesTr/bad.nii.gz: (not a NIfTI|cut off|is empty)"),
    "cut off image": (lambda i, s: cut(i, 0.5), r"imagesTr/bad.nii.gz: cut off or damaged .*; download or copy"),
    "cut off label": (lambda i, s: cut(s, 0.9), r"labelsTr/bad.nii.gz: cut off or damaged"),
    "cut off checksum": (lambda i, s: cut(i, 0.9999), r"imagesTr/bad.nii.gz: cut off or damaged"),
    "damaged": (lambda i, s: flip(i), r"imagesTr/bad.nii.gz: cut off or damaged"),
    "not gzip": (
        lambda i, s: i.write_bytes(gzip.decompress(i.read_bytes())),
        r"bad.nii.gz: not a gzip file although it ends in .gz; compress it, or name it .nii",
    ),
    "not NIfTI": (lambda i, s: i.write_bytes(gzip.compress(b"DICM" * 1000)), r"not a NIfTI volume"),
    "voxels missing": (
        lambda i, s: i.write_bytes(gzip.compress(gzip.decompress(i.read_bytes())[:-50])),
        r"bad.nii.gz: cut off: the header announces more voxels",
    ),
    "4-D": (lambda i, s: save(i, np.stack([IMAGE] * 3, -1)), r"has 4 dimensions \(24, 20, 14, 3\); keep one 3-D"),
    "2-D": (lambda i, s: save(i, IMAGE[:, :, 5]), r"has the shape \(24, 20\); store it as one 3-D volume"),
    "colour": (
        lambda i, s: save(i, np.zeros((24, 20, 14), [("R", "u1"), ("G", "u1"), ("B", "u1")])),
        r"its voxels are of the type",
    ),
    "label shape": (lambda i, s: save(s, LABEL[:, :, :-1]), r"labelsTr/bad.nii.gz: shape .* differs from .* bad.nii"),
    "label affine": (
        lambda i, s: save(s, LABEL, affine_of(origin=(10, -20, 31))),
        r"labelsTr/bad.nii.gz: its affine differs from that of bad.nii.gz by up to 1 mm",
    ),
    "label flipped": (
        lambda i, s: save(s, LABEL[:, ::-1], affine_of() @ np.diag([1, -1, 1, 1])),
        r"labelsTr/bad.nii.gz: its axes run RPS, those of bad.nii.gz RAS, and turned it does not fit",
    ),
    "unknown label": (lambda i, s: save(s, with_value(LABEL, 9, np.uint8)), r"unknown label value 9; .* 0 and 1, 2;"),
    "huge label": (lambda i, s: save(s, with_value(LABEL, 999, np.int16)), r"label values from 0 to 999, but"),
    "negative label": (lambda i, s: save(s, with_value(LABEL, -1, np.int16)), r"label values from -1 to 1, but"),
    "fractional label": (lambda i, s: save(s, with_value(LABEL, 0.4, np.float32)), r"not whole numbers; export it"),
    "empty label": (lambda i, s: save(s, np.zeros_like(LABEL)), r"labelsTr/bad.nii.gz: labels nothing; add its"),
    "NaN": (lambda i, s: save(i, with_value(IMAGE, np.nan, np.float32)), r"1 voxels are NaN or infinite; write"),
    "infinity": (lambda i, s: save(i, with_value(IMAGE, np.inf, np.float64)), r"1 voxels are NaN or infinite"),
    "NaN label": (lambda i, s: save(s, with_value(LABEL, np.nan, np.float32)), r"labelsTr/bad.*NaN or infinite"),
    "zero spacing": (
        lambda i, s: with_header(i, pixdim=pixdim(0, 1, 1)),
        r"voxel size 0 x 1 x 1 mm is impossible; write",
    ),
    "negative spacing": (
        lambda i, s: with_header(i, pixdim=pixdim(1, -1, 1)),
        r"voxel size 1 x -1 x 1 mm is impossible",
    ),
    "NaN spacing": (
        lambda i, s: with_header(i, pixdim=pixdim(1, np.nan, 1)),
        r"voxel size 1 x nan x 1 mm is impossible",
    ),
    "huge spacing": (lambda i, s: save(i, IMAGE, affine_of((1, 1, 50))), r"1 x 1 x 50 mm is implausibly large"),
    "singular affine": (
        lambda i, s: with_header(i, srow_x=[0, 0, 0, 0], sform_code=1, qform_code=0),
        r"affine is singular or not finite",
    ),
    "unknown type": (lambda i, s: with_header(i, datatype=77), r"its header makes no sense"),
    "constant": (lambda i, s: save(i, np.full_like(IMAGE, -1000)), r"all voxels are -1000"),
    "scaled to 0..1": (
        lambda i, s: save(i, (IMAGE / 2000 + 0.5).clip(0, 1).astype(np.float32)),
        r"between 0 and 0.\d+, so it looks already scaled; give Hounsfield",
    ),
    "standardised": (lambda i, s: save(i, (IMAGE / 500).astype(np.float32)), r"looks already scaled"),
    "8-bit": (lambda i, s: save(i, (IMAGE / 8 + 128).clip(0, 255).astype(np.uint8)), r"looks like an 8-bit picture"),
    "no intercept": (lambda i, s: save(i, (IMAGE + 1024).astype(np.uint16)), r"its intercept \(often -1024\) is lost"),
    "outside window": (lambda i, s: save(i, (IMAGE - 1100).astype(np.int16)), r"none of it lies inside the window"),
    "vanishing label": (
        lambda i, s: save(s, speck(np.zeros_like(LABEL), 1)),
        r"no labelled voxel is left at 1.5 x 1.5 x 2 mm of organ \(1 voxels\); choose a finer data.spacing",
    ),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_fault(raw: Path, tmp_path: Path, kind: str) -> None:
    """One sentence that names the file; the good case is stored all the same, the collection is not ready."""
    spoil, sentence = FAULTS[kind]
    spoil(*write_case(raw / "own", "bad", IMAGE, LABEL))
    with pytest.raises(InputError, match=sentence) as error:
        run(raw, tmp_path)
    assert "\n" not in str(error.value)
    assert "bad.nii.gz" in str(error.value)
    assert (tmp_path / "data/store/own/good/case.json").is_file()
    with pytest.raises(InputError, match=r"nothing is prepared|not prepared"):
        Store(tmp_path / "data/store")


def test_unreadable_file(raw: Path, tmp_path: Path) -> None:
    image, _ = write_case(raw / "own", "bad", IMAGE, LABEL)
    image.chmod(0)
    if os.access(image, os.R_OK):
        pytest.skip("this user may read every file")
    with pytest.raises(InputError, match="cannot be read"):
        run(raw, tmp_path)


def test_all_faults_are_told_together_and_mending_is_enough(raw: Path, tmp_path: Path) -> None:
    for kind in ("empty label", "4-D", "NaN"):
        FAULTS[kind][0](*write_case(raw / "own", kind, IMAGE, LABEL))
    write_case(raw / "second", "c", *scan(seed=7))
    names = ("own", "second", "third")
    with pytest.raises(InputError) as error:
        run(raw, tmp_path, names=names)
    head, *lines = str(error.value).split("\n- ")
    assert head == "4 faulty; the other 2 cases are prepared and stay so:"
    assert [any(kind in line for line in lines) for kind in ("empty label", "4-D", "NaN", "third")] == [True] * 4
    assert Store(tmp_path / "data/store").collections == ("second",)
    written = json.loads((tmp_path / "data/report.json").read_text())
    assert written["faults"] == lines

    for kind in ("empty label", "4-D", "NaN"):
        write_case(raw / "own", kind, *scan(seed=len(kind)))
    shutil.copytree(raw / "second", raw / "third")
    report = run(raw, tmp_path, names=names)
    assert {c.name: (c.made, c.kept) for c in report.collections} == {"own": (3, 1), "second": (0, 1), "third": (1, 0)}


def test_accepted_oddities(tmp_path: Path) -> None:
    """A trailing axis of length 1, whole-numbered float labels, scaled integers, big-endian, NIfTI-2."""
    image, label = scan()
    own = tmp_path / "raw/own"
    write_case(own, "plain", image, label)
    write_case(own, "trailing", image[..., None], label[..., None].astype(np.float64))
    write_case(own, "scaled", image, label.astype(np.uint16))
    with_header(own / "imagesTr/scaled.nii.gz", scl_slope=1.0, scl_inter=0.0)
    big = nib.Nifti1Image(image.astype(">i2"), affine_of(), nib.Nifti1Header(endianness=">"))
    write_case(own, "big", image, label)
    nib.save(big, own / "imagesTr/big.nii.gz")
    write_case(own, "shifted", (image + 1024).astype(np.uint16), label)
    with_header(own / "imagesTr/shifted.nii.gz", scl_slope=1.0, scl_inter=-1024.0)
    write_case(own, "second-version", image, label)
    nib.save(nib.Nifti2Image(image, affine_of()), own / "imagesTr/second-version.nii.gz")
    report = run(tmp_path / "raw", tmp_path)
    assert len(report.duplicates[0]) == 6  # all the same scan


def test_warnings(tmp_path: Path) -> None:
    image, label = scan(values=(1, 2))
    own = tmp_path / "raw/own"
    lost = label.copy()
    lost[lost == 2] = 0
    write_case(own, "lost", image, speck(lost, 2))
    write_case(own, "noair", np.maximum(scan(seed=3)[0], -200).astype(np.int16), label)
    for path in write_case(own, "unknown", scan(seed=4)[0], label):
        with_header(path, sform_code=0, qform_code=0)
    for path in write_case(own, "differ", scan(seed=5)[0], label):
        with_header(path, pixdim=pixdim(1, 1, 1))
    first = run(tmp_path / "raw", tmp_path)
    text = "\n".join(first.warnings)
    lost = "own: labelsTr/lost.nii.gz: at 1.5 x 1.5 x 2 mm nothing is left of tumour (1 voxels), which will count as"
    assert lost in text
    assert "own: imagesTr/noair.nii.gz: its values lie between -200 and" in text
    assert "own: imagesTr/unknown.nii.gz: its header gives no orientation" in text
    assert "own: imagesTr/differ.nii.gz: header says voxels of 1 x 1 x 1 mm, its affine 1 x 1.25 x 3 mm" in text
    assert str(tmp_path) not in text
    assert run(tmp_path / "raw", tmp_path).warnings == first.warnings  # kept cases keep theirs


def test_false_millimetres(tmp_path: Path) -> None:
    image = np.full((512, 512, 4), -1000, np.int16)
    image[100:400, 100:400] = 40
    label = (image == 40).astype(np.uint8)
    write_case(tmp_path / "raw/own", "lits", image, label, np.eye(4))
    (warning, _) = run(tmp_path / "raw", tmp_path, spacing=(8.0, 8.0, 1.0)).warnings
    assert "voxels of 1 x 1 x 1 mm in a 512x512x4 volume: is the true size lost?" in warning


def test_counts_and_leaks(tmp_path: Path) -> None:
    """R20: counts beside the paper's.  R24: one scan in pre-training and fine-tuning."""
    image, label = scan(values=(1,))
    write_case(tmp_path / "raw/Task03_Liver", "liver_1", image, label)
    write_case(tmp_path / "raw/Task09_Spleen", "spleen_1", image, label)
    data = DataConfig(root=str(tmp_path / "raw"), pretrain=("msd_liver",), finetune=("msd_spleen",))
    report = prepare(Experiment(data=data), tmp_path, progress=False)
    assert [c.expected for c in report.collections] == [131, 41]
    assert "msd_liver: 1 labelled scans found, the paper counts 131 (R20)" in report.warnings
    leak = "msd_liver/liver_1, msd_spleen/spleen_1: the same scan (R24); pre-training would see a scan"
    assert any(warning.startswith(leak) for warning in report.warnings)
    assert report.duplicates == (("msd_liver/liver_1", "msd_spleen/spleen_1"),)


# --- the machine ----------------------------------------------------------------------------------


def test_disk_is_full_beforehand(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=10_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(InputError, match=r"about 24.\d kB are needed .*, but 10.0 kB are free; make room, or"):
        run(raw, tmp_path)


def test_room_is_told_beforehand(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Within 10 % of what is used then: anew, for what is added, and for another voxel size of what is there."""
    for seed in range(3):
        write_case(raw / "own", f"large{seed}", *scan((120, 110, 60), seed, values=(1, 2)))

    def told_and_used(**changes: Any) -> tuple[float, float]:
        before = sum(map(len, contents(tmp_path / "data").values()))
        prepare(settings(raw, **changes), tmp_path, workers=1)
        after = sum(map(len, contents(tmp_path / "data").values()))
        said = r"store: the prepared scans need about ([\d.]+) MB; [\d.]+ .?B are free"
        (told,) = re.findall(said, capsys.readouterr().err)
        return float(told) * 1e6, after - before

    for changes in ({}, {"spacing": (1.0, 1.0, 2.0)}):
        told, used = told_and_used(**changes)
        assert told == pytest.approx(used, rel=0.1)
    write_case(raw / "own", "larger", *scan((150, 150, 60)))
    told, used = told_and_used(spacing=(1.0, 1.0, 2.0))
    assert told == pytest.approx(used, rel=0.1)
    prepare(settings(raw, spacing=(1.0, 1.0, 2.0)), tmp_path, workers=1)
    assert "need about" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "sentence"), [(28, "the disk is full; make room"), (13, "must not be written; mend its permissions")]
)
def test_disk_fails_midway(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, sentence: str
) -> None:
    def fail(path: Path, *_: object) -> None:
        raise OSError(number, os.strerror(number), str(path))

    write_case(raw / "own", "other", *scan(seed=2))
    run(raw, tmp_path)
    write_case(raw / "own", "third", *scan(seed=3))
    monkeypatch.setattr(np, "save", fail)
    monkeypatch.setattr(module, "outcomes", lambda function, jobs, _: (function(*job) for job in jobs))  # in here
    with pytest.raises(InputError, match=sentence):
        run(raw, tmp_path)
    monkeypatch.undo()
    assert run(raw, tmp_path).collections[0].kept == 2


def test_store_that_cannot_be_made(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file.*: cannot be written"):
        run(raw, tmp_path, store=str(tmp_path / "file/store"))


def test_two_at_once(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "data/store").mkdir(parents=True)
    with held(tmp_path / "data/store/.lock", "store"), pytest.raises(InputError, match=r"another mixcl .*at work here"):
        run(raw, tmp_path)
    run(raw, tmp_path)


# --- again, and after a kill ----------------------------------------------------------------------


def test_only_what_changed_is_made_again(raw: Path, tmp_path: Path) -> None:
    other, _ = write_case(raw / "own", "other", *scan(seed=2))
    run(raw, tmp_path)

    def outcome(**changes: Any) -> tuple[int, int]:
        (line,) = run(raw, tmp_path, **changes).collections
        return line.made, line.kept

    assert outcome() == (0, 2)
    os.utime(other, (1, 1))  # another date, the same bytes
    before = (tmp_path / "data/store/own/other/image.npy").stat().st_ino
    assert outcome() == (0, 2)
    assert (tmp_path / "data/store/own/other/image.npy").stat().st_ino == before
    write_case(raw / "own", "other", *scan(seed=3))
    assert outcome() == (1, 1)
    assert outcome(hu=(-100, 250)) == (2, 0)
    assert outcome(hu=(-100, 250)) == (0, 2)
    (tmp_path / "data/store/own/good/label.npy").write_bytes(b"short")
    assert outcome(hu=(-100, 250)) == (1, 1)
    other.unlink()
    (raw / "own/labelsTr/other.nii.gz").unlink()
    assert outcome(hu=(-100, 250)) == (0, 1)
    assert [case.id for case in Store(tmp_path / "data/store").cases("own")] == ["good"]


def test_a_kept_case_is_not_read_again(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Size and date are enough; after another date, one look at the bytes settles it for the next time."""
    run(raw, tmp_path)
    read: list[Path] = []
    hashed = case_module.digest
    monkeypatch.setattr(case_module, "digest", lambda path: (read.append(path), hashed(path))[1])
    assert run(raw, tmp_path).collections[0].kept == 1
    assert not read
    for _ in range(2):
        os.utime(raw / "own/imagesTr/good.nii.gz", (5, 5))
        assert run(raw, tmp_path).collections[0].kept == 1
        assert len(read) == 2


def test_changed_label_values_touch_their_collection_alone(raw: Path, tmp_path: Path) -> None:
    """Another value makes its collection anew, another name for a value nothing; the store tells the new ones."""
    write_case(raw / "second", "c", *scan(seed=7))

    def outcome(own: dict[int, str]) -> dict[str, tuple[int, int]]:
        collections = {"own": Collection(root="own", names=own), "second": Collection(root="second", names={1: "x"})}
        report = run(raw, tmp_path, names=("own", "second"), collections=collections)
        return {c.name: (c.made, c.kept) for c in report.collections}

    assert outcome({1: "organ"}) == {"own": (1, 0), "second": (1, 0)}
    assert outcome({1: "organ", 2: "tumour"}) == {"own": (1, 0), "second": (0, 1)}
    assert outcome({1: "liver", 2: "tumour"}) == {"own": (0, 1), "second": (0, 1)}
    assert Store(tmp_path / "data/store").cases("own")[0].names == {1: "liver", 2: "tumour"}


def test_a_label_changed_in_place(raw: Path, tmp_path: Path) -> None:
    """Another label map of the same size and name: only its case is made again, and holds the new labels."""
    write_case(raw / "own", "other", *scan(seed=2))
    run(raw, tmp_path)
    image, label = scan(seed=1)
    write_case(raw / "own", "good", image, np.where(label == 1, 2, label).astype(np.uint8))
    line = run(raw, tmp_path).collections[0]
    assert (line.made, line.kept) == (1, 1)
    case = Store(tmp_path / "data/store").cases("own")[0]
    assert (case.id, set(case.foreground())) == ("good", {2})


def test_a_store_does_not_know_when_its_sources_were_written(raw: Path, tmp_path: Path) -> None:
    run(raw, tmp_path / "first")
    os.utime(raw / "own/imagesTr/good.nii.gz", (5, 5))
    run(raw, tmp_path / "second")
    assert contents(tmp_path / "first/data/store") == contents(tmp_path / "second/data/store")


def test_threads_change_nothing(tmp_path: Path) -> None:
    for seed in range(6):
        write_case(tmp_path / "raw/own", f"c{seed}", *scan((40, 40, 20), seed))
    for workers in (1, 4):
        prepare(settings(tmp_path / "raw"), tmp_path / str(workers), workers=workers, progress=False)
    assert contents(tmp_path / "1/data/store") == contents(tmp_path / "4/data/store")


KILLED = """
import sys
from pathlib import Path
from helpers.preparing import settings
from mixcl.data.prepare import prepare
print("ready", flush=True)
prepare(settings(Path(sys.argv[1])), Path(sys.argv[2]), workers=2, progress=False)
"""


def test_killed_at_random_moments(tmp_path: Path) -> None:
    """kill -9, again and again, the settings changing in between: the store ends as one made in peace."""
    raw, out = tmp_path / "raw", tmp_path / "out"
    for seed in range(10):
        write_case(raw / "own", f"c{seed}", *scan((90, 90, 40), seed))
    start = time.monotonic()
    run(raw, tmp_path / "calm")
    whole = time.monotonic() - start
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    chance, killed, states = random.Random(0), 0, set()
    for attempt in range(8):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(raw), str(out)], stdout=subprocess.PIPE, env=environment
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(chance.uniform(0, 0.4 * whole))
        killed += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        states.add(sum(1 for _ in out.glob("data/store/own/c*/case.json")))
        if attempt == 4:  # the settings change: everything is stale now
            prepare(settings(raw, hu=(-100, 200)), out, workers=1, progress=False)
        for case in out.glob("data/store/own/c*"):
            assert {p.name for p in case.iterdir()} == {"image.npy", "label.npy", "foreground.npz", "case.json"}
    assert killed >= 3
    assert len(states) >= 2
    run(raw, out)
    assert contents(out / "data/store") == contents(tmp_path / "calm/data/store")


@pytest.mark.slow
def test_command_killed_while_it_draws_and_while_it_prepares(prepared: Path, tmp_path: Path) -> None:
    """Phantoms, killed at four stages: the store has the bytes of one made in peace, at another time."""
    command = [sys.executable, "-m", "mixcl", "prepare", "--profile", "smoke", "--out", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    killed = 0
    drawn, stored = "raw/*/*/*.nii.gz", "store/*/*/image.npy"
    for pattern, count in ((drawn, 3), (drawn, 20), (stored, 1), (stored, 12)):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and sum(1 for _ in (tmp_path / "data").glob(pattern)) < count:
            time.sleep(0.01)
        killed += process.poll() is None
        process.kill()
        process.wait()
    assert killed >= 3
    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert contents(tmp_path / "data/store") == contents(prepared / "data/store")


def test_a_store_that_holds_the_scans_is_refused(tmp_path: Path) -> None:
    """Where a collection is called like its folder a prepared case would take the place of the scan's own folder."""
    for number in range(2):
        save(tmp_path / f"sr/own/{number}/ct.nii.gz", *scan()[:1])
        save(tmp_path / f"sr/own/{number}/seg.nii.gz", scan()[1])
    own = {"own": Collection(root="own", image="{case}/ct.nii.gz", label="{case}/seg.nii.gz", names={1: "organ"})}
    before = contents(tmp_path / "sr")
    with pytest.raises(InputError, match="a folder of scans, and is to be the store; name another"):
        run(tmp_path / "sr", tmp_path / "out", collections=own, store=str(tmp_path / "sr"))
    assert contents(tmp_path / "sr") == before


def test_what_others_have_put_into_the_store_stays(raw: Path, tmp_path: Path) -> None:
    """A folder where a case should go is told; hidden ones of other projects, even of a case's name, are left alone."""
    store = tmp_path / "store"
    theirs = [store / "other/.old-thesis/a", store / "own/.tmp-thesis/a", store / "own/good/notes.txt"]
    for path in theirs:
        path.parent.mkdir(parents=True)
        path.write_text("mine")
    (store / "own/.tmp-note").write_text("mine")
    with pytest.raises(InputError, match="good: is there and is no prepared case"):
        run(raw, tmp_path / "out", store=str(store))
    assert all(path.read_text() == "mine" for path in (*theirs, store / "own/.tmp-note"))


def test_a_disk_that_is_not_mounted_takes_nothing_away(raw: Path, tmp_path: Path) -> None:
    run(raw, tmp_path / "out")
    with pytest.raises(InputError, match="unmounted"):
        run(tmp_path / "unmounted", tmp_path / "out")
    assert [case.id for case in Store(tmp_path / "out/data/store").cases("own")] == ["good"]


def test_a_place_that_may_not_be_looked_into_is_the_disks_fault(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(folder: Path) -> bool:
        raise PermissionError(13, os.strerror(13), str(folder))

    run(raw, tmp_path)
    monkeypatch.setattr("mixcl.data.prepare.case.is_own", closed)
    monkeypatch.setattr(module, "kept", lambda job: None)
    monkeypatch.setattr(module, "outcomes", lambda function, jobs, _: (function(*job) for job in jobs))  # in here
    with pytest.raises(InputError, match="own/good: must not be written; mend its permissions"):
        run(raw, tmp_path)
    assert (tmp_path / "data/store/own/index.json").is_file()
