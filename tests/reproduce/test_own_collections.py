"""run_all.sh with collections of one's own: what mixcl/data/README.md shows, on made-up scans, in a hostile shell."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import subprocess
from pathlib import Path
from urllib.parse import unquote

import nibabel as nib
import pandas as pd
import pytest
import yaml
from helpers import hostile, volumes

from mixcl import cli
from mixcl.config import load_profile
from mixcl.config.settings import Collection
from mixcl.data.registry import collections
from mixcl.run.record import commit

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
CASES = ("Müller #1 $x^$", "a: {b} $_$", 'it\'s "q" $\\y$', "5 %, ~ $^$", "$HOME$ \\ `x`")
SMALL = [
    "data.spacing=[9,9,9]", "model.patch=32", "model.feature=4", "model.hidden=24", "model.mlp=48", "model.heads=2",
    "pretrain.steps=2", "pretrain.batch=2", "finetune.steps=2", "grid.folds=[0]", "grid.variants={}",
    "run.precision=no", "run.workers=0", "run.threads=1",
]  # fmt: skip


def example() -> str:
    """The profile in the README of the data."""
    text = (ROOT / "mixcl/data/README.md").read_text(encoding="utf-8")
    (profile,) = re.findall(r"```yaml\n(# mine\.yaml\n.*?)```", text, re.DOTALL)
    return profile


def write_collection(root: Path, collection: Collection, seed: int) -> None:
    """Scans of a body with a box for each label value, by the collection's templates or with its table."""
    image, label = (collection.image, collection.label) if not collection.table else ("{case}/i.nii", "{case}/l.nii")
    rows = [("case", "image", "label")]
    for number, case in enumerate(CASES):
        scan, labels = volumes.scan((36, 32, 30), 10 * seed + number, [*collection.names, *collection.unknown])
        paths = [template.replace("{case}", case) for template in (image, label)]
        for path, data in zip(paths, (scan, labels), strict=True):
            volumes.save(root / collection.root / path, data, volumes.affine_of((9.0, 9.0, 9.0)))
        rows.append((case, *paths))
    if collection.table:
        with (root / collection.root / collection.table).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(rows)


