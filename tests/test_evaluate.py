"""Prediction and metrics: MONAI's numbers against brute force, absent and missed organs, geometry, stops."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from helpers.preparing import back, prepared_case
from helpers.settings import change
from helpers.volumes import affine_of, scan, write_case
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from torch import Tensor, nn

from mixcl import evaluate as ev
from mixcl import trainer
from mixcl.config import load_profile
from mixcl.config.settings import Experiment
from mixcl.data.prepare.run import prepare
from mixcl.data.store import Case, Store
from mixcl.errors import InputError
from mixcl.metrics import measure
from mixcl.run import record
from mixcl.windows import strongest_labels, window_scores

SPACING = (1.5, 0.7, 3.0)


def surface(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Centres, mm, of the voxels with a neighbour outside, one voxel after another."""
    points = []
    for x, y, z in np.argwhere(mask):
        for step in ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)):
            n = (x + step[0], y + step[1], z + step[2])
            inside = all(0 <= k < size for k, size in zip(n, mask.shape, strict=True))
            if not inside or not mask[n]:
                points.append((x, y, z))
                break
    return np.array(points) * SPACING


def brute_force(a: NDArray[np.bool_], b: NDArray[np.bool_], tolerance: float) -> tuple[float, float, float]:
    """Dice, HD95 and surface Dice from all pairs of surface points."""
    distances = cdist(surface(a), surface(b))
    there, back = distances.min(1), distances.min(0)
    hd95 = max(np.percentile(there, 95), np.percentile(back, 95))
    near = (there <= tolerance).sum() + (back <= tolerance).sum()
    return 2 * (a & b).sum() / (a.sum() + b.sum()), hd95, near / (len(there) + len(back))


def blob(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """A lumpy shape that may touch the border."""
    axes = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1)
    centre, radius = rng.uniform(0.25, 0.75, 3) * shape, rng.uniform(3, 6)
    return np.asarray(np.linalg.norm(axes - centre, axis=-1) + rng.normal(0, 0.4, shape) < radius)


