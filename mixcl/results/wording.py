"""What is said beside the tables: captions, notes, and numbers as tables show them."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from mixcl.results.formats import MISSING
from mixcl.results.inference import FEWEST, LEVEL
from mixcl.results.paper import ARMS, SLIPS, TABLE1, TITLES, UNKNOWN
from mixcl.results.runs import Runs
from mixcl.results.statistics import CELL, KEYS, LEARNED, Cell
from mixcl.run.determinism import PINS
from mixcl.run.jobs import FULL, SCRATCH, arm_and_seed

ARM_TITLES = {SCRATCH: "from scratch", FULL: "MixCL"}
"""What the two arms of Table 1 are called wherever they are shown; other arms go by their own names."""
NAMES = {"dice": "Dice", "hd95_mm": "HD95, mm", "surface_dice": "surface Dice"}
DIGITS = {"dice": 4, "hd95_mm": 2, "surface_dice": 4}
PHANTOM = "These are phantoms, not patients: the numbers must not be compared with the paper's."
INTERVAL = (
    "The 95 % interval and p are of the mean over pairs, with random effects of folds, which share test scans, and of "
    "seeds, which share a pre-training (mixcl.results.inference): they tell how it would vary with other scans and "
    "other pre-trainings. Where it says one pre-training (or one fold), the interval does not contain how another one "
    "would have turned out."
)
FIGURES = {
    "table1": "Dice against the labelled share",
    "table2": "Ablation: difference to training from scratch",
    "effects": "What matters: every arm against another",
    "map": "The map of the gain",
    "arms": "What networks start from, at the map's operating points",
    "figure1": "Figure 1: one sample through the objective",
    "figure2": "Figure 2: its parts",
    "figure3": "Figure 3: what the networks drew",
    "organs": "Organ by organ",
    "diagnostics": "Pre-trainings side by side: what their features are like",
    "map_diagnostics": "What the features of the pre-trainings are like",
}
KINDS = {"losses": "losses", "diagnostics": "what its features are like"}
NO_P = (
    f"No p is given for fewer than {FEWEST} pairs, which could not reach {LEVEL:g} even if all of them agreed "
    f"(2^(1 - n), by their signs), nor where both arms have a mean Dice below {LEARNED:g}: these have learned nothing."
)
PAIRS = (
    "Over pairs: n pairs of distinct trainings, one fold and one seed each, on the same scans from the same start; a "
    "training that another run repeats to the bit is counted once. "
    f"{INTERVAL} {NO_P} No p is adjusted for the number of tests. "
    "Differences in HD95 are over the organs that both arms found."
)
ORGANS = (
    "n: case and seed pairs that have the organ; missed: those in which nothing was found, or which lost it when they "
    "were prepared (Dice and surface Dice 0, no HD95); worst fold: the lowest mean Dice of a fold; invented: pairs "
    "without the organ in which it was found; Diff.: mean difference in Dice over the pairs that both arms have."
)
GRIDS = {
    "prepared": "the grid they were prepared on",
    "original": "the grids of the original scans, with their own labels",
}
CAPTIONS = {
    1: (
        "Dice after fine-tuning from scratch and from weights that MixCL pre-trained, the mean over test cases of each "
        "case's mean over its organs{spread}. The paper calls the two {paper}."
    ),
    2: (
        "Ablation: Dice after fine-tuning from weights that were pre-trained with some of the three terms, and from "
        "scratch, the mean over test cases of each case's mean over its organs{spread}. Id: identity consistency, "
        "Label: label consistency, Recon: image reconstruction."
    ),
}


def caption(number: int, folds: pd.DataFrame, phantom: bool) -> str:
    """What Table 1 or 2 shows, and what of."""
    spread = ", mean ± standard deviation over folds" if folds["fold"].nunique() > 1 else ""
    text = CAPTIONS[number].format(spread=spread, paper=" and ".join(ARMS.values()))
    return f"{text} {PHANTOM}" if phantom else text


def origin(runs: Runs, folds: pd.DataFrame) -> str:
    """Where numbers come from: profile, folds, seeds, commit, precision, data, phantoms, grid, and what spoils them."""
    if folds.empty:
        return "None of its runs is there yet."
    data = ", ".join(
        f"{title(task)} {' and '.join(mark[:12] for mark in runs.values('data', task))}"
        for task in dict.fromkeys(folds["task"])
    )
    made = f" ({'; '.join(runs.phantoms)})" if runs.phantoms else ""
    listed = {
        "Profile": runs.values("profile"),
        "fold": sorted(folds["fold"].unique()),
        "seed": sorted(folds["seed"].unique()),
        "commit": [short(commit) for commit in runs.values("commit")],
        "precision": sorted({_precision(card) for card in runs.cards.values()}),
    }
    grids = sorted(runs.cases["grid"].unique(), reverse=True)
    sets = {(card["task"], *card["train"]) for card in map(runs.cards.__getitem__, folds["job"].unique())}
    parts = [f"{word}{'s' * (len(of) > 1)} {', '.join(map(str, of))};" for word, of in listed.items()]
    parts += [
        f"data {data}{made}.",
        f"{folds['weights'].nunique()} distinct trainings in {folds['job'].nunique()} runs, on "
        f"{count(len(sets), 'set')} of training scans.",
        f"Metrics were measured on {' and on '.join(GRIDS.get(grid, str(grid)) for grid in grids)} (R32).",
    ]
    if len(grids) > 1:
        parts.append("Take care: runs on different grids cannot be compared; evaluate all with one evaluate.grid.")
    return " ".join([*parts, *_leaks(runs.cases), *([PHANTOM] if made else [])])


def _precision(card: Mapping[str, Any]) -> str:
    """What a run computed in, and on a CPU whether its bits were pinned (reproduce/bits.sh)."""
    bits = card.get("bits", {})
    name = bits.get("precision") or card["config"].get("run", {}).get("precision", "no")
    text = "float32" if name == "no" else str(name)
    pinned = "pinned" if bits.get("pins") == PINS else "free"
    return f"{text} with {pinned} bits" if bits.get("device") == "cpu" else text


def _leaks(cases: pd.DataFrame) -> Iterator[str]:
    """A sentence a task whose test cases its pre-training has seen, or may have seen."""
    for task, rows in cases.groupby("task", sort=False):
        if (rows["pretrained_on"] < 0).any():
            yield f"Take care: which scans were seen by the weights that {title(str(task))} starts from is not known."
        if seen := rows.loc[rows["pretrained_on"] > 0, "case"].nunique():
            yield (
                f"Take care: pre-training has seen {seen} of the {rows['case'].nunique()} test cases of "
                f"{title(str(task))}, so what it gains there says nothing about new scans."
            )


def notes(number: int, runs: Runs, folds: pd.DataFrame) -> tuple[str, ...]:
    """What has to be said beside Table 1 or 2: about the paper's, missing cells, runs not made alike."""
    planned = runs.cells(number)
    lines = [*_about_table1(planned)] if number == 1 else [f"The numbers of the paper's Table 2 are {UNKNOWN} (R23)."]
    if number == 2 and not planned:
        lines.append("This profile plans no ablation.")
    lines += [*_missing(runs, folds, number), *_repeated(folds)]
    known = {*runs.cells(1), *runs.cells(2)}
    present = dict.fromkeys(runs.cases[CELL].itertuples(index=False, name=None))
    if others := [_cell_name(cell) for cell in present if cell not in known]:
        lines.append(f"Runs that neither table plans, in organs.csv only: {', '.join(others)}.")
    part = runs.only(planned)
    for task in dict.fromkeys(folds["task"]):
        if unlike := part.unlike(task):
            how = f"they differ in {', '.join(unlike)}"
            lines.append(f"Take care: the runs of {title(task)} were not made alike, {how}.")
    return (*lines, PAIRS)


