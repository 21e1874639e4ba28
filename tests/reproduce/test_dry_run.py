"""The plan's cost: its size by hand, hours from measured seconds, and disk."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

from mixcl.config import load_profile
from mixcl.data.store import expected_bytes
from mixcl.model import segmentation_model

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "reproduce"))
dry_run = importlib.import_module("dry_run")
PAPER = load_profile("paper")
COSTS = {"kernel": 10, "pretrain_sample": 2, "finetune_sample": 1, "case": 3, "copy": 5, "prepare_case": 4}
FOLD = "finetune-btcv-p015-mixcl-f0-s0"


def test_seconds_of_the_paper_s_plan() -> None:
    """765 + 41 + 30 scans; 1000 epochs of 128 steps of 6; 2000 of 4 scans, 2 a step; a fifth of 30 tested."""
    assert dry_run.seconds_of("prepare", PAPER, COSTS) == 4 * 836
    assert dry_run.seconds_of("pretrain-id", PAPER, COSTS) == 10 + 1000 * 128 * 6 * 2
    assert dry_run.seconds_of(FOLD, PAPER, COSTS) == 10 + 2000 * 2 * 2 + 6 * 3 + 5
    assert dry_run.seconds_of("table1", PAPER, COSTS) == 10


def test_folds_that_share_a_kernel_start_it_once() -> None:
    shared = load_profile("paper", ["run.folds_a_kernel=5"])
    assert dry_run.seconds_of(FOLD, shared, COSTS) == 10 + 5 * (2000 * 2 * 2 + 6 * 3 + 5)


def test_a_share_trains_as_long_as_its_scans_say() -> None:
    """Epochs (R15): 24 scans make 12 steps of 2, and a share of 50 % of them 6; by steps all shares take the same."""
    by_epochs = load_profile("paper", ["finetune.epochs=10"])
    by_steps = load_profile("paper", ["finetune.steps=10"])
    fold = FOLD.replace("p015", "{}").format
    for percent, steps in (("p015", 2), ("p050", 6), ("p100", 12)):
        rest = 10 + 6 * 3 + 5
        assert dry_run.seconds_of(fold(percent), by_epochs, COSTS) == rest + 10 * steps * 2
        assert dry_run.seconds_of(fold(percent), by_steps, COSTS) == rest + 10 * 2


def test_an_arm_trains_as_long_as_its_own_settings_say() -> None:
    config = load_profile("paper", ["grid.variants={long: [pretrain.steps=7, finetune.epochs=3]}"])
    assert dry_run.seconds_of("pretrain-long", config, COSTS) == 10 + 7 * 6 * 2
    assert dry_run.seconds_of("pretrain", config, COSTS) == 10 + 128000 * 6 * 2
    name = "finetune-btcv-p100-long-f0-s0"
    assert dry_run.seconds_of(name, config, COSTS) == 10 + 3 * 12 * 2 + 6 * 3 + 5


def test_scans_whose_number_nobody_has_told_cost_nothing() -> None:
    own = ["data.collections.mine={names: {1: liver}}", "data.pretrain=[mine]", "data.finetune=[mine]"]
    config = load_profile("paper", [*own, "grid.percents={mine: [100]}", "grid.ablation={}"])
    assert dry_run.seconds_of("pretrain", config, COSTS) == 10
    assert dry_run.seconds_of("finetune-mine-p100-mixcl-f0-s0", config, COSTS) == 10 + 5


def test_costs_are_those_of_the_same_network() -> None:
    assert dry_run.read_costs(load_profile("paper-balanced"))["profile"] == "paper"
    assert dry_run.read_costs(load_profile("phantom"))["profile"] == "phantom"
    assert not dry_run.read_costs(load_profile("phantom", ["profile=mine", "model.feature=12"]))


def test_disk_of_the_paper_s_plan() -> None:
    """Scans of 273 x 273 x 200 voxels at 1.5 x 1.5 x 2 mm; 114 runs of 93 million weights."""
    scans = 836 * expected_bytes((273, 273, 200), 1)
    assert dry_run.disk(PAPER) == pytest.approx(scans + 114 * 4 * 92.8e6, rel=0.01)
    drawn = load_profile("paper", ["data.source=phantom"])
    assert dry_run.disk(drawn) > 836 * 0.8 * 1.4 * 400 * 316 * 128


@pytest.mark.parametrize("profile", ["paper", "fair", "phantom"])
def test_weights_are_those_of_the_network(profile: str) -> None:
    model = load_profile(profile).model
    counted = sum(weight.numel() for weight in segmentation_model(model, 13).parameters())
    assert dry_run.weights(model) == pytest.approx(counted, rel=0.02)


def test_counted_flop_agree_with_a_count_by_hand() -> None:
    """A window is one forward pass, a fine-tuning sample about three of them, a pre-training sample three of those."""
    counted = json.loads((ROOT / "reproduce/expected/flop-paper.json").read_text())
    tokens, hidden, mlp = 6**3, PAPER.model.hidden, PAPER.model.mlp
    block = 2 * tokens * (4 * hidden**2 + 2 * hidden * mlp) + 4 * tokens**2 * hidden
    assert 12 * block < counted["window"] < 6 * 12 * block  # the ViT, and convolutions that take a few times as much
    assert counted["finetune_sample"] == pytest.approx(3 * counted["window"], rel=0.05)
    assert counted["pretrain_sample"] == pytest.approx(3 * counted["finetune_sample"], rel=0.1)
