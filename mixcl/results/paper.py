"""What the paper's tables say, number for number (R21, R22, R23), and its claims against what was measured.

A claim is shown, refuted or undecided, by the interval of the measured gain.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import pandas as pd

from mixcl.results.inference import estimate
from mixcl.results.statistics import REFERENCE
from mixcl.run.jobs import FULL

UNKNOWN = "not in the source text"


class PaperRow(NamedTuple):
    """Dice from scratch (T.F.S.), with MixCL (Ours), and the difference as it is printed."""

    scratch: float
    mixcl: float
    difference: float

    @property
    def slip(self) -> bool:
        """The printed difference is not that of the two columns beside it (R21)."""
        return round(self.mixcl - self.scratch, 4) != self.difference


TABLE1: dict[tuple[str, float], PaperRow] = {
    ("msd_spleen", 5): PaperRow(0.5065, 0.5593, 0.0528),
    ("msd_spleen", 15): PaperRow(0.8247, 0.8430, 0.0183),
    ("msd_spleen", 50): PaperRow(0.9424, 0.9453, 0.0019),
    ("msd_spleen", 100): PaperRow(0.9597, 0.9612, 0.0015),
    ("btcv", 15): PaperRow(0.2459, 0.3871, 0.1412),
    ("btcv", 50): PaperRow(0.5851, 0.5939, 0.0085),
    ("btcv", 100): PaperRow(0.7524, 0.7656, 0.0132),
}
"""Table 1 by collection and percent of the labels; the paper spells BTCV also BTVC (R22)."""

SLIPS = dict(zip((key for key, row in TABLE1.items() if row.slip), "ab", strict=True))
"""The letter that marks a row of Table 1 whose printed difference is a slip (R21)."""

TITLES = {"msd_spleen": "Spleen", "btcv": "BTCV"}
"""The blocks of Table 1, from left to right."""

ARMS = {"scratch": "T.F.S.", "mixcl": "Ours"}
"""The arms of Table 1 under their names there."""

TABLE2 = {"Id": "identity", "Label": "alpha", "Recon": "beta"}
"""The columns of Table 2 with check marks, and the weight of ``loss`` that is above 0 where there is a mark.

The numbers of Table 2 are not in our copy of the paper (R23)."""

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


def claimed_gain(task: str, percent: float) -> float:
    """The gain that is claimed at a share: the paper's with its fewest labels, `NEVER_BELOW` with all, else NaN.

    >>> [claimed_gain("btcv", percent) for percent in (15, 100, 50)]
    [0.1412, -0.005, nan]
    """
    if percent == 100:
        return NEVER_BELOW
    fewest = min((share for key, share in TABLE1 if key == task), default=math.nan)
    return TABLE1[task, percent].difference if percent == fewest else math.nan


def claim_verdict(low: float, high: float, claimed: float) -> str:
    """What a 95 % interval says of the claim that the mean is at least ``claimed``.

    >>> [claim_verdict(-0.1, 0.1, claimed) for claimed in (-0.2, 0.0, 0.2)]
    ['shown', 'undecided', 'refuted']
    """
    if math.isnan(low):
        return "too few pairs"
    return "shown" if low >= claimed else "refuted" if high < claimed else "undecided"


def _of_task(task: str, gains: pd.DataFrame) -> Iterator[Claim]:
    """Claims of a task; ``gains`` has a row a pair (fold, seed) and a column a share of the labels."""
    shares: list[Any] = list(gains)
    for share in shares:
        if not math.isnan(claimed := claimed_gain(task, share)):
            text = "never a loss" if share == 100 else "as much as in the paper"
            yield _claim(task, f"with {share:g} %, {text}", claimed, gains[share])
    fewest, most = min(shares), max(shares)
    if fewest < most:
        yield _claim(task, f"more with {fewest:g} % than with {most:g} %", 0.0, gains[fewest] - gains[most])


def _claim(task: str, claim: str, claimed: float, values: pd.Series) -> Claim:
    folds, seeds = (values.index.get_level_values(name) for name in ("fold", "seed"))
    n, mean, low, high, *_ = estimate(values, folds, seeds)
    return Claim(task, claim, claimed, n, mean, low, high, claim_verdict(low, high, claimed))