def _about_table1(planned: Sequence[Cell]) -> Iterator[str]:
    for (task, percent), mark in SLIPS.items():
        row = TABLE1[task, percent]
        yield (
            f"[{mark}] The paper prints {row.difference:+.4f} for {title(task)} {percent:g} %; its columns "
            f"give {row.mixcl:.4f} - {row.scratch:.4f} = {row.mixcl - row.scratch:.4f} (R21)."
        )
    shares = {cell[:2] for cell in planned}
    if outside := [f"{title(task)} {percent:g} %" for task, percent in TABLE1 if (task, percent) not in shares]:
        yield f"Not among the jobs of this profile: {', '.join(outside)}."


def _missing(runs: Runs, folds: pd.DataFrame, number: int) -> Iterator[str]:
    """One sentence a cell that lacks runs."""
    present, planned = set(folds[KEYS].itertuples(index=False, name=None)), runs.planned(number)
    for cell in runs.cells(number):
        wanted = [run for run in planned if run[:3] == cell]
        if names := [f"fold {run[3]} seed {run[4]}" for run in wanted if run not in present]:
            more = ", ..." if len(names) > 5 else ""
            yield f"Missing: {_cell_name(cell)}, {len(names)} of {len(wanted)} runs ({', '.join(names[:5])}{more})."


