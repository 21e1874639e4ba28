"""What the tables say: Tables 1 and 2 in the paper's shape with its values beside ours, and the organs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from mixcl import statistics
from mixcl.paper import ARMS, TABLE1, TABLE2, TITLES, UNKNOWN, PaperRow
from mixcl.sheets import MARK, MISSING, Sheet
from mixcl.statistics import METRICS, REFERENCE, Cell

if TYPE_CHECKING:
    from mixcl.results import Runs, Table

COLUMNS = ("Pct.", "T.F.S.", "Ours", "Diff.")
NAMES = {"dice": "Dice", "hd95_mm": "HD95, mm", "surface_dice": "surface Dice"}
DIGITS = {"dice": 4, "hd95_mm": 2, "surface_dice": 4}
CASES_ROW = "over cases"
PHANTOM = "These are phantoms, not patients: the numbers must not be compared with the paper's."
CASES = (
    "Over cases: n test cases that both arms have, 95 % paired bootstrap interval (BCa, "
    f"{statistics.RESAMPLES} resamples, seed {statistics.SEED}) of the mean difference to T.F.S. over cases, and "
    "two-sided p of Wilcoxon's signed-rank test. Mean ± standard deviation weigh folds alike, these weigh cases alike. "
    "Cases of a fold share a network and folds share training scans: the interval is one of cases, not of trainings. "
    "With few cases it is too narrow, and p cannot be small (5 cases: at least 0.0625). No p is adjusted for the "
    "number of tests. Differences in HD95 are over the organs that both arms found."
)


def table1_caption(folds: pd.DataFrame, where: str) -> str:
    """What Table 1 shows, and where it comes from."""
    return (
        "Dice after fine-tuning from scratch (T.F.S.) and from pre-trained weights (Ours), the mean over "
        f"test cases of each case's mean over its organs{_spread(folds)}. {where}"
    )


def table2_caption(folds: pd.DataFrame, where: str) -> str:
    """What Table 2 shows, and where it comes from."""
    return (
        "Ablation: Dice after fine-tuning from weights that were pre-trained with some of the three terms, and from "
        f"scratch (T.F.S.), the mean over test cases of each case's mean over its organs{_spread(folds)}. Id: identity "
        f"consistency, Label: label consistency, Recon: image reconstruction. {where}"
    )


def origin(runs: Runs, folds: pd.DataFrame) -> str:
    """Where numbers come from: profile, folds, seeds, commit, data, and of which phantoms they are."""
    if folds.empty:
        return "None of its runs is there yet."
    tasks = [task for task in dict.fromkeys(folds["task"])]
    data = ", ".join(f"{title(task)} {' and '.join(mark[:12] for mark in runs.told('data', task))}" for task in tasks)
    made = f" ({'; '.join(runs.phantoms)})" if runs.phantoms else ""
    parts = [
        f"{_plural('Profile', runs.told('profile'))};",
        f"{_plural('fold', sorted(folds['fold'].unique()))};",
        f"{_plural('seed', sorted(folds['seed'].unique()))};",
        f"{_plural('commit', [short(commit) for commit in runs.told('commit')])};",
        f"data {data}{made}.",
    ]
    return " ".join([*parts, PHANTOM] if made else parts)


def table1_notes(runs: Runs, folds: pd.DataFrame) -> tuple[str, ...]:
    """What has to be said beside Table 1: slips of the paper, missing cells, runs not made alike."""
    said = []
    for mark, ((task, percent), row) in zip("ab", _slips(), strict=True):
        said.append(
            f"[{mark}] The paper prints {row.difference:+.4f} for {title(task)} {percent:g} %; its columns "
            f"give {row.mixcl:.4f} - {row.scratch:.4f} = {row.mixcl - row.scratch:.4f} (R21)."
        )
    planned = {(task, percent) for task, percent, _ in runs.cells(1)}
    outside = [f"{title(task)} {percent:g} %" for task, percent in TABLE1 if (task, percent) not in planned]
    if outside:
        said.append(f"Not among the jobs of this profile: {', '.join(outside)}.")
    return (*said, *_notes(runs, folds, 1))


def table2_notes(runs: Runs, folds: pd.DataFrame) -> tuple[str, ...]:
    """What has to be said beside Table 2: that the paper's numbers are not known, missing cells, unlike runs."""
    said = [f"The numbers of the paper's Table 2 are {UNKNOWN} (R23)."]
    if not runs.cells(2):
        said.append("This profile plans no ablation.")
    return (*said, *_notes(runs, folds, 2))


