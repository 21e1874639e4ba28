"""Tables as text: Table 1 in the paper's shape, the paper's values beside ours, in Markdown and LaTeX."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from mixcl.paper import ARMS, TABLE1, TITLES, UNKNOWN, PaperRow

if TYPE_CHECKING:
    from mixcl.results import Runs, Table1

MISSING = "-"
COLUMNS = ("Pct.", "T.F.S.", "Ours", "Diff.")
PHANTOM = "These are phantoms, not patients: the numbers must not be compared with the paper's."


def caption(runs: Runs, folds: pd.DataFrame) -> str:
    """What Table 1 shows, and where it comes from."""
    spread = ", mean ± standard deviation over folds" if folds["fold"].nunique() > 1 else ""
    return (
        "Dice after fine-tuning from scratch (T.F.S.) and from pre-trained weights (Ours), the mean over "
        f"test cases of each case's mean over its organs{spread}. {origin(runs, folds)}"
    )


def origin(runs: Runs, folds: pd.DataFrame) -> str:
    """Where numbers come from: profile, folds, seeds, commit, data, and whether they are of phantoms."""
    tasks = [task for task in dict.fromkeys(folds["task"])]
    data = ", ".join(f"{title(task)} {' and '.join(mark[:12] for mark in runs.told('data', task))}" for task in tasks)
    parts = [
        f"{_plural('Profile', runs.told('profile'))};",
        f"{_plural('fold', sorted(folds['fold'].unique()))};",
        f"{_plural('seed', sorted(folds['seed'].unique()))};",
        f"{_plural('commit', [short(commit) for commit in runs.told('commit')])};",
        f"data {data}.",
    ]
    return " ".join([*parts, PHANTOM] if "phantom" in runs.sources else parts)


def notes(runs: Runs, folds: pd.DataFrame) -> tuple[str, ...]:
    """What has to be said beside the table: slips of the paper, missing cells, runs not made alike."""
    said = []
    for mark, ((task, percent), row) in zip("ab", _slips(), strict=True):
        said.append(
            f"[{mark}] The paper prints {row.difference:+.4f} for {title(task)} {percent:g} %; its columns "
            f"give {row.mixcl:.4f} - {row.scratch:.4f} = {row.mixcl - row.scratch:.4f} (R21)."
        )
    planned = {one[:2] for one in runs.planned()} | set(zip(folds["task"], folds["percent"], strict=True))
    outside = [f"{title(task)} {percent:g} %" for task, percent in TABLE1 if (task, percent) not in planned]
    if outside:
        said.append(f"Not among the jobs of this profile: {', '.join(outside)}.")
    said += _missing(runs, folds)
    others = [arm for arm in dict.fromkeys(folds["arm"]) if arm not in ARMS]
    if others:
        said.append(f"Further arms, in table1.csv: {', '.join(others)}.")
    for task in dict.fromkeys(folds["task"]):
        if unlike := runs.unlike(task):
            said.append(
                f"Take care: the runs of {title(task)} were not made alike, they differ in {', '.join(unlike)}."
            )
    return tuple(said)


def _missing(runs: Runs, folds: pd.DataFrame) -> list[str]:
    """One sentence a cell that lacks runs."""
    there = set(folds[["task", "percent", "arm", "fold", "seed"]].itertuples(index=False, name=None))
    lacking: dict[tuple[str, float, str], list[str]] = {}
    total: dict[tuple[str, float, str], int] = {}
    for task, percent, fold, seed in runs.planned():
        for arm in ARMS:
            total[task, percent, arm] = total.get((task, percent, arm), 0) + 1
            if (task, percent, arm, fold, seed) not in there:
                lacking.setdefault((task, percent, arm), []).append(f"fold {fold} seed {seed}")
    return [
        f"Missing: {title(task)} {percent:g} % {ARMS[arm]}, {len(ones)} of {total[task, percent, arm]} runs "
        f"({', '.join(ones[:5])}{', ...' if len(ones) > 5 else ''})."
        for (task, percent, arm), ones in lacking.items()
    ]


def markdown(table: Table1, runs: Runs) -> str:
    """Table 1 as Markdown: caption, a row of ours above each of the paper's, notes."""
    tasks, rows = _layout(table, runs)
    header = [
        "",
        *(f"{title(task)}: {name}" if name == "Pct." else name for task in tasks for name in COLUMNS),
    ]
    lines = [f"**Table 1.** {table.caption}", "", *_markdown_rows(header, rows), "", *_listed(table.notes)]
    return "\n".join(lines).rstrip() + "\n"


def latex(table: Table1, runs: Runs) -> str:
    """Table 1 as a LaTeX ``table`` that needs no package."""
    tasks, rows = _layout(table, runs)
    width = 1 + len(COLUMNS) * len(tasks)
    blocks = " & ".join(rf"\multicolumn{{{len(COLUMNS)}}}{{c}}{{{_tex(title(task))}}}" for task in tasks)
    lines = [
        r"\begin{table}",
        rf"\caption{{{_tex(table.caption)}}}",
        r"\centering",
        rf"\begin{{tabular}}{{l{'|rlll' * len(tasks)}}}",
        r"\hline",
        rf" & {blocks} \\",
        " & ".join(["", *(_tex(name) for _ in tasks for name in COLUMNS)]) + r" \\",
        r"\hline",
        *(" & ".join(_tex(cell) for cell in row) + r" \\" for row in rows),
        r"\hline",
        r"\end{tabular}",
        *(rf"\par\smallskip{{\footnotesize {_tex(note)}}}" for note in table.notes),
        r"\end{table}",
    ]
    if any(len(row) != width for row in rows):
        raise ValueError("a row of Table 1 does not have as many cells as the header")
    return "\n".join(lines) + "\n"


