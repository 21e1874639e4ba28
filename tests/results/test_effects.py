"""Effects: pairing, adjustment and power against plain computations; which arms are compared; the verdicts."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.runs import CONFIG, LABELS, write_run
from matplotlib.axes import Axes
from scipy import stats

from mixcl.config import load_profile
from mixcl.errors import InputError
from mixcl.figures import tables
from mixcl.results import effects, inference, statistics
from mixcl.results.runs import read_runs
from mixcl.run.jobs import finetune_job

ARMS = [  # settings of an experiment with the arms and the comparisons of these tests
    "grid.variants={}",
    "grid.variants={id: [loss.alpha=0, loss.beta=0], id-label: [loss.beta=0], id-recon: [loss.alpha=0], "
    "label: [loss.identity=0, loss.beta=0], barlow: [pretrain.method=barlow], long: [pretrain.steps=2500], "
    "random-frozen: [pretrain.method=none, finetune.freeze=true], frozen: [finetune.freeze=true], "
    "id-frozen: [loss.alpha=0, loss.beta=0, finetune.freeze=true], "
    "id-label-frozen: [loss.beta=0, finetune.freeze=true], "
    "centred-frozen: [loss.center=true, finetune.freeze=true]}",
    "grid.compare=[[id, id-label], [id-label, mixcl], [id-recon, mixcl], [scratch, frozen], "
    "[id-frozen, id-label-frozen]]",
]
FAIR = load_profile("fair", ARMS)


@pytest.fixture(autouse=True)
def unplanned(monkeypatch: pytest.MonkeyPatch) -> None:
    """The runs of these tests have arms and shares that no one plan has."""
    monkeypatch.setattr(effects, "read_runs", lambda out, plan: read_runs(out))


GAINS = [0.050, 0.055, 0.050, 0.045, 0.055, 0.055, 0.060, 0.060]  # 4 folds x 2 seeds


def fill(out: Path, percent: float, arm: str, gains: list[float]) -> None:
    for number, gain in enumerate(gains):
        fold, seed = divmod(number, 2)
        case = {f"{fold}": {1: 0.4 + 0.01 * number + gain}}
        write_run(out, "msd_spleen", percent, arm, fold, case, seed=seed)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    for percent in (5, 15):
        fill(tmp_path, percent, "scratch", [0.0] * 8)
    fill(tmp_path, 5, "mixcl", GAINS)
    fill(tmp_path, 15, "mixcl", [gain / 2 for gain in GAINS])
    fill(tmp_path, 5, "id", [-gain for gain in GAINS[:6]])
    return tmp_path


def test_pairs_are_of_one_fold_and_seed(out: Path) -> None:
    rows = {(row.percent, row.arm): row for row in effects.as_rows(effects.effects(FAIR, out))}
    assert set(rows) == {(5, "mixcl"), (15, "mixcl"), (5, "id")}
    ours = rows[5, "mixcl"]
    assert (ours.n, rows[5, "id"].n) == (8, 6)
    assert ours.difference == pytest.approx(np.mean(GAINS))
    assert ours.mean - ours.reference == pytest.approx(ours.difference)
    assert rows[5, "id"].reference == pytest.approx(np.mean([0.4 + 0.01 * k for k in range(6)]))  # its own pairs alone
    expected = inference.estimate(GAINS, *np.divmod(np.arange(8), 2))
    assert (ours.low, ours.high, ours.p, ours.detectable) == pytest.approx((*expected[2:6],), rel=1e-4)
    assert (ours.folds, ours.n_seeds) == (4, 2)
    assert (ours.better, rows[5, "id"].better) == (1.0, 0.0)
    assert ours.seeds == f"{100 * np.mean(GAINS[::2]):+.1f} {100 * np.mean(GAINS[1::2]):+.1f}"


def test_one_seed_says_what_its_interval_does_not_contain(tmp_path: Path) -> None:
    for fold, gain in enumerate(GAINS[:4]):
        write_run(tmp_path, "msd_spleen", 5, "scratch", fold, {f"{fold}": {1: 0.4}})
        write_run(tmp_path, "msd_spleen", 5, "mixcl", fold, {f"{fold}": {1: 0.4 + gain}})
    (row,) = effects.as_rows(effects.effects(FAIR, tmp_path))
    low, high = stats.ttest_1samp(GAINS[:4], 0).confidence_interval()
    assert (row.low, row.high) == pytest.approx((low, high), abs=1e-8)
    text = (tmp_path / "tables" / "effects.md").read_text()
    assert "| 4, one pre-training |" in text
    assert "the interval does not contain how another one would have turned out" in text


def test_arms_that_are_the_same_trainings_are_told(out: Path) -> None:
    """A variant that changes nothing: its runs have the weights of those from scratch."""
    for number in range(8):
        fold, seed = divmod(number, 2)
        scratch = out / "runs" / finetune_job("msd_spleen", 5, "scratch", fold, seed) / "run.json"
        weights = json.loads(scratch.read_text())["weights"]
        dice = {f"{fold}": {1: 0.4 + 0.01 * number}}
        write_run(out, "msd_spleen", 5, "twin", fold, dice, seed=seed, weights=weights)
    rows = {row.arm: row for row in effects.as_rows(effects.effects(FAIR, out)) if row.against == "scratch"}
    assert (rows["twin"].n, rows["twin"].verdict, rows["twin"].difference) == (0, "the same trainings", 0.0)
    assert rows["mixcl"].n == 8
    text = (out / "tables" / "effects.md").read_text()
    assert "| the same trainings |" in text
    assert "nan" not in text
    assert "38 distinct trainings in 46 runs," in text
    tables.effects_plot(list(rows.values()))


def test_holm_is_the_step_down_rule() -> None:
    values = [0.01, math.nan, 0.5, 0.013, 0.02, 0.9]
    adjusted = statistics.holm(values)
    assert math.isnan(adjusted[1])
    given = [p for p in values if not math.isnan(p)]
    for p, a in zip(values, adjusted, strict=True):
        if not math.isnan(p):  # the least level at which step-down rejection reaches p, by search
            levels = np.linspace(0, 1, 20001)
            rejected = [level for level in levels if p in _rejected(given, level)]
            assert a == pytest.approx(min(rejected, default=1.0), abs=1e-4)


def _rejected(values: list[float], level: float) -> set[float]:
    found = set()
    for rank, p in enumerate(sorted(values)):
        if p > level / (len(values) - rank):
            break
        found.add(p)
    return found


def test_a_verdict_is_that_of_the_adjusted_p(out: Path) -> None:
    table = effects.effects(FAIR, out)
    assert (table["p_holm"] < 0.05).tolist() == [True] * 3
    verdicts = dict(zip(zip(table["percent"], table["arm"], strict=True), table["verdict"], strict=True))
    assert verdicts == {(5, "mixcl"): "better", (15, "mixcl"): "better", (5, "id"): "worse"}
    fill(out, 15, "id", [0.05, -0.05] * 4)
    table = effects.effects(FAIR, out).set_index(["percent", "arm"])["verdict"]
    assert table[(15, "id")] == "not told apart"
    assert pd.read_csv(out / "tables" / "effects.csv")["verdict"].tolist() == table.tolist()
    assert "| not told apart |" in (out / "tables" / "effects.md").read_text()


def test_an_interval_can_be_made_again_from_the_trainings_alone(out: Path) -> None:
    row = effects.effects(FAIR, out).set_index(["percent", "arm", "against"]).loc[(5, "mixcl", "scratch")]
    trainings = pd.read_csv(out / "tables" / "effects_trainings.csv").query("percent == 5")
    dice = trainings.pivot_table(index=["fold", "seed"], columns="arm", values="dice")
    folds, seeds = (dice.index.get_level_values(name) for name in ("fold", "seed"))
    again = inference.estimate(dice["mixcl"] - dice["scratch"], folds, seeds)
    assert (again.n, again.mean, again.low, again.p) == pytest.approx(
        (row["n"], row["difference"], row["low"], row["p"]), abs=1e-6
    )


def test_one_pair_has_no_interval_and_no_power(tmp_path: Path) -> None:
    arms = {"scratch": 0.4, "mixcl": 0.42, "id-recon": 0.41, "barlow": 0.43, "long": 0.44}
    for arm, dice in arms.items():
        write_run(tmp_path, "msd_spleen", 5, arm, 0, {"0": {1: dice}})
    table = effects.effects(FAIR, tmp_path)
    assert table[["low", "high", "detectable"]].isna().all(axis=None)
    assert set(table["verdict"]) == {"too few pairs"}
    effects.organs(FAIR, tmp_path)
    written = [(tmp_path / "tables" / name).read_text() for name in ("effects.md", "effects_organs.md")]
    assert not any("nan" in text for text in written)


def test_the_fit_is_the_difference_of_the_last_training_losses(out: Path) -> None:
    assert effects.effects(FAIR, out)["fit"].isna().all()  # no records
    for card in (out / "runs").glob("*/run.json"):
        run = json.loads(card.read_text())
        last = 0.5 + 0.1 * run["seed"] + (0.25 if run["arm"] == "id" else 0.0)
        records = [{"step": step, "total": total} for step, total in enumerate((9.0, last - 0.3, last, last + 0.3))]
        (card.parent / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    table = effects.effects(FAIR, out).set_index(["percent", "arm"])["fit"]
    assert table[(5, "id")] == pytest.approx(0.25)  # six pairs, each with its own seed's loss
    assert table[(5, "mixcl")] == pytest.approx(0)
    assert "| +0.250 |" in (out / "tables" / "effects.md").read_text()


def test_pairs_of_the_profile_are_compared_beside_the_defaults(out: Path) -> None:
    fill(out, 5, "id-label", [0.01] * 8)
    fill(out, 5, "id-recon", [gain - 0.02 for gain in GAINS])
    rows = {(row.against, row.arm): row for row in effects.as_rows(effects.effects(FAIR, out)) if row.percent == 5}
    scratch = {("scratch", arm) for arm in ("mixcl", "id", "id-label", "id-recon")}
    assert set(rows) == scratch | {("id", "id-label"), ("id-label", "mixcl"), ("id-recon", "mixcl")}
    assert rows["id", "id-label"].difference == pytest.approx(np.mean([0.01 + gain for gain in GAINS[:6]]))
    assert rows["id-label", "mixcl"].difference == pytest.approx(np.mean(GAINS) - 0.01)
    assert rows["id-recon", "mixcl"].n == 8
    assert rows["id-recon", "mixcl"].difference == pytest.approx(0.02)


def test_without_pairs_all_arms_are_compared_with_scratch_and_with_mixcl(out: Path) -> None:
    table = effects.effects(load_profile("phantom"), out)
    assert list(zip(table["against"], table["arm"], table["percent"], strict=True)) == [
        ("scratch", "mixcl", 5), ("scratch", "id", 5), ("mixcl", "id", 5), ("scratch", "mixcl", 15),
    ]  # fmt: skip


def test_a_made_up_arm_needs_its_line_in_the_profile_alone(out: Path) -> None:
    profile = out / "own.yaml"
    profile.write_text(
        "extends: fair\ngrid:\n  variants: {mine: [loss.lam=1], mine-frozen: [finetune.freeze=true, loss.lam=1], "
        "frozen: [finetune.freeze=true], random-frozen: [pretrain.method=none, finetune.freeze=true]}"
    )
    frozen = {"config": {**CONFIG, "finetune": {"freeze": True}}}
    fill(out, 5, "mine", [gain + 0.01 for gain in GAINS])
    for arm, dice in {"random-frozen": 0.2, "frozen": 0.3, "mine-frozen": 0.4}.items():
        write_run(out, "msd_spleen", 5, arm, 0, {"0": {1: dice}}, **frozen)
    table = effects.effects(load_profile(profile), out)
    mine = {(row.arm, row.against): row.difference for row in effects.as_rows(table) if row.arm.startswith("mine")}
    assert set(mine) == {
        ("mine", "scratch"),
        ("mine", "mixcl"),
        ("mine-frozen", "random-frozen"),
        ("mine-frozen", "frozen"),
    }
    assert mine["mine", "mixcl"] == pytest.approx(0.01)
    assert mine["mine-frozen", "frozen"] == pytest.approx(0.1)


def test_an_arm_is_not_compared_with_itself() -> None:
    with pytest.raises(InputError, match="id with itself"):
        load_profile("fair", ["grid.compare=[[id, id]]"])
    with pytest.raises(InputError, match="compare: idd is no arm; there are scratch, mixcl, id,"):
        load_profile("fair", ["grid.compare=[[idd, id]]"])


def test_frozen_encoders_are_compared_with_random_ones_too(out: Path) -> None:
    frozen = {"config": {**CONFIG, "finetune": {"freeze": True}}}
    for number, gain in enumerate(GAINS):
        fold, seed = divmod(number, 2)
        arms = {"random-frozen": 0.2, "frozen": 0.2 + gain, "id-frozen": 0.2 - gain, "centred-frozen": 0.23 + gain}
        for arm, dice in arms.items():
            write_run(out, "msd_spleen", 5, arm, fold, {f"{fold}": {1: dice}}, seed=seed, **frozen)
    table = effects.effects(FAIR, out)
    rows = {(row.percent, row.arm, row.against): row for row in effects.as_rows(table)}
    assert rows[5, "frozen", "random-frozen"].difference == pytest.approx(np.mean(GAINS))
    assert rows[5, "id-frozen", "random-frozen"].difference == pytest.approx(-np.mean(GAINS))
    against_scratch = 0.2 + np.mean(GAINS) - np.mean([0.4 + 0.01 * k for k in range(8)])
    assert rows[5, "frozen", "scratch"].difference == pytest.approx(against_scratch)
    assert rows[5, "centred-frozen", "frozen"].difference == pytest.approx(0.03)  # a reading, against MixCL
    assert {key[2] for key in rows if key[1] == "id-frozen"} == {"random-frozen"}
    assert {key[2] for key in rows if key[1] == "centred-frozen"} == {"random-frozen", "frozen"}
    assert [key for key in rows if key[1] == "mixcl"] == [(5, "mixcl", "scratch"), (15, "mixcl", "scratch")]
    assert ("random-frozen", "random-frozen") not in {key[1:] for key in rows}
    assert table["percent"].tolist() == sorted(table["percent"])
    assert table["p_holm"].tolist() == statistics.holm(list(table["p"]))  # adjusted for both kinds of rows
    panels = {ax.get_title(): _ticks(ax) for ax in tables.effects_plot(effects.as_rows(table)).axes}
    assert panels == {
        "Spleen: against training from scratch": ["MixCL, 5 %", "id, 5 %", "frozen, 5 %", "MixCL, 15 %"],
        "Spleen: against random-frozen": ["centred-frozen, 5 %", "frozen, 5 %", "id-frozen, 5 %"],
        "Spleen: one change alone": ["centred-frozen vs frozen, 5 %"],
    }


def test_other_arms_are_compared_with_mixcl(out: Path) -> None:
    fill(out, 5, "long", [gain + 0.01 for gain in GAINS])
    fill(out, 5, "barlow", [gain / 2 for gain in GAINS])
    rows = {row.arm: row for row in effects.as_rows(effects.effects(FAIR, out)) if row.against == "mixcl"}
    assert set(rows) == {"long", "barlow"}  # id stands in the ablation
    assert rows["barlow"].difference == pytest.approx(-np.mean(GAINS) / 2)


def test_one_change_alone_is_drawn_with_both_names(out: Path) -> None:
    fill(out, 5, "id-label", GAINS)
    axes = tables.effects_plot(effects.as_rows(effects.effects(FAIR, out))).axes
    panels = {ax.get_title(): _ticks(ax) for ax in axes}
    assert panels["Spleen: one change alone"] == ["id-label vs id, 5 %", "MixCL vs id-label, 5 %"]
    assert tables.effects_plot([]).axes


def test_what_the_label_term_adds_to_labelled_organs_and_to_others(tmp_path: Path) -> None:
    taught, others = [0.01, 0.05, -0.02], [0.03, -0.01, 0.02]
    for fold in range(3):
        base = {"1": {1: 0.5, 6: 0.4, 11: 0.3}, "2": {1: 0.2, 6: None, 11: 0.1}}
        write_run(tmp_path, "btcv", 15, "id-recon", fold, base)
        ours = {
            "1": {1: 0.5 + others[fold], 6: 0.4 + taught[fold], 11: 0.3 + 2 * taught[fold]},
            "2": {1: 0.2 + others[fold], 6: None, 11: 0.1 + taught[fold]},
        }
        write_run(tmp_path, "btcv", 15, "mixcl", fold, ours)
        write_run(tmp_path, "btcv", 15, "label", fold, base)
    table = effects.organs(FAIR, tmp_path).set_index("organs")
    assert list(table["arm"]) == ["mixcl", "mixcl"]
    assert list(table["against"]) == ["id-recon", "id-recon"]
    by_case = [np.mean([np.mean([gain, 2 * gain]), gain]) for gain in taught]  # the second case has no liver
    assert table.loc["labelled", "difference"] == pytest.approx(np.mean(by_case))
    assert table.loc["others", "difference"] == pytest.approx(np.mean(others))
    assert list(table["n"]) == [3, 3]
    assert table.loc["labelled", "low"] < np.mean(by_case) < table.loc["labelled", "high"]
    text = (tmp_path / "tables" / "effects_organs.md").read_text()
    assert f"| BTCV | 15 | MixCL | id-recon | labelled | 3, one pre-training | {np.mean(by_case):+.4f} |" in text
    assert "phantoms, not patients" in text
    assert len(pd.read_csv(tmp_path / "tables" / "effects_organs.csv")) == 2


def test_an_organ_is_taught_under_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The liver of a collection does not teach its cyst; its kidney teaches the left and the right one."""
    monkeypatch.setitem(LABELS, "btcv", {2: "right kidney", 6: "liver", 11: "liver cyst"})
    for fold in range(2):
        for arm, gain in (("id-recon", 0.0), ("mixcl", 0.1)):
            write_run(tmp_path, "btcv", 15, arm, fold, {"1": {2: 0.5 + gain, 6: 0.5 + gain, 11: 0.5 - gain}})
    table = effects.organs(FAIR, tmp_path).set_index("organs")
    assert table["difference"].to_dict() == pytest.approx({"labelled": 0.1, "others": -0.1})


