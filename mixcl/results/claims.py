"""The paper's claims against what was measured: shown, refuted or undecided, by intervals."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import pandas as pd

from mixcl.results.inference import estimate
from mixcl.results.paper import TABLE1
from mixcl.results.statistics import REFERENCE
from mixcl.run.jobs import FULL

NEVER_BELOW = -0.005
"""What a gain with all labels may lose at most: the paper has small gains there, so a loss of half a point is none."""


class Claim(NamedTuple):
    """The gain of a task is at least ``least``; what was measured, and what its interval says of that."""

    task: str
    claim: str
    least: float
    n: int
    difference: float
    low: float
    high: float
    verdict: str


def gain_claims(trainings: pd.DataFrame) -> list[Claim]:
    """The claims of Table 1 about MixCL against training from scratch, of trainings by the rule of epochs.

    ``trainings`` has a row a training: task, percent, arm (scratch, mixcl), fold, seed and dice, as
    tables/effects_trainings.csv has them.  For each task: with the fewest labels the gain is at least the paper's; with
    all it is not below `NEVER_BELOW`; and the first is larger than the second, by pairs of one fold and seed.
    """
    made: list[Claim] = []
    for task, rows in trainings.groupby("task", sort=False):
        dice = rows.pivot_table(index=["fold", "seed"], columns=["arm", "percent"], values="dice")
        if {FULL, REFERENCE} <= set(dice.columns.get_level_values(0)):
            made += _of_task(str(task), pd.DataFrame(dice[FULL] - dice[REFERENCE]).dropna(axis=1, how="all"))
    return made


def least(task: str, percent: float) -> float:
    """The gain that is claimed at a share: the paper's with its fewest labels, `NEVER_BELOW` with all, else NaN.

    >>> least("btcv", 15), least("btcv", 100), least("btcv", 50)
    (0.1412, -0.005, nan)
    """
    if percent == 100:
        return NEVER_BELOW
    fewest = min((share for key, share in TABLE1 if key == task), default=math.nan)
    return TABLE1[task, percent].difference if percent == fewest else math.nan


def verdict(low: float, high: float, claimed: float) -> str:
    """What a 95 % interval says of the claim that the mean is at least ``claimed``.

    >>> [verdict(-0.1, 0.1, claimed) for claimed in (-0.2, 0.0, 0.2)]
    ['shown', 'undecided', 'refuted']
    """
    if math.isnan(low):
        return "too few pairs"
    return "shown" if low >= claimed else "refuted" if high < claimed else "undecided"


def _of_task(task: str, gains: pd.DataFrame) -> Iterator[Claim]:
    """Claims of a task; ``gains`` has a row a pair (fold, seed) and a column a share of the labels."""
    shares: list[Any] = list(gains)
    for share in shares:
        if not math.isnan(claimed := least(task, share)):
            text = "never a loss" if share == 100 else "as much as in the paper"
            yield _claim(task, f"with {share:g} %, {text}", claimed, gains[share])
    fewest, most = min(shares), max(shares)
    if fewest < most:
        yield _claim(task, f"more with {fewest:g} % than with {most:g} %", 0.0, gains[fewest] - gains[most])


def _claim(task: str, claim: str, claimed: float, values: pd.Series) -> Claim:
    pairs = values.index
    made = estimate(values, pairs.get_level_values("fold"), pairs.get_level_values("seed"))
    return Claim(task, claim, claimed, made.n, made.mean, made.low, made.high, verdict(made.low, made.high, claimed))
