"""From evaluated runs to tables: Tables 1 and 2 in the paper's shape, its values beside ours; organs; statistics.

Everything is read from ``OUT/runs/<job>/cases.csv`` and ``run.json``; nothing is measured here.  Dice of a fold is the
mean over its test cases of each case's mean over the organs that it has; with several seeds a fold's value is the mean
over its seeds.  For the rest see :mod:`mixcl.results.statistics`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from mixcl.config.settings import Experiment, PretrainConfig
from mixcl.files import write_text
from mixcl.results import notes, statistics, wording
from mixcl.results.formats import MARK, MISSING, TextTable, csv, write_table
from mixcl.results.paper import ARMS, SLIPS, TABLE1, TABLE2, TITLES, UNKNOWN
from mixcl.results.runs import Runs, rank, read_runs
from mixcl.results.statistics import CELL, KEYS, METRICS, REFERENCE, WEIGHTS, Cell
from mixcl.results.wording import DIGITS, NAMES, alone, arm_title, interval, quoted_p, share_title, shown, title
from mixcl.run.jobs import FULL

COLUMNS = ("Pct.", arm_title(REFERENCE), arm_title(FULL), "Diff.")
PAIRS_ROW, PAPER_ROW = "over pairs", f"paper ({', '.join(ARMS.values())})"
FOLDS = [*KEYS, *METRICS, "cases", "missed", "paper_dice", "profile", "source", "commit", "data", "weights", "job"]
Groups = list[tuple[str, Sequence[str]]]


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


def table1(out: Path, plan: Experiment | None = None) -> Table:
    """Write tables/table1.csv, .md and .tex; cells without a run are ``-`` and named.

    Of the evaluated runs of the jobs of ``plan``, or of all, it takes those of the cells that ``grid.percents`` plans,
    from scratch and pre-trained.  Raises `InputError` as :func:`mixcl.results.runs.read_runs` does.
    """
    return _table(out, 1, plan)


def table2(out: Path, plan: Experiment | None = None) -> Table:
    """Write tables/table2.csv, .md and .tex: the ablation, as ``grid.ablation`` plans it, else as :func:`table1`."""
    return _table(out, 2, plan)


def _table(out: Path, number: int, plan: Experiment | None) -> Table:
    table = make_table(read_runs(out, plan), number)
    folds = table.folds if number == 1 else table.folds.drop(columns="paper_dice")
    write_table(out / "tables", f"table{number}", folds, _text_tables(table, number))
    return table


def comparisons(out: Path, plan: Experiment | None = None) -> pd.DataFrame:
    """Write tables/statistics.csv: every comparison of both tables, of all runs of ``plan``."""
    runs = read_runs(out, plan)
    table = statistics.comparisons(runs.cases, dict.fromkeys((*runs.cells(1), *runs.cells(2))))
    write_text(out / "tables" / "statistics.csv", csv(table))
    return table


def make_table(runs: Runs, number: int) -> Table:
    """Table 1 or 2 of some runs, of none but its own cells."""
    planned = tuple(runs.cells(number))
    part = runs.only(planned)
    folds = statistics.fold_scores(part.cases)
    where = notes.origin(part, folds)
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
        caption=notes.caption(number, folds, bool(part.phantoms)),
        notes=(*notes.notes(number, runs, folds), where),
        phantom=bool(runs.phantoms),
        origin=where,
        planned=planned,
        marks=_marks(part),
        intervals=statistics.intervals(folds),
        paired=statistics.fold_differences(part.cases),
        comparisons=statistics.comparisons(part.cases, dict.fromkeys(planned)),  # the other table's runs may come yet
    )


def organs(out: Path, plan: Experiment | None = None) -> pd.DataFrame:
    """Write tables/organs.csv, .md and .tex: :func:`statistics.organ_metrics` of the runs of ``plan``, or of all."""
    runs = read_runs(out, plan)
    table = statistics.organ_metrics(runs.cases)
    write_table(out / "tables", "organs", table, _organ_tables(table, notes.origin(runs, runs.cases)))
    return table


def _marks(runs: Runs) -> dict[str, tuple[str, ...]]:
    """A check mark for each of Id, Label and Recon that an arm's pre-training had; ``differs`` where its runs do.

    Another ``pretrain.method`` has none of them.
    """
    marks: dict[str, set[tuple[str, ...]]] = {}
    ours = PretrainConfig().method
    for card in runs.cards.values():
        fresh = card.get("decides", {}).get("init", "none" if card["arm"] == REFERENCE else "") == "none"
        other = card["config"].get("pretrain", {}).get("method", ours) != ours
        weights = {} if fresh or other else card["config"].get("loss", {})
        terms = tuple(MARK if weights.get(key, 0) > 0 else "" for key in TABLE2.values())
        marks.setdefault(card["arm"], set()).add(terms)
    return {arm: terms.pop() if len(terms) == 1 else ("differs",) * 3 for arm, terms in marks.items()}


def _text_tables(table: Table, number: int) -> list[TextTable]:
    """Table 1 or 2 in Dice, as the paper has it; then by further metrics."""
    body = _table1 if number == 1 else _table2
    parts = [TextTable(f"Table {number}.", table.caption, *body(table, "dice"), table.notes)]
    new = ", which the paper does not report" if number == 1 else ""
    for metric in METRICS[1:]:
        name = NAMES[metric]
        caption = f"The runs of Table {number} by {name}{new}; notes as there."
        parts.append(TextTable(f"{name[0].upper()}{name[1:]}.", caption, *body(table, metric)))
    return parts


def _table1(table: Table, metric: str) -> tuple[Groups, list[list[str]]]:
    """A row of ours, one over pairs of trainings and one of the paper's for every share."""
    shares = {cell[:2] for cell in table.planned} | set(TABLE1 if metric == "dice" else ())
    tasks = sorted({task for task, _ in shares}, key=lambda task: rank(task, TITLES))
    scores, differences = _over_folds(table.folds, metric), _over_folds(table.paired, metric, "+")
    rows = []
    for percent in sorted({percent for _, percent in shares}):
        ours, pairs, paper = ["this run"], [PAIRS_ROW], [PAPER_ROW]
        for task in tasks:
            planned = (task, percent) in shares
            head, blank = f"{percent:g} %", [""] * len(COLUMNS)
            scratch, mixcl = (task, percent, REFERENCE), (task, percent, FULL)
            means = scores.get(scratch, MISSING), scores.get(mixcl, MISSING), differences.get(mixcl, MISSING)
            ours += [head, *means] if planned else blank
            tested = _over_pairs(table, metric, mixcl)
            weights = table.folds.loc[(table.folds["task"] == task) & (table.folds["percent"] == percent), "weights"]
            pairs += [head, f"{weights.nunique()} trainings", *tested] if tested else blank
            paper += [head, *_paper(task, percent)] if planned else blank
        rows += [ours, *([pairs] if any(pairs[1:]) else []), *([paper] if metric == "dice" else [])]
    return [("", [""]), *((title(task), COLUMNS) for task in tasks)], rows


