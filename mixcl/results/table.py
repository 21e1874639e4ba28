"""Table 1 or 2 of a folder of results, as numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from mixcl.files import write_text
from mixcl.results import sheets, wording
from mixcl.results.formats import csv
from mixcl.results.paper import TABLE1
from mixcl.results.runcard import run_card as run_card
from mixcl.results.runs import Runs as Runs
from mixcl.results.runs import read_runs as read_runs
from mixcl.results.statistics import (
    CELL,
    KEYS,
    METRICS,
    Cell,
    comparisons,
    fold_differences,
    fold_scores,
    intervals,
)
from mixcl.results.statistics import differences as differences
from mixcl.results.statistics import over_folds as over_folds
from mixcl.run import jobs


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


def _table(out: Path, number: int) -> Table:
    """Table 1 or 2, and statistics.csv of both."""
    runs = read_runs(out)
    part = runs.only(runs.cells(number))
    folds = fold_scores(part.cases)
    where = wording.origin(part, folds)
    say, note = (
        (wording.table1_caption, wording.table1_notes)
        if number == 1
        else (wording.table2_caption, wording.table2_notes)
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


def _marks(runs: Runs) -> dict[str, tuple[str, ...]]:
    """Id, Label and Recon of each arm with runs: a check mark where its pre-training had the term.

    From the settings that the fine-tuning was made with, which are those of the arm's pre-training, too; no marks
    for training from scratch, and ``differs`` where the runs of an arm do not agree.
    """
    found: dict[str, set[tuple[str, ...]]] = {}
    for card in runs.cards.values():
        fresh = card.get("decides", {}).get("init", "none" if card["arm"] == jobs.SCRATCH else "") == "none"
        found.setdefault(card["arm"], set()).add(sheets.marks({} if fresh else card["config"].get("loss", {})))
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
