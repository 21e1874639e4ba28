"""From evaluated runs to tables: Tables 1 and 2 in the paper's shape, the organs, the statistics, the run card.

Everything is read from ``OUT/runs/<job>/cases.csv`` and ``run.json``; nothing is measured here.

Dice of a fold is the mean over its test cases of each case's mean over the organs that it has.  Organs that a
case does not have are left out, never counted as 0 or 1, and means are taken once, from the cases.  With
several seeds a fold's value is the mean over its seeds.  Standard deviations are over folds (n - 1); intervals and
tests are over cases, see :mod:`mixcl.statistics`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from mixcl import plan, tables
from mixcl.checkpoint import write_text
from mixcl.paper import TABLE1
from mixcl.runcard import run_card as run_card
from mixcl.runs import Runs as Runs
from mixcl.runs import read_runs as read_runs
from mixcl.sheets import Sheet, csv, latex, markdown
from mixcl.statistics import CELL, KEYS, METRICS, Cell, comparisons, fold_differences, fold_scores, intervals, pairs
from mixcl.statistics import differences as differences
from mixcl.statistics import over_folds as over_folds


@dataclass(frozen=True)
class Table:
    """Table 1 or 2 of a folder of results.

    ``folds``: one row a fold, as in table1.csv.  ``cells``: task, percent, arm, mean, sd, folds, seeds, of Dice.
    ``differences``: the same, of the differences to ``scratch`` paired by fold and seed.
    ``caption`` and ``notes``: what to say about it.  ``phantom``: whether any of it is from phantoms.
    ``origin``: where it comes from, also a part of the caption.  ``planned``: the cells in the table's order.
    ``marks``: Id, Label and Recon by arm.  ``intervals``: of each cell's mean Dice over cases.
    ``paired``: one row a fold and arm, of the differences to ``scratch``.  ``comparisons``: as in statistics.csv.
    """

    folds: pd.DataFrame
    cells: pd.DataFrame
    differences: pd.DataFrame
    caption: str
    notes: tuple[str, ...]
    phantom: bool
    origin: str = ""
    planned: tuple[Cell, ...] = ()
    marks: dict[str, tuple[str, ...]] = field(default_factory=dict)
    intervals: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=[*CELL, "mean", "low", "high"]))
    paired: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=[*KEYS, *METRICS]))
    comparisons: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=[*CELL, "metric", "n"]))


Table1 = Table


def table1(out: Path) -> Table:
    """Write tables/table1.csv, .md and .tex, and statistics.csv; cells without a run are ``-`` and named.

    Of all evaluated runs it takes those of the cells that ``grid.percents`` plans, from scratch and pre-trained.

    Raises
    ------
    InputError
        See :func:`read_runs`.
    """
    table = _table(out, 1)
    _write(out, "table1", table.folds, tables.table1_sheets(table))
    return table


def table2(out: Path) -> Table:
    """Write tables/table2.csv, .md and .tex, and statistics.csv: the ablation, as ``grid.ablation`` plans it.

    Raises
    ------
    InputError
        See :func:`read_runs`.
    """
    table = _table(out, 2)
    _write(out, "table2", table.folds.drop(columns="paper_dice"), tables.table2_sheets(table))
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
    _write(out, "organs", table, tables.organ_sheets(table, tables.origin(runs, runs.cases)))
    return table


def _table(out: Path, number: int) -> Table:
    """Table 1 or 2, and statistics.csv of both."""
    runs = read_runs(out)
    part = runs.only(runs.cells(number))
    folds = fold_scores(part.cases)
    where = tables.origin(part, folds)
    say, note = (
        (tables.table1_caption, tables.table1_notes) if number == 1 else (tables.table2_caption, tables.table2_notes)
    )
    compared = comparisons(runs.cases, dict.fromkeys((*runs.cells(1), *runs.cells(2))))
    write_text(out / "tables" / "statistics.csv", csv(compared))
    return Table(
        folds=_described(folds, part),
        cells=over_folds(folds),
        differences=differences(folds),
        caption=say(folds, where),
        notes=note(runs, folds),
        phantom="phantom" in runs.sources,
        origin=where,
        planned=tuple(runs.cells(number)),
        marks=_marks(part),
        intervals=intervals(part.cases),
        paired=fold_differences(part.cases),
        comparisons=compared,
    )


def _write(out: Path, name: str, table: pd.DataFrame, sheets: list[Sheet]) -> None:
    write_text(out / "tables" / f"{name}.csv", csv(table))
    write_text(out / "tables" / f"{name}.md", markdown(sheets))
    write_text(out / "tables" / f"{name}.tex", latex(sheets))


def _marks(runs: Runs) -> dict[str, tuple[str, ...]]:
    """Id, Label and Recon of each arm with runs: a check mark where its pre-training had the term.

    From the settings that the fine-tuning was made with, which are those of the arm's pre-training, too; no marks
    for training from scratch, and ``differs`` where the runs of an arm do not agree.
    """
    found: dict[str, set[tuple[str, ...]]] = {}
    for card in runs.cards.values():
        fresh = card.get("decides", {}).get("init", "none" if card["arm"] == plan.SCRATCH else "") == "none"
        found.setdefault(card["arm"], set()).add(tables.marks({} if fresh else card["config"].get("loss", {})))
    return {arm: ones.pop() if len(ones) == 1 else ("differs",) * 3 for arm, ones in found.items()}


def _described(folds: pd.DataFrame, runs: Runs) -> pd.DataFrame:
    """The folds with the paper's value and where each comes from."""
    quoted = [TABLE1.get(key) for key in zip(folds["task"], folds["percent"], strict=True)]
    paper = [getattr(row, arm, None) if row else None for row, arm in zip(quoted, folds["arm"], strict=True)]
    cards = [runs.cards[job] for job in folds["job"]]
    return folds.assign(
        paper_dice=pd.Series(paper, dtype=float, index=folds.index),
        profile=[card["profile"] for card in cards],
        source=[card["config"]["data"]["source"] for card in cards],
        commit=[card["commit"] for card in cards],
        data=[card["data"] for card in cards],
    )[[*KEYS, *METRICS, "cases", "missed", "paper_dice", "profile", "source", "commit", "data", "job"]]