def _table2(table: Table, metric: str) -> tuple[Groups, list[list[str]]]:
    """An arm a row, with the terms it was pre-trained with, and one over pairs of trainings."""
    columns = list(dict.fromkeys((task, percent) for task, percent, _ in table.planned))
    paper = [UNKNOWN] if metric == "dice" else []
    scores, differences = _over_folds(table.folds, metric), _over_folds(table.paired, metric, "+")
    rows = []
    for arm in dict.fromkeys(arm for *_, arm in table.planned):
        ours = [arm_title(arm), *table.marks.get(arm, (MISSING,) * len(TABLE2))]
        pairs = [PAIRS_ROW, *[""] * len(TABLE2)]
        for cell in ((*column, arm) for column in columns):
            ours += [scores.get(cell, MISSING), "" if arm == REFERENCE else differences.get(cell, MISSING)]
            pairs += _over_pairs(table, metric, cell) or ["", ""]
        rows += [[*ours, *paper], *([[*pairs, *([""] * len(paper))]] if any(pairs[1:]) else [])]
    groups: Groups = [("", ("", *TABLE2))]
    groups += [(share_title(task, percent), (NAMES[metric], "Diff.")) for task, percent in columns]
    return [*groups, *([("", ("paper",))] if paper else [])], rows


def _organ_tables(table: pd.DataFrame, origin: str) -> list[TextTable]:
    """A table for every task, share and arm: its organs beside those of training from scratch."""
    columns = ("n", *NAMES.values(), "worst fold", "missed", "invented")
    parts: list[TextTable] = []
    for (task, percent), part in table.groupby(["task", "percent"], sort=False):
        present = list(dict.fromkeys(part["arm"]))
        for arm in [arm for arm in present if arm != REFERENCE] or [""]:
            pair = [name for name in (REFERENCE, arm) if name in present]
            groups = [("", ("organ",)), *((arm_title(name), columns) for name in pair), ("", ("Diff.",))]
            rows = [_organ(rows, pair) for _, rows in part.groupby(["label", "organ"])]
            what = f"{title(str(task))}, {percent:g} % of the labels, {' and '.join(map(arm_title, pair))}."
            parts.append(TextTable("Organs.", what, groups, rows, () if parts else (wording.ORGANS, origin)))
    return parts


