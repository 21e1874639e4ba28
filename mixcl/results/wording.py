"""What is said beside the tables: captions, notes, and numbers as tables show them."""

import math
from collections.abc import Sequence

import pandas as pd

from mixcl.results.formats import MISSING
from mixcl.results.paper import ARMS, SLIPS, TABLE1, TITLES, UNKNOWN
from mixcl.results.runs import Runs
from mixcl.results.statistics import CELL, KEYS, Cell

NAMES = {"dice": "Dice", "hd95_mm": "HD95, mm", "surface_dice": "surface Dice"}
DIGITS = {"dice": 4, "hd95_mm": 2, "surface_dice": 4}
PHANTOM = "These are phantoms, not patients: the numbers must not be compared with the paper's."
INTERVAL = (
    "The 95 % interval and p are of the mean over pairs, with random effects of folds, which share test scans, and of "
    "seeds, which share a pre-training (mixcl.results.inference): they tell how it would vary with other scans and "
    "other pre-trainings. Where it says one pre-training (or one fold), the interval does not contain how another one "
    "would have turned out."
)
PAIRS = (
    "Over pairs: n pairs of distinct trainings, one fold and one seed each, on the same scans from the same start; a "
    "training that another run repeats to the bit is counted once. "
    f"{INTERVAL} No p is adjusted for the number of tests. "
    "Differences in HD95 are over the organs that both arms found."
)
ORGANS = (
    "n: case and seed pairs that have the organ; missed: those in which nothing was found (Dice and surface Dice "
    "0, no HD95); invented: pairs without the organ in which it was found; Diff.: mean difference in Dice over the "
    "pairs that both arms have."
)
CAPTIONS = {
    1: (
        "Dice after fine-tuning from scratch (T.F.S.) and from pre-trained weights (Ours), the mean over "
        "test cases of each case's mean over its organs{spread}. {origin}"
    ),
    2: (
        "Ablation: Dice after fine-tuning from weights that were pre-trained with some of the three terms, and from "
        "scratch (T.F.S.), the mean over test cases of each case's mean over its organs{spread}. Id: identity "
        "consistency, Label: label consistency, Recon: image reconstruction. {origin}"
    ),
}


def caption(number: int, folds: pd.DataFrame, where: str) -> str:
    """What Table 1 or 2 shows, and where it comes from."""
    spread = ", mean ± standard deviation over folds" if folds["fold"].nunique() > 1 else ""
    return CAPTIONS[number].format(spread=spread, origin=where)


def origin(runs: Runs, folds: pd.DataFrame) -> str:
    """Where numbers come from: profile, folds, seeds, commit, data, and of which phantoms they are."""
    if folds.empty:
        return "None of its runs is there yet."
    data = ", ".join(
        f"{title(task)} {' and '.join(mark[:12] for mark in runs.values('data', task))}"
        for task in dict.fromkeys(folds["task"])
    )
    made = f" ({'; '.join(runs.phantoms)})" if runs.phantoms else ""
    parts = [
        f"{_plural('Profile', runs.values('profile'))};",
        f"{_plural('fold', sorted(folds['fold'].unique()))};",
        f"{_plural('seed', sorted(folds['seed'].unique()))};",
        f"{_plural('commit', [short(commit) for commit in runs.values('commit')])};",
        f"data {data}{made}.",
        f"{folds['weights'].nunique()} distinct trainings in {folds['job'].nunique()} runs.",
    ]
    return " ".join([*parts, PHANTOM] if made else parts)


def notes(number: int, runs: Runs, folds: pd.DataFrame) -> tuple[str, ...]:
    """What has to be said beside Table 1 or 2: about the paper's, missing cells, runs not made alike."""
    planned = runs.cells(number)
    if number == 1:
        lines = _about_table1(planned)
    else:
        lines = [f"The numbers of the paper's Table 2 are {UNKNOWN} (R23)."]
        lines += [] if planned else ["This profile plans no ablation."]
    lines += [*_missing(runs, folds, number), *_left_out(runs)]
    part = runs.only(planned)
    for task in dict.fromkeys(folds["task"]):
        if unlike := part.unlike(task):
            lines.append(
                f"Take care: the runs of {title(task)} were not made alike, they differ in {', '.join(unlike)}."
            )
    return (*lines, PAIRS)


def _about_table1(planned: Sequence[Cell]) -> list[str]:
    lines = []
    for (task, percent), mark in SLIPS.items():
        row = TABLE1[task, percent]
        lines.append(
            f"[{mark}] The paper prints {row.difference:+.4f} for {title(task)} {percent:g} %; its columns "
            f"give {row.mixcl:.4f} - {row.scratch:.4f} = {row.mixcl - row.scratch:.4f} (R21)."
        )
    shares = {(task, percent) for task, percent, _ in planned}
    if outside := [f"{title(task)} {percent:g} %" for task, percent in TABLE1 if (task, percent) not in shares]:
        lines.append(f"Not among the jobs of this profile: {', '.join(outside)}.")
    return lines


def _missing(runs: Runs, folds: pd.DataFrame, number: int) -> list[str]:
    """One sentence a cell that lacks runs."""
    present = set(folds[KEYS].itertuples(index=False, name=None))
    lacking: dict[Cell, list[str]] = {}
    total: dict[Cell, int] = {}
    for task, percent, arm, fold, seed in runs.planned(number):
        cell = (task, percent, arm)
        total[cell] = total.get(cell, 0) + 1
        if (*cell, fold, seed) not in present:
            lacking.setdefault(cell, []).append(f"fold {fold} seed {seed}")
    return [
        f"Missing: {_cell_name(cell)}, {len(names)} of {total[cell]} runs "
        f"({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})."
        for cell, names in lacking.items()
    ]


def _left_out(runs: Runs) -> list[str]:
    """Runs that are of neither table."""
    known = {*runs.cells(1), *runs.cells(2)}
    present = dict.fromkeys(runs.cases[CELL].itertuples(index=False, name=None))
    others = [_cell_name(cell) for cell in present if cell not in known]
    return [f"Runs that neither table plans, in organs.csv only: {', '.join(others)}."] if others else []


def title(task: str) -> str:
    """A task as the paper calls it, or by its own name."""
    return TITLES.get(task, task)


def arm_title(arm: str) -> str:
    """An arm as the paper calls it, or by its own name."""
    return ARMS.get(arm, arm)


def _cell_name(cell: Cell) -> str:
    return f"{title(cell[0])} {cell[1]:g} % {arm_title(cell[2])}"


def interval(low: float, high: float, digits: int = 4) -> str:
    """An interval of a difference as tables show it.

    >>> interval(-0.01, 0.02, 2)
    '[-0.01, +0.02]'
    """
    ends = [shown(end, digits, "+") for end in (low, high)]
    return MISSING if MISSING in ends else f"[{', '.join(ends)}]"


def alone(folds: int, seeds: int) -> str:
    """What an interval over so many folds and seeds can not contain, to be put behind it.

    >>> alone(5, 1), alone(5, 3)
    (', one pre-training', '')
    """
    return (", one fold" if folds == 1 else "") + (", one pre-training" if seeds == 1 else "")


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
