"""Folds and fractions: their laws, on every size, and fixed results that no machine may change."""

from __future__ import annotations

import itertools
import math
import random
from fractions import Fraction

import pytest

from mixcl.data.splits import folds, fraction

CASES = [f"spleen_{k}" for k in range(41)]


@pytest.mark.parametrize("n", [5, 6, 9, 30, 41])
@pytest.mark.parametrize("n_folds", [2, 3, 5])
def test_test_parts_partition_the_cases(n: int, n_folds: int) -> None:
    cases = CASES[:n]
    parts = folds(cases, n_folds, seed=3)
    assert len(parts) == n_folds
    tests = [case for _, test in parts for case in test]
    assert sorted(tests) == sorted(cases)
    for train, test in parts:
        assert not set(train) & set(test)
        assert sorted(train + test) == sorted(cases)
    sizes = [len(test) for _, test in parts]
    assert max(sizes) - min(sizes) <= 1


def test_order_of_the_input_does_not_matter() -> None:
    mixed = CASES.copy()
    random.Random(0).shuffle(mixed)
    assert folds(mixed) == folds(CASES)
    assert fraction(mixed, 15) == fraction(CASES, 15)


def test_seeds_give_other_splits() -> None:
    assert folds(CASES, seed=0) != folds(CASES, seed=1)
    assert fraction(CASES, 15, seed=0) != fraction(CASES, 15, seed=1)


def test_fixed_results() -> None:
    """These may never change: results of others rest on them."""
    cases = ["a", "b", "c", "d", "e", "f", "g"]
    assert [test for _, test in folds(cases, 3, seed=0)] == [["b", "f", "g"], ["a", "e"], ["c", "d"]]
    assert fraction(cases, 50, seed=0) == ["a", "d", "e", "f"]


@pytest.mark.parametrize("n", [1, 2, 3, 7, 20, 24, 33, 41, 100, 281])
@pytest.mark.parametrize("pct", [0.1, 1, 5, 7, 15, 30, 50, 55.5, 99.9, 100])
def test_size_is_the_exact_ceiling(n: int, pct: float) -> None:
    exact = Fraction(str(pct)) / 100 * n  # 15 / 100 * 20 is 3.0000000000000004 in floating point
    chosen = fraction([f"c{k}" for k in range(n)], pct)
    assert len(chosen) == len(set(chosen)) == math.ceil(exact)


def test_fifteen_percent_of_twenty_is_three() -> None:
    assert len(fraction(CASES[:20], 15)) == 3
    assert len(fraction([f"c{k}" for k in range(100)], 7)) == 7  # 100 * 0.07 is 7.000000000000001


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_fractions_are_nested(seed: int) -> None:
    chosen = [set(fraction(CASES, pct, seed)) for pct in (1, 5, 15, 30, 50, 100)]
    for small, large in itertools.pairwise(chosen):
        assert small <= large
    assert chosen[-1] == set(CASES)


def test_every_case_is_as_likely() -> None:
    """Over many seeds each of 20 cases is in the first quarter as often, within 5 standard deviations."""
    seeds = 2000
    hits = dict.fromkeys(CASES[:20], 0)
    for seed in range(seeds):
        for case in fraction(CASES[:20], 25, seed):
            hits[case] += 1
    spread = math.sqrt(seeds * 0.25 * 0.75)
    assert all(abs(count - seeds / 4) < 5 * spread for count in hits.values())


@pytest.mark.parametrize("pct", [0, -5, 100.1, 1000, float("nan"), float("inf")])
def test_percentages_out_of_range(pct: float) -> None:
    with pytest.raises(ValueError, match="percentage"):
        fraction(CASES, pct)


def test_bad_cases() -> None:
    with pytest.raises(ValueError, match="appear twice: a"):
        folds(["a", "b", "a"], 2)
    with pytest.raises(ValueError, match="appear twice: b"):
        fraction(["b", "b"], 50)
    with pytest.raises(ValueError, match="4 cases cannot make 5 folds"):
        folds(["a", "b", "c", "d"])
    with pytest.raises(ValueError, match="at least 2"):
        folds(CASES, 1)
    with pytest.raises(ValueError, match="no cases"):
        fraction([], 50)
