"""What matters: every arm against training from scratch, paired by fold and seed, with effect sizes and intervals.

An arm whose encoder is frozen is compared with a frozen encoder of random weights instead, where the grid has one: only
there does all that the two differ in come from the pre-training, as a trained encoder can make good for what it lacked.
``grid.compare`` names further pairs of arms; every arm that none of these names, a reading of the paper for example, is
compared with MixCL as well, frozen with frozen.  In a pair, of one fold and one seed, both arms fine-tune on the same
scans in the same order from the same fresh decoder; for intervals and p see :mod:`mixcl.results.statistics`.
"""

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from mixcl.config.settings import Experiment, GridConfig
from mixcl.data.registry import collections
from mixcl.files import write_text
from mixcl.results import notes, statistics, wording
from mixcl.results.formats import MISSING, TextTable, csv, write_table
from mixcl.results.inference import FEWEST, LEVEL
from mixcl.results.paper import ARMS
from mixcl.results.runs import rank, read_runs
from mixcl.results.statistics import CELL, DIFFERENCE, KEYS, REFERENCE, compared, distinct
from mixcl.results.wording import arm_title, interval_texts, pair_texts, shown, title
from mixcl.run.jobs import FULL, by_key
from mixcl.run.record import read_metrics

FROZEN, FRESH, ALPHA = "finetune.freeze=true", "pretrain.method=none", "loss.alpha"


class Effect(NamedTuple):
    """A row of :func:`effects`: an arm in a cell, and the one ``against`` which it is compared."""

    task: str
    percent: float
    arm: str
    against: str
    n: int  # pairs of distinct trainings, 0 where the two are the same ones
    reference: float  # Dice of what it is compared with, over the pairs
    mean: float  # Dice of the arm, over the pairs
    difference: float  # with its 95 % interval and p
    low: float
    high: float
    p: float
    detectable: float  # the true difference that n such pairs would find with 80 % power at 5 %
    folds: int
    n_seeds: int
    better: float  # share of pairs in which the arm is ahead
    seeds: str  # mean difference of each seed in points, by rising seed: whether an effect is one of the starts
    fit: float  # difference of the last losses on training patches, above 0 where the arm fits worse
    p_holm: float  # adjusted for all rows
    verdict: str  # see :func:`verdict`


def effects(config: Experiment, out: Path) -> pd.DataFrame:
    """Write tables/effects.csv, .md and .tex: the pairs of :func:`arm_pairs` in every cell with both arms.

    tables/effects_trainings.csv has a row a training, from which the intervals can be made again.

    An :class:`Effect` a row; the training loss is Dice + cross-entropy, of the last record of metrics.jsonl, which is
    the mean over its steps (``finetune.log_every``).
    ``attrs["origin"]`` names profile, folds, seeds, commit and data.  Raises `InputError` as
    :func:`mixcl.results.runs.read_runs` does.
    """
    runs = read_runs(out, config)
    folds = statistics.fold_scores(runs.cases)
    records = [read_metrics(out / "runs" / job / "metrics.jsonl")[-1:] for job in folds["job"]]
    folds["loss"] = [last[0].get("total", math.nan) if last else math.nan for last in records]
    frozen = {card["arm"]: bool(card["config"].get("finetune", {}).get("freeze")) for card in runs.cards.values()}
    rows = [row for pair in arm_pairs(config.grid, frozen) for row in _compared(folds, *pair)]
    cells: list[Any] = list(folds[CELL[:2]].drop_duplicates().itertuples(index=False, name=None))
    table = pd.DataFrame(sorted(rows, key=lambda row: cells.index(row[:2])), columns=Effect._fields[:-2])
    table["p_holm"] = statistics.holm(list(table["p"]))
    table["verdict"] = list(map(verdict, table["p_holm"], table["difference"], table["n"]))
    table.attrs["origin"] = notes.origin(runs, folds)
    parts = [_text_table(table, task) for task in dict.fromkeys(table["task"])]
    write_table(out / "tables", "effects", table, parts)
    write_text(out / "tables" / "effects_trainings.csv", csv(folds[[*KEYS, "dice", "loss", "weights"]]))
    return table


