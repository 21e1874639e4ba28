"""Phantoms: plausible organs, attenuation as a weak cue, label gaps, the same voxels everywhere, whole files."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from mixcl.config import load_profile
from mixcl.config.settings import Collection, DataConfig, PhantomConfig
from mixcl.data.files.layout import match_cases
from mixcl.data.phantom import body
from mixcl.data.phantom.collections import write_collections
from mixcl.data.phantom.scan import Phantom, labelled, make_case
from mixcl.data.registry import BTCV_NAMES, COLLECTIONS, folder
from mixcl.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
CASES = range(10)
PLAUSIBLE_ML = {  # of every case, and of the mean over cases; adrenal glands are larger than real ones (see anatomy.py)
    "spleen": (70, 330, 130, 250), "right kidney": (70, 300, 120, 200), "left kidney": (70, 300, 120, 200),
    "gallbladder": (8, 80, 20, 55), "esophagus": (6, 50, 12, 40), "liver": (650, 2100, 950, 1700),
    "stomach": (150, 650, 250, 480), "aorta": (25, 160, 45, 120), "inferior vena cava": (35, 230, 60, 150),
    "portal and splenic vein": (7, 50, 14, 40), "pancreas": (35, 170, 60, 120),
    "right adrenal gland": (2, 13, 4, 9), "left adrenal gland": (2, 13, 4, 9),
}  # fmt: skip


@cache
def made(collection: str = "btcv", index: int = 0, mm: float = 6.0, seed: int = 11, difficulty: float = 1.0) -> Phantom:
    return make_case(PhantomConfig(seed=seed, spacing=(mm, mm, mm), difficulty=difficulty), collection, index)


def millilitres(case: Phantom, label: int) -> float:
    return float(np.abs(np.linalg.det(case.affine[:3, :3])) * (case.truth == label).sum() / 1000)


def centre(case: Phantom, label: int) -> NDArray[np.float64]:
    """Patient position in mm, RAS."""
    return case.affine[:3, :3] @ np.argwhere(case.truth == label).mean(0) + case.affine[:3, 3]


def best_interval_dice(image: NDArray[np.int16], organ: NDArray[np.bool_]) -> float:
    """The Dice that the best of all HU intervals reaches, on a grid of 5 HU."""
    edges = np.arange(-1100, 1100, 5)
    every = np.concatenate([[0], np.histogram(image, edges)[0].cumsum()])
    inside = np.concatenate([[0], np.histogram(image[organ], edges)[0].cumsum()])
    hit = np.maximum(inside[None] - inside[:, None], 0)
    chosen = np.maximum(every[None] - every[:, None], 0)
    return float((2 * hit / (chosen + organ.sum())).max())


# --- anatomy --------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", BTCV_NAMES)
def test_organ_sizes_and_pieces(label: int) -> None:
    low, high, mean_low, mean_high = PLAUSIBLE_ML[BTCV_NAMES[label]]
    sizes = [millilitres(made(index=i), label) for i in CASES]
    assert low < min(sizes) < max(sizes) < high
    assert mean_low < np.mean(sizes) < mean_high
    assert max(sizes) > 1.15 * min(sizes), "every patient has the same organ"
    for i in CASES:
        pieces, n = ndimage.label(made(index=i).truth == label, np.ones((3, 3, 3)))
        assert np.bincount(pieces.ravel())[1:].max() > 0.9 * (pieces > 0).sum(), f"case {i}: {n} pieces"


def test_places() -> None:
    right, left = 1, -1
    sides = {6: right, 2: right, 4: right, 12: right, 9: right, 1: left, 3: left, 7: left, 13: left, 8: left}
    for i in CASES:
        case = made(index=i)
        at = {label: centre(case, label) for label in BTCV_NAMES}
        for label, side in sides.items():
            assert at[label][0] * side > 0, f"case {i}: {BTCV_NAMES[label]} is on the wrong side"
        assert min(at[7][1], at[4][1]) > max(at[8][1], at[2][1], at[3][1])  # stomach, gallbladder before aorta, kidneys
        assert at[5][2] > at[6][2] > at[2][2]  # esophagus above liver above right kidney
        assert at[12][2] > at[2][2]  # a gland on top of its kidney
        assert at[13][2] > at[3][2]
        lungs = np.argwhere(case.truth == body.LUNG)[:, 2].mean()
        assert lungs > np.argwhere(case.truth == 6)[:, 2].mean(), "the lungs lie above the liver"


def test_context() -> None:
    """Organs lie in a body with skin fat, wall, bone, lung, bowel and gas, in air, of sensible HU."""
    for i in CASES:
        case = made(index=i)
        share = np.bincount(case.truth.ravel(), minlength=40) / (case.truth > 0).sum()
        for label, low in {
            body.FAT: 0.2, body.MUSCLE: 0.05, body.BONE: 0.01, body.LUNG: 0.01, body.BOWEL: 0.005,
        }.items():  # fmt: skip
            assert share[label] > low
        assert case.truth[[0, 0, -1, -1], [0, -1, 0, -1]].max() == 0, "air in the corners"
        medians = {label: np.median(case.image[case.truth == label]) for label in np.unique(case.truth)}
        assert medians[0] < -900
        assert medians[body.LUNG] < -650
        assert -170 < medians[body.FAT] < -50
        assert medians[body.BONE] > 170
        assert all(-40 < medians[label] < 350 for label in BTCV_NAMES)
    assert any((made(index=i).truth == body.GAS).any() for i in CASES)


@pytest.mark.parametrize(
    ("collection", "tumour", "hosts", "share"),
    [
        ("msd_liver", 31, (6,), 0.7),
        ("msd_lung", 32, (14,), 0.6),
        ("msd_pancreas", 33, (11,), 0.2),  # many are thicker than the pancreas
        ("kits19", 34, (2, 3), 0.4),  # many bulge out of the kidney
    ],
)
def test_tumours_are_in_or_on_their_organ(collection: str, tumour: int, hosts: tuple[int, ...], share: float) -> None:
    """``share``: how much of a tumour's surface the organ covers, on average."""
    touching = []
    for i in CASES:
        case = made(collection, i)
        here = case.truth == tumour
        assert here.any(), f"case {i} has no tumour"
        shell = ndimage.binary_dilation(here) & ~here
        touching.append(np.isin(case.truth[shell], hosts).mean())
    assert min(touching) > 0
    assert np.mean(touching) > share
    others = {31, 32, 33, 34} - {tumour}
    assert not np.isin(made(collection, 0).truth, list(others)).any()
    assert not (made("btcv", 0).truth > 30).any()


