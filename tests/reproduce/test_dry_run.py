"""The cost model: the plan's size by hand, money and memory, and measured figures before estimates."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

from mixcl.config import load_profile

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "reproduce"))
cost_model = importlib.import_module("cost_model")
PAPER = load_profile("paper")
CARD = {"name": "a card", "match": "none", "cards": 1, "gb": 24, "tflops": 100, "usd_hour": 2.0}


def test_the_paper_s_plan() -> None:
    """4 pre-trainings of 1000 steps of 6; 110 fine-tunings of 2000 steps of 2; 5 x 5 x 4 windows a case."""
    work = cost_model.amounts(PAPER)
    assert work["pretrain_sample"] == 24_000
    assert work["finetune_sample"] == 440_000
    assert cost_model.windows(PAPER) == 100
    # Table 1: 4 cells of Spleen x 2 arms and 3 of BTCV x 2; Table 2: 5 arms of Spleen and 3 further of BTCV; the five
    # folds of a cell test every case once.
    assert work["window"] == pytest.approx(100 * (41 * (8 + 5) + 30 * (6 + 3)))


def test_counted_flop_agree_with_a_count_by_hand() -> None:
    """A window is one forward pass, a fine-tuning sample about three of them, a pre-training sample three of those."""
    counted = cost_model.read_flop(PAPER)
    tokens, hidden, mlp = 6**3, PAPER.model.hidden, PAPER.model.mlp
    block = 2 * tokens * (4 * hidden**2 + 2 * hidden * mlp) + 4 * tokens**2 * hidden
    assert 12 * block < counted["window"] < 6 * 12 * block  # the ViT, and convolutions that take a few times as much
    assert counted["finetune_sample"] == pytest.approx(3 * counted["window"], rel=0.05)
    assert counted["pretrain_sample"] == pytest.approx(3 * counted["finetune_sample"], rel=0.1)
    assert cost_model.read_flop(load_profile("smoke")) == {}


def test_an_estimate_follows_from_flop_and_utilisation() -> None:
    counted = {"pretrain_sample": 1e12, "finetune_sample": 0.0, "window": 0.0, "saved_bytes": 1e9, "weights": 1e9}
    cost = cost_model.reckon(PAPER, CARD, [0.25, 0.5], counted, {})
    assert cost.hours == pytest.approx((24_000 / 50 / 3600, 24_000 / 25 / 3600))
    assert cost.gb == pytest.approx(6 + 16)
    six = cost_model.reckon(PAPER, CARD | {"cards": 6}, [0.25, 0.5], counted, {})
    assert six.hours[0] == pytest.approx(cost.hours[0] / 6)
    assert six.gb == pytest.approx(1 + 16)
    assert not cost.measured


def test_measured_figures_come_first(tmp_path: Path) -> None:
    seconds = {"pretrain": (0.6, 6), "finetune": (0.02, 2), "window": (0.0, 1)}
    steps = {name: {"seconds": s, "samples": n, "peak_bytes": 7e9} for name, (s, n) in seconds.items()}
    (tmp_path / "nvidia-h200.json").write_text(json.dumps({"parts": {"roofline": {"steps": steps}}}))
    assert cost_model.read_measured("rtx-4090", tmp_path) == {}
    measured = cost_model.read_measured("h200", tmp_path)
    cost = cost_model.reckon(PAPER, CARD, [0.1, 0.4], cost_model.read_flop(PAPER), measured)
    assert cost.measured
    assert cost.hours[0] == cost.hours[1] == pytest.approx((24_000 * 0.1 + 440_000 * 0.01) / 3600)
    assert cost.gb == 7


def test_the_lines_say_where_every_figure_comes_from() -> None:
    text = "\n".join(cost_model.lines(PAPER))
    assert text.count("USD") == 3
    for word in ("estimated", "peak is assumed", "not measured", "prices:", "machines.yaml"):
        assert word in text
    assert cost_model.lines(load_profile("smoke")) == []