def _notes(runs: Runs, folds: pd.DataFrame, number: int) -> list[str]:
    said = [*_missing(runs, folds, number), *_left_out(runs)]
    part = runs.only(runs.cells(number))
    for task in dict.fromkeys(folds["task"]):
        if unlike := part.unlike(task):
            said.append(
                f"Take care: the runs of {title(task)} were not made alike, they differ in {', '.join(unlike)}."
            )
    return [*said, CASES]


def _missing(runs: Runs, folds: pd.DataFrame, number: int) -> list[str]:
    """One sentence a cell that lacks runs."""
    there = set(folds[statistics.KEYS].itertuples(index=False, name=None))
    lacking: dict[Cell, list[str]] = {}
    total: dict[Cell, int] = {}
    for task, percent, arm, fold, seed in runs.planned(number):
        total[task, percent, arm] = total.get((task, percent, arm), 0) + 1
        if (task, percent, arm, fold, seed) not in there:
            lacking.setdefault((task, percent, arm), []).append(f"fold {fold} seed {seed}")
    return [
        f"Missing: {_cell_name(cell)}, {len(ones)} of {total[cell]} runs "
        f"({', '.join(ones[:5])}{', ...' if len(ones) > 5 else ''})."
        for cell, ones in lacking.items()
    ]


def _left_out(runs: Runs) -> list[str]:
    """Runs that are of neither table."""
    known = {*runs.cells(1), *runs.cells(2)}
    found = dict.fromkeys(runs.cases[statistics.CELL].itertuples(index=False, name=None))
    others = [_cell_name(cell) for cell in found if cell not in known]
    return [f"Runs that neither table plans, in organs.csv only: {', '.join(others)}."] if others else []


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


def title(task: str) -> str:
    """A task as the paper calls it, or by its own name."""
    return TITLES.get(task, task)


def arm_title(arm: str) -> str:
    """An arm as the paper calls it, or by its own name."""
    return ARMS.get(arm, arm)


def _cell_name(cell: Cell) -> str:
    return f"{title(cell[0])} {cell[1]:g} % {arm_title(cell[2])}"


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


def _slips() -> list[tuple[tuple[str, float], PaperRow]]:
    return [(key, row) for key, row in TABLE1.items() if row.slip]


def _spread(folds: pd.DataFrame) -> str:
    return ", mean ± standard deviation over folds" if folds["fold"].nunique() > 1 else ""


def interval(low: float, high: float, digits: int = 4) -> str:
    """An interval of a difference as tables show it.

    >>> interval(-0.01, 0.02, 2)
    '[-0.01, +0.02]'
    """
    ends = [shown(end, digits, "+") for end in (low, high)]
    return MISSING if MISSING in ends else f"[{', '.join(ends)}]"


def shown(value: float, digits: int = 4, sign: str = "") -> str:
    """A number as tables show it; NaN is missing, and a zero has no minus.

    >>> shown(0.25, 2, "+"), shown(-0.001, 2)
    ('+0.25', '0.00')
    """
    return MISSING if math.isnan(value) else format(value, f"{sign}z.{digits}f")


def short(commit: str) -> str:
    """12 digits of a commit, and whether there were changes on top.

    >>> short("0123456789abcdef+changes")
    '0123456789ab+changes'
    """
    head, plus, more = commit.partition("+")
    return head[:12] + plus + more


def _plural(word: str, values: Sequence[object]) -> str:
    return f"{word}{'s' if len(values) > 1 else ''} {', '.join(map(str, values))}"