def test_no_case_is_without_its_tumour() -> None:
    """The first draw of this patient's tumour lies where the liver is; preparation refuses labels that are empty."""
    for mm in (4.0, 8.0):
        case = made("msd_lung", 4, mm=mm, seed=1)
        assert labelled(case.truth, "msd_lung").any()
    assert millilitres(made("msd_lung", 4, seed=1), 32) > 1


def test_the_same_patient_at_any_voxel_size() -> None:
    for i in range(3):
        coarse, fine = made(index=i), made(index=i, mm=3.0)
        for label in BTCV_NAMES:
            big, small = millilitres(coarse, label), millilitres(fine, label)
            assert small == pytest.approx(big, rel=0.1 if small > 50 else 0.5), BTCV_NAMES[label]
            np.testing.assert_allclose(centre(coarse, label), centre(fine, label), atol=6.0)


# --- attenuation ----------------------------------------------------------------------------------


def test_hu_alone_is_a_weak_cue() -> None:
    """Not even the best HU interval, chosen with the truth at hand, finds an organ in all cases."""
    image = np.concatenate([made(index=i).image.ravel() for i in CASES])
    truth = np.concatenate([made(index=i).truth.ravel() for i in CASES])
    found = {BTCV_NAMES[label]: best_interval_dice(image, truth == label) for label in BTCV_NAMES}
    assert found.pop("liver") < 0.65, "it is a quarter of the soft tissue that there is"
    assert max(found.values()) < 0.4, found
    assert found["spleen"] < 0.25


def test_organs_overlap_in_attenuation_across_cases() -> None:
    """Contrast phase and patient move an organ by more than organs differ: most pairs have HU in common."""
    cases = [made(index=i) for i in range(16)]
    medians = np.array([[np.median(case.image[case.truth == k]) for k in BTCV_NAMES] for case in cases])
    low, high = medians.min(0), medians.max(0)
    assert np.median(high - low) > 50
    overlap = (low[:, None] < high[None]) & (low[None] < high[:, None])
    assert overlap[np.triu_indices(13, 1)].mean() > 0.75


