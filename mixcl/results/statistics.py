"""Numbers over folds, and of arms against each other, paired by fold and seed.

Mean and standard deviation of a cell are those of its folds' means (n - 1), as in the paper.  Arms are compared by
pairs of trainings, of one fold and one seed: same training scans, same start, same test scans; intervals and p are
those of :mod:`mixcl.results.inference`, not adjusted for their number.  The same weights a second time are not a second
training, and two arms with the same weights are no pair.  Organs that a case does not have are left out.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from mixcl.results.inference import Estimate, estimate

CELL = ["task", "percent", "arm"]
KEYS = [*CELL, "fold", "seed"]
WEIGHTS = ["weights", "reference_weights"]
METRICS = ["dice", "hd95_mm", "surface_dice"]
DIFFERENCE = ["difference" if name == "mean" else name for name in Estimate._fields]
REFERENCE = "scratch"
LEARNED = 0.1
"""Mean Dice that a network has at least if it has learned anything.  One that takes every voxel of a scan for the same
organ has 2v / (v + N), less than this for an organ of up to a twentieth of the scan, which is more than any
here has."""
Cell = tuple[str, float, str]


def holm(values: list[float]) -> list[float]:
    """Holm's step-down adjustment of p values (Holm, 1979); NaN stay NaN and are not counted.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    p = pd.Series(values, dtype=float).dropna().sort_values(kind="stable")
    return (p * np.arange(len(p), 0, -1)).clip(upper=1).cummax().reindex(range(len(values))).tolist()


def pairs(cases: pd.DataFrame, metric: str = "dice", reference: str = REFERENCE) -> pd.DataFrame:
    """Every organ of every case that both an arm and ``reference`` were measured on, and the ``difference``.

    Paired by task, percent, fold, seed, case and label.  An organ without a value in one of the two takes no part: for
    HD95 these are the organs that an arm missed.
    """
    by = ["task", "percent", "fold", "seed", "case", "label"]
    base = cases[cases["arm"] == reference].set_index(by)[[metric, "weights"]].add_prefix("reference_")
    both = cases[cases["arm"] != reference].join(base, on=by)
    both["difference"] = both[metric] - both[f"reference_{metric}"]
    return both.dropna(subset=["difference"])


def distinct(runs: pd.DataFrame) -> pd.DataFrame:
    """Rows of runs or of pairs with each training once: values of equal weights are averaged, under the first's name.

    ``runs`` has `KEYS`, ``weights`` and, for pairs, ``reference_weights``: those of a training with itself are left
    out.
    """
    by = [*CELL, *(name for name in WEIGHTS if name in runs)]
    if "reference_weights" in runs:
        runs = runs[runs["weights"] != runs["reference_weights"]]
    values = {name: "mean" for name in runs.select_dtypes("number") if name not in KEYS}
    return runs.groupby(by, sort=False).agg({"fold": "first", "seed": "first", **values}).reset_index()


def comparisons(cases: pd.DataFrame, cells: Iterable[Cell], metrics: Sequence[str] = METRICS) -> pd.DataFrame:
    """Each cell against ``scratch``: CELL, ``metric``, :class:`Estimate` of the ``difference`` (n = 0 without pairs).

    The values compared are those of :func:`fold_differences`.
    """
    differences, rows = distinct(fold_differences(cases)), []
    for cell in cells:
        if cell[2] != REFERENCE:
            part = of(differences, cell)
            rows += [(*cell, m, *compared(part, part[m], "arm_dice", "reference_dice")) for m in metrics]
    return pd.DataFrame(rows, columns=[*CELL, "metric", *DIFFERENCE])


def compared(pairs: pd.DataFrame, differences: pd.Series, *dice: str) -> Estimate:
    """Estimate of the ``differences`` of ``pairs`` (with fold and seed); the columns ``dice`` are those of both arms.

    There is no p where neither arm has learned anything: see `learned`.
    """
    made = estimate(differences, pairs["fold"], pairs["seed"])
    return made if learned(*(float(pairs[name].mean()) for name in dice)) else made._replace(p=math.nan)


def learned(*dice: float) -> bool:
    """Whether any of the mean Dice tells of a network that has learned something; NaN is not held against it.

    >>> learned(0.02, 0.3), learned(0.02, 0.03)
    (True, False)
    """
    return any(not value < LEARNED for value in dice)


