"""The map of the gain: points, pairs, and what is read off the curves."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.runs import CONFIG, write_run

from mixcl.errors import InputError
from mixcl.figures.gains import gain_arms, gain_heatmap
from mixcl.results import gains
from mixcl.spreadsheet import read_csv

STEPS, RATES = (40, 80, 160), (1e-3, 4e-3)


def dice(start: str, steps: int, rate: float, fold: int, seed: int) -> float:
    """Scratch rises by 0.2 with each doubling; MixCL is half a doubling ahead at the low rate, level at the other."""
    ahead = 0.1 if start == "mixcl" and rate == RATES[0] else 0.0
    return 0.1 + 0.2 * math.log2(steps / 40) + ahead + 0.01 * fold + 0.002 * seed * (start == "mixcl")


def training(out: Path, start: str, steps: int, rate: float, fold: int, seed: int, **more: Any) -> Path:
    arm = f"{start}-{steps}-{round(1e3 * rate)}"
    config = {**CONFIG, "finetune": {"lr": rate}}
    job = {"mixcl": "pretrain", "id": "pretrain-id"}.get(start)
    source = {"job": job + (f"-s{seed}" if seed else "")} if job else {}
    value = dice(start, steps, rate, fold, seed)
    run = write_run(
        out,
        "btcv",
        15,
        arm,
        fold,
        {"a": dict.fromkeys((1, 6, 11), value)},
        seed=seed,
        steps=steps,
        config=config,
        pretraining=source,
        **more,
    )
    looks = [{"step": s, "dice": {"spleen": value * s / steps, "liver": 0.0}, "cross_entropy": 1 - value * s / steps}
             for s in range(0, steps + 1, 20)]  # fmt: skip
    lines = [json.dumps({"step": look["step"], "total": 1.0, "test": look}) for look in looks]
    (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    return run


@pytest.fixture
def out(tmp_path: Path) -> Path:
    for start in ("scratch", "mixcl"):
        for steps in STEPS:
            for rate in RATES:
                for fold in (0, 1, 2):
                    for seed in (0, 1):
                        training(tmp_path, start, steps, rate, fold, seed)
    return tmp_path


def test_every_point_is_compared_with_scratch_of_its_length_and_rate(out: Path) -> None:
    table = gains.write_map(out).map
    assert list(table["start"].unique()) == ["mixcl"]
    assert len(table) == len(STEPS) * len(RATES)
    assert set(table["n"]) == {6}
    for row in table.to_dict("records"):
        ahead = 0.1 if row["rate"] == RATES[0] else 0.0
        assert row["difference"] == pytest.approx(ahead + 0.001, abs=1e-6)
        assert row["scratch"] == pytest.approx(0.1 + 0.2 * math.log2(row["steps"] / 40) + 0.01, abs=1e-6)
        assert row["low"] < row["difference"] < row["high"]
        assert row["entropy"] == pytest.approx(-row["difference"], abs=1e-5)
    assert (out / "tables" / "map.csv").is_file()
    assert "scratch as good at step" in (out / "tables" / "map.md").read_text()


def test_how_much_sooner_is_read_off_the_curve_of_scratch(out: Path) -> None:
    table = gains.write_map(out).map.set_index(["rate", "steps"])
    # half a doubling ahead, and what a seed adds: 0.001 of the 0.2 a doubling
    assert table.loc[(RATES[0], 40), "alike"] == pytest.approx(40 * 2 ** (0.101 / 0.2), rel=1e-6)
    assert table.loc[(RATES[0], 160), "alike"] == math.inf
    assert math.isnan(gains._alike(table.loc[RATES[0], "scratch"], 0.0))


def test_a_dice_that_scratch_has_and_loses_again_counts_from_the_first_step_at_which_it_had_it() -> None:
    curve = pd.Series([0.1, 0.3, 0.2, 0.5], [40, 80, 160, 320])
    assert gains._alike(curve, 0.3) == pytest.approx(80)
    assert gains._alike(curve, 0.4) == pytest.approx(160 * 2**0.5)
    assert gains._alike(curve, 0.2) == pytest.approx(40 * 2**0.5)


def test_each_arm_at_its_own_rate(out: Path) -> None:
    best = gains.tuned(gains.trainings(out)).set_index("steps")
    assert set(best["rate"]) == {RATES[0]}
    assert set(best["n"]) == {6}
    assert best["difference"].tolist() == pytest.approx([0.101] * 3, abs=1e-6)


def test_every_training_has_a_row_from_which_the_map_follows(out: Path) -> None:
    made = gains.write_map(out)
    rows = read_csv(out / "tables" / "trainings.csv")
    assert len(rows) == 2 * len(STEPS) * len(RATES) * 6
    means = rows.groupby(["start", "steps", "rate"])["dice"].mean()
    for row in made.map.to_dict("records"):
        gain = means["mixcl", row["steps"], row["rate"]] - means["scratch", row["steps"], row["rate"]]
        assert row["difference"] == pytest.approx(gain, abs=1e-6)
    best = read_csv(out / "tables" / "tuned.csv")["dice"].tolist()
    assert best == pytest.approx(made.tuned["dice"].tolist(), abs=1e-6)


def test_the_step_at_which_an_organ_is_found(out: Path) -> None:
    table = gains.write_map(out).found.set_index(["start", "steps", "rate", "organ"])
    assert table.loc[("mixcl", 160, RATES[0], "liver"), "found"] == 0
    assert table.loc[("mixcl", 160, RATES[0], "liver"), "step"] == math.inf
    steps = [
        next((s for s in range(0, 161, 20) if dice("scratch", 160, RATES[1], fold, seed) * s / 160 >= 0.3), math.inf)
        for fold in (0, 1, 2) for seed in (0, 1)
    ]  # fmt: skip
    row = table.loc[("scratch", 160, RATES[1], "spleen")]
    assert row["found"] == np.isfinite(steps).mean()
    assert row["step"] == np.median(steps)


def test_the_same_training_is_no_pair_and_no_second_one(out: Path) -> None:
    for fold in (0, 1, 2):
        training(out, "id", 40, RATES[0], fold, 0, weights="same")
        card = out / "runs" / f"finetune-btcv-p015-scratch-40-1-f{fold}-s0" / "run.json"
        card.write_text(json.dumps({**json.loads(card.read_text()), "weights": "same"}))
    table = gains.write_map(out).map
    assert "id" not in set(table["start"])
    for start in ("scratch", "mixcl"):
        for fold in (0, 1):
            card = out / "runs" / f"finetune-btcv-p015-{start}-40-1-f{fold}-s0" / "run.json"
            card.write_text(json.dumps({**json.loads(card.read_text()), "weights": f"{start} once"}))
    assert gains.write_map(out).map.set_index(["start", "steps", "rate"])["n"]["mixcl", 40, RATES[0]] == 5


def test_what_features_were_like_is_of_the_last_look_at_each_pretraining(out: Path) -> None:
    assert gains.write_map(out).features.empty  # their records are not there
    for seed, job in enumerate(("pretrain", "pretrain-s1")):
        looks = [
            {"step": step, "rank": [2.0, step / 10], "ceiling": [4, 100], "agreement": 0.1 * seed} for step in (0, 500)
        ]
        lines = [{"step": max(look["step"], 1), "total": 1.0, "probe": look} for look in looks]
        (out / "runs" / job).mkdir()
        text = "\n".join(map(json.dumps, [*lines, {"step": 501, "total": 1.0}]))
        (out / "runs" / job / "metrics.jsonl").write_text(f"{text}\n")
    table = gains.write_map(out).features
    assert table["start"].tolist() == ["mixcl", "mixcl"]
    assert table[["seed", "steps"]].values.tolist() == [[0, 500], [1, 500]]
    assert table[["rank_0", "rank_1", "agreement"]].values.tolist() == [[0.5, 0.5, 0.0], [0.5, 0.5, 0.1]]
    assert table["probe_dice"].isna().all()  # no linear probe was made


def test_a_pretraining_that_two_jobs_share_is_one(tmp_path: Path) -> None:
    """An arm asked for by itself has a job of its own, which takes the weights of an equal one that is there."""
    for seed in (0, 1):
        training(tmp_path, "scratch", 40, RATES[0], 0, seed)
        training(tmp_path, "scratch", 80, RATES[0], 0, seed)
        for steps, job in ((40, "pretrain-id"), (80, "pretrain-id-late")):
            run = training(tmp_path, f"arm-{steps}", steps, RATES[0], 0, seed)
            card = json.loads((run / "run.json").read_text())
            card["pretraining"] = {"job": job + (f"-s{seed}" if seed else ""), "id": f"weights {seed}"}
            (run / "run.json").write_text(json.dumps(card))
    table = gains.write_map(tmp_path).map
    assert table[["start", "steps", "n_seeds"]].values.tolist() == [["id", 40, 2], ["id", 80, 2]]


def test_where_there_is_one_rate_none_is_the_best(tmp_path: Path) -> None:
    for start in ("scratch", "mixcl"):
        training(tmp_path, start, 40, RATES[0], 0, 0)
    gains.write_map(tmp_path)
    assert not (tmp_path / "tables" / "tuned.csv").exists()
    assert "| 1, one fold, one pre-training |" in (tmp_path / "tables" / "map.md").read_text()


def test_two_trainings_of_a_point_are_refused(out: Path) -> None:
    config = {**CONFIG, "finetune": {"lr": RATES[0]}}
    write_run(
        out, "btcv", 15, "frozen", 0, {"a": dict.fromkeys((1, 6, 11), 0.5)}, steps=40, config=config, pretraining={}
    )
    with pytest.raises(InputError, match="have one length, rate and start"):
        gains.write_map(out)


def test_without_pairs_there_is_no_map(tmp_path: Path) -> None:
    training(tmp_path, "scratch", 40, RATES[0], 0, 0)
    with pytest.raises(InputError, match="no training from scratch and from a pre-training"):
        gains.write_map(tmp_path)


def test_the_map_is_drawn_with_its_numbers(out: Path) -> None:
    table, best = gains.write_map(out)[1:3]
    figure = gain_heatmap(table, best)
    gain, alike, curves = figure.axes
    texts = [text.get_text() for text in gain.texts]
    assert len(texts) == 6
    assert sum(text.startswith("+10.1") for text in texts) == 3
    assert "beyond the\nlast point" in {text.get_text() for text in alike.texts}
    assert [line.get_xdata().tolist() for line in curves.lines] == [list(STEPS)] * 2
    assert "6 pairs of fold and seed a cell" in figure.get_supxlabel()


def test_points_at_which_the_gain_is_told_from_0_are_counted(out: Path) -> None:
    table = gains.write_map(out).map
    counts = ["points", "n", "n_seeds", "tested", "ahead", "behind", "ahead_holm", "behind_holm"]
    (row,) = gains.summary(table)[counts].values.tolist()
    assert row[:4] == [6, 6, 2, 6]
    assert row[4] == (table["low"] > 0).sum() >= 3
    assert gains.summary(table.assign(p=math.nan))[counts].values.tolist() == [[6, 6, 2, 0, *row[4:6], 0, 0]]
    one = table.iloc[:1].assign(low=0.01, high=0.2, p=0.03)
    assert gains.summary(one)[counts].values.tolist() == [[1, 6, 2, 1, 1, 0, 1, 0]]
    several = pd.concat([one.assign(start=start) for start in ("id", "mixcl")], ignore_index=True)  # 2 x 0.03 is above
    assert gains.summary(several)[counts].values.tolist() == [[1, 6, 2, 1, 1, 0, 0, 0]] * 2


def test_the_least_and_the_most_gain_of_each_arm(out: Path) -> None:
    table = gains.write_map(out).map
    least, most = gains.extremes(table).to_dict("records")
    assert (least["difference"], most["difference"]) == (table["difference"].min(), table["difference"].max())
    assert len(gains.extremes(table.iloc[:1])) == 1


def test_arms_at_a_point_are_drawn_with_their_intervals(out: Path) -> None:
    for fold in (0, 1, 2):
        training(out, "id", 40, RATES[0], fold, 0)
    table = gains.write_map(out).map
    table = table[(table["rate"] == RATES[0]) & (table["steps"] < 160)]
    figure = gain_arms(table)
    short, long = figure.axes
    assert [text.get_text() for text in short.get_yticklabels()] == ["id", "MixCL"]
    ends = {tuple(line.get_xdata()) for line in short.lines if line.get_linestyle() == "-"}
    for row in table[table["steps"] == 40].to_dict("records"):
        assert any(np.allclose(pair, (100 * row["low"], 100 * row["high"])) for pair in ends if len(pair) == 2)
    assert short.get_title().startswith("40 steps at 0.001")
    assert len([line for line in long.lines if line.get_marker() == "o"]) == 1
    assert "not adjusted for the number of arms" in " ".join(figure.get_supxlabel().split())


def test_a_best_rate_at_an_end_of_those_tried_is_marked(out: Path) -> None:
    """By the cell of notebook 32."""
    best = gains.tuned(gains.trainings(out))
    book = json.loads((Path(__file__).parents[2] / "notebooks" / "32_when_does_it_help.ipynb").read_text())
    (cell,) = (cell for cell in book["cells"] if "at_an_end" in "".join(cell["source"]))
    for rates, marked in ((set(RATES), True), ({1e-4, *RATES, 1e-2}, False)):
        shown: list[pd.DataFrame] = []
        exec("".join(cell["source"]), {"best": best, "rates": rates, "display": shown.append})
        assert set(shown[0]["rate at an end"]) == {marked}


def test_a_map_of_two_shares_is_drawn_of_the_first(out: Path) -> None:
    made = gains.write_map(out)
    more = pd.concat([made.map, made.map.assign(percent=50.0)], ignore_index=True)
    assert "15 % of the labels" in gain_heatmap(more, made.tuned).caption
