"""Statistics against calculations that share nothing with them: sign patterns, a plain bootstrap loop, by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest

from mixcl.results import statistics


def rows(values: dict[tuple[str, int, int, str, int], float | None], metric: str = "dice") -> pd.DataFrame:
    """Cases of one task and share: {(arm, fold, seed, case, label): value}."""
    table = pd.DataFrame(
        [("btcv", 15.0, *key, value) for key, value in values.items()],
        columns=["task", "percent", "arm", "fold", "seed", "case", "label", metric],
    )
    return table.assign(**{name: math.nan for name in statistics.METRICS if name not in table}, job="j")


def p_by_sign_patterns(differences: list[float]) -> float:
    """Two-sided p: share of all 2^n sign patterns whose rank sum is as far from its mean as the one seen."""
    given = [d for d in differences if d]
    order = sorted(map(abs, given))
    ranks = [np.mean([k + 1 for k, other in enumerate(order) if other == abs(d)]) for d in given]
    middle = sum(ranks) / 2
    seen = abs(sum(r for r, d in zip(ranks, given, strict=True) if d > 0) - middle)
    sums = [sum(itertools.compress(ranks, signs)) for signs in itertools.product((0, 1), repeat=len(ranks))]
    return float(np.mean([abs(one - middle) >= seen - 1e-9 for one in sums]))


@pytest.mark.parametrize("n", range(1, 9))
def test_signed_rank_p_is_that_of_all_sign_patterns(n: int) -> None:
    generator = np.random.default_rng(n)
    for shift in (0.0, 0.05, 0.2):
        values = generator.normal(shift, 0.1, n).round(6)
        assert len(set(abs(values)) - {0.0}) == n
        assert statistics.signed_rank_p(values) == pytest.approx(p_by_sign_patterns(values.tolist()))


@pytest.mark.parametrize("values", [[0.1, 0.1, -0.1, 0.2], [0.0, 0.1, 0.2, 0.3], [0.3, 0.3, 0.3, 0.3, 0.3], [0.0, 0.2]])
def test_signed_rank_p_with_ties_and_zeros(values: list[float]) -> None:
    assert statistics.signed_rank_p(values) == pytest.approx(p_by_sign_patterns(values))


def test_signed_rank_p_at_the_ends() -> None:
    assert statistics.signed_rank_p([0.0, 0.0, 0.0]) == 1.0
    assert math.isnan(statistics.signed_rank_p([]))
    assert math.isnan(statistics.signed_rank_p([math.nan]))
    assert statistics.signed_rank_p([0.1, math.nan, 0.2]) == statistics.signed_rank_p([0.1, 0.2])
    # 0.3 - 0.2 and 0.1 are a tie, though their last bits differ
    assert statistics.signed_rank_p([0.3 - 0.2, -0.1, 0.5]) == pytest.approx(p_by_sign_patterns([0.1, -0.1, 0.5]))


def percentile_bootstrap(values: np.ndarray) -> tuple[float, float]:
    """The textbook loop: resample, average, take percentiles."""
    generator = np.random.default_rng(99)
    means = [generator.choice(values, len(values)).mean() for _ in range(20_000)]
    return float(np.percentile(means, 2.5)), float(np.percentile(means, 97.5))


@pytest.mark.parametrize("n", [12, 40])
def test_intervals_are_those_of_a_plain_bootstrap(n: int) -> None:
    """For a symmetric sample BCa is the percentile interval, up to resampling noise."""
    half = np.random.default_rng(n).normal(0, 0.1, n // 2)
    values = 0.05 + np.concatenate([half, -half])
    low, high, method = statistics.interval(values)
    expected = percentile_bootstrap(values)
    assert (low, high) == pytest.approx(expected, abs=0.05 * (expected[1] - expected[0]))
    assert method == "BCa bootstrap, 9999 resamples, seed 0"


def test_intervals_cover_the_mean_about_as_often_as_they_say() -> None:
    generator = np.random.default_rng(5)
    hits = 0
    for _ in range(150):
        low, high, _ = statistics.interval(generator.normal(1.0, 1.0, 25))
        hits += low <= 1.0 <= high
    assert 0.87 <= hits / 150 <= 0.99


def test_intervals_at_the_ends() -> None:
    values = np.array([0.1, -0.2, 0.4, 0.05, 0.3])
    assert statistics.interval(values) == statistics.interval(values[::-1])  # the order of cases means nothing
    assert statistics.interval([*values, math.nan]) == statistics.interval(values)
    for few in ([], [0.2], [0.2, math.nan]):
        low, high, method = statistics.interval(few)
        assert math.isnan(low)
        assert math.isnan(high)
        assert "fewer than 2" in method
    assert statistics.interval([0.3 - 0.2, 0.1, 0.1])[:2] == (0.1, 0.1)  # equal, though their last bits differ


def test_a_degenerate_bca_gives_a_named_percentile_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    real = statistics.stats.bootstrap

    def bootstrap(*data, method, **rest):  # type: ignore[no-untyped-def]
        found = real(*data, method=method, **rest)
        if method == "BCa":
            found.confidence_interval = found.confidence_interval._replace(low=math.nan)
        return found

    monkeypatch.setattr(statistics.stats, "bootstrap", bootstrap)
    values = np.random.default_rng(0).normal(0, 1, 30)
    low, high, method = statistics.interval(values)
    assert method.startswith("percentile bootstrap")
    assert (low, high) == pytest.approx(percentile_bootstrap(values), abs=0.05)


def test_cases_are_paired_and_averaged_over_organs_and_seeds() -> None:
    """Case a: organs +0.1 and +0.3 with seed 0, +0.4 and +0.4 with seed 1: 0.3.  Case b: -0.1, one organ, one seed."""
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
    found = statistics.case_means(statistics.pairs(table), "difference").set_index("case")["difference"]
    assert found.to_dict() == pytest.approx({"a": 0.3, "b": -0.1})
    (row,) = statistics.comparisons(table, [("btcv", 15.0, "mixcl")], ["dice"]).to_dict("records")
    assert (row["n"], row["difference"], row["p"]) == (2, pytest.approx(0.1), 1.0)
    assert -0.1 <= row["low"] <= 0.1 <= row["high"] <= 0.3


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


def test_intervals_of_a_cell_are_of_its_mean_over_cases() -> None:
    values = {("mixcl", k % 2, 0, str(k), 1): k / 10 for k in range(8)}
    (row,) = statistics.intervals(rows(values)).to_dict("records")
    assert (row["arm"], row["n"], row["mean"]) == ("mixcl", 8, pytest.approx(0.35))
    expected = percentile_bootstrap(np.arange(8) / 10)
    assert (row["low"], row["high"]) == pytest.approx(expected, abs=0.02)


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
