"""Labelling scans that nobody has labelled, from a run, a weights file and a bundle; what is carried away with them."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import torch
import yaml
from helpers.series import write_series
from helpers.volumes import affine_of, save, scan, write_case
from monai.bundle import ConfigParser, run, verify_metadata, verify_net_in_out
from monai.networks.nets import UNETR
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file

import mixcl
from mixcl import segment, trainer
from mixcl.cli import main
from mixcl.config import load_profile
from mixcl.config.settings import Experiment
from mixcl.data.files import Volume
from mixcl.data.prepare.run import prepare
from mixcl.data.splits import seen_by
from mixcl.data.store import Store
from mixcl.errors import InputError
from mixcl.evaluate import evaluate
from mixcl.export import _facts, about, export, read_carried
from mixcl.files import read_sealed, write_sealed
from mixcl.segment import scans_in

NAMES = {1: "spleen", 5: "liver", 9: "left kidney"}
MINE = {"root": "mine", "names": NAMES, "licence": "CC BY 4.0"}


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scans")
    for k in range(4):
        image, label = scan((44, 36, 30), seed=k, values=(1, 5, 9))
        write_case(root / "mine", f"00{k}", image, label, affine_of((-8.0, -9.5, 10.0), (150.0, 120.0, -200.0)))
    return root


@pytest.fixture(scope="module")
def config(scans: Path) -> Experiment:
    values = {
        "extends": "smoke",
        "data": {
            "source": "files", "root": str(scans), "store": str(scans / "store"), "pretrain": ["other"],
            "finetune": ["mine"], "pretrain_sees_test": True, "spacing": [8, 8, 8],
            "collections": {name: MINE for name in ("mine", "other")},
        },
        "grid": {"n_folds": 2, "percents": {"mine": [100]}},
        "evaluate": {"grid": "original"},
    }  # fmt: skip
    (scans / "mine.yaml").write_text(json.dumps(values))
    config = load_profile(scans / "mine.yaml", ["finetune.steps=80", "finetune.lr=0.02", "finetune.balance=0.8"])
    prepare(config, scans, workers=1, progress=False)
    return config


@pytest.fixture(scope="module")
def finetuned(config: Experiment, scans: Path) -> Path:
    made = trainer.finetune(config, scans, task="mine", percent=100, fold=0, arm="scratch", progress=False)
    evaluate(config, scans, made, save_predictions=True, progress=False)
    return made


@pytest.fixture(scope="module")
def bundle(finetuned: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("carried") / "bundle"
    export(finetuned, to)
    return to


def voxels(path: Path) -> NDArray[np.uint8]:
    return np.asarray(nib.load(path).dataobj)  # type: ignore[attr-defined]


def images(root: Path) -> list[Path]:
    return sorted((root / "mine/imagesTr").iterdir())


def test_a_scan_gets_the_labels_that_its_evaluation_gave(finetuned: Path, scans: Path, tmp_path: Path) -> None:
    test = json.loads((finetuned / "run.json").read_text())["test"]
    given = [path for path in images(scans) if any(case in path.name for case in test)]
    maps = mixcl.predict(finetuned, given, tmp_path, progress=False)
    assert len(maps) == len(test)
    for case, made, image in zip(test, maps, given, strict=True):
        before = finetuned / "predictions" / f"{case}.nii.gz"
        np.testing.assert_array_equal(voxels(made), voxels(before))
        assert len(np.unique(voxels(made))) > 1
        np.testing.assert_allclose(nib.load(made).affine, nib.load(image).affine, atol=1e-4)  # type: ignore[attr-defined]
    record = json.loads(maps[0].with_name(f"{maps[0].name[:-7]}.json").read_text())
    assert record["labels"] == {"1": "spleen", "5": "liver", "9": "left kidney"}
    assert sum(record["voxels"].values()) == (voxels(maps[0]) > 0).sum()


def test_other_formats_and_grids_of_one_scan(bundle: Path, scans: Path, tmp_path: Path) -> None:
    image = images(scans)[0]
    given = SimpleITK.ReadImage(str(image))
    (tmp_path / "in/below").mkdir(parents=True)
    SimpleITK.WriteImage(given, str(tmp_path / "in/a.nrrd"))
    SimpleITK.WriteImage(SimpleITK.DICOMOrient(given, "RPI"), str(tmp_path / "in/below/b.mha"))
    stored: Any = nib.load(image)  # type: ignore[attr-defined]
    write_series(tmp_path / "in/series", np.asarray(stored.dataobj), stored.affine)
    maps = mixcl.predict(bundle, tmp_path / "in", tmp_path / "out", progress=False)
    assert [path.name for path in maps] == ["a.nii.gz", "b.nii.gz", "series.nii.gz"]
    (whole,) = mixcl.predict(bundle, image, tmp_path / "whole", progress=False)
    np.testing.assert_array_equal(voxels(maps[0]), voxels(whole))
    turned = nib.as_closest_canonical(nib.load(maps[1])), nib.as_closest_canonical(nib.load(whole))  # type: ignore[attr-defined]
    np.testing.assert_array_equal(*(np.asarray(one.dataobj) for one in turned))


def finer(given: SimpleITK.Image) -> SimpleITK.Image:
    """Every voxel as eight."""
    spacing = given.GetSpacing()
    origin = [at - mm / 4 for at, mm in zip(given.GetOrigin(), spacing, strict=True)]  # of a scan along the axes
    return SimpleITK.Resample(
        given, [2 * n for n in given.GetSize()], SimpleITK.Transform(), SimpleITK.sitkNearestNeighbor, origin,
        [mm / 2 for mm in spacing], given.GetDirection(),
    )  # fmt: skip


def test_a_copy_on_another_grid_is_labelled_about_as_well(bundle: Path, scans: Path, tmp_path: Path) -> None:
    image = images(scans)[0]
    dice = {}
    for name, change in {
        "as it is": lambda given: given,
        "turned": lambda given: SimpleITK.DICOMOrient(given, "PIR"),
        "cropped": lambda given: given[2:-3, 1:-2, 2:-1],
        "finer": finer,
    }.items():
        for part in ("images", "labels"):
            given = SimpleITK.ReadImage(str(image).replace("images", part))
            (tmp_path / part).mkdir(exist_ok=True)
            SimpleITK.WriteImage(change(given), str(tmp_path / part / f"{name}.nii.gz"))
        (made,) = mixcl.predict(bundle, tmp_path / "images" / f"{name}.nii.gz", tmp_path / "out", progress=False)
        truth, labels = voxels(tmp_path / "labels" / f"{name}.nii.gz"), voxels(made)
        assert truth.shape == labels.shape
        either = ((truth > 0).sum() + (labels > 0).sum()) / 2
        dice[name] = ((truth == labels) & (truth > 0)).sum() / either
    assert dice["as it is"] > 0.3
    assert dice == pytest.approx(dict.fromkeys(dice, dice["as it is"]), abs=0.1)


def test_what_is_there_is_kept_and_what_others_made_or_changed_is_left_alone(
    bundle: Path, scans: Path, tmp_path: Path
) -> None:
    first = images(scans)[0]
    listed = tmp_path / "scans.txt"
    listed.write_text(f"{first}\n\n")
    (made,) = mixcl.predict(bundle, listed, tmp_path / "out", progress=False)
    date = made.stat().st_mtime_ns
    mixcl.predict(bundle, listed, tmp_path / "out", progress=False)
    assert made.stat().st_mtime_ns == date
    whole, record = made.read_bytes(), made.with_name(made.name.replace(".nii.gz", ".json"))
    made.write_bytes(whole[:-9])  # as by somebody who corrects a map
    with pytest.raises(InputError, match="was changed since it was labelled"):
        mixcl.predict(bundle, listed, tmp_path / "out", progress=False)
    assert made.read_bytes() == whole[:-9]
    made.unlink()
    mixcl.predict(bundle, listed, tmp_path / "out", progress=False)
    assert made.read_bytes() == whole
    labelled = record.read_text()
    write_sealed(record, {**read_sealed(record), "map_sha256": ""})  # as a stop leaves it, before or after the map
    made.write_bytes(whole[:-9])
    mixcl.predict(bundle, listed, tmp_path / "out", progress=False)
    assert (made.read_bytes(), record.read_text()) == (whole, labelled)
    for foreign in ("{}", None):  # a side file of another program; a label map drawn by hand
        record.write_text(foreign) if foreign else record.unlink()
        with pytest.raises(InputError, match="was not written by mixcl predict"):
            mixcl.predict(bundle, listed, tmp_path / "out", progress=False)
        assert made.read_bytes() == whole


def test_a_bad_scan_does_not_stop_the_others(
    bundle: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.nii.gz").write_bytes(images(scans)[0].read_bytes()[:1000])
    os.symlink(images(scans)[0], tmp_path / "in/b.nii.gz")
    os.symlink("c.nii.gz", tmp_path / "in/c.nii.gz")
    (tmp_path / "in/README").touch()
    with pytest.raises(SystemExit) as stop:
        main(["predict", str(tmp_path / "in"), "--run", str(bundle), "--out", str(tmp_path / "out")])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "2 of 3 scans were not labelled, the others are; first" in error
    assert "a.nii.gz" in error
    assert "c.nii.gz: cannot be read" in error
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == ["b.json", "b.nii.gz"]


def test_a_bad_line_of_a_list_does_not_stop_the_others(bundle: Path, scans: Path, tmp_path: Path) -> None:
    """A scan that is not there, a folder without one, a name that no file could have, and the name of none."""
    (tmp_path / "empty").mkdir()
    named = tmp_path / ("\u00fc" * 60 + ".nii.gz")
    named.write_bytes(images(scans)[0].read_bytes())
    lines = ["gone.nii.gz", "empty", named.name, "x" * 300, str(images(scans)[0])]
    (tmp_path / "list.txt").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(InputError, match="4 of 5 scans were not labelled, the others are"):
        mixcl.predict(bundle, tmp_path / "list.txt", tmp_path / "out", progress=False)
    assert len(list((tmp_path / "out").glob("*.nii.gz"))) == 1


def test_a_scan_out_of_reach_does_not_stop_the_others(
    bundle: Path, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that may not be entered, a path that no system takes, a scan too large for the memory."""
    (tmp_path / "closed").mkdir()
    (tmp_path / "huge.nii.gz").write_bytes(images(scans)[0].read_bytes())
    lines = ["closed", "x" * 300 + "/a.nii.gz", "huge.nii.gz", str(images(scans)[0])]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    listed, read = Path.iterdir, segment.read_volume

    def iterdir(self: Path) -> Iterator[Path]:
        if self.name == "closed":
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return listed(self)

    def read_volume(path: Path) -> Volume:
        if path.name == "huge.nii.gz":
            raise MemoryError
        return read(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    monkeypatch.setattr(segment, "read_volume", read_volume)
    with pytest.raises(InputError, match="3 of 4 scans were not labelled, the others are"):
        mixcl.predict(bundle, tmp_path / "list.txt", tmp_path / "out", progress=False)
    assert len(list((tmp_path / "out").glob("*.nii.gz"))) == 1
    (tmp_path / "list.txt").write_text("a\0b.nii.gz\n")
    with pytest.raises(InputError, match="not a text of paths"):
        scans_in(tmp_path / "list.txt", tmp_path / "out")


def test_voxels_that_begin_as_dicom_does_make_no_series(tmp_path: Path) -> None:
    for name in ("a", "b"):
        nib.save(nib.AnalyzeImage(np.full((4, 4, 4), 8, np.int16), np.eye(4)), tmp_path / f"{name}.img")
    assert [scan.name for scan in scans_in(tmp_path, tmp_path / "out")] == ["a.hdr", "b.hdr"]


def test_what_is_no_scan_beside_scans_is_passed_over(tmp_path: Path) -> None:
    """Empty notes and a saved page stand in many folders; what is named like a scan is told when its turn comes."""
    for name, text in {"README": "", "index.html": "<html>", "a.nii.gz": "", "b.nrrd": "<html>"}.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "lost.nii").symlink_to("nowhere")
    (tmp_path / "loop.nii").symlink_to("loop.nii")
    (tmp_path / "list.txt").write_text("\ufeffa.nii.gz\n")
    scans = ["a.nii.gz", "b.nrrd", "loop.nii", "lost.nii"]
    assert [scan.name for scan in scans_in(tmp_path, tmp_path / "out")] == scans
    assert [scan.name for scan in scans_in(tmp_path / "list.txt", tmp_path / "out")] == ["a.nii.gz"]


