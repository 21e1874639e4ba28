"""What the tables say: Tables 1 and 2 in the paper's shape with its values beside ours, and the organs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from mixcl.results import statistics
from mixcl.results.formats import MARK, MISSING, Sheet
from mixcl.results.paper import TABLE1, TABLE2, TITLES, UNKNOWN
from mixcl.results.statistics import METRICS, REFERENCE, Cell

if TYPE_CHECKING:
    from mixcl.results.table import Table

from mixcl.results.wording import DIGITS, NAMES, _slips, arm_title, interval, shown, title

COLUMNS = ("Pct.", "T.F.S.", "Ours", "Diff.")
CASES_ROW = "over cases"


def table1_sheets(table: Table) -> list[Sheet]:
    """Table 1: a row of ours, one over cases and one of the paper's for every share; then further metrics."""
    sheets = [_table1(table, "dice", "Table 1.", table.caption, table.notes)]
    for metric in METRICS[1:]:
        said = f"The runs of Table 1 by {NAMES[metric]}, which the paper does not report; notes as there."
        sheets.append(_table1(table, metric, f"{NAMES[metric][0].upper()}{NAMES[metric][1:]}.", said, ()))
    return sheets


def _table1(table: Table, metric: str, name: str, said: str, notes: Sequence[str]) -> Sheet:
    shares = {(task, percent) for task, percent, _ in table.planned}
    shares |= set(zip(table.folds["task"], table.folds["percent"], strict=True))
    if metric == "dice":
        shares |= set(TABLE1)
    tasks = [*(task for task in TITLES if any(task == one for one, _ in shares))]
    tasks += sorted({task for task, _ in shares} - set(TITLES))
    rows = []
    for percent in sorted({percent for _, percent in shares}):
        ours, cases, theirs = ["this run"], [CASES_ROW], ["paper"]
        for task in tasks:
            there = (task, percent) in shares
            head, blank = f"{percent:g} %", [""] * len(COLUMNS)
            mixcl = _ours(table, metric, (task, percent, "mixcl"))
            ours += [head, _ours(table, metric, (task, percent, REFERENCE))[0], *mixcl] if there else blank
            tested = _over_cases(table, metric, (task, percent, "mixcl"))
            cases += [head, "", *tested] if tested else blank
            theirs += [head, *_theirs(task, percent)] if there else blank
        rows += [ours, *([cases] if any(cases[1:]) else []), *([theirs] if metric == "dice" else [])]
    return Sheet(name, said, [("", [""]), *((title(task), COLUMNS) for task in tasks)], rows, notes)


def table2_sheets(table: Table) -> list[Sheet]:
    """Table 2: an arm a row, with the terms it was pre-trained with; then further metrics."""
    sheets = [_table2(table, "dice", "Table 2.", table.caption, table.notes)]
    for metric in METRICS[1:]:
        said = f"The runs of Table 2 by {NAMES[metric]}; notes as there."
        sheets.append(_table2(table, metric, f"{NAMES[metric][0].upper()}{NAMES[metric][1:]}.", said, ()))
    return sheets


def _table2(table: Table, metric: str, name: str, said: str, notes: Sequence[str]) -> Sheet:
    columns = list(dict.fromkeys((task, percent) for task, percent, _ in table.planned))
    rows = []
    for arm in dict.fromkeys(arm for *_, arm in table.planned):
        ours = [arm_title(arm), *table.marks.get(arm, (MISSING,) * len(TABLE2))]
        cases = [CASES_ROW, *[""] * len(TABLE2)]
        for task, percent in columns:
            score, difference = _ours(table, metric, (task, percent, arm))
            ours += [score, "" if arm == REFERENCE else difference]
            cases += _over_cases(table, metric, (task, percent, arm)) or ["", ""]
        rows += [ours, *([cases] if any(cases[1:]) else [])]
    groups = [("", ("", *TABLE2)), *((f"{title(t)} {p:g} %", (NAMES[metric], "Diff.")) for t, p in columns)]
    if metric == "dice":
        groups.append(("", ("paper",)))
        rows = [[*row, "" if row[0] == CASES_ROW else UNKNOWN] for row in rows]
    return Sheet(name, said, groups, rows, notes)