def test_texture_differs_between_organs() -> None:
    """Without noise, kidneys vary more from place to place than the liver, and the liver more than the gallbladder."""
    strength = {}
    for label in (2, 4, 6):
        values = []
        for i in range(6):
            case = made(index=i, mm=3.0)
            core = ndimage.binary_erosion(case.truth == label)
            fine, coarse = (
                ndimage.gaussian_filter(np.where(core, case.image, 0).astype(float), sigma)
                / np.maximum(ndimage.gaussian_filter(core.astype(float), sigma), 1e-3)
                for sigma in (1.5, 8)  # voxels: the noise is gone, or the texture too
            )
            values.append((fine - coarse)[core].std())
        strength[label] = np.median(values)
    assert strength[2] > 1.5 * strength[6]
    assert strength[6] > 1.5 * strength[4]


def test_difficulty_scales_noise_and_variation() -> None:
    def noise(difficulty: float) -> float:
        case = made(index=0, difficulty=difficulty)
        core = ndimage.binary_erosion(case.truth == 6)
        both = core[..., 1:] & core[..., :-1]  # noise of neighbouring slices is independent
        return float(np.diff(case.image.astype(float), axis=2)[both].std())

    def wander(difficulty: float) -> float:
        places = [centre(made(index=i, difficulty=difficulty), 1) for i in range(6)]
        return float(np.std(places, axis=0).mean())

    assert noise(0.0) < noise(0.5) < noise(1.0) < noise(2.0)
    assert wander(0.3) < wander(1.0) < wander(3.0)
    for difficulty in (0.0, 5.0):
        assert set(BTCV_NAMES) <= set(np.unique(made(index=1, difficulty=difficulty).truth).tolist())


# --- the same voxels everywhere -------------------------------------------------------------------

DIGEST = """
import hashlib
from mixcl.config.settings import PhantomConfig
from mixcl.data.phantom import make_case
digest = hashlib.sha256()
for name in ("btcv", "kits19"):
    case = make_case(PhantomConfig(seed=11, spacing=(6, 6, 6)), name, 0)
    digest.update(case.image.tobytes() + case.truth.tobytes() + case.affine.tobytes())
print(digest.hexdigest())
"""


def digest_elsewhere(**environment: str) -> str:
    command, environment = [sys.executable, "-c", DIGEST], os.environ | environment
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return result.stdout.strip()


def test_voxels_do_not_depend_on_the_instruction_set() -> None:
    digest = hashlib.sha256()
    for name in ("btcv", "kits19"):
        case = made(name)
        digest.update(case.image.tobytes() + case.truth.tobytes() + case.affine.tobytes())
    core: Any = np._core._multiarray_umath  # type: ignore[attr-defined]
    can_be_left_out = [name for name in core.__cpu_dispatch__ if core.__cpu_features__.get(name)]
    plain = digest_elsewhere(
        NPY_DISABLE_CPU_FEATURES=" ".join(can_be_left_out),
        GLIBC_TUNABLES="glibc.cpu.hwcaps=-AVX512F,-AVX2,-FMA,-AVX2_Usable,-FMA_Usable",
    )
    assert plain == digest.hexdigest()
    assert digest_elsewhere(OMP_NUM_THREADS="2") == digest.hexdigest()


def test_a_case_depends_on_seed_collection_and_number_alone() -> None:
    case = made()
    again = make_case(PhantomConfig(seed=11, spacing=(6, 6, 6), counts={"btcv": 2}), "btcv", 0)
    np.testing.assert_array_equal(again.image, case.image)
    np.testing.assert_array_equal(again.truth, case.truth)
    assert case.image.dtype == np.int16
    assert case.truth.dtype == np.uint8
    for other in (made(seed=12), made(index=1), made("msd_spleen")):
        assert other.image.shape != case.image.shape or (other.image != case.image).mean() > 0.5


# --- files ----------------------------------------------------------------------------------------


