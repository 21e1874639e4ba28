"""Table 1 or 2 of a folder of results, as numbers."""

from dataclasses import dataclass, field

import pandas as pd

from mixcl.results import statistics, wording
from mixcl.results.formats import MARK
from mixcl.results.paper import TABLE1, TABLE2
from mixcl.results.runs import Runs
from mixcl.results.statistics import CELL, KEYS, METRICS, REFERENCE, WEIGHTS, Cell

FOLDS = [*KEYS, *METRICS, "cases", "missed", "paper_dice", "profile", "source", "commit", "data", "weights", "job"]


@dataclass(frozen=True)
class Table:
    """Table 1 or 2 of a folder of results.

    ``folds``: one row a fold, as in table1.csv.  ``cells``: task, percent, arm, mean, sd, folds, seeds, ``trainings``
    (distinct ones), of Dice.  ``phantom``: whether any of it is from phantoms.  ``origin``: where it comes from, also
    the last of the notes.  ``planned``: the cells in the table's order.  ``marks``: Id, Label and Recon by arm.
    ``intervals``: of each cell's mean Dice over trainings.  ``paired``: one row a fold and arm, of the differences to
    ``scratch``.
    """

    folds: pd.DataFrame
    cells: pd.DataFrame
    caption: str
    notes: tuple[str, ...]
    phantom: bool
    origin: str = ""
    planned: tuple[Cell, ...] = ()
    marks: dict[str, tuple[str, ...]] = field(default_factory=dict)
    intervals: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=[*CELL, "mean", "low", "high"]))
    paired: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=[*KEYS, *METRICS, *WEIGHTS]))
    comparisons: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=[*CELL, "metric", "n"]))


def make_table(runs: Runs, number: int) -> Table:
    """Table 1 or 2 of some runs; its ``comparisons`` are those of both."""
    planned = tuple(runs.cells(number))
    part = runs.only(planned)
    folds = statistics.fold_scores(part.cases)
    where = wording.origin(part, folds)
    cards = [part.cards[job] for job in folds["job"]]
    quoted = [TABLE1.get(key) for key in zip(folds["task"], folds["percent"], strict=True)]
    paper = [getattr(row, arm, None) for row, arm in zip(quoted, folds["arm"], strict=True)]
    described = folds.assign(
        paper_dice=pd.Series(paper, dtype=float, index=folds.index),
        source=[card["config"]["data"]["source"] for card in cards],
        **{key: [card[key] for card in cards] for key in ("profile", "commit", "data")},
    )
    return Table(
        folds=described[FOLDS],
        cells=statistics.over_folds(folds),
        caption=wording.caption(number, folds, bool(part.phantoms)),
        notes=(*wording.notes(number, runs, folds), where),
        phantom=bool(runs.phantoms),
        origin=where,
        planned=planned,
        marks=_marks(part),
        intervals=statistics.intervals(folds),
        paired=statistics.fold_differences(part.cases),
        comparisons=statistics.comparisons(runs.cases, dict.fromkeys((*runs.cells(1), *runs.cells(2)))),
    )


def _marks(runs: Runs) -> dict[str, tuple[str, ...]]:
    """A check mark for each of Id, Label and Recon that an arm's pre-training had; ``differs`` where its runs do."""
    marks: dict[str, set[tuple[str, ...]]] = {}
    for card in runs.cards.values():
        fresh = card.get("decides", {}).get("init", "none" if card["arm"] == REFERENCE else "") == "none"
        weights = {} if fresh else card["config"].get("loss", {})
        terms = tuple(MARK if weights.get(key, 0) > 0 else "" for key in TABLE2.values())
        marks.setdefault(card["arm"], set()).add(terms)
    return {arm: terms.pop() if len(terms) == 1 else ("differs",) * 3 for arm, terms in marks.items()}