def _organ(rows: pd.DataFrame, arms: Sequence[str]) -> list[str]:
    """An organ's row: its metrics in each of the arms, and the difference that the last of them has."""
    by_arm = {row["arm"]: row for row in rows.to_dict("records")}
    cells, difference = [str(rows["organ"].iloc[0])], MISSING
    for arm in arms:
        if row := by_arm.get(arm):
            surface, worst = shown(row["surface_dice"]), shown(row["worst_fold"])
            metrics = (shown(row["dice"]), shown(row["hd95_mm"], 1), surface, worst)
            cells += [str(row["n"]), *metrics, str(row["missed"]), str(row["invented"])]
            difference = shown(row["difference"], sign="+")
        else:
            cells += [MISSING] * 7
    return [*cells, difference]


def _over_folds(folds: pd.DataFrame, metric: str, sign: str = "") -> dict[Cell, str]:
    """Mean ± sd over folds of each cell that has a run."""
    texts = {}
    for row in statistics.over_folds(folds, metric).to_dict("records"):
        spread = "" if math.isnan(row["sd"]) else f" ± {row['sd']:.{DIGITS[metric]}f}"
        texts[row["task"], row["percent"], row["arm"]] = shown(row["mean"], DIGITS[metric], sign) + spread
    return texts


def _over_pairs(table: Table, metric: str, cell: Cell) -> list[str]:
    """``n = 15, p = 0.031`` (p where there is one) and ``[-0.01, +0.02]`` of a cell; nothing without pairs."""
    rows = statistics.of(table.comparisons, cell)
    rows = rows[(rows["metric"] == metric) & (rows["n"] > 0)]
    if rows.empty:
        return []
    row = rows.iloc[0]
    p = quoted_p(row["p"])
    count = f"n = {row['n']}{p and f', {p}'}{alone(row['folds'], row['seeds'])}"
    return [count, interval(row["low"], row["high"], DIGITS[metric])]


def _paper(task: str, percent: float) -> list[str]:
    row = TABLE1.get((task, percent))
    if row is None:
        return [UNKNOWN] * 3
    mark = f" [{SLIPS[task, percent]}]" if row.slip else ""
    return [f"{row.scratch:.4f}", f"{row.mixcl:.4f}", f"{row.difference:+.4f}{mark}"]