def settings(*names: str, count: int = 1, **changes: Any) -> DataConfig:
    phantom = {"seed": 11, "spacing": (8, 8, 9), "counts": dict.fromkeys(names, count), **changes}
    return DataConfig(source="phantom", pretrain=names, finetune=(), phantom=PhantomConfig.model_validate(phantom))


def write(root: Path, data: DataConfig) -> None:
    write_collections(data, root, progress=False)


def times(root: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in root.rglob("*.nii.gz")}


def voxels(root: Path) -> dict[str, bytes]:
    """By name; without what a killed run left half-written, which nothing reads."""
    paths = [path for path in root.rglob("*.nii.gz") if not path.name.startswith(".")]
    return {str(path.relative_to(root)): np.asarray(nib.load(path).dataobj).tobytes() for path in paths}


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cases of each of the paper's collections; tests must not change them."""
    root = tmp_path_factory.mktemp("raw")
    write(root, settings(*AXES, count=2))
    return root


AXES = {
    "msd_liver": "RAS", "msd_lung": "LPS", "msd_pancreas": "RAS", "nih_pancreas": "LPS", "kits19": "IPL",
    "msd_spleen": "RAS", "btcv": "LAS",
}  # fmt: skip


@pytest.mark.parametrize("name", AXES)
def test_files_are_those_of_the_real_collection(raw: Path, name: str) -> None:
    cases, missing = match_cases(COLLECTIONS[name], folder(COLLECTIONS[name], raw))
    assert (len(cases), missing) == (2, {})
    truth = make_case(settings(name).phantom, name, 0).truth
    image, label = (nib.load(path) for path in next(iter(cases.values())))
    assert image.get_data_dtype() == np.int16
    assert "".join(nib.aff2axcodes(image.affine)) == AXES[name]
    np.testing.assert_array_equal(image.affine, label.affine)
    assert image.header.get_xyzt_units()[0] == "mm"
    turned = nib.as_closest_canonical(label)
    values = np.asarray(turned.dataobj)
    assert set(np.unique(values).tolist()) == {0, *COLLECTIONS[name].names}
    organ = {"msd_liver": (6, 31), "msd_spleen": (1,), "nih_pancreas": (11,), "msd_pancreas": (11, 33)}
    organ |= {"kits19": (2, 3, 34), "msd_lung": (32,), "btcv": tuple(range(1, 14))}
    np.testing.assert_array_equal(values > 0, np.isin(truth, organ[name]), "what this collection does not label is 0")
    np.testing.assert_allclose(np.diag(turned.affine)[:3], nib.affines.voxel_sizes(turned.affine))


def test_scans_differ_in_field_of_view_and_voxel_size(raw: Path) -> None:
    headers = [nib.load(path).header for path in raw.rglob("*.nii.gz") if "abel" not in str(path)]
    assert len({h.get_data_shape() for h in headers}) > 5
    assert len({h.get_zooms() for h in headers}) > 5


def test_an_unlabelled_tumour_counts_as_its_organ() -> None:
    truth = np.array([6, 31, 11, 33, 2, 34, 14, 32, 0], np.uint8)
    assert labelled(truth, "msd_liver").tolist() == [1, 2, 0, 0, 0, 0, 0, 0, 0]
    assert labelled(truth, "btcv").tolist() == [6, 6, 11, 11, 2, 2, 0, 0, 0]
    assert labelled(truth, "kits19").tolist() == [0, 0, 0, 0, 1, 2, 0, 0, 0]
    assert labelled(truth, "msd_lung").tolist() == [0, 0, 0, 0, 0, 0, 0, 1, 0]


def test_kept_completed_and_made_again(tmp_path: Path) -> None:
    write(tmp_path, settings("kits19", "msd_spleen", count=2))
    first, before = voxels(tmp_path), times(tmp_path)
    (tmp_path / "Task09_Spleen/notes.txt").write_text("mine")
    write(tmp_path, settings("kits19", "msd_spleen", count=2))
    assert times(tmp_path) == before, "same settings: nothing is made twice"
    lost = tmp_path / "kits19/data/case_00001/imaging.nii.gz"
    lost.unlink()
    write(tmp_path, settings("kits19", "msd_spleen", count=2))
    assert voxels(tmp_path) == first
    write(tmp_path, settings("kits19", "msd_spleen", count=1))
    assert voxels(tmp_path) == {name: v for name, v in first.items() if "case_00000" in name or "spleen_1" in name}
    assert not lost.parent.exists()
    write(tmp_path, settings("kits19", "msd_spleen", count=1, seed=12))
    other = voxels(tmp_path)
    assert not any(first[name] == other[name] for name in other)
    (tmp_path / "kits19/data/phantom.json").write_text("{")  # a damaged note: whose files they are is not known
    write(tmp_path, settings("kits19", "msd_spleen", count=1))
    assert all(v == first[name] for name, v in voxels(tmp_path).items())
    assert (tmp_path / "Task09_Spleen/notes.txt").read_text() == "mine"


