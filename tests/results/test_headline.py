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
    assert (
        "of 1 cell MixCL is, by its 95 % intervals, ahead of training from scratch in 1, behind it in 0 and" in lines[3]
    )


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


def test_the_ablation_has_a_verdict_an_arm_best_first(tmp_path: Path) -> None:
    for number in range(8):
        fold, seed = divmod(number, 2)
        for arm, dice in (("scratch", 0.4), ("id", 0.3 - 0.01 * fold), ("mixcl", 0.5 + 0.01 * fold)):
            write_run(tmp_path, "btcv", 15, arm, fold, {f"{fold}": {1: dice, 6: None, 11: None}}, seed=seed)
    assert findings(tmp_path)[2] == (
        "Table 2, by 95 % intervals against training from scratch: BTCV with 15 % of the labels: MixCL 0.515 (ahead), "
        "from scratch 0.400, id 0.285 (behind)."
    )
    assert findings(tmp_path)[1].endswith("+11.5 points of Dice (BTCV 15 %, 95 % interval [+9.4, +13.6]).")


def test_few_pairs_are_called_few(tmp_path: Path) -> None:
    for arm, dice in (("scratch", 0.4), ("mixcl", 0.5)):
        write_run(tmp_path, "btcv", 15, arm, 0, {"1": {1: dice, 6: None, 11: None}})
    few = "; 1 pair a cell (one fold, one pre-training) is too few for a test, so all this may be chance."
    assert all(line.endswith(few) for line in findings(tmp_path)[1:])
    assert "+10.0 points of Dice (BTCV 15 %); 1 pair" in findings(tmp_path)[1]  # there is no interval