def arm_pairs(grid: GridConfig, frozen: Mapping[str, bool]) -> list[tuple[str, str]]:
    """(reference, arm) of all that is compared: with no pre-training, as ``grid.compare`` says, with MixCL.

    ``frozen`` says of each arm with runs whether its encoder is frozen.  Which frozen arm has no pre-training (`FROZEN`
    and `FRESH` alone) and which is MixCL (`FROZEN` alone), ``grid.variants`` tells; without them an arm is compared as
    if its encoder were trained.
    """
    arms = sorted(frozen, key=lambda arm: (frozen[arm], rank(arm, ARMS)))
    named = {frozenset(settings): arm for arm, settings in grid.variants.items()}
    fresh = {False: REFERENCE, True: named.get(frozenset({FROZEN, FRESH}), REFERENCE)}
    ours = {False: FULL, True: named.get(frozenset({FROZEN}), FULL)}
    known = {*fresh.values(), *(arm for pair in grid.compare for arm in pair)}
    pairs = [(fresh[frozen[arm]], arm) for arm in arms]
    pairs += [*grid.compare, *((ours[frozen[arm]], arm) for arm in arms if arm not in known)]
    return [(reference, arm) for reference, arm in dict.fromkeys(pairs) if reference != arm]


def organs(config: Experiment, out: Path) -> pd.DataFrame:
    """Write tables/effects_organs.csv, .md and .tex: what the label term adds for organs that it is taught and others.

    Arms are compared that differ in ``loss.alpha`` alone, which one of them sets to 0.  Taught is what a collection of
    the pre-training labels; its ``kidney`` stands for the left and the right one.  Raises `InputError` as
    :func:`mixcl.results.runs.read_runs` does.

    The rows: task, percent, ``arm``, the arm ``against`` which it is compared and which lacks the label term,
    ``organs`` (labelled or others), and :class:`mixcl.results.inference.Estimate` of the difference of Dice over a
    pair's cases and their organs; ``p`` is not adjusted.
    """
    runs, known = read_runs(out, config), collections(config.data)
    names = {name for key in config.data.pretrain for name in known[key].names.values()}
    taught = [bool({organ, re.sub(r"^(left|right) ", "", organ)} & names) for organ in runs.cases["organ"]]
    cases = runs.cases.assign(organs=np.where(taught, "labelled", "others"))
    rows: list[tuple[Any, ...]] = []
    for reference, arm in _with_label_term(config.grid):
        for group, part in cases[cases["arm"].isin((reference, arm))].groupby("organs"):
            for cell, values in distinct(statistics.fold_differences(part, reference)).groupby(CELL):
                rows.append((*cell, reference, group, *compared(values, values["dice"], "arm_dice", "reference_dice")))
    table = pd.DataFrame(rows, columns=[*CELL, "against", "organs", *DIFFERENCE])
    write_table(out / "tables", "effects_organs", table, [_organ_table(table, notes.origin(runs, runs.cases))])
    return table


def _with_label_term(grid: GridConfig) -> Iterator[tuple[str, str]]:
    """(reference, arm) of arms that have the same settings but for the label term, which the reference lacks."""
    settings = {arm: by_key(items) for arm, items in {FULL: (), **grid.variants}.items()}
    rest = {arm: {key: value for key, value in of.items() if key != ALPHA} for arm, of in settings.items()}
    lacks = {arm: float(of.get(ALPHA, 1)) == 0 for arm, of in settings.items()}
    for reference, arm in itertools.permutations(settings, 2):
        if lacks[reference] and not lacks[arm] and rest[reference] == rest[arm]:
            yield reference, arm


def verdict(p_holm: float, difference: float, n: int) -> str:
    """What an adjusted p and a difference of ``n`` pairs allow to say of an arm.

    >>> verdict(0.01, 0.02, 15), verdict(0.01, -0.02, 15), verdict(0.2, 0.02, 15)
    ('better', 'worse', 'not told apart')
    >>> verdict(math.nan, 0, 0), verdict(math.nan, 0.2, 5), verdict(math.nan, 0.01, 15)
    ('the same trainings', 'too few pairs', 'nothing learned')
    """
    if not n:
        return "the same trainings"
    if math.isnan(p_holm):
        return "too few pairs" if n < FEWEST else "nothing learned"
    if not p_holm < LEVEL:
        return "not told apart"
    return "better" if difference > 0 else "worse"


