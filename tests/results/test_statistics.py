"""Statistics against calculations by hand: which runs make a pair, its value, what counts as a training."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mixcl.results import inference, statistics


def rows(
    values: dict[tuple[str, int, int, str, int], float | None], metric: str = "dice", same: dict[str, str] | None = None
) -> pd.DataFrame:
    """Cases of one task and share: {(arm, fold, seed, case, label): value}; ``same`` renames weights."""
    table = pd.DataFrame(
        [("btcv", 15.0, *key, value) for key, value in values.items()],
        columns=["task", "percent", "arm", "fold", "seed", "case", "label", metric],
    )
    names = [f"{arm}-{fold}-{seed}" for arm, fold, seed in zip(table["arm"], table["fold"], table["seed"], strict=True)]
    weights = [(same or {}).get(name, name) for name in names]
    return table.assign(
        **{name: math.nan for name in statistics.METRICS if name not in table}, job="j", weights=weights
    )


def numbers(row: dict[Hashable, Any]) -> list[float]:
    """The estimate in a row of comparisons."""
    return [row["difference" if name == "mean" else name] for name in inference.Estimate._fields]


def test_runs_are_paired_and_averaged_over_organs_and_cases() -> None:
    """Seed 0: case a +0.1 and +0.3, so +0.2; fold 1 -0.1, one organ.  Seed 1: +0.4 in one organ and in the other."""
    table = rows(
        {
            ("scratch", 0, 0, "a", 1): 0.5, ("mixcl", 0, 0, "a", 1): 0.6,
            ("scratch", 0, 0, "a", 6): 0.2, ("mixcl", 0, 0, "a", 6): 0.5,
            ("scratch", 0, 1, "a", 1): 0.1, ("mixcl", 0, 1, "a", 1): 0.5,
            ("scratch", 0, 1, "a", 6): 0.2, ("mixcl", 0, 1, "a", 6): 0.6,
            ("scratch", 1, 0, "b", 1): 0.9, ("mixcl", 1, 0, "b", 1): 0.8,
            ("scratch", 1, 0, "b", 6): None, ("mixcl", 1, 0, "b", 6): None,
            ("mixcl", 1, 1, "b", 1): 0.0,  # without its pair
            ("mixcl", 2, 0, "c", 1): 1.0,
        }
    )  # fmt: skip
    found = statistics.fold_differences(table).set_index(["fold", "seed"])["dice"]
    assert found.to_dict() == pytest.approx({(0, 0): 0.2, (0, 1): 0.4, (1, 0): -0.1})
    (row,) = statistics.comparisons(table, [("btcv", 15.0, "mixcl")], ["dice"]).to_dict("records")
    expected = inference.estimate([0.2, 0.4, -0.1], [0, 0, 1], [0, 1, 0])
    assert numbers(row) == pytest.approx(list(expected), nan_ok=True)


def crossed(gain: float) -> dict[tuple[str, int, int, str, int], float | None]:
    """Both arms in 3 folds and 2 seeds, one case a fold."""
    values: dict[tuple[str, int, int, str, int], float | None] = {}
    for fold in range(3):
        for seed in range(2):
            values["scratch", fold, seed, f"{fold}", 1] = 0.3 + 0.01 * fold
            values["mixcl", fold, seed, f"{fold}", 1] = 0.3 + 0.01 * fold + gain * (1 + fold + seed)
    return values


def test_a_training_that_another_run_repeats_is_counted_once() -> None:
    """Fold 2 of seed 0 has the weights of fold 1 in both arms: one pair less, and its value their mean."""
    values, cell = crossed(0.02), ("btcv", 15.0, "mixcl")
    copies = {"mixcl-2-0": "mixcl-1-0", "scratch-2-0": "scratch-1-0"}
    (row,) = statistics.comparisons(rows(values, same=copies), [cell], ["dice"]).to_dict("records")
    pairs = {(0, 0): 0.02, (0, 1): 0.04, (1, 0): (0.04 + 0.06) / 2, (1, 1): 0.06, (2, 1): 0.08}
    expected = inference.estimate(list(pairs.values()), [key[0] for key in pairs], [key[1] for key in pairs])
    assert row["n"] == 5
    assert numbers(row) == pytest.approx(list(expected), abs=1e-8, nan_ok=True)
    folds = statistics.fold_scores(rows(values, same=copies).assign(voxels_label=1, voxels_predicted=1))
    counts = statistics.over_folds(folds).set_index("arm")["trainings"]
    assert counts.to_dict() == {"scratch": 5, "mixcl": 5}
    assert statistics.intervals(folds).set_index("arm")["n"].to_dict() == {"scratch": 5, "mixcl": 5}


def test_arms_that_are_the_same_trainings_make_no_pairs() -> None:
    same = {f"mixcl-{fold}-{seed}": f"scratch-{fold}-{seed}" for fold in range(3) for seed in range(2)}
    (row,) = statistics.comparisons(rows(crossed(0), same=same), [("btcv", 15.0, "mixcl")], ["dice"]).to_dict("records")
    assert row["n"] == 0
    assert math.isnan(row["p"])


def test_hd95_is_compared_over_the_organs_that_both_found() -> None:
    """Case a: 4 against 6 mm, the other organ was missed from scratch.  Case b has no common organ."""
    values = {
        ("scratch", 0, 0, "a", 1): 6.0, ("mixcl", 0, 0, "a", 1): 4.0,
        ("scratch", 0, 0, "a", 6): None, ("mixcl", 0, 0, "a", 6): 50.0,
        ("scratch", 0, 0, "b", 1): None, ("mixcl", 0, 0, "b", 1): 9.0,
    }  # fmt: skip
    table = rows(values, "hd95_mm")
    (row,) = statistics.comparisons(table, [("btcv", 15.0, "mixcl")], ["hd95_mm"]).to_dict("records")
    assert (row["n"], row["difference"]) == (1, -2.0)
    assert statistics.fold_differences(table)["hd95_mm"].tolist() == [-2.0]


def test_a_cell_without_pairs_has_a_row_and_no_numbers() -> None:
    table = rows({("mixcl", 0, 0, "a", 1): 0.6})
    found = statistics.comparisons(table, [("btcv", 15.0, "scratch"), ("btcv", 15.0, "mixcl")])
    assert found["metric"].tolist() == statistics.METRICS
    assert found["n"].tolist() == [0, 0, 0]
    assert found[["difference", "low", "high", "p"]].isna().all(axis=None)


def test_intervals_of_a_cell_are_of_its_mean_over_trainings() -> None:
    values = {("mixcl", fold, seed, f"{fold}", 1): fold / 10 + seed / 50 for fold in range(4) for seed in range(2)}
    folds = statistics.fold_scores(rows(values).assign(voxels_label=1, voxels_predicted=1))
    (row,) = statistics.intervals(folds).to_dict("records")
    assert (row["arm"], row["n"], row["folds"], row["seeds"]) == ("mixcl", 8, 4, 2)
    assert row["mean"] == pytest.approx(0.16)
    assert row["low"] < 0.16 < row["high"]


def test_differences_of_folds_agree_with_those_of_cases() -> None:
    generator = np.random.default_rng(0)
    values = {
        (arm, fold, seed, f"{fold}{case}", label): generator.uniform()
        for arm in ("scratch", "mixcl", "id") for fold in range(3) for seed in range(2) for case in range(4)
        for label in range(1, 5) if (case, label) != (0, 2)
    }  # fmt: skip
    table = rows(values).assign(voxels_label=1, voxels_predicted=1)
    dice = statistics.fold_scores(table).set_index(["arm", "fold", "seed"])["dice"]
    differences = statistics.fold_differences(table).set_index(["arm", "fold", "seed"])["dice"]
    assert len(differences) == 2 * 3 * 2
    for (arm, *pair), difference in differences.items():
        assert difference == pytest.approx(dice[(arm, *pair)] - dice[("scratch", *pair)])
