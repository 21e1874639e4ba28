"""The paper's claims: shown where the interval is above them, refuted where it is below."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mixcl.results.paper import NEVER_BELOW, TABLE1, gain_claims


def trainings(task: str, gains: dict[float, float], spread: float = 0.002, pairs: int = 5) -> pd.DataFrame:
    """Trainings of one seed whose gains vary by ``spread`` around those given by share."""
    rng = np.random.default_rng(0)
    rows = [
        (task, share, arm, fold, 0, 0.4 + (gain + spread * rng.normal() if arm == "mixcl" else 0.0))
        for share, gain in gains.items()
        for fold in range(pairs)
        for arm in ("scratch", "mixcl", "id")
    ]
    return pd.DataFrame(rows, columns=["task", "percent", "arm", "fold", "seed", "dice"])


@pytest.mark.parametrize(
    ("gains", "verdicts"),
    [
        ({15: 0.20, 50: 0.05, 100: 0.03}, ["shown", "shown", "shown"]),
        ({15: 0.05, 50: 0.05, 100: 0.03}, ["refuted", "shown", "shown"]),
        ({15: -0.05, 50: -0.03, 100: -0.02}, ["refuted", "refuted", "refuted"]),
    ],
)
def test_claims_of_a_task(gains: dict[float, float], verdicts: list[str]) -> None:
    made = gain_claims(trainings("btcv", gains))
    assert [claim.verdict for claim in made] == verdicts
    assert [claim.least for claim in made] == [TABLE1["btcv", 15].difference, NEVER_BELOW, 0.0]
    assert [claim.n for claim in made] == [5, 5, 5]
    assert [claim.claim for claim in made] == [
        "with 15 %, as much as in the paper", "with 100 %, never a loss", "more with 15 % than with 100 %",
    ]  # fmt: skip


def test_the_interval_of_a_claim_is_that_of_its_pairs() -> None:
    rows = trainings("msd_spleen", {5: 0.05, 100: 0.01}, spread=0.05)
    first, _, larger = gain_claims(rows)
    dice = rows.pivot_table(index="fold", columns=["percent", "arm"], values="dice")
    few, all_labels = (dice[share]["mixcl"] - dice[share]["scratch"] for share in (5, 100))
    for claim, values in ((first, few), (larger, few - all_labels)):
        interval = stats.ttest_1samp(values, 0).confidence_interval()
        assert (claim.difference, claim.low, claim.high) == pytest.approx((values.mean(), *interval), abs=1e-8)
    assert first.verdict == "undecided"


def test_what_was_not_measured_is_not_claimed() -> None:
    assert gain_claims(trainings("ward", {7: 0.1})) == []
    assert gain_claims(trainings("btcv", {15: 0.1}).query("arm != 'mixcl'")) == []
    assert [claim.verdict for claim in gain_claims(trainings("btcv", {15: 0.1}, pairs=1))] == ["too few pairs"]