@pytest.mark.parametrize("seed", range(8))
def test_metrics_agree_with_all_pairs_of_surface_points(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = blob(rng, (15, 13, 11)), blob(rng, (15, 13, 11))
    label, predicted = np.where(a, 7, 0).astype(np.uint8), np.where(b, 7, 0).astype(np.uint8)
    tolerance = float(rng.uniform(0.8, 4))
    row = measure(label, predicted, {7: "liver"}, spacing=SPACING, tolerance_mm=tolerance)[0]
    expected = brute_force(a, b, tolerance)
    assert (row["dice"], row["hd95_mm"], row["surface_dice"]) == pytest.approx(expected, abs=2e-6)
    assert (row["voxels_label"], row["voxels_predicted"]) == (a.sum(), b.sum())


def test_known_values() -> None:
    """A cube moved by two voxels of 3 mm: half of it overlaps, and both end faces are 6 mm off."""
    label = np.zeros((10, 10, 12), np.uint8)
    label[3:7, 3:7, 2:6] = 1
    row = measure(label, np.roll(label, 2, 2), {1: "spleen"}, spacing=SPACING, tolerance_mm=2.0)[0]
    assert row["dice"] == 0.5
    assert row["hd95_mm"] == 6.0
    same = measure(label, label, {1: "spleen"}, spacing=SPACING, tolerance_mm=2.0)[0]
    assert (same["dice"], same["hd95_mm"], same["surface_dice"]) == (1.0, 0.0, 1.0)


def test_absent_and_missed_organs() -> None:
    label = np.zeros((8, 8, 8), np.uint8)
    label[1:4, 1:4, 1:4] = 2
    predicted = np.zeros_like(label)
    predicted[5:7, 5:7, 5:7] = 9
    names = {2: "liver", 5: "spleen", 9: "aorta"}
    liver, spleen, aorta = measure(label, predicted, names, spacing=SPACING, tolerance_mm=2.0)
    assert (liver["dice"], liver["surface_dice"]) == (0.0, 0.0)
    assert np.isnan(liver["hd95_mm"])
    assert (liver["voxels_label"], liver["voxels_predicted"]) == (27, 0)
    for absent in (spleen, aorta):
        assert all(np.isnan(absent[name]) for name in ("dice", "hd95_mm", "surface_dice"))
    assert (aorta["voxels_label"], aorta["voxels_predicted"]) == (0, 8)
    assert {row["label"] for row in (liver, spleen, aorta)} == set(names)  # never the background
    with pytest.raises(ValueError, match="give one grid"):
        measure(label, predicted[1:], names, spacing=SPACING, tolerance_mm=2.0)


class Threshold(nn.Module):
    """Labels each voxel by its own intensity, whatever surrounds it: [0, 1/3), [1/3, 2/3), [2/3, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.levels = nn.Parameter(torch.tensor([1 / 6, 3 / 6, 5 / 6]))
        self.seen: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(tuple(x.shape))
        return -(x - self.levels.view(1, 3, 1, 1, 1)).abs()


@pytest.mark.parametrize("shape", [(20, 33, 50), (32, 32, 32), (7, 70, 40)])
def test_windows_cover_a_volume_of_any_size(shape: tuple[int, ...]) -> None:
    config = load_profile("smoke")
    volume = np.random.default_rng(0).random(shape, dtype=np.float32)
    net = Threshold().train()
    labels = strongest_labels(window_scores(net, volume, config), (4, 11))
    assert net.training
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, np.array([0, 4, 11])[np.minimum((volume * 3).astype(int), 2)])
    assert {size[2:] for size in net.seen} == {(32, 32, 32)}
    assert max(size[0] for size in net.seen) <= config.evaluate.windows
    assert set(np.unique(strongest_labels(window_scores(net, torch.from_numpy(volume), config), (1, 2)))) == {0, 1, 2}
    with pytest.raises(ValueError, match="3 label values for a network with 2 classes"):
        strongest_labels(window_scores(net, volume, config), (1, 2, 3))


NAMES = {1: "spleen", 5: "liver", 9: "left kidney", 12: "aorta", 13: "gland"}  # with gaps; no case has an aorta
GLAND = (21, 30, 25)  # the one voxel of it, between two of the prepared grid


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four scans with axes to the left, posterior and up, one of them without a liver, and one of them once more."""
    root = tmp_path_factory.mktemp("scans")
    for k in range(4):
        image, label = scan((44, 36, 30), seed=k, values=(1, 9) if k == 0 else (1, 5, 9))
        label[GLAND] = 13
        affine = affine_of((-8.0, -9.5, 10.0), (150.0, 120.0, -200.0))
        write_case(root / "mine", f"00{k}", image, label, affine)
    write_case(root / "other", "copy", image, label, affine)
    return root


@pytest.fixture(scope="module")
def config(scans: Path) -> Experiment:
    values = {
        "extends": "smoke",
        "data": {
            "source": "files", "root": str(scans), "store": str(scans / "store"),
            "pretrain": ["other"], "finetune": ["mine"],
            "collections": {name: {"root": name, "names": NAMES} for name in ("mine", "other")},
        },
        "grid": {"n_folds": 2, "percents": {"mine": [100]}},
    }  # fmt: skip
    (scans / "mine.yaml").write_text(json.dumps(values))  # JSON is YAML
    config = load_profile(scans / "mine.yaml", ["finetune.steps=20", "finetune.lr=0.01"])
    prepare(config, scans, workers=1, progress=False)
    return config


@pytest.fixture(scope="module")
def finetuned(config: Experiment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finetuned")
    return trainer.finetune(config, out, task="mine", percent=100, fold=0, arm="scratch", progress=False)


@pytest.fixture
def run(finetuned: Path, tmp_path: Path) -> Path:
    """A copy of the run, to evaluate and to damage."""
    return Path(shutil.copytree(finetuned, tmp_path / "runs" / finetuned.name))


def stored(config: Experiment) -> dict[str, Case]:
    return {case.id: case for case in Store(config.data.store_dir(Path())).cases("mine")}


def test_a_run_is_evaluated(run: Path, config: Experiment, tmp_path: Path) -> None:
    table = ev.evaluate(config, tmp_path, run, progress=False)
    assert tuple(table.columns) == ev.COLUMNS
    card = record.read_card(run)
    assert sorted(table["case"].unique()) == sorted(card["test"])
    assert len(table) == len(card["test"]) * len(NAMES)
    assert set(table["percent"]) == {100}
    assert set(table["grid"]) == {"prepared"}
    again = pd.read_csv(run / "cases.csv", dtype={"case": str})
    np.testing.assert_array_equal(again["dice"], table["dice"])
    case = stored(config)[card["test"][0]]
    predicted = ev.read_prediction(run, case.id)
    for row in table[table["case"] == case.id].itertuples():
        a, b = case.label() == row.label, predicted == row.label
        assert (row.voxels_label, row.voxels_predicted) == (a.sum(), b.sum())
        if a.any():
            assert row.dice == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()), abs=1e-6)
        elif row.organ == "gland":
            assert (row.dice, row.surface_dice) == (0, 0)
        else:
            assert np.isnan(row.dice)
    assert (table["voxels_predicted"] > 0).any()


