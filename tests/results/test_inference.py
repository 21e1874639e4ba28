"""Intervals of trainings that share folds and seeds: their cover by simulation, and the model against others' forms."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import optimize, stats

from mixcl.results.inference import estimate, margin

TRIALS = 20_000  # a share of 95 % has a standard error of 0.15 points


def crossed(folds: int, seeds: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels of fold and seed of a whole table."""
    fold, seed = np.divmod(np.arange(folds * seeds), seeds)
    return fold, seed


def cover(fold: np.ndarray, seed: np.ndarray, of_fold: float, of_seed: float) -> float:
    """How often the interval holds the truth, 0; ``of_fold`` and ``of_seed`` are shared variances, the rest's is 1."""
    values = trials(fold, seed, of_fold, of_seed)
    return float((abs(values.mean(1)) <= margin(values, fold, seed)(0.05)).mean())


def trials(fold: np.ndarray, seed: np.ndarray, of_fold: float, of_seed: float) -> np.ndarray:
    """Values around 0 of so many pairs, a row a trial."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(TRIALS, len(fold)))
    values += math.sqrt(of_fold) * rng.normal(size=(TRIALS, fold.max() + 1))[:, fold]
    values += math.sqrt(of_seed) * rng.normal(size=(TRIALS, seed.max() + 1))[:, seed]
    return np.asarray(values)


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("of_seed", [0.1, 0.25, 0.5, 1, 3, 10, 100])
def test_the_interval_covers_where_pairs_of_a_seed_share_an_effect(seeds: int, of_seed: float) -> None:
    assert 0.93 <= cover(*crossed(5, seeds), 0, of_seed) <= (0.97 if of_seed >= 0.5 else 0.985)


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize(("of_fold", "of_seed"), [(0, 0), (0, 0.3), (0.3, 0), (1, 1)])
def test_an_interval_is_never_narrower_than_of_pairs_that_share_nothing(
    seeds: int, of_fold: float, of_seed: float
) -> None:
    fold, seed = crossed(5, seeds)
    values = trials(fold, seed, of_fold, of_seed)
    half = margin(values, fold, seed)(0.05)
    alone = stats.ttest_1samp(values, 0, axis=1).confidence_interval()
    least = (alone.high - alone.low) / 2
    assert (half >= least - 1e-9).all()
    narrow = half <= least + 1e-9  # of trials that share nothing even those hold the truth
    assert of_fold + of_seed > 0 or (abs(values.mean(1)) <= half)[narrow].mean() > 0.93


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize(("of_fold", "of_seed"), list(itertools.product((0.3, 1, 4), (0, 0.3, 1, 4, 16))))
def test_the_interval_covers_where_folds_share_an_effect_too(seeds: int, of_fold: float, of_seed: float) -> None:
    """Where two effects are alike in size it is somewhat wider than it needs to be."""
    assert 0.93 <= cover(*crossed(5, seeds), of_fold, of_seed) <= 0.99


@pytest.mark.parametrize("seeds", [2, 3])
@pytest.mark.parametrize(("of_fold", "of_seed"), [(0, 0), (0, 1), (1, 0), (1, 1), (0.3, 4)])
def test_the_interval_covers_where_pairs_are_missing(seeds: int, of_fold: float, of_seed: float) -> None:
    fold, seed = crossed(5, seeds)
    for missing in ([0], [1, 4, 7], [1, 3, 5]):
        kept = np.setdiff1d(np.arange(5 * seeds), missing)
        assert 0.93 <= cover(fold[kept], seed[kept], of_fold, of_seed) <= 0.99


def test_one_seed_gives_students_interval_of_folds_and_one_fold_that_of_seeds() -> None:
    values = np.random.default_rng(0).normal(0.02, 0.05, 6)
    expected = stats.ttest_1samp(values, 0)
    low, high = expected.confidence_interval()
    for made in (estimate(values, range(6), [0] * 6), estimate(values, ["a"] * 6, range(6))):
        assert (made.low, made.high) == pytest.approx((low, high), abs=1e-8)
        assert made.p == pytest.approx(expected.pvalue, rel=1e-4)
    made = estimate(values, range(6), [0] * 6)
    assert (made.n, made.folds, made.seeds) == (6, 6, 1)


def test_an_interval_over_pairs_would_miss_the_truth_far_more_often() -> None:
    """What this is for: Student's interval that takes pairs for independent."""
    fold, seed = crossed(5, 3)
    rng = np.random.default_rng(0)
    values = rng.normal(size=(TRIALS, 15)) + rng.normal(size=(TRIALS, 3))[:, seed]
    half = stats.t.ppf(0.975, 14) * values.std(1, ddof=1) / math.sqrt(15)
    assert (abs(values.mean(1)) <= half).mean() < 0.75
    assert cover(fold, seed, 0, 1) > 0.93


