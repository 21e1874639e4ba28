"""Tables from hand-made runs: values worked out by hand, the paper beside them, what is missing is said."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.runs import CONFIG, GRID, LABELS, NONE, write_run

from mixcl import results
from mixcl.config import load_profile
from mixcl.errors import InputError
from mixcl.files import write_sealed
from mixcl.results import runcard, write
from mixcl.results.paper import TABLE1
from mixcl.results.runs import Runs, read_runs
from mixcl.results.statistics import over_folds
from mixcl.run.jobs import finetune_job


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """BTCV 15 % on two folds in both arms, Spleen 15 % from scratch on one fold, Spleen 5 % nothing."""
    write_run(
        tmp_path, "btcv", 15, "scratch", 0,
        {"0001": {1: 0.8, 6: 0.6, 11: None}, "0002": {1: 0.5, 6: None, 11: 0.0}, "0003": NONE},
    )  # fmt: skip
    write_run(tmp_path, "btcv", 15, "scratch", 1, {"0004": {1: 0.4, 6: 0.4, 11: 0.4}})
    write_run(
        tmp_path, "btcv", 15, "mixcl", 0,
        {"0001": {1: 0.9, 6: 0.7, 11: None}, "0002": {1: 0.6, 6: None, 11: 0.2}, "0003": NONE},
    )  # fmt: skip
    write_run(tmp_path, "btcv", 15, "mixcl", 1, {"0004": {1: 0.3, 6: 0.6, 11: 0.6}})
    write_run(tmp_path, "msd_spleen", 15, "scratch", 0, {"7": {1: 0.75}, "8": {1: 0.25}})
    return tmp_path


def test_dice_of_a_fold_is_the_mean_over_cases_of_their_means_over_organs(out: Path) -> None:
    folds = results.table1(out).folds.set_index(["task", "arm", "fold"])
    # case 0001: (0.8 + 0.6) / 2 = 0.7; case 0002: (0.5 + 0.0) / 2 = 0.25; case 0003 has no organ
    assert folds.loc[("btcv", "scratch", 0), "dice"] == pytest.approx((0.7 + 0.25) / 2)
    assert folds.loc[("btcv", "scratch", 1), "dice"] == pytest.approx(0.4)
    assert folds.loc[("btcv", "mixcl", 0), "dice"] == pytest.approx((0.8 + 0.4) / 2)
    assert folds.loc[("msd_spleen", "scratch", 0), "dice"] == pytest.approx(0.5)
    # HD95: 0001 has 2 and 4 mm, 0002 has 5 mm and a missed organ without a distance
    assert folds.loc[("btcv", "scratch", 0), "hd95_mm"] == pytest.approx((3.0 + 5.0) / 2)
    assert folds.loc[("btcv", "scratch", 0), "cases"] == 2
    assert folds.loc[("btcv", "scratch", 0), "missed"] == 1
    assert folds.loc[("btcv", "mixcl", 0), "missed"] == 0


def test_table1_csv(out: Path) -> None:
    results.table1(out)
    table = pd.read_csv(out / "tables" / "table1.csv")
    assert {"task", "percent", "arm", "fold", "seed", "dice"} <= set(table.columns)
    assert len(table) == 5
    assert table["task"].tolist() == ["msd_spleen"] + 4 * ["btcv"]
    assert table["arm"].tolist() == ["scratch", "scratch", "scratch", "mixcl", "mixcl"]
    assert table["percent"].dtype == np.int64
    assert table["paper_dice"].tolist() == [0.8247, 0.2459, 0.2459, 0.3871, 0.3871]
    assert set(table["source"]) == {"phantom"}
    first = (out / "tables" / "table1.csv").read_bytes()
    results.table1(out)
    assert (out / "tables" / "table1.csv").read_bytes() == first


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


ARMS = ["from scratch", "MixCL"]
PAPER = "paper (T.F.S., Ours)"


def test_markdown_has_the_papers_shape(out: Path) -> None:
    results.table1(out)
    text = (out / "tables" / "table1.md").read_text()
    lines = [cells(line) for line in text.split("**HD95, mm.**")[0].splitlines() if line.startswith("|")]
    assert lines[0] == ["", "Spleen: Pct.", *ARMS, "Diff.", "BTCV: Pct.", *ARMS, "Diff."]
    assert {len(line) for line in lines} == {9}
    body = {(line[0], line[1] or line[5]): line for line in lines[2:]}
    # fold differences 0.125 and 0.1: mean 0.1125, standard error 0.0125, Student's t with one degree of freedom 9
    pairs = body["over pairs", "15 %"]
    assert pairs[5:] == ["15 %", "4 trainings", "n = 2, one pre-training", "[-0.0463, +0.2713]"]
    assert pairs[1:5] == [""] * 4
    # folds from scratch 0.475 and 0.4, pre-trained 0.6 and 0.5: sd = difference / sqrt(2)
    assert body["this run", "15 %"][6:] == ["0.4375 ± 0.0530", "0.5500 ± 0.0707", "+0.1125 ± 0.0177"]
    assert body[PAPER, "15 %"] == [
        PAPER, "15 %", "0.8247", "0.8430", "+0.0183", "15 %", "0.2459", "0.3871", "+0.1412",
    ]  # fmt: skip
    assert body["this run", "15 %"][1:5] == ["15 %", "0.5000", "-", "-"]
    assert body["this run", "5 %"][1:] == ["5 %", "-", "-", "-", "", "", "", ""]
    assert body[PAPER, "50 %"][4] == "+0.0019 [a]"
    assert body[PAPER, "50 %"][8] == "+0.0085 [b]"


def test_what_is_said_beside_the_table(out: Path) -> None:
    table = results.table1(out)
    said = " ".join(table.notes)
    assert "0.9453 - 0.9424 = 0.0029 (R21)" in said
    assert "0.5939 - 0.5851 = 0.0088 (R21)" in said
    assert "Missing: Spleen 15 % from scratch, 1 of 2 runs (fold 1 seed 0)." in table.notes
    assert "Missing: Spleen 5 % MixCL, 2 of 2 runs (fold 0 seed 0, fold 1 seed 0)." in table.notes
    assert "Missing: BTCV" not in said
    assert "Not among the jobs of this profile: Spleen 50 %, Spleen 100 %, BTCV 50 %, BTCV 100 %." in table.notes
    assert "Take care" not in said
    for part in (
        "Profile phantom;",
        "folds 0, 1;",
        "seed 0;",
        "5 distinct trainings in 5 runs, on 3 sets of training scans.",
        "commit 0123456789ab;",
        "BTCV btcvxxxxxxxx",
    ):
        assert part in table.notes[-1]
    assert "phantoms, not patients" in table.caption
    assert "(phantom.seed 2, difficulty 1.5)." in table.notes[-1]
    text = (out / "tables" / "table1.md").read_text()
    assert table.caption in text
    assert all(note in text for note in table.notes)


def test_the_papers_values_are_those_of_its_source() -> None:
    """The rows of Table 1 as our copy of the paper prints them, spleen and BTCV side by side."""
    printed = """5% 0.5065 0.5593 +0.0528
        15% 0.8247 0.8430 +0.0183 15% 0.2459 0.3871 +0.1412
        50% 0.9424 0.9453 +0.0019 50% 0.5851 0.5939 +0.0085
        100% 0.9597 0.9612 +0.0015 100% 0.7524 0.7656 +0.0132"""
    found = {}
    for line in printed.splitlines():
        for task, block in zip(("msd_spleen", "btcv"), re.findall(r"(\d+)% (\S+) (\S+) (\S+)", line), strict=False):
            found[task, float(block[0])] = tuple(map(float, block[1:]))
    assert found == {key: tuple(row) for key, row in TABLE1.items()}
    assert [key for key, row in TABLE1.items() if row.slip] == [("msd_spleen", 50), ("btcv", 50)]


def test_latex_is_whole(out: Path) -> None:
    results.table1(out)
    text = (out / "tables" / "table1.tex").read_text()
    main = text.split(r"\end{table}")[0]
    assert text.count("{") == text.count("}")
    assert text.count("$") % 2 == 0
    for name in ("table", "tabular"):
        assert text.count(rf"\begin{{{name}}}") == text.count(rf"\end{{{name}}}") == 3
    assert not re.search(r"(?<!\\)[%#_]", text)
    assert "±" not in text
    inner = main.split(r"\begin{tabular}{l|llll|llll}")[1].split(r"\end{tabular}")[0]
    rows = [row for row in inner.replace(r"\hline", "").split(r"\\") if row.strip()]
    widths = [row.count("&") + 1 + 3 * row.count(r"\multicolumn{4}") for row in rows]
    assert widths == [9] * 11  # two lines of header, four shares twice, one of them also over pairs
    assert r"$+$0.0019\textsuperscript{a}" in text
    assert r"$+$0.1125 $\pm$ 0.0177" in text


def test_differences_are_paired_by_fold_and_seed(out: Path) -> None:
    """A further fold of one arm alone moves its mean, not the difference."""
    write_run(out, "btcv", 15, "mixcl", 2, {"0005": {1: 1.0, 6: 1.0, 11: 1.0}})
    table = results.table1(out)
    row = over_folds(table.paired).set_index(["task", "percent", "arm"]).loc[("btcv", 15.0, "mixcl")]
    assert row["mean"] == pytest.approx(0.1125)
    assert row["folds"] == 2
    cell = table.cells.set_index(["task", "percent", "arm"]).loc[("btcv", 15.0, "mixcl")]
    assert cell["mean"] == pytest.approx((0.6 + 0.5 + 1.0) / 3)


def test_cells_of_the_same_trainings_are_told(out: Path) -> None:
    first = json.loads((out / "runs" / finetune_job("msd_spleen", 15, "scratch", 0, 0) / "run.json").read_text())
    write_run(out, "msd_spleen", 5, "scratch", 0, {"7": {1: 0.75}, "8": {1: 0.25}}, weights=first["weights"])
    table = results.table1(out)
    assert "The same trainings: 1 of 1 of Spleen 15 % from scratch and of Spleen 5 % from scratch." in table.notes
    assert "5 distinct trainings in 6 runs," in table.notes[-1]
    assert pd.read_csv(out / "tables" / "table1.csv")["weights"].nunique() == 5


def test_seeds_are_averaged_before_folds(out: Path) -> None:
    write_run(out, "btcv", 15, "scratch", 1, {"0004": {1: 0.6, 6: 0.6, 11: 0.6}}, seed=1)
    cell = results.table1(out).cells.set_index(["task", "percent", "arm"]).loc[("btcv", 15.0, "scratch")]
    assert cell["mean"] == pytest.approx((0.475 + (0.4 + 0.6) / 2) / 2)
    assert (cell["folds"], cell["seeds"]) == (2, 2)


def test_runs_that_were_not_made_alike_are_told(out: Path) -> None:
    decides = {"finetune": {"steps": 400}, "init": "0" * 64}
    write_run(out, "msd_spleen", 15, "mixcl", 0, {"7": {1: 0.9}, "8": {1: 0.9}}, decides=decides, commit="f" * 20)
    table = results.table1(out)
    assert "Take care: the runs of Spleen were not made alike, they differ in finetune.steps." in table.notes
    assert "commits 0123456789ab, ffffffffffff" in table.notes[-1]


def test_own_tasks_and_arms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LABELS, "ward_7", {1: "liver"})
    data = {"source": "files", "finetune": ["ward_7"]}
    config = {"grid": {"percents": {"ward_7": [2.5]}, "folds": [0], "seeds": [0]}, "data": data}
    for arm in ("scratch", "mixcl", "identity_only"):
        write_run(tmp_path, "ward_7", 2.5, arm, 0, {"a": {1: 0.5}}, config=config)
    table = results.table1(tmp_path)
    text = (tmp_path / "tables" / "table1.md").read_text()
    assert "ward_7: Pct." in text
    assert "2.5 % | 0.5000 | 0.5000 | 0.0000" in text
    assert "not in the source text" in text
    assert "phantoms" not in text
    assert "Runs that neither table plans, in organs.csv only: ward_7 2.5 % identity_only." in table.notes
    assert r"ward\_7" in (tmp_path / "tables" / "table1.tex").read_text()


@pytest.fixture
def ablation(out: Path) -> Path:
    """The variant ``id`` of BTCV 15 % on both folds, ``id-label`` on one, made with their own settings."""
    id_only = {**CONFIG, "loss": {"identity": 1.0, "alpha": 0.0, "beta": 0.0}}
    write_run(
        out, "btcv", 15, "id", 0,
        {"0001": {1: 0.8, 6: 0.6, 11: None}, "0002": {1: 0.5, 6: None, 11: 0.0}, "0003": NONE}, config=id_only,
    )  # fmt: skip
    write_run(out, "btcv", 15, "id", 1, {"0004": {1: 0.4, 6: 0.4, 11: 0.4}}, config=id_only)
    write_run(
        out, "btcv", 15, "id-label", 1, {"0004": {1: 0.5, 6: 0.5, 11: 0.5}},
        config={**CONFIG, "loss": {"identity": 1.0, "alpha": 0.01, "beta": 0.0}},
    )  # fmt: skip
    return out


def test_table2_has_the_papers_shape(ablation: Path) -> None:
    table = results.table2(ablation)
    text = (ablation / "tables" / "table2.md").read_text()
    lines = [cells(line) for line in text.split("**HD95, mm.**")[0].splitlines() if line.startswith("|")]
    assert lines[0] == ["", "Id", "Label", "Recon", "BTCV 15 %: Dice", "Diff.", "paper"]
    unknown = "not in the source text"
    assert [line for line in lines[2:] if line[0] != "over pairs"] == [
        ["from scratch", "", "", "", "0.4375 ± 0.0530", "", unknown],
        ["id", "✓", "", "", "0.4375 ± 0.0530", "0.0000 ± 0.0000", unknown],
        ["id-label", "✓", "✓", "", "0.5000", "+0.1000", unknown],
        ["MixCL", "✓", "✓", "✓", "0.5500 ± 0.0707", "+0.1125 ± 0.0177", unknown],
    ]
    pairs = [line for line in lines if line[0] == "over pairs"]
    assert [line[4] for line in pairs] == [
        "n = 2, one pre-training", "n = 1, one fold, one pre-training", "n = 2, one pre-training",
    ]  # fmt: skip
    assert [line[5] for line in pairs[:2]] == ["[0.0000, 0.0000]", "-"]
    assert "Missing: BTCV 15 % id-label, 1 of 2 runs (fold 0 seed 0)." in table.notes
    assert not any("Spleen" in note for note in table.notes)
    tex = (ablation / "tables" / "table2.tex").read_text()
    assert r"id-label & $\surd$ & $\surd$ &  & 0.5000 & $+$0.1000 & not in the source text \\" in tex
    csv = pd.read_csv(ablation / "tables" / "table2.csv")
    assert csv["arm"].value_counts().to_dict() == {"scratch": 2, "id": 2, "mixcl": 2, "id-label": 1}


def test_variants_are_not_in_table_1(ablation: Path) -> None:
    table = results.table1(ablation)
    assert set(table.folds["arm"]) == {"scratch", "mixcl"}
    assert set(pd.read_csv(ablation / "tables" / "table1.csv")["arm"]) == {"scratch", "mixcl"}
    assert not any(" id" in note for note in table.notes)


def test_statistics_csv_has_all_cells_of_both_tables(ablation: Path) -> None:
    results.comparisons(ablation)
    table = pd.read_csv(ablation / "tables" / "statistics.csv")
    assert table.columns.tolist() == [
        "task", "percent", "arm", "metric", "n", "difference", "low", "high", "p", "detectable", "folds", "seeds",
    ]  # fmt: skip
    table = table.set_index(["task", "percent", "arm", "metric"])
    assert len(table) == 3 * (2 + 3)  # Spleen 5 and 15 % mixcl; BTCV 15 % id, id-label and mixcl
    row = table.loc[("btcv", 15, "mixcl", "dice")]
    assert (row["n"], row["folds"], row["seeds"], row["difference"]) == (2, 2, 1, pytest.approx(0.1125))
    assert table["p"].isna().all()  # two pairs
    assert table.loc[("msd_spleen", 15, "mixcl", "dice"), "n"] == 0
    # HD95 is 10 (1 - Dice) where an organ was found: 0001 -1, 0002 spleen alone -1, 0004 (+1 - 2 - 2) / 3 = -1
    row = table.loc[("btcv", 15, "mixcl", "hd95_mm")]
    assert (row["n"], row["difference"], row["low"], row["high"]) == (2, -1.0, -1.0, -1.0)


def test_a_variant_may_differ_in_what_makes_it_and_in_nothing_else(ablation: Path) -> None:
    more = {"0001": {1: 0.5, 6: 0.5, 11: None}}
    decides = {"finetune": {"steps": 500}, "pretrain": {"lr": 0.1}, "init": "c" * 64}
    run = write_run(ablation, "btcv", 15, "id-label", 0, more, decides=decides)
    card = json.loads((ablation / "runs" / finetune_job("btcv", 15, "id-label", 1, 0) / "run.json").read_text())
    other = ablation / "runs" / finetune_job("btcv", 15, "id-label", 1, 0) / "run.json"
    other.write_text(json.dumps({**card, "decides": decides}))
    assert not [note for note in results.table2(ablation).notes if "Take care" in note]
    card = json.loads((run / "run.json").read_text())
    for changed, key in (({"init": "d" * 64}, "init"), ({"pretrain": {"lr": 0.2}}, "pretrain.lr")):
        (run / "run.json").write_text(json.dumps({**card, "decides": {**decides, **changed}}))
        assert f"they differ in {key}." in " ".join(results.table2(ablation).notes)  # within one arm
    (run / "run.json").write_text(json.dumps({**card, "decides": {**decides, "finetune": {"steps": 9}}}))
    assert "they differ in finetune.steps." in " ".join(results.table2(ablation).notes)


def test_check_marks_that_do_not_agree_are_told(ablation: Path) -> None:
    more = {"0001": {1: 0.5, 6: 0.5, 11: None}}
    write_run(ablation, "btcv", 15, "id-label", 0, more)  # with all three terms
    assert results.table2(ablation).marks["id-label"] == ("differs",) * 3


def test_an_ablation_without_runs_or_without_plan(tmp_path: Path) -> None:
    for number, (plan, note) in enumerate((({"btcv": 15}, "Missing: BTCV 15 % id, 2 of 2"), ({}, "plans no ablation"))):
        out = tmp_path / str(number)
        config = {**CONFIG, "grid": {**GRID, "ablation": plan}}
        write_run(out, "msd_spleen", 15, "scratch", 0, {"7": {1: 0.5}}, config=config)
        table = results.table2(out)
        assert any(note in one for one in table.notes)
        assert table.folds.empty
        assert "None of its runs is there yet." in (out / "tables" / "table2.md").read_text()
        assert len(pd.read_csv(out / "tables" / "table2.csv")) == 0


def test_settings_of_another_version_are_told(out: Path) -> None:
    run = out / "runs" / finetune_job("btcv", 15, "scratch", 1, 0)
    card = json.loads((run / "run.json").read_text())
    card["config"]["grid"]["folds"] = [9]
    (run / "run.json").write_text(json.dumps(card))
    with pytest.raises(InputError, match=r"run\.json: grid: .*folds are numbered"):
        results.table1(out)


def test_organs(out: Path) -> None:
    table = results.organs(out).set_index(["task", "percent", "arm", "organ"])
    pancreas = table.loc[("btcv", 15.0, "scratch", "pancreas")]
    assert (pancreas["n"], pancreas["missed"], pancreas["invented"]) == (2, 1, 0)
    assert pancreas["dice"] == pytest.approx((0.0 + 0.4) / 2)
    assert pancreas["worst_fold"] == 0.0  # 0002 is of the first fold, 0004 of the second
    assert pancreas["hd95_mm"] == pytest.approx(6.0)  # of the one that was found
    assert table.loc[("btcv", 15.0, "mixcl", "liver"), "dice"] == pytest.approx(0.65)
    csv = pd.read_csv(out / "tables" / "organs.csv")
    assert set(csv.columns) == {
        "task", "percent", "arm", "label", "organ", "dice", "hd95_mm", "surface_dice",
        "n", "missed", "invented", "worst_fold", "difference",
    }  # fmt: skip
    # pancreas: case 0002 0.2 - 0.0, case 0004 0.6 - 0.4; liver: 0001 0.1, 0004 0.2
    assert table.loc[("btcv", 15.0, "mixcl", "pancreas"), "difference"] == pytest.approx(0.2)
    assert table.loc[("btcv", 15.0, "mixcl", "liver"), "difference"] == pytest.approx(0.15)
    assert np.isnan(pancreas["difference"])
    text = (out / "tables" / "organs.md").read_text()
    assert "**Organs.** BTCV, 15 % of the labels, from scratch and MixCL." in text
    fresh, ours = "0.2000 | 6.0 | 0.2000 | 0.0000 | 1 | 0", "0.4000 | 6.0 | 0.4000 | 0.2000 | 0 | 0"
    assert f"| pancreas | 2 | {fresh} | 2 | {ours} | +0.2000 |" in text
    assert "| spleen | 2 | 0.5000 |" in text.split("**Organs.** BTCV")[0]  # from scratch alone
    tex = (out / "tables" / "organs.tex").read_text()
    assert tex.count(r"\begin{table}") == 2
    assert r"\begin{tabular}{l|lllllll|lllllll|l}" in tex
    assert "pancreas & 2 & 0.2000 & 6.0 & 0.2000 & 0.0000 & 1 & 0 & 2 & 0.4000 &" in tex
    assert "phantoms, not patients" in text


def test_an_organ_found_where_there_is_none(tmp_path: Path) -> None:
    run = write_run(tmp_path, "btcv", 15, "scratch", 0, {"1": {1: 0.5, 6: None, 11: None}})
    table = pd.read_csv(run / "cases.csv")
    table.loc[table["label"] == 6, "voxels_predicted"] = 7
    table.to_csv(run / "cases.csv", index=False)
    organs = results.organs(tmp_path).set_index("organ")
    assert organs.loc["liver", ["n", "missed", "invented"]].tolist() == [0, 0, 1]
    assert np.isnan(organs.loc["liver", "dice"])
    assert "| liver | 0 | - | - | - | - | 0 | 1 | - |" in (tmp_path / "tables" / "organs.md").read_text()


def edit_cases(run: Path, label: int, **values: object) -> None:
    table = pd.read_csv(run / "cases.csv")
    for name, value in values.items():
        table.loc[table["label"] == label, name] = value
    table.to_csv(run / "cases.csv", index=False)


def test_an_organ_that_preparation_lost_was_missed(tmp_path: Path) -> None:
    """Although something was predicted: it counts with Dice 0, and not as invented."""
    run = write_run(tmp_path, "btcv", 15, "scratch", 0, {"1": {1: 0.5, 6: 0.0, 11: None}})
    edit_cases(run, 6, voxels_label=0, voxels_predicted=6807)
    organs = results.organs(tmp_path).set_index("organ")
    assert organs.loc["liver", ["n", "missed", "invented", "dice"]].tolist() == [1, 1, 0, 0.0]
    folds = results.table1(tmp_path).folds
    assert (folds["dice"].item(), folds["missed"].item()) == (0.25, 1)


def test_every_caption_says_on_which_grid_and_what_pretraining_has_seen(tmp_path: Path) -> None:
    runs = [write_run(tmp_path, "btcv", 15, arm, 0, {"1": {1: 0.5}, "2": {1: 0.4}}) for arm in ("scratch", "mixcl")]
    for run in runs:
        card = json.loads((run / "run.json").read_text())
        (run / "run.json").write_text(json.dumps({**card, "labels": {"1": "spleen"}}))

    def texts() -> list[str]:
        results.table1(tmp_path), results.table2(tmp_path), results.organs(tmp_path)
        names = ("table1.md", "table1.tex", "table2.md", "organs.md", "organs.tex")
        return [(tmp_path / "tables" / name).read_text() for name in names]

    for text in texts():
        assert "measured on the grid they were prepared on (R32)." in text
        assert "Take care" not in text
    edit_cases(runs[1], 1, grid="original")
    for text in texts():
        assert (
            "prepared on and on the grids of the original scans, with their own labels (R32). Take care: runs on"
            in text
        )
    edit_cases(runs[0], 1, grid="original")
    table = pd.read_csv(runs[1] / "cases.csv")
    table.loc[0, "pretrained_on"] = 1
    table.to_csv(runs[1] / "cases.csv", index=False)
    for text in texts():
        assert "measured on the grids of the original scans, with their own labels (R32)." in text
        assert "Take care: pre-training has seen 1 of the 2 test cases of BTCV, so" in text


def test_files_that_cannot_be_used(out: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no evaluated run"):
        results.table1(tmp_path / "nothing")
    run = out / "runs" / finetune_job("btcv", 15, "scratch", 1, 0)
    whole = (run / "cases.csv").read_text()
    for broken, message in (
        ("\n".join(whole.splitlines()[:-1]) + "\n", r"2 rows where the run has 3; run mixcl evaluate"),
        (whole.replace("dice", "score"), "cannot be read"),
        (whole.replace("0.4", "good"), "cannot be read"),
        ("", "cannot be read"),
        (whole.replace("scratch", "mixcl"), "of another job"),
    ):
        (run / "cases.csv").write_text(broken)
        with pytest.raises(InputError, match=message):
            results.table1(out)
    (run / "cases.csv").write_text(whole)
    (run / "run.json").write_text("{")
    with pytest.raises(InputError, match=r"run\.json: missing or damaged"):
        results.table1(out)
    (run / "run.json").unlink()
    (run / "cases.csv").unlink()  # a run that is not evaluated yet is not read
    copy = out / "runs" / "copy"
    (out / "runs" / finetune_job("btcv", 15, "scratch", 0, 0)).rename(copy)
    results.table1(out)
    write_run(out, "btcv", 15, "scratch", 0, {"1": {1: 0.5, 6: None, 11: None}})
    with pytest.raises(InputError, match="is the same job as"):
        results.table1(out)


def test_runs_of_other_plans_do_not_count(out: Path) -> None:
    """Seeds and arms of an earlier plan lie there still; with no plan all count."""
    write_run(out, "msd_spleen", 15, "mixcl", 0, {"7": {1: 0.1}, "8": {1: 0.1}}, seed=1)
    write_run(out, "btcv", 15, "gone", 0, {"0001": {1: 0.1, 6: 0.1, 11: None}})
    plan = load_profile(
        "smoke", ["grid.percents={msd_spleen: [15], btcv: [15]}", "grid.ablation={}", "grid.folds=[0, 1]"]
    )
    assert {(card["seed"], card["arm"]) for card in read_runs(out, plan).cards.values()} == {
        (0, "mixcl"),
        (0, "scratch"),
    }
    assert set(results.table1(out, plan).folds["seed"]) == {0}
    assert set(results.organs(out, plan)["arm"]) == {"mixcl", "scratch"}
    assert {card["arm"] for card in read_runs(out).cards.values()} == {"mixcl", "scratch", "gone"}


def test_table_1_is_the_same_before_and_after_the_ablation(out: Path) -> None:
    """It is made when its own runs are there, and the ablation may have another share."""
    settings = ["grid.percents={msd_spleen: [5, 15], btcv: [15]}", "grid.ablation={btcv: 50}", "grid.folds=[0, 1]"]
    plan = load_profile("smoke", [*settings, "grid.variants={}"])
    results.table1(out, plan)
    before = {path.name: path.read_bytes() for path in (out / "tables").glob("table1.*")}
    for fold in (0, 1):
        for arm in ("scratch", "mixcl"):
            write_run(out, "btcv", 50, arm, fold, {f"{fold}": {1: 0.5 + 0.1 * (arm == "mixcl"), 6: 0.6, 11: None}})
    assert list(results.table2(out, plan).folds["task"]).count("btcv") == 4
    results.table1(out, plan)
    assert {path.name: path.read_bytes() for path in (out / "tables").glob("table1.*")} == before


def test_a_run_that_a_kill_left_half_removed_counts_no_more(out: Path) -> None:
    before = read_runs(out)
    job = next(iter(before.cards))
    (out / "runs" / job).rename(out / "runs" / f".removed-7-{job}")
    assert set(read_runs(out).cards) == before.cards.keys() - {job}
    assert job not in json.dumps(runcard.contents(load_profile("smoke"), out))


def test_run_card(out: Path) -> None:
    results.table1(out)
    (out / "runs" / "pretrain").mkdir()
    (out / "runs" / "pretrain" / "run.json").write_text(json.dumps({"job": "pretrain", "commit": "abc"}))
    evaluation = out / "runs" / finetune_job("btcv", 15, "scratch", 1, 0) / "evaluation"
    evaluation.mkdir()
    for name in ("a", "b"):
        write_sealed(evaluation / f"{name}.json", {"seconds": 1.25})
    first = json.loads((out / "runs" / finetune_job("btcv", 15, "scratch", 0, 0) / "run.json").read_text())
    same = {"weights": first["weights"], "same_as": "finetune-btcv-p015-scratch-f0-s0"}
    write_run(out, "btcv", 5, "scratch", 0, {"0001": {1: 0.8, 6: 0.6, 11: None}}, **same)
    write_run(out, "btcv", 30, "scratch", 0, {"0001": {1: 0.8, 6: 0.6, 11: None}})  # of no job of these settings
    shares = "grid.percents={msd_spleen: [5, 15], btcv: [5, 15]}"
    config = load_profile("smoke", [shares, "grid.ablation={}", "grid.folds=[0, 1]", "finetune.lr=1e-3"])
    card = runcard.run_card(config, out)
    assert json.loads((out / "RUN.json").read_text()) == card
    for name, digest in card["outputs"].items():
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == digest
    assert "tables/table1.csv" in card["outputs"]
    assert "runs/finetune-btcv-p015-scratch-f1-s0/cases.csv" in card["outputs"]
    jobs = {job["job"]: job for job in card["jobs"]}
    assert len(jobs) == 7
    assert jobs["finetune-btcv-p015-scratch-f1-s0"]["seconds"] == 12.5
    assert jobs["finetune-btcv-p015-scratch-f1-s0"]["seconds_evaluation"] == 2.5
    assert not jobs["pretrain"]["finished"]
    assert card["config"] == config.model_dump(mode="json")
    assert card["data"]["btcv"]["fingerprint"] == "not prepared here"
    text = (out / "RUN.md").read_text()
    assert card["outputs"]["tables/table1.csv"] in text
    assert "phantoms, not patients" in text
    assert "trainings: 5 distinct ones in 7 jobs" in text
    assert "| finetune-btcv-p005-scratch-f0-s0 | as finetune-btcv-p015-scratch-f0-s0 |" in text
    assert f"torch {card['versions']['torch']}" in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.count("|") >= 3 for line in tables)
    (evaluation / "a.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        runcard.run_card(config, out)


@pytest.mark.parametrize(("method", "mark"), [("mixcl", "✓"), ("barlow", "")])
def test_another_pretraining_has_none_of_the_terms(method: str, mark: str) -> None:
    """Whatever weights of the terms its settings carry along."""
    config = {"loss": {"identity": 1.0, "alpha": 1.0, "beta": 1.0}, "pretrain": {"method": method}}
    cards = {"job": {"arm": "mine", "decides": {"init": "weights"}, "config": config}}
    assert write._marks(Runs(pd.DataFrame(), cards)) == {"mine": (mark,) * 3}
