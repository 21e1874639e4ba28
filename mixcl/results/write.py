"""From evaluated runs to tables: Tables 1 and 2 in the paper's shape, the organs, the statistics, the run card.

Everything is read from ``OUT/runs/<job>/cases.csv`` and ``run.json``; nothing is measured here.

Dice of a fold is the mean over its test cases of each case's mean over the organs that it has.  Organs that a
case does not have are left out, never counted as 0 or 1, and means are taken once, from the cases.  With
several seeds a fold's value is the mean over its seeds.  Standard deviations are over folds (n - 1); intervals and
tests are over cases, see :mod:`mixcl.results.statistics`.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from mixcl.files import write_text
from mixcl.results import sheets, wording
from mixcl.results.formats import Sheet, csv, latex, markdown
from mixcl.results.runcard import run_card as run_card
from mixcl.results.runs import Runs as Runs
from mixcl.results.runs import read_runs as read_runs
from mixcl.results.statistics import (
    CELL,
    METRICS,
    pairs,
)
from mixcl.results.statistics import differences as differences
from mixcl.results.statistics import over_folds as over_folds
from mixcl.results.table import Table, _table


def table1(out: Path) -> Table:
    """Write tables/table1.csv, .md and .tex, and statistics.csv; cells without a run are ``-`` and named.

    Of all evaluated runs it takes those of the cells that ``grid.percents`` plans, from scratch and pre-trained.

    Raises
    ------
    InputError
        See :func:`read_runs`.
    """
    table = _table(out, 1)
    _write(out, "table1", table.folds, sheets.table1_sheets(table))
    return table


def table2(out: Path) -> Table:
    """Write tables/table2.csv, .md and .tex, and statistics.csv: the ablation, as ``grid.ablation`` plans it.

    Raises
    ------
    InputError
        See :func:`read_runs`.
    """
    table = _table(out, 2)
    _write(out, "table2", table.folds.drop(columns="paper_dice"), sheets.table2_sheets(table))
    return table


def organs(out: Path) -> pd.DataFrame:
    """Write tables/organs.csv, .md and .tex: the metrics of every organ over all test cases, folds and seeds.

    ``n`` counts the (case, seed) pairs that have the organ and ``missed`` those of them in which nothing was
    found; Dice and surface Dice are 0 there, and HD95 is the mean over the others.  ``invented`` counts the
    pairs without the organ in which it was found nevertheless.  ``difference`` is the mean difference of Dice to
    ``scratch`` over the pairs that both arms have.
    """
    runs = read_runs(out)
    rows = runs.cases.assign(
        n=runs.cases["voxels_label"] > 0,
        missed=(runs.cases["voxels_label"] > 0) & (runs.cases["voxels_predicted"] == 0),
        invented=(runs.cases["voxels_label"] == 0) & (runs.cases["voxels_predicted"] > 0),
    )
    by = [*CELL, "label", "organ"]
    groups = rows.groupby(by, sort=False)
    table = pd.concat([groups[METRICS].mean(), groups[["n", "missed", "invented"]].sum()], axis=1)
    table["difference"] = pairs(runs.cases).groupby(by, sort=False)["difference"].mean()
    table = table.reset_index()
    _write(out, "organs", table, sheets.organ_sheets(table, wording.origin(runs, runs.cases)))
    return table


def _write(out: Path, name: str, table: pd.DataFrame, shown: list[Sheet]) -> None:
    write_text(out / "tables" / f"{name}.csv", csv(table))
    write_text(out / "tables" / f"{name}.md", markdown(shown))
    write_text(out / "tables" / f"{name}.tex", latex(shown))
