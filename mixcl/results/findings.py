"""What a run comes to, in a few plain lines made from its numbers: the means of Table 1, what Tables 1 and 2 answer."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mixcl.config.settings import Experiment
from mixcl.errors import InputError
from mixcl.results.notes import sentences
from mixcl.results.runs import read_runs
from mixcl.results.statistics import CELL, LEARNED, REFERENCE
from mixcl.results.wording import arm_title, interval_texts, share_title, title
from mixcl.results.write import Table, make_table
from mixcl.run.jobs import FULL


def findings(out: Path, plan: Experiment | None = None) -> list[str]:
    """What was run, what Table 1 and what Table 2 answer; nothing where no run is evaluated or one is damaged."""
    try:
        runs = read_runs(out, plan)
    except InputError:
        return []
    first, second = (make_table(runs, number) for number in (1, 2))
    folds = pd.concat([first.folds, second.folds])
    return sentences(
        "findings",
        trainings=folds["weights"].nunique(),
        folds=folds["fold"].nunique(),
        seeds=folds["seed"].nunique(),
        tasks=list(map(title, folds["task"].unique())),
        arms=[arm_title(arm) for arm in folds["arm"].unique() if arm != REFERENCE],
        phantom=first.phantom,
        first=verdicts(first).query("arm == @FULL").to_dict("records"),
        ablation=any(arm != REFERENCE for *_, arm in second.planned),
        second=_by_share(second),
    )


def headline(out: Path, plan: Experiment | None = None) -> list[str]:
    """Mean Dice of Table 1 of a folder of results, a line a task, and :func:`findings`; nothing without a pair.

    Raises `InputError` as :func:`mixcl.results.runs.read_runs` does.
    """
    table = make_table(read_runs(out, plan), 1)
    means = table.cells.pivot_table("mean", CELL[:2], "arm", sort=False).reindex(columns=[REFERENCE, FULL]).dropna()
    if means.empty:
        return []
    tasks = {
        title(str(task)): list(rows.droplevel("task").itertuples(name=None))
        for task, rows in means.groupby("task", sort=False)
    }
    folds, seeds = (table.folds[name].nunique() for name in ("fold", "seed"))
    return [*sentences("headline", tasks=tasks, folds=folds, seeds=seeds), *findings(out, plan)]


def verdicts(table: Table) -> pd.DataFrame:
    """Every cell with pairs against training from scratch, by the 95 % interval of the difference in Dice.

    The rows of ``table.comparisons`` and ``mean``, the cell's Dice; ``verdict``: ahead, behind, not told apart, or
    nothing learned, where neither mean reaches `LEARNED`; ``where``, ``size``, ``points`` and ``interval`` for a text.
    """
    means = table.cells.set_index(CELL)["mean"]
    scratch = means[means.index.get_level_values("arm") == REFERENCE].droplevel("arm").rename("scratch")
    rows = table.comparisons.query("metric == 'dice' and n > 0").astype({"percent": float, "n": int})  # if it is empty
    rows = rows.join(means, on=CELL).join(scratch, on=CELL[:2])
    neither = (rows["mean"] < LEARNED) & (rows["scratch"] < LEARNED)
    sides = [neither, rows["low"] > 0, rows["high"] < 0]
    return rows.assign(
        verdict=np.select(sides, ["nothing learned", "ahead", "behind"], "not told apart"),
        where=list(map(share_title, rows["task"], rows["percent"])),
        size=rows["difference"].abs(),
        points=[f"{100 * difference:+.1f}" for difference in rows["difference"]],
        interval=interval_texts(rows, 1, 100),
    )


def _by_share(table: Table) -> list[tuple[str, list[dict[Hashable, Any]]]]:
    """Each task and share of which something was learned and compared, and its arms with their verdicts, best first."""
    compared = verdicts(table)[[*CELL, "verdict", "n", "folds", "seeds"]]
    cells = table.cells[[*CELL, "mean"]].merge(compared, on=CELL, how="left").fillna({"n": 0, "verdict": ""})
    cells = cells.assign(name=cells["arm"].map(arm_title), n=cells["n"].astype(int))
    return [
        (
            f"{title(str(task))} with {percent:g} % of the labels",
            rows.sort_values("mean", ascending=False).to_dict("records"),
        )
        for (task, percent), rows in cells.groupby(CELL[:2], sort=False)
        if rows["mean"].max() >= LEARNED and rows["n"].any()
    ]