def test_what_is_refused(tmp_path: Path) -> None:
    own = Collection(root="own", names={1: "organ"})
    with pytest.raises(InputError, match="'own' has no phantom"):
        write(tmp_path, settings("btcv").model_copy(update={"pretrain": ("own",), "collections": {"own": own}}))
    with pytest.raises(InputError, match="no number for 'btcv'"):
        write(tmp_path, settings("btcv", counts={"kits19": 1}))
    (tmp_path / "BTCV").mkdir()
    (tmp_path / "BTCV/img0001.nii.gz").write_text("a real scan")
    with pytest.raises(InputError, match=r"BTCV: holds files that are no phantoms"):
        write(tmp_path, settings("btcv"))
    assert (tmp_path / "BTCV/img0001.nii.gz").read_text() == "a real scan"
    (tmp_path / "Task06_Lung").write_text("")
    with pytest.raises(InputError, match="Task06_Lung: is a file"):
        write(tmp_path, settings("msd_lung"))


def test_what_a_killed_writer_left_beside_a_finished_scan_goes(tmp_path: Path) -> None:
    data = settings("kits19", count=1)
    write(tmp_path, data)
    scan = next(tmp_path.rglob("imaging.nii.gz"))
    old, new = scan.with_name(f".1.{scan.name}"), scan.with_name(f".2.{scan.name}")
    for left in (old, new):
        left.write_bytes(b"half a scan")
    os.utime(old, (0, 0))
    write(tmp_path, data)
    assert not old.exists()
    assert new.exists()  # who may still be writing, on another machine, is left alone


def test_killed_at_random_moments(tmp_path: Path) -> None:
    """Whatever is there under a final name is whole, and the last run completes the set."""
    data = settings("kits19", "msd_pancreas", count=6)
    write(tmp_path / "whole", data)
    code = (
        "import sys; from pathlib import Path; from mixcl.config.settings import DataConfig;"
        "from mixcl.data.phantom import write_collections; print(flush=True);"
        "write_collections(DataConfig.model_validate_json(sys.argv[1]), Path(sys.argv[2]), progress=False)"
    )
    rng, root = random.Random(0), tmp_path / "killed"
    for _ in range(4):
        arguments = [sys.executable, "-c", code, data.model_dump_json(), str(root)]
        with subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()  # imports are done
            time.sleep(rng.uniform(0.0, 0.3))
            process.send_signal(signal.SIGKILL)
    expected = voxels(tmp_path / "whole")
    assert all(expected[name] == v for name, v in voxels(root).items())
    write(root, data)
    assert voxels(root) == expected
    assert not [path for path in root.rglob(".*") if path.name.endswith(".nii.gz")]


# --- size -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_memory_of_a_scan_of_real_size() -> None:
    """Slabs of 32 slices bound the memory, so a scan with few but as large slices shows what a whole one takes."""
    code = (
        "import resource; from mixcl.config.settings import PhantomConfig; from mixcl.data.phantom import make_case;"
        "case = make_case(PhantomConfig(spacing=(0.7, 0.7, 8.0)), 'btcv', 0);"
        "print(case.image.shape[0], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    width, kilobytes = map(int, result.stdout.split())
    assert width > 400
    assert kilobytes < 1.5e6


def test_a_tumour_is_never_a_plate_that_resampling_skips() -> None:
    """Seed 1 once drew a tumour cut down to one slice, of which nothing was left at 9 mm."""
    config = load_profile("fair", ["phantom.seed=1"]).data.phantom
    found = make_case(config, "msd_lung", 4).truth == body.LUNG_TUMOUR
    assert all(len(np.unique(places)) >= 2 for places in np.nonzero(found))
