"""From evaluated runs to tables: Tables 1 and 2 in the paper's shape, the organs, the statistics.

Everything is read from ``OUT/runs/<job>/cases.csv`` and ``run.json``; nothing is measured here.

Dice of a fold is the mean over its test cases of each case's mean over the organs that it has.  Organs that a
case does not have are left out, never counted as 0 or 1, and means are taken once, from the cases.  With
several seeds a fold's value is the mean over its seeds.  Standard deviations are over folds (n - 1); intervals and
p are over pairs of trainings, see :mod:`mixcl.results.inference`.
"""

from pathlib import Path

import pandas as pd

from mixcl.files import write_text
from mixcl.results import wording
from mixcl.results.formats import csv, write_table
from mixcl.results.runs import read_runs
from mixcl.results.sheets import organ_sheets, table_sheets
from mixcl.results.statistics import CELL, METRICS, pairs
from mixcl.results.table import Table, make_table


def table1(out: Path) -> Table:
    """Write tables/table1.csv, .md and .tex, and statistics.csv; cells without a run are ``-`` and named.

    Of all evaluated runs it takes those of the cells that ``grid.percents`` plans, from scratch and pre-trained.

    Raises
    ------
    InputError
        See :func:`mixcl.results.runs.read_runs`.
    """
    return _table(out, 1)


def table2(out: Path) -> Table:
    """Write tables/table2.csv, .md and .tex, and statistics.csv: the ablation, as ``grid.ablation`` plans it.

    Raises
    ------
    InputError
        See :func:`mixcl.results.runs.read_runs`.
    """
    return _table(out, 2)


def organs(out: Path) -> pd.DataFrame:
    """Write tables/organs.csv, .md and .tex: the metrics of every organ over all test cases, folds and seeds.

    ``n`` counts the (case, seed) pairs that have the organ and ``missed`` those of them in which nothing was
    found; Dice and surface Dice are 0 there, and HD95 is the mean over the others.  ``invented`` counts the
    pairs without the organ in which it was found nevertheless.  ``difference`` is the mean difference of Dice to
    ``scratch`` over the pairs that both arms have.
    """
    runs = read_runs(out)
    present, predicted = runs.cases["voxels_label"] > 0, runs.cases["voxels_predicted"] > 0
    rows = runs.cases.assign(n=present, missed=present & ~predicted, invented=~present & predicted)
    by = [*CELL, "label", "organ"]
    groups = rows.groupby(by, sort=False)
    table = pd.concat([groups[METRICS].mean(), groups[["n", "missed", "invented"]].sum()], axis=1)
    table["difference"] = pairs(runs.cases).groupby(by, sort=False)["difference"].mean()
    table = table.reset_index()
    write_table(out / "tables", "organs", table, organ_sheets(table, wording.origin(runs, runs.cases)))
    return table


def _table(out: Path, number: int) -> Table:
    table = make_table(read_runs(out), number)
    folds = table.folds if number == 1 else table.folds.drop(columns="paper_dice")
    write_table(out / "tables", f"table{number}", folds, table_sheets(table, number))
    write_text(out / "tables" / "statistics.csv", csv(table.comparisons))
    return table
