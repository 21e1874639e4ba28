"""Table 1 in six lines: its means, and a verdict that follows from its numbers."""

from __future__ import annotations

from pathlib import Path

from helpers.runs import write_run

from mixcl.results.headline import headline


def test_means_and_verdict(tmp_path: Path) -> None:
    for fold, (scratch, mixcl) in enumerate([(0.2, 0.4), (0.4, 0.61)]):
        write_run(tmp_path, "btcv", 15, "scratch", fold, {f"{fold}": {1: scratch, 6: None, 11: None}})
        write_run(tmp_path, "btcv", 15, "mixcl", fold, {f"{fold}": {1: mixcl, 6: None, 11: None}})
    write_run(tmp_path, "msd_spleen", 15, "scratch", 0, {"7": {1: 0.75}})  # has no partner and takes no part
    lines = headline(tmp_path)
    assert lines[:2] == [
        "Table 1, mean Dice from scratch -> MixCL (2 folds, 1 pre-training):", "  BTCV: 15 % 0.3000 -> 0.5050",
    ]  # fmt: skip
    assert lines[2] == "MixCL is ahead of training from scratch in 1 of 1 cell; its mean gain is +0.2050 Dice."
    assert lines[3].startswith("The 95 % interval shows a gain in 1 of them and a loss in 0; with one pre-training")
    assert "phantoms, not patients" in lines[4]
    assert len(lines) == 5


def test_networks_that_learned_nothing_are_not_compared(tmp_path: Path) -> None:
    for arm, dice in (("scratch", 0.01), ("mixcl", 0.02)):
        write_run(tmp_path, "btcv", 15, arm, 0, {"1": {1: dice, 6: None, 11: None}})
    text = "\n".join(headline(tmp_path))
    assert "No network has learned its task (mean Dice at most 0.0200" in text
    assert "ahead" not in text


def test_one_fold_has_no_interval(tmp_path: Path) -> None:
    for arm, dice in (("scratch", 0.4), ("mixcl", 0.3)):
        write_run(tmp_path, "btcv", 15, arm, 0, {"1": {1: dice, 6: None, 11: None}})
    lines = headline(tmp_path)
    assert "in 0 of 1 cell; its mean gain is -0.1000" in lines[2]
    assert "nobody knows how sure" in lines[3]


def test_without_a_pair_nothing_is_said(tmp_path: Path) -> None:
    write_run(tmp_path, "btcv", 15, "scratch", 0, {"1": {1: 0.4, 6: None, 11: None}})
    assert headline(tmp_path) == []
