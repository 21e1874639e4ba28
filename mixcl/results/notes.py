"""What is said beside the tables: captions, notes, where numbers come from; most of the words are in sentences.txt."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from mixcl.results.inference import FEWEST
from mixcl.results.paper import ARMS, SLIPS, TABLE1, UNKNOWN
from mixcl.results.runs import Runs
from mixcl.results.statistics import CELL, KEYS, LEARNED, Cell
from mixcl.results.wording import INTERVAL, NO_P, PHANTOM, alone, arm_title, count, share_title, short, title
from mixcl.run.determinism import PINS

PAIRS = (
    "Over pairs: n pairs of distinct trainings, one fold and one seed each, on the same scans from the same start; a "
    "training that another run repeats to the bit is counted once. "
    f"{INTERVAL} {NO_P} No p is adjusted for the number of tests. "
    "Differences in HD95 are over the organs that both arms found."
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

TEMPLATES = Environment(
    loader=PackageLoader("mixcl.results", ""),
    undefined=StrictUndefined,
    trim_blocks=True,
    autoescape=select_autoescape(),  # in HTML
)
TEMPLATES.globals |= {"PHANTOM": PHANTOM, "UNKNOWN": UNKNOWN, "LEARNED": LEARNED, "FEWEST": FEWEST}
TEMPLATES.globals |= {"count": count, "alone": alone}


def caption(number: int, folds: pd.DataFrame, phantom: bool) -> str:
    """What Table 1 or 2 shows, and what of."""
    spread = ", mean ± standard deviation over folds" if folds["fold"].nunique() > 1 else ""
    text = CAPTIONS[number].format(spread=spread, paper=" and ".join(ARMS.values()))
    return f"{text} {PHANTOM}" if phantom else text


def sentences(name: str, **facts: Any) -> list[str]:
    """What the macro ``name`` of sentences.txt says of ``facts``, sentence by sentence."""
    macros = TEMPLATES.get_template("sentences.txt").module
    return [line for line in getattr(macros, name)(**facts).splitlines() if line]


def origin(runs: Runs, folds: pd.DataFrame) -> str:
    """Where numbers come from: profile, folds, seeds, commit, precision, data, phantoms, grid, and what spoils them."""
    if folds.empty:
        return "None of its runs is there yet."
    cards = [runs.cards[job] for job in folds["job"].unique()]
    marks = {task: " and ".join(mark[:12] for mark in runs.values("data", task)) for task in folds["task"].unique()}
    facts = {
        "listed": {
            "Profile": runs.values("profile"),
            "fold": sorted(folds["fold"].unique()),
            "seed": sorted(folds["seed"].unique()),
            "commit": [short(commit) for commit in runs.values("commit")],
            "precision": sorted({_precision(card) for card in runs.cards.values()}),
        },
        "data": [f"{title(task)} {mark}" for task, mark in marks.items()],
        "phantoms": runs.phantoms,
        "trainings": folds["weights"].nunique(),
        "jobs": len(cards),
        "sets": len({(card["task"], *card["train"]) for card in cards}),
        "grids": [GRIDS.get(grid, grid) for grid in sorted(runs.cases["grid"].unique(), reverse=True)],
        "seen": [_seen(str(task), cases) for task, cases in runs.cases.groupby("task", sort=False)],
    }
    return " ".join(sentences("origin", **facts))


def _seen(task: str, cases: pd.DataFrame) -> tuple[str, bool, int, int]:
    """Whether it is unknown which test cases of a task its pre-training has seen, how many it has, of how many."""
    known = cases.loc[cases["pretrained_on"] > 0, "case"].nunique()
    return title(task), bool((cases["pretrained_on"] < 0).any()), known, cases["case"].nunique()


def _precision(card: Mapping[str, Any]) -> str:
    """What a run computed in, and on a CPU whether its bits were pinned (reproduce/bits.sh)."""
    bits = card.get("bits", {})
    name = bits.get("precision") or card["config"].get("run", {}).get("precision", "no")
    text = "float32" if name == "no" else str(name)
    pinned = "pinned" if bits.get("pins") == PINS else "free"
    return f"{text} with {pinned} bits" if bits.get("device") == "cpu" else text


def notes(number: int, runs: Runs, folds: pd.DataFrame) -> tuple[str, ...]:
    """What has to be said beside Table 1 or 2: about the paper's, missing cells, runs not made alike."""
    planned, present = runs.cells(number), dict.fromkeys(runs.cases[CELL].itertuples(index=False, name=None))
    part, known, shares = runs.only(planned), {*runs.cells(1), *runs.cells(2)}, {cell[:2] for cell in planned}
    facts = {
        "planned": planned,
        "slips": [(mark, share_title(*key), TABLE1[key]) for key, mark in SLIPS.items()],
        "outside": [share_title(*key) for key in TABLE1 if key not in shares],
        "missing": list(_missing(runs, folds, number)),
        "repeated": list(_repeated(folds)),
        "unplanned": [_cell_name(cell) for cell in present if cell not in known],
        "unlike": [(title(task), part.unlike(task)) for task in folds["task"].unique()],
    }
    return (*sentences("notes", number=number, **facts), PAIRS)


def _missing(runs: Runs, folds: pd.DataFrame, number: int) -> Iterator[tuple[str, list[str], int]]:
    """Each cell that lacks runs, those that it lacks, and how many there should be."""
    present, planned = set(folds[KEYS].itertuples(index=False, name=None)), runs.planned(number)
    for cell in runs.cells(number):
        wanted = [run for run in planned if run[:3] == cell]
        if lacking := [f"fold {run[3]} seed {run[4]}" for run in wanted if run not in present]:
            yield _cell_name(cell), lacking, len(wanted)


def _repeated(folds: pd.DataFrame) -> Iterator[tuple[int, int, str, str]]:
    """How many trainings of a cell, of how many, are those of a cell before it, and both cells."""
    weights: dict[Any, set[str]] = folds.groupby(CELL, sort=False)["weights"].agg(set).to_dict()
    for other, cell in itertools.combinations(weights, 2):
        if both := weights[other] & weights[cell]:
            yield len(both), len(weights[cell]), _cell_name(cell), _cell_name(other)


def _cell_name(cell: Cell) -> str:
    return f"{share_title(*cell[:2])} {arm_title(cell[2])}"
