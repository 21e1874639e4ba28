"""Folds and fractions: their laws, on every size, and fixed results that no machine may change."""

from __future__ import annotations

import itertools
import math
import random
from fractions import Fraction
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mixcl.config import load_profile
from mixcl.data.splits import folds, fraction, split, start
from mixcl.errors import InputError

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


PAPER = load_profile("paper")
DRAWS = list(itertools.product(range(5), range(3)))  # fold, seed


def trained(n: int, fold: int, percent: float, seed: int) -> frozenset[str]:
    """Names of the training cases that `split` gives; it looks at nothing of a case but its name."""
    train, _ = split(cases(n), PAPER, fold, percent, seed)
    return frozenset(case.id for case in train)


def cases(n: int) -> tuple[Any, ...]:
    return tuple(cast("Any", SimpleNamespace(id=f"spleen_{k}")) for k in range(n))


@pytest.mark.parametrize(
    ("n", "percent", "size"), [(20, 5, 1), (20, 15, 3), (20, 30, 5), (15, 15, 2), (41, 5, 2), (30, 15, 4), (20, 50, 8)]
)
def test_every_fold_and_seed_has_a_share_of_its_own(n: int, percent: float, size: int) -> None:
    shares = {trained(n, fold, percent, seed) for fold, seed in DRAWS}
    assert {len(share) for share in shares} == {size}
    assert len(shares) == len(DRAWS)


@pytest.mark.parametrize("n", [5, 6, 8, 10, 15, 20])
@pytest.mark.parametrize("percent", [1, 5, 15, 50, 100])
@pytest.mark.parametrize("seed", [0, 1, 2, 17])
def test_no_two_folds_train_on_the_same_scans(n: int, percent: float, seed: int) -> None:
    assert len({trained(n, fold, percent, seed) for fold in range(5)}) == 5


def test_scans_are_used_about_equally_often() -> None:
    """One scan of 20 in 5 folds and 4 seeds: each once; 3 of 12 in 5 folds and 3 seeds: 45 draws of 15 scans."""
    ones = [case for fold in range(5) for seed in range(4) for case in trained(20, fold, 5, seed)]
    assert sorted(ones) == sorted(case.id for case in cases(20))
    threes = [case for fold, seed in DRAWS for case in trained(15, fold, 25, seed)]
    counts = [threes.count(case.id) for case in cases(15)]
    assert min(counts) >= 2
    assert max(counts) <= 4


@pytest.mark.parametrize("n", [5, 7, 15, 20, 41])
@pytest.mark.parametrize(("fold", "seed"), [*DRAWS, (2, 40)])
def test_shares_are_nested_within_a_fold_and_seed(n: int, fold: int, seed: int) -> None:
    shares = [trained(n, fold, percent, seed) for percent in (1, 5, 15, 30, 50, 75, 100)]
    for small, large in itertools.pairwise(shares):
        assert small <= large
    train, test = folds([case.id for case in cases(n)], 5)[fold]
    assert shares[-1] == set(train)
    assert [case.id for case in split(cases(n), PAPER, fold, 5, seed)[1]] == test  # whatever the seed and the share


def test_shares_are_the_same_on_every_machine_and_in_every_order() -> None:
    """These may never change: results of others rest on them."""
    drawn = [sorted(trained(15, fold, 15, seed)) for fold, seed in [(0, 0), (1, 0), (0, 1), (4, 2)]]
    numbers = [[int(name.removeprefix("spleen_")) for name in share] for share in drawn]
    assert numbers == [[10, 11], [13, 14], [13, 3], [2, 5]]
    assert [start(0, 0), start(1, 0), start(0, 1)] == [3575952099, 1897658481, 3707894959]
    mixed = tuple(reversed(cases(15)))
    assert [case.id for case in split(mixed, PAPER, 3, 50, 1)[0]] == sorted(trained(15, 3, 50, 1))


def test_starts_differ() -> None:
    starts = {start(fold, seed) for fold in range(30) for seed in range(30)}
    assert len(starts) == 900
    assert max(starts) < 2**32


def test_a_fold_that_is_not_there() -> None:
    with pytest.raises(InputError, match=r"fold -1 .* folds are numbered 0 to 4, as grid.n_folds is 5"):
        split(cases(15), PAPER, -1, 15, 0)
    with pytest.raises(InputError, match="fold 5 at 15 % of 15 cases"):
        split(cases(15), PAPER, 5, 15, 0)
    with pytest.raises(InputError, match=r"4 cases cannot make 5 folds; .* set grid.n_folds to 4 or less"):
        split(cases(4), PAPER, 0, 15, 0)