def test_no_two_arms_that_differ_in_labels_give_an_empty_table(out: Path) -> None:
    assert effects.organs(FAIR, out).empty
    assert "Label term, by organ" in (out / "tables" / "effects_organs.md").read_text()


def _ticks(ax: Axes) -> list[str]:
    return [tick.get_text() for tick in ax.get_yticklabels()]


def test_tables_and_plot_are_written(out: Path) -> None:
    table = effects.effects(FAIR, out)
    written = pd.read_csv(out / "tables" / "effects.csv")
    assert written["percent"].tolist() == [5, 5, 15]
    text = (out / "tables" / "effects.md").read_text()
    assert "phantoms, not patients" in text
    assert text.count("\n| ") == 2 + len(table)
    assert r"\begin{tabular}" in (out / "tables" / "effects.tex").read_text()
    figure = tables.effects_plot(effects.as_rows(table))
    assert _ticks(figure.axes[0]) == ["MixCL, 5 %", "id, 5 %", "MixCL, 15 %"]


def test_the_notebook_lays_out_the_verdicts(out: Path) -> None:
    fill(out, 15, "id", [0.05, -0.05] * 4)
    book = Path(__file__).resolve().parents[2] / "notebooks" / "30_what_matters.ipynb"
    cells = [cell for cell in json.loads(book.read_text())["cells"] if cell["cell_type"] == "code"]
    names = {"PROFILE": "fair", "SETTINGS": ARMS, "OUT": str(out)}
    for cell in cells[1:]:  # all but the parameters
        exec("".join(cell["source"]), names)
    (row,) = names["ours"].query("percent == 5").to_dict("records")
    assert (row["n"], row["difference"], row["seeds"], row["verdict"]) == (8, 5.4, "+5.4 +5.4", "better")
    assert row["paper"] == 5.28
    assert names["named"].empty
    verdicts = names["by_verdict"].xs("scratch", level="against")
    assert verdicts.loc[("msd_spleen", 5)].to_dict() == {
        "better": "MixCL +5.4",
        "worse": "id -5.2",
        "not told apart": "",
    }
    assert verdicts.loc[("msd_spleen", 15), "not told apart"] == "id +0.0"
    fill(out, 5, "id-label", [0.01] * 8)
    for cell in cells[1:]:
        exec("".join(cell["source"]), names)
    (row,) = names["named"].query("against == 'id' and percent == 5").to_dict("records")
    assert (row["arm"], row["difference"], row["verdict"]) == ("id-label", 6.2, "better")


