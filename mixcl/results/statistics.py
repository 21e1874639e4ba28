"""Numbers over folds and over cases: means, paired bootstrap intervals and Wilcoxon tests.

Two views of the same runs.  Over folds: mean and standard deviation of the folds' means (n - 1), as the paper does.
Over cases: each case is a test case in exactly one fold, and both arms were tested on it, so that arms are compared
case by case.  Cases of one fold share a network and folds share training scans, so an interval or p over cases tells
how far a difference hangs on the choice of test cases, **not** how it would vary from training to training.  Tests
are not adjusted for their number.

Organs that a case does not have are left out, never counted as 0 or 1.  Values have 6 decimals in ``cases.csv``;
differences are rounded to 9, so that equal ones stay equal.
"""

import math
import warnings
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

CELL = ["task", "percent", "arm"]
KEYS = [*CELL, "fold", "seed"]
METRICS = ["dice", "hd95_mm", "surface_dice"]
REFERENCE = "scratch"
LEVEL, RESAMPLES, SEED = 0.95, 9999, 0
Cell = tuple[str, float, str]


class Interval(NamedTuple):
    """Lower and upper end, and how they came about."""

    low: float
    high: float
    method: str


class Comparison(NamedTuple):
    """Of ``n`` paired differences: their mean, its 95 % interval and the two-sided p of the signed-rank test."""

    n: int
    difference: float
    low: float
    high: float
    p: float
    method: str


def interval(values: ArrayLike) -> Interval:
    """95 % bootstrap interval of the mean of ``values`` [n]; NaN are left out.

    Bias-corrected and accelerated (Efron, 1987) by ``scipy.stats.bootstrap`` with 9999 resamples and seed 0, of the
    values in ascending order, so that the same values always give the same interval.  Where BCa has no answer the
    percentile interval is given and named.  Equal values give that value twice; fewer than two give NaN.

    >>> interval([0.1, 0.1, 0.1])
    Interval(low=0.1, high=0.1, method='none: all values are equal')
    >>> interval([0.1]).method
    'none: fewer than 2 cases'
    """
    kept = _kept(values)
    if len(kept) < 2:
        return Interval(math.nan, math.nan, "none: fewer than 2 cases")
    if kept[0] == kept[-1]:
        return Interval(float(kept[0]), float(kept[0]), "none: all values are equal")
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a degenerate BCa warns and gives NaN
            ends = stats.bootstrap(
                (kept,), np.mean, confidence_level=LEVEL, n_resamples=RESAMPLES, method=method,
                random_state=np.random.default_rng(SEED),
            ).confidence_interval  # fmt: skip
        if np.isfinite(ends).all():
            break
    return Interval(float(ends.low), float(ends.high), f"{method} bootstrap, {RESAMPLES} resamples, seed {SEED}")


def signed_rank_p(differences: ArrayLike) -> float:
    """Two-sided p of Wilcoxon's signed-rank test of paired ``differences`` [n]; NaN are left out.

    As ``scipy.stats.wilcoxon`` does it: zeros are dropped, small samples are exact.  All zero is 1, none is NaN.

    >>> signed_rank_p([0.1, 0.2, 0.3, 0.4]), signed_rank_p([0.0, 0.0])
    (0.125, 1.0)
    """
    kept = _kept(differences)
    if not len(kept):
        return math.nan
    return float(stats.wilcoxon(kept).pvalue) if kept.any() else 1.0


def compare(differences: ArrayLike) -> Comparison:
    """Number, mean, interval and test of paired differences [n]; NaN are left out."""
    kept = _kept(differences)
    mean = float(kept.mean()) if len(kept) else math.nan
    low, high, method = interval(kept)
    return Comparison(len(kept), round(mean, 9), round(low, 9), round(high, 9), signed_rank_p(kept), method)


