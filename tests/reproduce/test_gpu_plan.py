"""Hours and money of the GPU's plan, and what the script does where there is no GPU."""

from __future__ import annotations

import importlib
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mixcl.config import load_profile

ROOT = Path(__file__).resolve().parents[2]
BENCH = ROOT / "reproduce" / "bench"
sys.path.insert(0, str(BENCH))
gpu_plan = importlib.import_module("gpu_plan")

SCIENCE = ["bash", str(BENCH / "gpu_science.sh")]


def test_the_work_of_a_plan_is_counted_patch_by_patch() -> None:
    """Two arms of BTCV on phantoms: 12 scans train, 2 of them are 15 %; epochs as R15 has them, batch 2."""
    plan = ["grid.percents={}", "grid.percents={btcv: [15, 100]}", "grid.ablation={}", "grid.variants={}"]
    config = load_profile("fair-size", plan)
    parts = gpu_plan.work(config)
    epochs = config.finetune.epochs or 0
    patches = sum(2 * epochs * math.ceil(scans / 2) for scans in (2, 12)) * 2 * 5
    assert parts["fine-tuning"] == pytest.approx(patches * gpu_plan.FLOP["finetune_sample"])
    scans = sum(config.data.phantom.counts[name] for name in config.data.pretrain)
    steps = (config.pretrain.epochs or 0) * math.ceil(scans / config.pretrain.batch)
    samples = steps * config.pretrain.batch
    assert parts["pre-training"] == pytest.approx(samples * gpu_plan.FLOP["pretrain_sample"])
    windows = 4 * 3 * 2  # 320 x 253 x 256 mm at 1.5 x 1.5 x 2 mm, patches of 96 half over one another
    assert parts["prediction"] == pytest.approx(20 * 3 * windows * gpu_plan.FLOP["window"])


def test_the_plan_tells_hours_and_money(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_plan.main(["fair-size", "3"]) == 0
    told = capsys.readouterr().out
    hours = sum(gpu_plan.work(load_profile("fair-size")).values()) / 60e12 / 3600
    assert f"fair-size: {hours:.1f} to {6 * hours:.1f} GPU hours at 60 to 10 TFLOP/s, {3 * hours:.0f} to" in told
    assert gpu_plan.main(["smoke"]) == 2
    assert "not of the paper's size" in capsys.readouterr().err
    assert gpu_plan.main(["fair-size", "much"]) == 2


def test_the_script_plans_with_real_scans_and_starts_nothing() -> None:
    done = subprocess.run([*SCIENCE, "--plan", "--price", "2", "--data", "/data/c t"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == ["fair-size"] * 2 + ["map-size"] * 2 + [
        "points-size"
    ] * 2
    assert "at 2 an hour" in done.stdout


def test_a_folder_that_lacks_collections_pretrains_on_those_that_are_there(tmp_path: Path) -> None:
    assert gpu_plan.pretraining(tmp_path) == ""  # preparing says what is missing
    for name in ("Task09_Spleen", "Task06_Lung", "Task03_Liver"):
        (tmp_path / name).mkdir()
    assert gpu_plan.pretraining(tmp_path) == "data.pretrain=[msd_liver, msd_lung]"
    config = load_profile("fair-size", [gpu_plan.pretraining(tmp_path)])
    assert config.data.pretrain == ("msd_liver", "msd_lung")
    done = subprocess.run([*SCIENCE, "--plan", "--data", str(tmp_path)], capture_output=True, text=True)
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 6), done.stderr
    assert "taking data.pretrain=[msd_liver, msd_lung]" in done.stderr


def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([*SCIENCE, "--out", str(tmp_path)], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (2, "gpu_science.sh: no GPU here\n")