def test_arms_that_learned_nothing_have_no_p(tmp_path: Path) -> None:
    """Eight pairs of a mean Dice below 0.1, all of which agree."""
    for number in range(8):
        fold, seed = divmod(number, 2)
        for arm, dice in (("scratch", 0.01), ("mixcl", 0.02 + 0.001 * number)):
            write_run(tmp_path, "msd_spleen", 5, arm, fold, {f"{fold}": {1: dice}}, seed=seed)
    (row,) = effects.as_rows(effects.effects(FAIR, tmp_path))
    assert (row.n, row.verdict) == (8, "nothing learned")
    assert math.isnan(row.p)
    assert math.isnan(row.p_holm)
    assert "| - | - | nothing learned |" in (tmp_path / "tables" / "effects.md").read_text()


def test_a_legend_speaks_of_filled_dots_only_where_there_are_some(out: Path, tmp_path: Path) -> None:
    rows = effects.as_rows(effects.effects(FAIR, out))
    assert "Filled: p < 0.05" in tables.effects_plot(rows).caption
    few = [row._replace(p=math.nan, p_holm=math.nan, verdict="too few pairs") for row in rows]
    unclear = [row._replace(p=0.2, p_holm=1.0, verdict="not told apart") for row in rows]
    for given, why in ((few, "none of the comparisons has a p"), (unclear, "none has p < 0.05")):
        caption = tables.effects_plot(given).caption
        assert "Filled:" not in caption
        assert f"No dot is filled: {why}" in caption