def organs_markdown(table: pd.DataFrame, said: str) -> str:
    """The organs as Markdown, one table a task and share of the labels."""
    lines = [
        f"**Organs.** {said}",
        "",
        "n: case and seed pairs that have the organ; missed: those in which nothing was found (Dice and "
        "surface Dice 0, no HD95); invented: pairs without the organ in which it was found.",
        "",
    ]
    header = ["organ", "arm", "n", "Dice", "HD95, mm", "surface Dice", "missed", "invented"]
    for (task, percent), part in table.groupby(["task", "percent"], sort=False):
        rows = [
            [
                row["organ"], row["arm"], str(row["n"]), _number(row["dice"]), _number(row["hd95_mm"], 1),
                _number(row["surface_dice"]), str(row["missed"]), str(row["invented"]),
            ]
            for row in part.sort_values("label", kind="stable").to_dict("records")
        ]  # fmt: skip
        lines += [
            f"### {title(str(task))}, {percent:g} % of the labels",
            "",
            *_markdown_rows(header, rows),
            "",
        ]
    return "\n".join(lines).rstrip() + "\n"


def title(task: str) -> str:
    """A task as the paper calls it, or by its own name."""
    return TITLES.get(task, task)


def _layout(table: Table1, runs: Runs) -> tuple[list[str], list[list[str]]]:
    """The tasks, and the cells of all rows: ours and the paper's for every share of the labels."""
    shares = {(task, percent) for task, percent, *_ in runs.planned()} | set(TABLE1)
    shares |= set(zip(table.cells["task"], table.cells["percent"], strict=True))
    tasks = [*TITLES, *sorted({task for task, _ in shares} - set(TITLES))]
    rows = []
    for percent in sorted({percent for _, percent in shares}):
        ours, theirs = ["this run"], ["paper"]
        for task in tasks:
            if (task, percent) not in shares:
                ours += [""] * len(COLUMNS)
                theirs += [""] * len(COLUMNS)
                continue
            ours += [f"{percent:g} %", *_ours(table, task, percent)]
            theirs += [f"{percent:g} %", *_theirs(task, percent)]
        rows += [ours, theirs]
    return tasks, rows


def _ours(table: Table1, task: str, percent: float) -> list[str]:
    cells = []
    for part, arm, sign in (
        (table.cells, "scratch", ""), (table.cells, "mixcl", ""), (table.differences, "mixcl", "+"),
    ):  # fmt: skip
        found = part[(part["task"] == task) & (part["percent"] == percent) & (part["arm"] == arm)]
        cells.append(_cell(found.iloc[0]["mean"], found.iloc[0]["sd"], sign) if len(found) else MISSING)
    return cells


def _theirs(task: str, percent: float) -> list[str]:
    row = TABLE1.get((task, percent))
    if row is None:
        return [UNKNOWN] * 3
    marks = {key: mark for mark, (key, _) in zip("ab", _slips(), strict=True)}
    mark = f" [{marks[task, percent]}]" if (task, percent) in marks else ""
    return [f"{row.scratch:.4f}", f"{row.mixcl:.4f}", f"{row.difference:+.4f}{mark}"]


def _slips() -> list[tuple[tuple[str, float], PaperRow]]:
    return [(key, row) for key, row in TABLE1.items() if row.slip]


def _cell(mean: float, sd: float, sign: str) -> str:
    text = format(mean, f"{sign}.4f")
    return text if math.isnan(sd) else f"{text} ± {sd:.4f}"


def _number(value: float, digits: int = 4) -> str:
    return MISSING if math.isnan(value) else f"{value:.{digits}f}"


def short(commit: str) -> str:
    """12 digits of a commit, and whether there were changes on top.

    >>> short("0123456789abcdef+changes")
    '0123456789ab+changes'
    """
    head, plus, more = commit.partition("+")
    return head[:12] + plus + more


def _plural(word: str, values: Sequence[object]) -> str:
    return f"{word}{'s' if len(values) > 1 else ''} {', '.join(map(str, values))}"


def _listed(said: Sequence[str]) -> list[str]:
    return [f"- {note}" for note in said]


def _markdown_rows(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    table = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in table]


def _tex(text: str) -> str:
    r"""Text for LaTeX.

    >>> _tex("btcv_2: 5 % +0.0019 [a]")
    'btcv\\_2: 5 \\% $+$0.0019\\textsuperscript{a}'
    """
    if text == MISSING:
        return "--"
    for sign in "&%#_":
        text = text.replace(sign, f"\\{sign}")
    text = text.replace(" ± ", r" $\pm$ ")
    text = re.sub(r"(?<![\w.])([+-])(?=\d)", r"$\1$", text)
    return re.sub(r" ?\[([a-z])\]", r"\\textsuperscript{\1}", text)