def as_rows(table: pd.DataFrame) -> list[Effect]:
    """The rows of :func:`effects`, typed."""
    return list(map(Effect._make, table.itertuples(index=False, name=None)))


def _compared(folds: pd.DataFrame, reference: str, arm: str) -> Iterator[tuple[Any, ...]]:
    """Rows of :func:`effects`, without the last two columns, of an arm against another."""
    by = ["task", "percent", "fold", "seed"]
    base = folds[folds["arm"] == reference].set_index(by)[["dice", "loss", "weights"]]
    both = folds[folds["arm"] == arm].join(base.add_prefix("reference_"), on=by)
    for cell, runs in both.dropna(subset=["dice", "reference_dice"]).groupby(CELL, sort=False):
        part = distinct(runs)
        gains = part["dice"] - part["reference_dice"]
        n, mean, *interval = compared(part, gains, "dice", "reference_dice")
        by_seed = " ".join(shown(100 * gain, 1, "+") for gain in gains.groupby(part["seed"]).mean())
        fit = (part["loss"] - part["reference_loss"]).mean()
        dice = (runs["reference_dice"].mean(), runs["dice"].mean(), mean if n else 0.0)
        yield (*cell, reference, n, *dice, *interval, (gains > 0).mean(), by_seed, fit)


def _text_table(table: pd.DataFrame, task: str) -> TextTable:
    rows = table[table["task"] == task]
    columns: dict[str, Iterable[str]] = {
        "Pct.": rows["percent"].map("{:g}".format),
        "arm": rows["arm"].map(arm_title),
        "against": rows["against"].map(arm_title),
        "n pairs": pair_texts(rows),
        "its Dice": rows["reference"].map("{:.4f}".format),
        "arm's Dice": rows["mean"].map("{:.4f}".format),
        "difference": rows["difference"].map("{:+.4f}".format),
        "95 % interval": interval_texts(rows),
        "p": rows["p"].map(_p),
        "Holm": rows["p_holm"].map(_p),
        "verdict": rows["verdict"],
        "detectable": rows["detectable"].map(shown),
        "ahead": rows["better"].map("{:.0%}".format).where(rows["n"] > 0, MISSING),
        "by seed": rows["seeds"],
        "training loss": [shown(fit, 3, "+") for fit in rows["fit"]],
    }
    caption = f"{title(task)}: each arm against training from scratch, or as named, paired by fold and seed."
    note = (
        f"n pairs: of distinct trainings. {wording.INTERVAL} {wording.NO_P} "
        "Holm: p adjusted for every row of this page; verdict: better or worse where Holm's p is below 0.05, else not "
        "told apart, which is no proof of no effect; "
        "detectable: the true difference that so many pairs would show with 80 % power; ahead: share of pairs won; "
        "by seed: mean difference of each seed, in points; "
        "training loss: its last record, minus that of what is compared with; above 0 the training scans are fitted "
        "worse."
    )
    return TextTable.of("Effects.", caption, columns, [note, table.attrs["origin"]])


def _organ_table(table: pd.DataFrame, origin: str) -> TextTable:
    columns: dict[str, Iterable[str]] = {
        "task": table["task"].map(title),
        "Pct.": table["percent"].map("{:g}".format),
        "arm": table["arm"].map(arm_title),
        "against": table["against"].map(arm_title),
        "organs": table["organs"],
        "n pairs": pair_texts(table, "seeds"),
        "difference": table["difference"].map("{:+.4f}".format),
        "95 % interval": interval_texts(table),
        "p": table["p"].map(_p),
    }
    caption = "What it adds, for organs that the pre-training's collections label and for the others."
    note = f"{wording.INTERVAL} {wording.NO_P} p is not adjusted."
    return TextTable.of("Label term, by organ.", caption, columns, [note, origin])


def _p(value: float) -> str:
    return MISSING if math.isnan(value) else f"{value:.2g}"