def holm(values: list[float]) -> list[float]:
    """Holm's step-down adjustment of p values (Holm, 1979); NaN stay NaN and are not counted.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted((p, k) for k, p in enumerate(values) if not math.isnan(p))
    adjusted, most = [math.nan] * len(values), 0.0
    for place, (p, k) in enumerate(order):
        most = max(most, min(1.0, (len(order) - place) * p))
        adjusted[k] = most
    return adjusted


def pairs(cases: pd.DataFrame, metric: str = "dice", reference: str = REFERENCE) -> pd.DataFrame:
    """Every organ of every case that both an arm and ``reference`` were measured on, and the ``difference``.

    Paired by task, percent, fold, seed, case and label.  An organ without a value in one of the two takes no part:
    for HD95 these are the organs that an arm missed.
    """
    by = ["task", "percent", "fold", "seed", "case", "label"]
    base = cases[cases["arm"] == reference].set_index(by)[metric].rename("reference")
    both = cases[cases["arm"] != reference].join(base, on=by)
    both["difference"] = both[metric] - both["reference"]
    return both.dropna(subset=["difference"])


def case_means(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """One row a case of each cell: the mean over its organs, then over seeds, under the name ``column``."""
    by = [*CELL, "fold", "case"]
    per_seed = rows.dropna(subset=[column]).groupby([*by, "seed"], sort=False)[column].mean()
    return per_seed.groupby(by, sort=False).mean().reset_index()


def comparisons(cases: pd.DataFrame, cells: Iterable[Cell], metrics: Sequence[str] = METRICS) -> pd.DataFrame:
    """Each cell against ``scratch``, a row a cell and metric: CELL, ``metric`` and :class:`Comparison`.

    The values compared are per case: the mean over its organs, seeds averaged.  A cell without pairs has n = 0.
    """
    arms = [cell for cell in cells if cell[2] != REFERENCE]
    scores = {metric: case_means(pairs(cases, metric), "difference") for metric in metrics}
    rows = [(*cell, metric, *compare(of(scores[metric], cell)["difference"])) for cell in arms for metric in metrics]
    return pd.DataFrame(rows, columns=[*CELL, "metric", *Comparison._fields])


def intervals(cases: pd.DataFrame, metric: str = "dice") -> pd.DataFrame:
    """Each cell's mean over cases and its interval: CELL, ``n``, ``mean``, ``low``, ``high``, ``method``."""
    rows = [
        (*cell, len(part), float(part[metric].mean()), *interval(part[metric]))
        for cell, part in case_means(cases, metric).groupby(CELL, sort=False)
    ]
    return pd.DataFrame(rows, columns=[*CELL, "n", "mean", *Interval._fields])


def counted(cases: pd.DataFrame) -> pd.DataFrame:
    """The rows of cases.csv and whether the case has the organ, ``n``, and it was ``missed``, or ``invented`` if not.

    An organ that preparation lost is there and was missed, whatever was predicted.
    """
    present, empty = cases["dice"].notna(), (cases["voxels_label"] == 0) | (cases["voxels_predicted"] == 0)
    return cases.assign(n=present, missed=present & empty, invented=~present & (cases["voxels_predicted"] > 0))


def fold_scores(cases: pd.DataFrame) -> pd.DataFrame:
    """One row a run: the metrics of its fold, ``cases`` (that have an organ) and ``missed`` organs."""
    rows = counted(cases)
    by_case = rows.groupby([*KEYS, "job", "case"], sort=False)[METRICS].mean()
    folds = by_case.groupby([*KEYS, "job"], sort=False).mean()
    folds["cases"] = by_case["dice"].groupby([*KEYS, "job"], sort=False).count()
    folds["missed"] = rows.groupby([*KEYS, "job"], sort=False)["missed"].sum()
    return folds.reset_index()


def over_folds(folds: pd.DataFrame, column: str = "dice") -> pd.DataFrame:
    """Mean and standard deviation over folds for each task, percent and arm; seeds are averaged first."""
    present = folds.dropna(subset=[column])
    per_fold = present.groupby([*CELL, "fold"], sort=False)[column].mean().groupby(CELL, sort=False)
    table = per_fold.agg(["mean", "std", "count"]).rename(columns={"std": "sd", "count": "folds"})
    table["seeds"] = present.groupby(CELL, sort=False)["seed"].nunique()
    return table.reset_index()


def fold_differences(cases: pd.DataFrame, reference: str = REFERENCE) -> pd.DataFrame:
    """One row a run of an arm but ``reference``: per metric, the mean over cases of :func:`pairs`.

    For Dice that is the difference of the fold scores; for HD95 it is not, because only organs count that both found.
    """
    frames = []
    for metric in METRICS:
        rows = pairs(cases, metric, reference).groupby([*KEYS, "case"], sort=False)["difference"].mean()
        frames.append(rows.groupby(KEYS, sort=False).mean().rename(metric))
    return pd.concat(frames, axis=1).reset_index()


def of(table: pd.DataFrame, cell: Cell) -> pd.DataFrame:
    """The rows of a table with ``CELL`` that are of one cell."""
    task, percent, arm = cell
    return table[(table["task"] == task) & (table["percent"] == percent) & (table["arm"] == arm)]


def _kept(values: ArrayLike) -> NDArray[np.float64]:
    """Values that are there, to 9 decimals, in ascending order."""
    numbers = np.asarray(values, dtype=np.float64)
    return np.sort(np.round(numbers[~np.isnan(numbers)], 9))