def test_what_is_refused(bundle: Path, scans: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: no such scan"):
        scans_in(tmp_path / "nowhere", tmp_path)
    with pytest.raises(InputError, match="no scan in it"):
        scans_in(tmp_path, tmp_path / "out")
    (tmp_path / "lists.txt").write_text("lists.txt\n")
    with pytest.raises(InputError, match="another list"):
        scans_in(tmp_path / "lists.txt", tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        os.symlink(images(scans)[0] if name == "a" else images(scans)[1], tmp_path / name / "same.nii.gz")
    with pytest.raises(InputError, match="have one name"):
        mixcl.predict(bundle, tmp_path, tmp_path / "out", progress=False)
    os.mkfifo(tmp_path / "fifo.nii")
    with pytest.raises(InputError, match="1 of 1 scans"):
        mixcl.predict(bundle, tmp_path / "fifo.nii", tmp_path / "out", progress=False)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("mine")
    run = scans / "runs" / "finetune-mine-p100-scratch-f0-s0"
    with pytest.raises(InputError, match="is there and is no bundle"):
        export(run, tmp_path / "full")
    (tmp_path / "full/mine.txt").rename(tmp_path / "full/README.md")
    with pytest.raises(InputError, match="is there and is no bundle"):
        export(run, tmp_path / "full")
    assert [path.read_text() for path in (tmp_path / "full").iterdir()] == ["mine"]
    (tmp_path / "full/README.md").unlink()
    (tmp_path / "full/models").mkdir()  # as a full disk leaves it
    export(run, tmp_path / "full")
    assert (tmp_path / "full/configs/metadata.json").is_file()
    with pytest.raises(InputError, match=r"name the file \.safetensors"):
        export(run, tmp_path / "a.pt")


def test_scans_are_never_written_over(bundle: Path, scans: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.nii.gz"
    mine.write_bytes(whole := images(scans)[0].read_bytes())
    for given in (mine, tmp_path):
        with pytest.raises(InputError, match="choose another --out"):
            mixcl.predict(bundle, given, tmp_path, progress=False)
    assert mine.read_bytes() == whole
    below = tmp_path / "labels"
    for _ in range(2):  # what was made is no scan
        assert mixcl.predict(bundle, tmp_path, below, progress=False) == [below / "mine.nii.gz"]


def test_weights_say_what_they_need(finetuned: Path, tmp_path: Path) -> None:
    os.umask(0o022)
    text = export(finetuned, tmp_path / "net.safetensors")
    assert "axes RAS, 8 x 8 x 8 mm, -150 to 250 HU" in text
    assert "CC BY 4.0" in text
    assert (tmp_path / "net.safetensors").stat().st_mode & 0o777 == 0o644
    with safe_open(tmp_path / "net.safetensors", framework="pt") as file:
        facts = json.loads(file.metadata()["mixcl"])
    assert facts["labels"] == {"1": "spleen", "5": "liver", "9": "left kidney"}
    assert facts["training_cases"] == json.loads((finetuned / "run.json").read_text())["train"]
    assert 0 < facts["metrics"]["dice"] < 1
    space: dict[str, object] = {}
    exec(text, space)
    net = space["net"]
    assert isinstance(net, UNETR)
    weights = load_file(finetuned / "model.safetensors")
    assert all(torch.equal(net.state_dict()[name], value) for name, value in weights.items())
    again = read_carried(tmp_path / "net.safetensors")
    assert again.about["id"] == about(finetuned)["id"]


def test_a_run_is_not_written_over_by_its_export(finetuned: Path) -> None:
    before = (finetuned / "model.safetensors").read_bytes()
    for place in ("model.safetensors", "other.safetensors", "bundle"):
        with pytest.raises(InputError, match="lies in the folder of a run"):
            export(finetuned, finetuned / place)
    assert (finetuned / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("cases.csv", "nonsense\n", "cases.csv: not what mixcl evaluate writes"),
        ("cases.csv", "", "cases.csv: not what mixcl evaluate writes"),
        ("run.json", '{"job": "a", "config": %s}', "run.json: has no "),
        ("run.json", '{"job": "a", "weights": "b", "config": %s}', "not the weights of run.json"),
    ],
)
def test_a_damaged_run_is_not_carried_away(finetuned: Path, tmp_path: Path, name: str, text: str, said: str) -> None:
    run = tmp_path / finetuned.name
    shutil.copytree(finetuned, run)
    card = json.loads((run / "run.json").read_text())
    if "%s" in text:
        text %= json.dumps(card["config"])
        text = text.replace('"job": "a",', f'"job": "a", "weights": "{card["weights"]}",') if "no " in said else text
    (run / name).write_text(text)
    with pytest.raises(InputError, match=said):
        export(run, tmp_path / "net.safetensors")


# Written from MONAI's bundle specification; MONAI's own schema has to be downloaded.
REQUIRED = [
    "version", "monai_version", "pytorch_version", "numpy_version", "required_packages_version", "task", "description",
    "authors", "copyright", "network_data_format",
]  # fmt: skip
TENSOR = {
    "type": "object",
    "required": ["type", "format", "num_channels", "spatial_shape", "dtype", "value_range", "is_patch_data"],
    "properties": {"num_channels": {"type": "integer"}, "spatial_shape": {"type": "array"}},
}
TENSORS = {"type": "object", "minProperties": 1, "additionalProperties": TENSOR}
SPECIFIED = {
    "type": "object",
    "required": REQUIRED,
    "properties": {
        **{name: {"type": "string"} for name in REQUIRED[:4] + REQUIRED[5:-1]},
        "changelog": {"type": "object", "additionalProperties": {"type": "string"}},
        "network_data_format": {"required": ["inputs", "outputs"], "additionalProperties": TENSORS},
    },
}  # fmt: skip


def test_a_bundle_is_as_monai_specifies(bundle: Path, tmp_path: Path) -> None:
    meta, inference = str(bundle / "configs/metadata.json"), str(bundle / "configs/inference.json")
    (tmp_path / "schema.json").write_text(json.dumps(SPECIFIED))
    verify_metadata(meta_file=meta, filepath=str(tmp_path / "schema.json"))
    verify_net_in_out(net_id="network_def", meta_file=meta, config_file=inference, device="cpu")
    head = yaml.safe_load((bundle / "README.md").read_text().split("---")[1])
    assert head["library_name"] == "monai"
    assert head["model-index"][0]["results"][0]["metrics"][0]["type"] == "dice"
    parser = ConfigParser()
    parser.read_meta(meta)
    assert parser.get("_meta_")["mixcl"]["labels"]["5"] == "liver"


def test_monai_alone_runs_a_bundle(bundle: Path, scans: Path, tmp_path: Path) -> None:
    """Its label maps are ours."""
    (tmp_path / "scans").mkdir()
    for image in images(scans)[:2]:
        os.symlink(image, tmp_path / "scans" / image.name)
    run(
        config_file=str(bundle / "configs/inference.json"), bundle_root=str(bundle),
        dataset_dir=str(tmp_path / "scans"), output_dir=str(tmp_path / "monai"),
    )  # fmt: skip
    for made in mixcl.predict(bundle, tmp_path / "scans", tmp_path / "ours", progress=False):
        theirs = voxels(next((tmp_path / "monai").glob(f"{made.name[:-7]}*")))
        ours = voxels(made)
        assert theirs.shape == ours.shape
        assert set(np.unique(theirs)) <= {0, 1, 5, 9}
        assert (theirs == ours).mean() > 0.999  # they round a voxel on a halfway HU their own way
        assert len(np.unique(ours)) > 2


def test_the_face_is_light_and_whole() -> None:
    code = "import sys, mixcl; from mixcl import load_profile; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
    assert all(getattr(mixcl, name) for name in mixcl.__all__)
    assert Path(mixcl.__file__).with_name("py.typed").is_file()


def test_what_a_network_has_seen_goes_with_it(bundle: Path, config: Experiment) -> None:
    """Also into a fine-tuning that starts from it under other settings: terms, and scans by their marks (R24)."""
    facts, cases = read_carried(bundle).about, Store(config.data.store_dir(Path())).cases("mine")
    assert facts["trained_on"] == {"mine": {"for": "fine-tuning", "licence": "CC BY 4.0"}}
    marks = {case.id: case.content[0][:16] for case in cases}
    assert facts["scans"].split() == sorted(marks[case] for case in facts["training_cases"])
    start = {"trained_on": {"ward": {"for": "pre-training", "licence": "secret"}}, "scans": "0123456789abcdef"}
    told = seen_by(config, cases, {"task": "other", "pretraining": start})
    assert list(told["trained_on"]) == ["ward", "mine"]
    assert told["scans"].split() == sorted([*marks.values(), "0123456789abcdef"])


def test_weights_that_do_not_say_what_they_have_seen_go_by_their_settings(finetuned: Path, config: Experiment) -> None:
    """Those of an older version: a phantom's must not pass for a patient's."""
    card = json.loads((finetuned / "run.json").read_text())
    made_up = load_profile("smoke", [f"data.collections.mine={json.dumps(MINE)}", "data.finetune=[mine]"])
    for settings, phantoms in ((config, False), (made_up, True)):
        facts = _facts(card, settings, {"id": "a"})
        assert facts["phantoms"] == phantoms
        assert facts["trained_on"] == {"mine": {"for": "fine-tuning", "licence": "CC BY 4.0"}}


def test_what_is_odd_about_a_scan_is_said(
    bundle: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A scan without any air, as of another modality: it is labelled, and told."""
    stored: Any = nib.load(images(scans)[0])  # type: ignore[attr-defined]
    save(tmp_path / "odd.nii.gz", np.clip(np.asarray(stored.dataobj), -100, 500), stored.affine)
    mixcl.predict(bundle, tmp_path / "odd.nii.gz", tmp_path / "out", progress=False)
    assert "odd.nii.gz: its values lie between -100 and" in capsys.readouterr().err
