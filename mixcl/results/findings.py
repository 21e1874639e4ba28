"""What a run comes to, in a few plain lines made from its numbers: the means of Table 1, what Tables 1 and 2 answer."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from mixcl.config.settings import Experiment
from mixcl.errors import InputError
from mixcl.results.formats import MISSING
from mixcl.results.inference import FEWEST
from mixcl.results.runs import read_runs
from mixcl.results.statistics import CELL, LEARNED, REFERENCE, learned
from mixcl.results.wording import alone, arm_title, count, interval, title
from mixcl.results.write import Table, make_table
from mixcl.run.jobs import FULL


def findings(out: Path, plan: Experiment | None = None) -> list[str]:
    """What was run, what Table 1 and what Table 2 answer; nothing where no run is evaluated or one is damaged."""
    try:
        runs = read_runs(out, plan)
    except InputError:
        return []
    first, second = (make_table(runs, number) for number in (1, 2))
    return [_what(pd.concat([first.folds, second.folds]), first.phantom), _table1(first), _table2(second)]


def headline(out: Path, plan: Experiment | None = None) -> list[str]:
    """Mean Dice of Table 1 of a folder of results, a line a task, and :func:`findings`; nothing without a pair.

    Raises `InputError` as :func:`mixcl.results.runs.read_runs` does.
    """
    table = make_table(read_runs(out, plan), 1)
    means = table.cells.set_index(CELL)["mean"].to_dict()
    tasks: dict[str, list[str]] = {}
    for task, percent, arm in table.planned:
        pair = [means.get((task, percent, name)) for name in (REFERENCE, FULL)]
        if arm == FULL and None not in pair:
            tasks.setdefault(task, []).append(f"{percent:g} % {pair[0]:.4f} -> {pair[1]:.4f}")
    if not tasks:
        return []
    folds, seeds = (table.folds[name].nunique() for name in ("fold", "seed"))
    first = f"Table 1, mean Dice from scratch -> MixCL ({count(folds, 'fold')}, {count(seeds, 'pre-training')}):"
    return [first, *(f"  {title(task)}: {', '.join(cells)}" for task, cells in tasks.items()), *findings(out, plan)]


def _what(folds: pd.DataFrame, phantom: bool) -> str:
    if folds.empty:
        return "None of the runs that the tables plan is there yet."
    tasks = " and ".join(map(title, dict.fromkeys(folds["task"])))
    made = [count(folds[name].nunique(), word) for name, word in (("fold", "fold"), ("seed", "seed"))]
    others = [arm_title(arm) for arm in dict.fromkeys(folds["arm"]) if arm != REFERENCE]
    start = f"from scratch or from weights pre-trained by {_listed(others)}" if others else "from scratch"
    data = "phantoms made up by the computer, not patients" if phantom else "scans of patients"
    return (
        f"A UNETR was fine-tuned {count(folds['weights'].nunique(), 'time')} ({', '.join(made)}) on {tasks}, {start}; "
        f"the data are {data}."
    )


def _table1(table: Table) -> str:
    """Whether MixCL is better than training from scratch."""
    rows = _compared(table, FULL)
    if rows.empty:
        return "Table 1 answers nothing yet: no cell has a training from scratch and one with MixCL to compare."
    known = rows[rows["learned"]]
    if known.empty:
        return (
            f"Table 1 answers nothing: in no cell has a network learned its task (mean Dice below {LEARNED:g}), from "
            "scratch or with MixCL."
        )
    ahead, behind, cells = (known["low"] > 0).sum(), (known["high"] < 0).sum(), count(len(known), "cell")
    largest = known.iloc[int(known["difference"].abs().argmax())]
    if ahead and behind:
        told = f"MixCL is ahead of training from scratch in {ahead} of {cells} and behind it in {behind}"
    elif ahead or behind:
        side = f"ahead of training from scratch in {ahead}" if ahead else f"behind training from scratch in {behind}"
        told = f"MixCL is {side} of {cells}, and in no other told apart from it"
    else:
        told = f"MixCL is not told apart from training from scratch in any of {cells}"
    ends = interval(100 * largest["low"], 100 * largest["high"], 1)
    more = "" if ends == MISSING else f", 95 % interval {ends}"
    size = f"{100 * largest['difference']:+.1f} points of Dice"
    where = f"{title(largest['task'])} {largest['percent']:g} %{more}"
    return f"Table 1: by its 95 % intervals {told}; the largest difference is {size} ({where}){_caution(known)}."


def _table2(table: Table) -> str:
    """Which terms of the pre-training matter."""
    arms = [arm for arm in dict.fromkeys(arm for *_, arm in table.planned) if arm != REFERENCE]
    if not arms:
        return "Table 2 answers nothing: this profile plans no ablation."
    every, parts, known = pd.concat([_compared(table, arm) for arm in arms]), [], []
    for task, percent in dict.fromkeys(cell[:2] for cell in table.planned):
        cells = table.cells[(table.cells["task"] == task) & (table.cells["percent"] == percent)]
        cells = cells.sort_values("mean", ascending=False)
        if len(cells) < 2 or not learned(cells["mean"].iloc[0]):
            continue
        rows = every[(every["task"] == task) & (every["percent"] == percent)]
        if rows.empty:
            continue
        known.append(rows)
        order = ", ".join(f"{arm_title(str(row.arm))} {row.mean:.3f}" for row in cells.itertuples())
        better, worse = (_listed(map(arm_title, rows["arm"][told])) for told in (rows["low"] > 0, rows["high"] < 0))
        apart = [f"{names} {word}" for names, word in ((better, "ahead of"), (worse, "behind")) if names]
        says = "no interval tells an arm from training from scratch"
        if apart:
            says = f"the intervals put {' and '.join(apart)} training from scratch"
        parts.append(f"on {title(task)} with {percent:g} % of the labels ({order}) {says}")
    if not parts:
        least = f"mean Dice below {LEARNED:g}"
        return f"Table 2 answers nothing: none of its rows has learned its task ({least}) or is there."
    return f"Table 2: {'; '.join(parts)}{_caution(pd.concat(known))}."


def _compared(table: Table, arm: str) -> pd.DataFrame:
    """An arm against training from scratch by Dice, a row a planned cell with pairs, and whether it has ``learned``."""
    rows = table.comparisons
    rows = rows[(rows["metric"] == "dice") & (rows["arm"] == arm) & (rows["n"] > 0)]
    cells = list(rows[CELL].itertuples(index=False, name=None))
    means = table.cells.set_index(CELL)["mean"]
    told = {cell: learned(means[cell], means[*cell[:2], REFERENCE]) for cell in cells if cell in table.planned}
    rows = rows[pd.Series([cell in told for cell in cells], rows.index, dtype=bool)]
    return rows.assign(learned=pd.Series(told.values(), rows.index, dtype=bool))


def _caution(rows: pd.DataFrame) -> str:
    """How little lies behind the intervals, where it is little."""
    most, told = int(rows["n"].max()), alone(int(rows["folds"].max()), int(rows["seeds"].max())).removeprefix(", ")
    if most < FEWEST:
        few = f"{count(most, 'pair')} a cell{told and f' ({told})'}"
        return f"; {few} {'is' if most == 1 else 'are'} too few for a test, so all this may be chance"
    return f"; all of it rests on {told}" if told else ""


def _listed(names: Iterable[str]) -> str:
    """Names as a sentence lists them.

    >>> _listed(["id", "MixCL"]), _listed("abc")
    ('id and MixCL', 'a, b and c')
    """
    *first, last = [*names] or [""]
    return f"{', '.join(first)} and {last}" if first else last