def reml(values: np.ndarray, fold: np.ndarray, seed: np.ndarray) -> float:
    """Variance of the mean in the crossed mixed model fitted by restricted likelihood, by dense matrices."""
    shared = [np.equal.outer(groups, groups).astype(float) for groups in (fold, seed)]
    ones = np.ones(len(values))

    def covariance(logs: np.ndarray) -> np.ndarray:
        a, b, rest = np.exp(logs)
        return np.asarray(a * shared[0] + b * shared[1] + rest * np.eye(len(values)))

    def loss(logs: np.ndarray) -> float:
        v = covariance(logs)
        inverse = np.linalg.inv(v)
        weight = ones @ inverse @ ones
        left = values - (ones @ inverse @ values) / weight
        return float(np.linalg.slogdet(v)[1] + math.log(weight) + left @ inverse @ left)

    found = optimize.minimize(loss, np.zeros(3), method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-10})
    return float(1 / (ones @ np.linalg.inv(covariance(found.x)) @ ones))


def test_the_variance_is_that_of_a_mixed_model() -> None:
    """With many folds and seeds all quantiles are the normal one, so that half the interval tells the variance."""
    fold, seed = crossed(12, 9)
    rng = np.random.default_rng(1)
    values = rng.normal(size=108) + rng.normal(size=12)[fold] + 2 * rng.normal(size=9)[seed]
    quantiles = [stats.t.ppf(0.975, freedom) for freedom in (11, 8, 88)]
    means = values.reshape(12, 9)
    by_fold, by_seed = means.mean(1).var(ddof=1) / 12, means.mean(0).var(ddof=1) / 9
    rest = values.reshape(12, 9) - means.mean(1)[:, None] - means.mean(0) + means.mean()
    residual = (rest**2).sum() / 88 / 108
    assert by_fold + by_seed - residual == pytest.approx(reml(values, fold, seed), rel=1e-4)
    weighed = (quantiles[0] * by_fold + quantiles[1] * by_seed) ** 2 / (by_fold + by_seed)
    half = float(margin(values, fold, seed)(0.05))
    assert half == pytest.approx(math.sqrt(weighed - quantiles[2] ** 2 * residual))


def test_p_is_the_level_at_which_the_interval_ends_at_zero() -> None:
    fold, seed = crossed(5, 3)
    for shift in (0.0, 0.5, 1.0, 3.0):
        values = np.random.default_rng(3).normal(shift, 1, 15)
        made = estimate(values, fold, seed)
        assert float(margin(values, fold, seed)(made.p)) == pytest.approx(abs(values.mean()), rel=1e-4)
        assert (made.p < 0.05) == (made.low > 0 or made.high < 0)


def test_a_true_difference_of_the_detectable_size_is_found_in_four_of_five_trials() -> None:
    fold, seed = crossed(10, 10)  # enough of both that a trial tells the variances
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(TRIALS, 100)) + rng.normal(size=(TRIALS, 10))[:, fold]
    made = estimate(noise[0], fold, seed)
    halves = margin(noise, fold, seed)
    sizes = halves(0.05) + halves(0.4)
    assert made.detectable == pytest.approx(float(sizes[0]), abs=1e-6)
    found = (abs(noise.mean(1) + float(np.median(sizes))) > halves(0.05)).mean()
    assert found == pytest.approx(0.8, abs=0.04)


def test_the_ends() -> None:
    fold, seed = crossed(5, 3)
    assert estimate([0.0] * 15, fold, seed)[:5] == (15, 0.0, 0.0, 0.0, 1.0)
    constant = estimate([0.3 - 0.2, *[0.1] * 14], fold, seed)  # equal, though their last bits differ
    assert constant[1:4] == (0.1, 0.1, 0.1)
    assert constant.p < 1e-9
    assert estimate([], [], []).n == 0
    single = estimate([0.2, math.nan], [0, 1], [0, 0])
    assert (single.n, single.mean, single.folds) == (1, 0.2, 1)
    assert all(math.isnan(value) for value in (single.low, single.high, single.p, single.detectable))
    values = np.random.default_rng(0).normal(size=15)
    order = np.random.default_rng(1).permutation(15)
    mixed = estimate(values[order], fold[order], seed[order])  # the order of runs means nothing
    assert mixed == pytest.approx(estimate(values, fold, seed), rel=1e-4)
    diagonal = estimate([0.1, 0.2, 0.15], [0, 1, 2], [0, 1, 2])  # fold and seed cannot be told apart
    assert diagonal.low < 0.15 < diagonal.high


def test_pairs_that_could_not_reach_the_level_have_no_p() -> None:
    """Five of one sign: 2^-4 = 0.0625; six: 2^-5 = 0.031."""
    for n, given in ((2, False), (5, False), (6, True)):
        made = estimate(np.linspace(0.1, 0.11, n), range(n), [0] * n)
        assert math.isnan(made.p) != given
        assert made.low > 0