def run(out: Path, profile: Path, environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    """From the repository's root, as in the README: the script and the profile by relative paths."""
    sets = [word for item in SMALL for word in ("--set", item)]
    return subprocess.run(
        ["bash", "reproduce/run_all.sh", "--profile", os.path.relpath(profile, ROOT), "--out", str(out), *sets, *words],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False, encoding="utf-8", umask=0o077,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp('it\'s #1: {a} "b" $5 ü')


@pytest.fixture(scope="module")
def profile(folder: Path) -> Path:
    """The example, with the folder of the made-up scans, from where the command is given, in the place of its root."""
    scans = folder / "scans #2: {case}"
    text = example()
    assert "root: /data/ct\n" in text
    path = folder / "mine.yaml"
    path.write_text(
        text.replace("root: /data/ct", f"root: {json.dumps(os.path.relpath(scans, ROOT))}"), encoding="utf-8"
    )
    for seed, collection in enumerate(collections(load_profile(path).data).values()):
        write_collection(scans, collection, seed)
    return path


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return hostile.environment(tmp_path_factory.mktemp("hostile"))


@pytest.fixture(scope="module")
def whole(folder: Path, profile: Path, environment: dict[str, str]) -> Path:
    out = folder / "results"
    done = run(out, profile, environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"results in {out}\n" in done.stdout
    assert "bits are pinned" in done.stdout
    marks = [(int(done), int(of)) for done, of in re.findall(r"^\[(\d+)/(\d+)[],]", done.stdout, re.MULTILINE)]
    assert (marks[0][0], marks[-1][0]) == (0, marks[-1][1])
    assert marks == sorted(marks)
    assert "user's" not in done.stdout + done.stderr
    return out


def test_it_runs_to_its_end(whole: Path, profile: Path, folder: Path) -> None:
    """Tables, figures and the page, in the folder that was named and in no other."""
    config = load_profile(profile)
    assert {collection.table is None for collection in config.data.collections.values()} == {True, False}
    table = pd.read_csv(whole / "tables/table1.csv")
    assert set(table["task"]) == set(config.data.finetune)
    assert set(table["arm"]) == {"mixcl", "scratch"}
    for name in ("figures/figure1.png", "figures/figure3.pdf", "site/index.html", "tables/effects.md"):
        assert (whole / name).is_file(), name
    assert not (whole / "tables/table2.csv").exists()  # it has no cell
    assert {path.name for path in folder.iterdir()} == {"mine.yaml", "results", "scans #2: {case}"}


def test_every_case_is_prepared_under_its_name(whole: Path, profile: Path) -> None:
    for name in collections(load_profile(profile).data):
        folders = {path.name for path in (whole / "data/store" / name).iterdir() if path.is_dir()}
        assert {unquote(folder) for folder in folders} == set(CASES)


def test_nothing_of_the_shell_is_in_the_run(whole: Path) -> None:
    """This repository's commit, the pinned instructions, the folder of the scans by its path from the root."""
    card = json.loads((whole / "runs/pretrain/run.json").read_text(encoding="utf-8"))
    assert (card["commit"] == "unknown") == (commit() == "unknown")  # GIT_DIR leads nowhere
    assert card["bits"]["pins"]["MKL_CBWR"] == "COMPATIBLE"
    assert card["bits"]["instructions"] == "AVX2"
    assert card["config"]["data"]["root"].startswith("/")


def test_a_finished_run_has_nothing_left_to_do(whole: Path, profile: Path, environment: dict[str, str]) -> None:
    done = run(whole, profile, environment, "--dry-run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing is left to do" in done.stdout


def test_its_commands_do_what_they_say(profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example's commands, word for word, with a small network in its profile; the encoder fits a stock UNETR."""
    import torch
    from monai.networks.nets import UNETR
    from safetensors.torch import load_file

    text = (ROOT / "mixcl/data/README.md").read_text(encoding="utf-8")
    commands = [
        shlex.split(line, comments=True) for line in re.findall(r"^    (mixcl .*mine\.yaml.*)$", text, re.MULTILINE)
    ]
    assert [words[1] for words in commands] == ["data", "prepare", "pretrain", "finetune", "evaluate", "export"]
    own = yaml.safe_load(profile.read_text(encoding="utf-8"))
    own["data"] |= {"root": str((ROOT / own["data"]["root"]).resolve()), "spacing": [9, 9, 9]}
    own |= {
        "model": {"patch": 32, "feature": 4, "hidden": 24, "mlp": 48, "heads": 2},
        "pretrain": {"steps": 2, "batch": 2}, "finetune": {"steps": 2}, "run": {"precision": "no", "workers": 0},
    }  # fmt: skip
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(own), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for words in commands:
        with pytest.raises(SystemExit) as stop:
            cli.main(words[1:])
        assert stop.value.code == 0, words
    (run,) = tmp_path.glob("**/runs/finetune-ward7-p100-mixcl-f0-s0")
    predicted = list((run / "predictions").glob("*.nii.gz"))
    assert len(predicted) == 1  # of five cases, in five folds
    cases = pd.read_csv(run / "cases.csv")
    case = cases["case"].iloc[0]
    assert nib.load(predicted[0]).shape == nib.load(Path(own["data"]["root"], "ward7", case, "ct.nii.gz")).shape
    net = UNETR(1, 4, (32, 32, 32), 4, 24, 48, 2)
    result = net.load_state_dict(load_file(tmp_path / "encoder.safetensors"), strict=False)
    assert not result.unexpected_keys
    assert {key.split(".")[0] for key in result.missing_keys} == {"decoder2", "decoder3", "decoder4", "decoder5", "out"}
    assert torch.isfinite(net(torch.rand(1, 1, 32, 32, 32))).all()
