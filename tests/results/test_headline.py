"""Table 1 in six lines: its means, and a verdict that follows from its numbers."""

from __future__ import annotations

from pathlib import Path

from helpers.runs import write_run

from mixcl.results.findings import findings, headline


def test_means_and_verdict(tmp_path: Path) -> None:
    for fold, (scratch, mixcl) in enumerate([(0.2, 0.4), (0.4, 0.61)]):
        write_run(tmp_path, "btcv", 15, "scratch", fold, {f"{fold}": {1: scratch, 6: None, 11: None}})
        write_run(tmp_path, "btcv", 15, "mixcl", fold, {f"{fold}": {1: mixcl, 6: None, 11: None}})
    write_run(tmp_path, "msd_spleen", 15, "scratch", 0, {"7": {1: 0.75}})  # has no partner and takes no part
    lines = headline(tmp_path)
    assert lines[:2] == [
        "Table 1, mean Dice from scratch -> MixCL (2 folds, 1 pre-training):", "  BTCV: 15 % 0.3000 -> 0.5050",
    ]  # fmt: skip
    assert lines[2:] == findings(tmp_path)
    assert "phantoms made up by the computer, not patients" in lines[2]
    assert "MixCL is ahead of training from scratch in 1 of 1 cell" in lines[3]


def test_networks_that_learned_nothing_are_not_compared(tmp_path: Path) -> None:
    for arm, dice in (("scratch", 0.01), ("mixcl", 0.02)):
        write_run(tmp_path, "btcv", 15, arm, 0, {"1": {1: dice, 6: None, 11: None}})
    text = "\n".join(headline(tmp_path))
    assert "in no cell has a network learned its task" in text
    assert "ahead" not in text


def test_learned_arms_without_a_pair_answer_nothing(tmp_path: Path) -> None:
    for fold, arm in enumerate(("mixcl", "id")):
        write_run(tmp_path, "btcv", 15, arm, fold, {f"{fold}": {1: 0.5, 6: None, 11: None}})
    assert [line.partition(":")[0] for line in findings(tmp_path)[1:]] == [
        "Table 1 answers nothing yet", "Table 2 answers nothing",
    ]  # fmt: skip


def test_without_a_pair_nothing_is_said(tmp_path: Path) -> None:
    write_run(tmp_path, "btcv", 15, "scratch", 0, {"1": {1: 0.4, 6: None, 11: None}})
    assert headline(tmp_path) == []
