"""The tables as text: Tables 1 and 2 in the paper's shape with its values beside ours, and the organs."""

import math
from collections.abc import Sequence

import pandas as pd

from mixcl.results import statistics
from mixcl.results.formats import MISSING, Sheet
from mixcl.results.paper import ARMS, SLIPS, TABLE1, TABLE2, TITLES, UNKNOWN
from mixcl.results.runs import rank
from mixcl.results.statistics import METRICS, REFERENCE, Cell
from mixcl.results.table import Table
from mixcl.results.wording import DIGITS, NAMES, ORGANS, alone, arm_title, interval, quoted_p, shown, title
from mixcl.run.jobs import FULL

COLUMNS = ("Pct.", arm_title(REFERENCE), arm_title(FULL), "Diff.")
PAIRS_ROW, PAPER_ROW = "over pairs", f"paper ({', '.join(ARMS.values())})"
Groups = list[tuple[str, Sequence[str]]]


def table_sheets(table: Table, number: int) -> list[Sheet]:
    """Table 1 or 2 in Dice, as the paper has it; then by further metrics."""
    body = _table1 if number == 1 else _table2
    sheets = [Sheet(f"Table {number}.", table.caption, *body(table, "dice"), table.notes)]
    new = ", which the paper does not report" if number == 1 else ""
    for metric in METRICS[1:]:
        name = NAMES[metric]
        caption = f"The runs of Table {number} by {name}{new}; notes as there."
        sheets.append(Sheet(f"{name[0].upper()}{name[1:]}.", caption, *body(table, metric)))
    return sheets


def _table1(table: Table, metric: str) -> tuple[Groups, list[list[str]]]:
    """A row of ours, one over pairs of trainings and one of the paper's for every share."""
    shares = {(task, percent) for task, percent, _ in table.planned}
    shares |= set(zip(table.folds["task"], table.folds["percent"], strict=True))
    if metric == "dice":
        shares |= set(TABLE1)
    tasks = sorted({task for task, _ in shares}, key=lambda task: rank(task, TITLES))
    rows = []
    for percent in sorted({percent for _, percent in shares}):
        ours, pairs, paper = ["this run"], [PAIRS_ROW], [PAPER_ROW]
        for task in tasks:
            planned = (task, percent) in shares
            head, blank = f"{percent:g} %", [""] * len(COLUMNS)
            scratch, mixcl = (_over_folds(table, metric, (task, percent, arm)) for arm in (REFERENCE, FULL))
            ours += [head, scratch[0], *mixcl] if planned else blank
            tested = _over_pairs(table, metric, (task, percent, FULL))
            pairs += [head, _trainings(table, (task, percent)), *tested] if tested else blank
            paper += [head, *_paper(task, percent)] if planned else blank
        rows += [ours, *([pairs] if any(pairs[1:]) else []), *([paper] if metric == "dice" else [])]
    return [("", [""]), *((title(task), COLUMNS) for task in tasks)], rows


def _table2(table: Table, metric: str) -> tuple[Groups, list[list[str]]]:
    """An arm a row, with the terms it was pre-trained with, and one over pairs of trainings."""
    columns = list(dict.fromkeys((task, percent) for task, percent, _ in table.planned))
    paper = [UNKNOWN] if metric == "dice" else []
    rows = []
    for arm in dict.fromkeys(arm for *_, arm in table.planned):
        ours = [arm_title(arm), *table.marks.get(arm, (MISSING,) * len(TABLE2))]
        pairs = [PAIRS_ROW, *[""] * len(TABLE2)]
        for task, percent in columns:
            score, difference = _over_folds(table, metric, (task, percent, arm))
            ours += [score, "" if arm == REFERENCE else difference]
            pairs += _over_pairs(table, metric, (task, percent, arm)) or ["", ""]
        rows += [[*ours, *paper], *([[*pairs, *([""] * len(paper))]] if any(pairs[1:]) else [])]
    groups: Groups = [("", ("", *TABLE2))]
    groups += [(f"{title(task)} {percent:g} %", (NAMES[metric], "Diff.")) for task, percent in columns]
    return [*groups, *([("", ("paper",))] if paper else [])], rows


def organ_sheets(table: pd.DataFrame, origin: str) -> list[Sheet]:
    """A sheet for every task, share and arm: its organs beside those of training from scratch."""
    columns = ("n", *NAMES.values(), "missed", "invented")
    sheets: list[Sheet] = []
    for (task, percent), part in table.groupby(["task", "percent"], sort=False):
        arms = [arm for arm in dict.fromkeys(part["arm"]) if arm != REFERENCE] or [""]
        for arm in arms:
            pair = [name for name in (REFERENCE, arm) if name in set(part["arm"])]
            groups = [("", ("organ",)), *((arm_title(name), columns) for name in pair), ("", ("Diff.",))]
            rows = [
                _organ(str(organ), [rows[rows["arm"] == name] for name in pair])
                for (_, organ), rows in part.groupby(["label", "organ"])
            ]
            what = f"{title(str(task))}, {percent:g} % of the labels, {' and '.join(map(arm_title, pair))}."
            sheets.append(Sheet("Organs.", what, groups, rows, () if sheets else (ORGANS, origin)))
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


def _over_folds(table: Table, metric: str, cell: Cell) -> list[str]:
    """Mean ± sd over folds of a cell and of its difference to the reference."""
    texts = []
    for folds, sign in ((table.folds, ""), (table.paired, "+")):
        rows = statistics.of(statistics.over_folds(folds, metric), cell)
        mean, sd = (rows.iloc[0]["mean"], rows.iloc[0]["sd"]) if len(rows) else (math.nan, math.nan)
        spread = "" if math.isnan(sd) else f" ± {sd:.{DIGITS[metric]}f}"
        texts.append(shown(mean, DIGITS[metric], sign) + spread)
    return texts


def _trainings(table: Table, share: tuple[str, float]) -> str:
    """How many distinct trainings from scratch and with MixCL a share has."""
    rows = table.folds[(table.folds["task"] == share[0]) & (table.folds["percent"] == share[1])]
    return f"{rows['weights'].nunique()} trainings"


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