def test_a_killed_evaluation_keeps_its_cases(run: Path, config: Experiment, scans: Path, tmp_path: Path) -> None:
    """kill -9 after the first case; the second process predicts the others only and writes the same table."""
    whole = tmp_path / "whole" / run.name
    shutil.copytree(run, whole)
    ev.evaluate(config, tmp_path, whole, progress=False)
    code = (
        "import sys, time, mixcl.evaluate as e, mixcl.cli as c\n"
        "first = e._measured\n"
        "def slow(*a):\n"
        "    rows = first(*a); time.sleep(60); return rows\n"
        "e._measured = slow\n"
        "c.main(sys.argv[1:])\n"
    )
    words = ["evaluate", "--profile", str(scans / "mine.yaml"), "--run", str(run)]
    process = subprocess.Popen([sys.executable, "-c", code, *words], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while process.poll() is None and not list(run.glob("evaluation/[!.]*.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = list(run.glob("evaluation/[!.]*.json"))
    assert len(done) == 1
    assert not (run / "cases.csv").exists()
    before = done[0].stat().st_mtime_ns
    ev.evaluate(config, tmp_path, run, progress=False)
    assert done[0].stat().st_mtime_ns == before
    assert (run / "cases.csv").read_text() == (whole / "cases.csv").read_text()


def test_results_of_other_weights_are_not_kept(
    run: Path, config: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ev.evaluate(config, tmp_path, run, progress=False)
    calls: list[Any] = []
    scores = ev.window_scores
    monkeypatch.setattr(ev, "window_scores", lambda *a: calls.append(a) or scores(*a))
    ev.evaluate(config, tmp_path, run, progress=False)
    assert not calls
    records = sorted(run.glob("evaluation/*.json"))
    stale = json.loads(records[0].read_text())
    stale["of"]["weights"] = "0" * 64
    records[0].write_text(json.dumps(stale))
    records[1].write_text("{")
    ev.evaluate(config, tmp_path, run, progress=False)
    assert len(calls) == 2
    tolerance = config.evaluate.model_copy(update={"tolerance_mm": 5.0})
    wider = ev.evaluate(config.model_copy(update={"evaluate": tolerance}), tmp_path, run, progress=False)
    assert len(calls) == 2 + len(records)
    assert set(wider["tolerance_mm"]) == {5.0}


def measured_on(grid: str, config: Experiment) -> Experiment:
    return change(config, evaluate={"grid": grid})


def test_metrics_on_the_original_scans(run: Path, config: Experiment, scans: Path, tmp_path: Path) -> None:
    """The label map that is written is the one measured: against the label file, with the spacing of the scan."""
    table = ev.evaluate(measured_on("original", config), tmp_path, run, save_predictions=True, progress=False)
    assert set(table["grid"]) == {"original"}
    assert len(table) == len(NAMES) * 2
    for name, rows in table.groupby("case"):
        label = np.asarray(nib.load(scans / "mine" / "labelsTr" / f"{name}.nii.gz").dataobj)
        predicted = np.asarray(nib.load(run / "predictions" / f"{name}.nii.gz").dataobj)
        np.testing.assert_array_equal(predicted, ev.read_prediction(run, str(name), "original"))
        expected = pd.DataFrame(measure(label, predicted, NAMES, spacing=(8.0, 9.5, 10.0), tolerance_mm=2.0))
        for column in ("dice", "hd95_mm", "surface_dice", "voxels_label", "voxels_predicted"):
            np.testing.assert_array_equal(rows[column], expected[column])
        assert rows.set_index("organ").loc["gland", "voxels_label"] == 1
    before = ev.evaluate(measured_on("prepared", config), tmp_path, run, progress=False)
    assert not before["dice"].equals(table["dice"])


def test_equal_grids_give_equal_metrics(scans: Path, tmp_path: Path) -> None:
    settings = load_profile(
        scans / "mine.yaml",
        ["data.spacing=[8,9.5,10]", f"data.store={tmp_path / 'store'}", "finetune.steps=10", "finetune.lr=0.01"],
    )
    prepare(settings, tmp_path, workers=1, progress=False)
    run = trainer.finetune(settings, tmp_path, task="mine", percent=100, fold=0, arm="scratch", progress=False)
    tables = [
        ev.evaluate(measured_on(grid, settings), tmp_path, run, progress=False) for grid in ("prepared", "original")
    ]
    assert (tables[0]["voxels_predicted"] > 0).any()
    pd.testing.assert_frame_equal(*(table.drop(columns="grid") for table in tables))


@pytest.mark.parametrize(("grid", "voxels"), [("prepared", 0), ("original", 1)])
def test_an_organ_that_preparation_lost_is_missed_and_its_false_alarm_counts(
    run: Path, config: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grid: str, voxels: int
) -> None:
    scores = ev.window_scores

    def alarmed(*given: Any) -> Tensor:
        changed = scores(*given)
        changed[sorted(NAMES).index(13) + 1, :5, :6, :7] = 100.0
        return changed

    monkeypatch.setattr(ev, "window_scores", alarmed)
    table = ev.evaluate(measured_on(grid, config), tmp_path, run, progress=False)
    gland = table[table["organ"] == "gland"]
    assert (gland["dice"] == 0).all()
    assert (gland["surface_dice"] == 0).all()
    assert (gland["voxels_label"] == voxels).all()
    assert (gland["voxels_predicted"] >= 5 * 6 * 7 * (1 - voxels)).all()
    assert (gland["voxels_predicted"] > 100).all()
    assert gland["hd95_mm"].isna().all() == (grid == "prepared")
    assert table[table["organ"] == "aorta"]["dice"].isna().all()


def test_originals_that_moved_or_changed(run: Path, config: Experiment, scans: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(scans, tmp_path / "moved"))
    settings = change(measured_on("original", config), data={"root": str(moved), "store": str(moved / "store")})
    prepare(settings, tmp_path, workers=1, progress=False)  # keeps what is there, and notes the new place
    label = moved / "mine" / "labelsTr" / "000.nii.gz"
    assert stored(settings)["000"].source.label == label
    label.rename(tmp_path / "away")
    with pytest.raises(InputError, match=r"000.nii.gz: the label map of mine/000 is not there .* set data.root"):
        ev.evaluate(settings, tmp_path, run, progress=False)
    image, other = scan((44, 36, 30), seed=9, values=(1,))
    write_case(moved / "mine", "000", image, other, affine_of((-8.0, -9.5, 10.0), (150.0, 120.0, -200.0)))
    with pytest.raises(InputError, match="has changed since it was prepared; run mixcl prepare"):
        ev.evaluate(settings, tmp_path, run, progress=False)


def test_scans_that_pretraining_has_seen_are_marked(run: Path, config: Experiment, tmp_path: Path) -> None:
    """In another collection, under another name (R24); never for a run from scratch."""
    assert set(ev.evaluate(config, tmp_path, run, progress=False)["pretrained_on"]) == {0}
    card = record.read_card(run)
    record.write_card(run, {**card, "decides": {**card["decides"], "init": "a" * 64}})
    table = ev.evaluate(config, tmp_path, run, progress=False)
    assert set(card["test"]) == {"000", "003"}
    assert set(table[table["pretrained_on"] == 1]["case"]) == {"003"}
    both = change(config, data={"pretrain": ("mine",), "pretrain_sees_test": True})
    assert set(ev.evaluate(both, tmp_path, run, progress=False)["pretrained_on"]) == {1}
    begun = {"decides": {**card["decides"], "init": "a" * 64}}
    seen = stored(config)["000"].content[0][:16]  # weights from elsewhere say themselves what they have seen
    record.write_card(run, {**card, **begun, "pretraining": {"scans": f"0123456789abcdef {seen}"}})
    table = ev.evaluate(config, tmp_path, run, progress=False)
    assert set(table[table["pretrained_on"] == 1]["case"]) == {"000"}
    record.write_card(run, {**card, **begun, "pretraining": {"data": "other scans than these"}})
    assert set(ev.evaluate(config, tmp_path, run, progress=False)["pretrained_on"]) == {-1}


def test_predictions_lie_on_the_original_scans(run: Path, config: Experiment, scans: Path, tmp_path: Path) -> None:
    ev.evaluate(config, tmp_path, run, progress=False)
    assert not (run / "predictions").exists()
    ev.evaluate(config, tmp_path, run, save_predictions=True, progress=False)
    cases = stored(config)
    for name in record.read_card(run)["test"]:
        image = nib.load(run / "predictions" / f"{name}.nii.gz")
        source = nib.load(scans / "mine" / "imagesTr" / f"{name}.nii.gz")
        assert image.shape == source.shape == cases[name].source_shape
        np.testing.assert_allclose(image.affine, source.affine, atol=1e-4)
        assert image.get_data_dtype() == np.uint8
        _same_places(np.asarray(image.dataobj), image.affine, ev.read_prediction(run, name), cases[name].affine)


def _same_places(
    ours: NDArray[Any], affine: NDArray[Any], prepared: NDArray[Any], prepared_affine: NDArray[Any]
) -> None:
    """Every source voxel has the label of the prepared voxel that its centre, in mm, is nearest to."""
    voxels = np.argwhere(np.ones(ours.shape, bool))
    mm = voxels @ affine[:3, :3].T + affine[:3, 3]
    inverse = np.linalg.inv(prepared_affine)
    exact = mm @ inverse[:3, :3].T + inverse[:3, 3]
    nearest = np.clip(np.round(exact), 0, np.array(prepared.shape) - 1).astype(int)
    clear = (np.abs(exact - np.floor(exact) - 0.5) > 1e-3).all(1)  # not halfway between two
    assert clear.mean() > 0.5
    np.testing.assert_array_equal(ours[tuple(voxels[clear].T)], prepared[tuple(nearest[clear].T)])


def test_predictions_overlay_a_source_with_other_axes(tmp_path: Path) -> None:
    """A label map turned to RAS+ and back comes out where it was, whatever the axes of the source are."""
    affine = np.array([[0, 0, 3.3, -20], [-1.1, 0, 0, 70], [0, -0.9, 0, 90], [0, 0, 0, 1]])
    case = prepared_case(tmp_path, (40, 50, 12), affine)
    labels = np.asarray(case.label())
    path = tmp_path / "p" / "x.nii.gz"
    ev.write_nifti(path, back(case).nearest(labels), case.source_affine)
    image = nib.load(path)
    assert image.shape == (40, 50, 12)
    assert image.header.get_xyzt_units()[0] == "mm"
    _same_places(np.asarray(image.dataobj), image.affine, labels, case.affine)
    first = path.read_bytes()
    time.sleep(1.1)  # gzip keeps seconds
    ev.write_nifti(path, back(case).nearest(labels), case.source_affine)
    assert path.read_bytes() == first


def test_runs_that_cannot_be_evaluated(run: Path, config: Experiment, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"run\.json is missing"):
        ev.evaluate(config, tmp_path, tmp_path / "nowhere", progress=False)
    larger = config.model.model_copy(update={"hidden": 48})
    with pytest.raises(InputError, match=r"model\.hidden = 24, not 48"):
        ev.evaluate(config.model_copy(update={"model": larger}), tmp_path, run, progress=False)
    card = json.loads((run / "run.json").read_text())
    for changed, message in (
        ({"weights": "0" * 64}, r"not the weights of run\.json"),
        ({"data": "0" * 64}, "trained on another mine"),
    ):
        (run / "run.json").write_text(json.dumps({**card, **changed}))
        with pytest.raises(InputError, match=message):
            ev.evaluate(config, tmp_path, run, progress=False)
    (run / "run.json").write_text(json.dumps({k: v for k, v in card.items() if k != "weights"}))
    with pytest.raises(InputError, match="not finished"):
        ev.evaluate(config, tmp_path, run, progress=False)
    (run / "run.json").write_text(json.dumps({k: v for k, v in card.items() if k != "task"}))
    with pytest.raises(InputError, match="not a fine-tuning run"):
        ev.evaluate(config, tmp_path, run, progress=False)
    with pytest.raises(InputError, match="run mixcl evaluate"):
        ev.read_prediction(run, "none")