def marks(weights: dict[str, float]) -> tuple[str, ...]:
    """Id, Label and Recon of Table 2: a check mark where the weight of the term is above 0.

    >>> marks({"identity": 1.0, "alpha": 0.0, "beta": 0.01})
    ('✓', '', '✓')
    """
    return tuple(MARK if weights.get(key, 0) > 0 else "" for key in TABLE2.values())


def organ_sheets(table: pd.DataFrame, said: str) -> list[Sheet]:
    """A sheet for every task, share and arm: its organs beside those of training from scratch."""
    legend = (
        "n: case and seed pairs that have the organ; missed: those in which nothing was found (Dice and surface Dice "
        "0, no HD95); invented: pairs without the organ in which it was found; Diff.: mean difference in Dice over the "
        "pairs that both arms have."
    )
    columns = ("n", *NAMES.values(), "missed", "invented")
    sheets: list[Sheet] = []
    for (task, percent), part in table.groupby(["task", "percent"], sort=False):
        arms = [arm for arm in dict.fromkeys(part["arm"]) if arm != REFERENCE] or [""]
        for arm in arms:
            pair = [one for one in (REFERENCE, arm) if one in set(part["arm"])]
            groups = [("", ("organ",)), *((arm_title(one), columns) for one in pair), ("", ("Diff.",))]
            rows = [
                _organ(str(organ), [rows[rows["arm"] == one] for one in pair])
                for (_, organ), rows in part.groupby(["label", "organ"])
            ]
            what = f"{title(str(task))}, {percent:g} % of the labels, {' and '.join(map(arm_title, pair))}."
            sheets.append(Sheet("Organs.", f"{what} {said}", groups, rows, () if sheets else (legend,)))
    return sheets


def _organ(name: str, arms: Sequence[pd.DataFrame]) -> list[str]:
    cells, difference = [name], MISSING
    for arm in arms:
        if arm.empty:
            cells += [MISSING] * 6
            continue
        row = arm.iloc[0]
        values = (shown(row["dice"]), shown(row["hd95_mm"], 1), shown(row["surface_dice"]))
        cells += [str(row["n"]), *values, str(row["missed"]), str(row["invented"])]
        difference = shown(row["difference"], sign="+")
    return [*cells, difference]


def _ours(table: Table, metric: str, cell: Cell) -> list[str]:
    """Mean ± sd over folds of a cell and of its difference to the reference."""
    texts = []
    for folds, sign in ((table.folds, ""), (table.paired, "+")):
        found = statistics.of(statistics.over_folds(folds, metric), cell)
        mean, sd = (found.iloc[0]["mean"], found.iloc[0]["sd"]) if len(found) else (math.nan, math.nan)
        spread = "" if math.isnan(sd) else f" ± {sd:.{DIGITS[metric]}f}"
        texts.append(shown(mean, DIGITS[metric], sign) + spread)
    return texts


def _over_cases(table: Table, metric: str, cell: Cell) -> list[str]:
    """``n = 15, p = 0.031`` and ``[-0.01, +0.02]`` of a cell; nothing where there are no pairs."""
    found = statistics.of(table.comparisons, cell)
    found = found[(found["metric"] == metric) & (found["n"] > 0)]
    if found.empty:
        return []
    row = found.iloc[0]
    p = "p < 0.001" if row["p"] < 0.001 else f"p = {row['p']:.3f}"
    return [f"n = {row['n']}, {p}", interval(row["low"], row["high"], DIGITS[metric])]


def _theirs(task: str, percent: float) -> list[str]:
    row = TABLE1.get((task, percent))
    if row is None:
        return [UNKNOWN] * 3
    marked = {key: mark for mark, (key, _) in zip("ab", _slips(), strict=True)}
    mark = f" [{marked[task, percent]}]" if (task, percent) in marked else ""
    return [f"{row.scratch:.4f}", f"{row.mixcl:.4f}", f"{row.difference:+.4f}{mark}"]