def _repeated(folds: pd.DataFrame) -> Iterator[str]:
    """One sentence a cell that has trainings of a cell before it."""
    cells: dict[Cell, set[str]] = {}
    for task, percent, arm, weights in folds[[*CELL, "weights"]].itertuples(index=False, name=None):
        cells.setdefault((task, percent, arm), set()).add(weights)
    for other, cell in itertools.combinations(cells, 2):
        if both := cells[other] & cells[cell]:
            yield (
                f"The same trainings: {len(both)} of {len(cells[cell])} of {_cell_name(cell)} and of "
                f"{_cell_name(other)}."
            )


def _cell_name(cell: Cell) -> str:
    return f"{title(cell[0])} {cell[1]:g} % {arm_title(cell[2])}"


def title(task: str) -> str:
    """A task as the paper calls it, or by its own name."""
    return TITLES.get(task, task)


def arm_title(arm: str) -> str:
    """What an arm is called in tables, figures and sentences.

    >>> arm_title("mixcl"), arm_title("id-label")
    ('MixCL', 'id-label')
    """
    return ARM_TITLES.get(arm, arm)


def in_words(arm: str) -> str:
    """What an arm is called inside a sentence.

    >>> in_words("scratch"), in_words("mixcl")
    ('training from scratch', 'MixCL')
    """
    return f"training {arm_title(arm)}" if arm == SCRATCH else arm_title(arm)


def job_title(job: str) -> str:
    """A pre-training by its arm and seed, or any other job by its own name.

    >>> job_title("pretrain"), job_title("pretrain-id-label-s2")
    ('Pre-training of MixCL', 'Pre-training of id-label, seed 2')
    """
    if (found := arm_and_seed(job)) is None:
        return job
    arm, seed = found
    return f"Pre-training of {arm_title(arm)}" + (f", seed {seed}" if seed else "")


def figure_title(name: str) -> str:
    """A figure in words, by the name of its file.

    >>> figure_title("pretrain-id_losses"), figure_title("my_own")
    ('Pre-training of id: losses', 'My own')
    """
    job, _, kind = name.rpartition("_")
    if name in FIGURES or kind not in KINDS:
        return FIGURES.get(name, name.replace("_", " ").capitalize())
    return f"{job_title(job)}: {KINDS[kind]}"


def quoted_p(p: float) -> str:
    """A p as tables show it; NaN is missing.

    >>> quoted_p(0.0312), quoted_p(0.0001), quoted_p(math.nan)
    ('p = 0.031', 'p < 0.001', '')
    """
    if math.isnan(p):
        return ""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def interval(low: float, high: float, digits: int = 4) -> str:
    """An interval of a difference as tables show it.

    >>> interval(-0.01, 0.02, 2)
    '[-0.01, +0.02]'
    """
    ends = [shown(end, digits, "+") for end in (low, high)]
    return MISSING if MISSING in ends else f"[{', '.join(ends)}]"


def count(number: int, noun: str) -> str:
    """A number and its noun.

    >>> count(1, "fold"), count(5, "fold")
    ('1 fold', '5 folds')
    """
    return f"{number} {noun}{'s' if number != 1 else ''}"


def extent(numbers: pd.Series) -> str:
    """A number, or the smallest and the largest of several.

    >>> extent(pd.Series([5, 5])), extent(pd.Series([10, 5]))
    ('5', '5 to 10')
    """
    return " to ".join(str(number) for number in dict.fromkeys((numbers.min(), numbers.max())))


def alone(folds: int, seeds: int) -> str:
    """What an interval over so many folds and seeds can not contain, to be put behind it.

    >>> alone(5, 1), alone(5, 3)
    (', one pre-training', '')
    """
    return (", one fold" if folds == 1 else "") + (", one pre-training" if seeds == 1 else "")


def few(rows: pd.DataFrame) -> str:
    """:func:`alone` of a table with ``folds`` and ``n_seeds`` whose rows have no more than one of these."""
    return alone(int(rows["folds"].max()), int(rows["n_seeds"].max())) if len(rows) else ""


def shown(value: float, digits: int = 4, sign: str = "") -> str:
    """A number as tables show it; NaN is missing, and a zero has no sign.

    >>> shown(0.25, 2, "+"), shown(-0.001, 2, "+")
    ('+0.25', '0.00')
    """
    text = format(value, f"{sign}z.{digits}f")
    return MISSING if math.isnan(value) else text if float(text) else text.lstrip("+")


def short(commit: str) -> str:
    """12 digits of a commit, and whether there were changes on top.

    >>> short("0123456789abcdef+changes")
    '0123456789ab+changes'
    """
    head, plus, more = commit.partition("+")
    return head[:12] + plus + more