def intervals(folds: pd.DataFrame) -> pd.DataFrame:
    """Each cell's mean Dice over trainings: CELL and :class:`Estimate`; ``folds`` as :func:`fold_scores` gives them."""
    cells = distinct(folds).groupby(CELL, sort=False)
    rows = [(*cell, *estimate(part["dice"], part["fold"], part["seed"])) for cell, part in cells]
    return pd.DataFrame(rows, columns=[*CELL, *Estimate._fields])


def counted(cases: pd.DataFrame) -> pd.DataFrame:
    """The rows of cases.csv and whether the case has the organ, ``n``, and it was ``missed``, or ``invented`` if not.

    An organ that preparation lost is there and was missed, whatever was predicted.
    """
    present, empty = cases["dice"].notna(), (cases["voxels_label"] == 0) | (cases["voxels_predicted"] == 0)
    return cases.assign(n=present, missed=present & empty, invented=~present & (cases["voxels_predicted"] > 0))


def organ_metrics(cases: pd.DataFrame) -> pd.DataFrame:
    """The metrics of every organ over all test cases, folds and seeds, a row a cell and organ.

    ``n`` counts the (case, seed) pairs that have the organ and ``missed`` those of them in which nothing was found, or
    preparation lost it; Dice and surface Dice are 0 there, and HD95 is the mean over the others.  ``invented`` counts
    the pairs without the organ in which it was found nevertheless.  ``worst_fold`` is the lowest mean Dice of a fold,
    ``difference`` the mean difference of Dice to ``scratch`` over the pairs that both arms have.
    """
    by = [*CELL, "label", "organ"]
    groups = counted(cases).groupby(by, sort=False)
    table = pd.concat([groups[METRICS].mean(), groups[["n", "missed", "invented"]].sum()], axis=1)
    table["worst_fold"] = groups.apply(lambda rows: rows.groupby("fold")["dice"].mean().min())
    table["difference"] = pairs(cases).groupby(by, sort=False)["difference"].mean()
    return table.reset_index()


def fold_scores(cases: pd.DataFrame) -> pd.DataFrame:
    """One row a run: the metrics of its fold, ``cases`` (that have an organ) and ``missed`` organs."""
    rows = counted(cases)
    by = [*KEYS, "weights", "job"]
    by_case = rows.groupby([*by, "case"], sort=False)[METRICS].mean()
    folds = by_case.groupby(by, sort=False).mean()
    folds["cases"] = by_case["dice"].groupby(by, sort=False).count()
    folds["missed"] = rows.groupby(by, sort=False)["missed"].sum()
    return folds.reset_index()


def over_folds(folds: pd.DataFrame, column: str = "dice") -> pd.DataFrame:
    """Mean and standard deviation over folds for each task, percent and arm; seeds are averaged first."""
    present = folds.dropna(subset=[column])
    per_fold = present.groupby([*CELL, "fold"], sort=False)[column].mean().groupby(CELL, sort=False)
    table = per_fold.agg(["mean", "std", "count"]).rename(columns={"std": "sd", "count": "folds"})
    table["seeds"] = present.groupby(CELL, sort=False)["seed"].nunique()
    table["trainings"] = present.groupby(CELL, sort=False)["weights"].nunique()
    return table.reset_index()


def fold_differences(cases: pd.DataFrame, reference: str = REFERENCE) -> pd.DataFrame:
    """One row a run of an arm but ``reference``: per metric, the mean over cases of :func:`pairs`, and both Dice.

    For Dice that is the difference of the fold scores; not for HD95, where only organs count that both found.
    """
    by = [*KEYS, *WEIGHTS]
    frames: list[pd.DataFrame] = []
    for metric in METRICS:
        names = {"difference": metric}
        if metric == "dice":
            names |= {"dice": "arm_dice", "reference_dice": "reference_dice"}
        rows = pairs(cases, metric, reference).groupby([*by, "case"], sort=False)[list(names)].mean()
        frames.append(rows.groupby(by, sort=False).mean().rename(columns=names))
    return pd.concat(frames, axis=1).reset_index()


def of(table: pd.DataFrame, cell: Cell) -> pd.DataFrame:
    """The rows of a table with ``CELL`` that are of one cell."""
    task, percent, arm = cell
    return table[(table["task"] == task) & (table["percent"] == percent) & (table["arm"] == arm)]
