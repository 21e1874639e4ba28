"""How uncertain a mean over trainings is, when they share test scans and pre-trainings.

Values of a fold are measured on the same scans, those of a seed start from the same pre-training, so n of them are
less than n independent ones.  The model is the mixed one with crossed random effects, y_fs = mean + fold_f + seed_s +
rest_fs.  The variance of the mean adds what varies between folds to what varies between seeds and takes away the rest,
which is in both::

    V = V_fold + V_seed - V_rest

These are estimates of the analysis of variance: for whole tables those of REML.  But two or three seeds tell their own
variance badly, and neither the normal quantile of a mixed model's usual interval nor a bootstrap knows that: of five
folds and two seeds that share an effect as large as the rest, 95 % intervals of a bootstrap over seeds and folds held
the truth in 81 % of simulated trials, of one over pairs in 63 %.  So each part has Student's quantile for its own
degrees of freedom, folds - 1 and seeds - 1, weighed by the parts (Cochran 1964, Biometrics 20:191), and the rest is
taken away with the smallest quantile of the three, in the manner of modified large-sample limits (Graybill and Wang
1980, JASA 75:869)::

    half^2 = (t_fold V_fold + t_seed V_seed)^2 / (V_fold + V_seed) - t_rest^2 V_rest

What pairs share can only make their mean less certain, but this estimate does not know that, and can fall below 0.  So
an interval is never narrower than Student's over pairs that share nothing: those that were missed the truth in 15 to
80 % of trials, though few are so narrow that all intervals together kept their 95 %.

A test simulates five folds with two, three and five seeds: the truth is held in 93 to 97 % of trials where pairs of a
seed share half as much as the rest varies, or more, and in 93 to 99 % where they share less, where those of a fold
share something too, or where pairs are missing.
With one seed only the folds are left, as in Student's t test of fold means.
"""

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

LEVEL, POWER = 0.05, 0.8
FEWEST = next(n for n in itertools.count(2) if 2.0 ** (1 - n) < LEVEL)
"""Pairs that a p needs: the p of a test by the signs of n pairs, all of them alike, is 2^(1 - n)."""
Values = NDArray[np.float64]


class Estimate(NamedTuple):
    """Of ``n`` values: mean, 95 % interval, two-sided p of no difference, and what lies behind them.

    ``detectable`` is the true mean that so many values would tell from 0 in 4 of 5 trials.  The interval holds what
    varies between ``folds`` and between ``seeds``; of which there is one alone, its variation is not in it.
    """

    n: int
    mean: float
    low: float
    high: float
    p: float
    detectable: float
    folds: int
    seeds: int


def estimate(values: ArrayLike, folds: ArrayLike, seeds: ArrayLike) -> Estimate:
    """The mean of ``values`` [n], with their ``folds`` [n] and ``seeds`` [n]; NaN are left out.

    p is the level at which the interval would end at 0.  Fewer than two values have no interval, and
    fewer than `FEWEST` no p.

    >>> made = estimate([0.01, 0.03, 0.02, 0.04], [0, 0, 1, 1], [0, 1, 0, 1])
    >>> made.n, made.mean, round(made.low, 3), round(made.high, 3)
    (4, 0.025, -0.117, 0.167)
    """
    numbers: Values = np.asarray(values, dtype=np.float64)
    kept = ~np.isnan(numbers)
    y: Values = np.round(numbers[kept], 9)  # equal differences stay equal
    fold, seed = np.asarray(folds)[kept], np.asarray(seeds)[kept]
    n, counts, nan = len(y), (len(np.unique(fold)), len(np.unique(seed))), math.nan
    if n < 2:
        return Estimate(n, float(y[0]) if n else nan, nan, nan, nan, nan, *counts)
    mean, half = round(float(y.mean()), 9), margin(y, fold, seed)
    wide, power = float(half(LEVEL)), float(half(2 * (1 - POWER)))
    low, high = round(mean - wide, 9), round(mean + wide, 9)
    p = float(f"{_level(half, abs(mean)):.6g}") if n >= FEWEST else nan
    return Estimate(n, mean, low, high, p, round(wide + power, 9), *counts)


def margin(values: Values, folds: NDArray[np.generic], seeds: NDArray[np.generic]) -> Callable[[float], Values]:
    """Half the interval around the mean of ``values`` [..., n], by the share of trials in which it misses the truth.

    ``folds`` and ``seeds`` [n] are labels, at least one of them with two different ones; no pair is there twice.
    """
    parts = [_between(values, groups) for groups in (folds, seeds) if len(np.unique(groups)) > 1]
    variances, shares, freedoms = zip(*parts, strict=True)
    if len(parts) == 1:
        return lambda level: stats.t.isf(level / 2, freedoms[0]) * np.sqrt(variances[0])
    rest, left = _rest(values, folds, seeds)
    n, total, apart = values.shape[-1], sum(variances), values.var(-1, ddof=1) / values.shape[-1]
    shared = sum(shares) - 1 / n

    def half(level: float) -> Values:
        quantiles = [stats.t.isf(level / 2, freedom) for freedom in freedoms]
        mixed = sum(t * variance for t, variance in zip(quantiles, variances, strict=True)) ** 2
        both = np.divide(mixed, total, out=np.zeros_like(total), where=total > 0)
        both -= stats.t.isf(level / 2, max(left, *freedoms)) ** 2 * shared * rest
        return np.asarray(np.sqrt(np.maximum(both, stats.t.isf(level / 2, n - 1) ** 2 * apart)))

    return half


def _between(values: Values, groups: NDArray[np.generic]) -> tuple[Values, float, int]:
    """What groups add to the mean's variance (sum(n_g^2) / n^2 times theirs), its share of the rest, freedom."""
    _, index, counts = np.unique(groups, return_inverse=True, return_counts=True)
    total, squares = values.shape[-1], float((counts**2).sum())
    sums = (values - values.mean(-1, keepdims=True)) @ np.eye(len(counts))[index]  # [..., groups]
    scale = squares / total**2 / (squares - 2 * float((counts**3).sum()) / total + squares**2 / total**2)
    return scale * (sums**2).sum(-1), scale * (total - squares / total), len(counts) - 1


def _rest(values: Values, folds: NDArray[np.generic], seeds: NDArray[np.generic]) -> tuple[Values, int]:
    """What fold and seed do not explain: its variance by least squares, and the degrees of freedom left for it."""
    columns = [np.equal.outer(groups, np.unique(groups)) for groups in (folds, seeds)]
    design = np.concatenate(columns, axis=1).astype(float)
    freedom = values.shape[-1] - int(np.linalg.matrix_rank(design))
    left = values - values @ (design @ np.linalg.pinv(design)).T
    return (left**2).sum(-1) / max(freedom, 1), freedom


def _level(half: Callable[[float], Values], distance: float) -> float:
    """The level at which half the interval is as long as the mean is far from 0; never below 1e-12."""
    least = 1e-12
    if distance == 0 or half(least) <= distance:
        return least if distance else 1.0
    ends = math.log10(least), 0.0
    return float(10 ** optimize.brentq(lambda power: float(half(10**power)) - distance, *ends, xtol=1e-9))
