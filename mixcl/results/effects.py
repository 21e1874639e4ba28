"""What matters: every arm against training from scratch, paired by fold and seed, with effect sizes and intervals.

An arm whose encoder is frozen is compared with a frozen encoder of random weights instead, because only there does all
that the two differ in come from the pre-training: a trained encoder can make good for what it lacked.  Where the arms
of the paper's ablation are there, each is also compared with the one before it, which has one term less, and MixCL with
itself without labels, which is what the paper's title is about.  Every other arm, a reading of the paper for example,
is compared with MixCL as well, frozen with frozen.

A pair is one fold and one seed: both arms fine-tune on the same scans in the same order from the same fresh decoder and
are tested on the same cases, and an arm's pre-training has the pair's seed.  A pair's value is the fold's score of
``statistics.fold_scores``.  Pairs of one fold share test cases and pairs of one seed share a pre-training, so
an interval over pairs is somewhat too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from mixcl.files import write_text
from mixcl.results import wording
from mixcl.results.formats import MISSING, Sheet, csv, latex, markdown
from mixcl.results.paper import TABLE1, TITLES
from mixcl.results.runs import read_runs
from mixcl.results.statistics import CELL, REFERENCE, Comparison, compare, fold_differences, fold_scores
from mixcl.results.wording import interval, shown, title
from mixcl.run.checkpoint import read_metrics

LEVEL, POWER = 0.05, 0.8
RECORDS = 3
RANDOM = "random-frozen"  # the arm whose encoder is neither pre-trained nor trained
LADDERS = (("id", "id-label", "mixcl"), ("id-frozen", "id-label-frozen", "frozen"))
"""Arms of the paper's ablation in the order in which their Dice rises there (Table 2), and the same with the encoder
frozen.  A step goes from one arm to the next."""
UNLABELLED = (("id-recon", "mixcl"), ("id-recon-frozen", "frozen"))
"""MixCL without its label term, and MixCL."""
CONTROLS = ((REFERENCE, "frozen"), ("one-rate-scratch", "one-rate"))
"""What else an arm is compared with: the whole network trained from scratch, and scratch with the arm's own rates."""
LABEL_STEPS = (LADDERS[0][:2], LADDERS[1][:2], *UNLABELLED)
"""Two arms that differ in the label term alone."""
NAMED = {RANDOM, *(arm for group in (*LADDERS, *UNLABELLED, *CONTROLS) for arm in group)}


class Effect(NamedTuple):
    """A row of :func:`effects`."""

    task: str
    percent: float
    arm: str
    against: str
    n: int
    reference: float
    mean: float
    difference: float
    low: float
    high: float
    p: float
    detectable: float
    better: float
    seeds: str
    fit: float
    p_holm: float


def effects(out: Path) -> pd.DataFrame:
    """Write tables/effects.csv, .md and .tex: each arm's difference to ``scratch`` in every cell that has both.

    An arm with ``finetune.freeze`` is compared with the arm ``random-frozen`` instead, an arm of the ablation also with
    the arm before it in ``LADDERS``, MixCL with the arm without labels, and every arm that none of these names with
    MixCL, frozen with frozen.

    Returns
    -------
    DataFrame
        task, percent, arm and what it is compared with, ``against``; ``n`` pairs; ``reference`` and ``mean``, the Dice
        of that and of the arm over the pairs; ``difference`` with its 95 % interval ``low``, ``high`` (bootstrap over
        pairs) and ``p`` (Wilcoxon's signed ranks); ``p_holm``, adjusted for all rows; ``detectable``, the true
        difference that n such pairs would find with 80 % power (normal approximation, two-sided 5 %); ``better``, the
        share of pairs in which the arm is ahead; ``seeds``, the mean difference of each seed in points, by rising seed,
        which shows whether an effect is one of the starts; ``fit``, the difference of the losses on the training
        patches (Dice + cross-entropy, mean of the last records of metrics.jsonl), above 0 where the arm fits worse.
        ``attrs["origin"]``: profile, folds, seeds, commit and data.

    Raises
    ------
    InputError
        See :func:`mixcl.results.runs.read_runs`.
    """
    runs = read_runs(out)
    folds = fold_scores(runs.cases)
    folds["loss"] = [_last_loss(out / "runs" / job) for job in folds["job"]]
    freezes = [job for job, card in runs.cards.items() if card["config"].get("finetune", {}).get("freeze")]
    frozen = folds["job"].isin(freezes)
    rows = _against(folds[~frozen], REFERENCE) + _against(folds[frozen], RANDOM)
    steps = [step for ladder in LADDERS for step in pairwise(ladder)]
    for before, arm in [*steps, *UNLABELLED, *CONTROLS]:
        rows += _against(folds[folds["arm"].isin((before, arm))], before)
    for ours, part in (("mixcl", folds[~frozen]), ("frozen", folds[frozen])):
        rows += _against(part[~part["arm"].isin(NAMED - {ours})], ours)
    cells = list(folds[CELL[:2]].drop_duplicates().itertuples(index=False, name=None))
    rows.sort(key=lambda row: cells.index(row[:2]))
    table = pd.DataFrame(rows, columns=Effect._fields[:-1])
    table["p_holm"] = holm(list(table["p"]))
    table.attrs["origin"] = wording.origin(runs, folds)
    sheets = [_sheet(table, task, table.attrs["origin"]) for task in dict.fromkeys(table["task"])]
    folder = out / "tables"
    write_text(folder / "effects.csv", csv(table))
    write_text(folder / "effects.md", markdown(sheets))
    write_text(folder / "effects.tex", latex(sheets))
    return table


def organs(out: Path, labelled: Iterable[str]) -> pd.DataFrame:
    """Write tables/effects_organs.csv and .md: what the label term adds for organs that it is taught and for others.

    Parameters
    ----------
    out
        Folder of results.
    labelled
        Names of what the collections of the pre-training label; ``kidney`` stands for the left and the right one.

    Returns
    -------
    DataFrame
        task, percent, ``arm``, the arm ``against`` which it is compared and which lacks the label term alone,
        ``organs`` (labelled or others), ``n`` pairs of fold and seed, the mean ``difference`` of Dice over a pair's
        cases and their organs, its 95 % interval and ``p``, which is not adjusted.

    Raises
    ------
    InputError
        See :func:`mixcl.results.runs.read_runs`.
    """
    runs, known = read_runs(out), set(labelled)
    taught = [any(name in organ for name in known) for organ in runs.cases["organ"]]
    cases = runs.cases.assign(organs=np.where(taught, "labelled", "others"))
    rows: list[tuple[Any, ...]] = []
    for before, arm in LABEL_STEPS:
        for group, part in cases[cases["arm"].isin((before, arm))].groupby("organs"):
            for where, values in fold_differences(part, before).groupby(CELL)["dice"]:
                rows.append((*where, before, group, *compare(values)[:5]))
    table = pd.DataFrame(rows, columns=[*CELL, "against", "organs", *Comparison._fields[:5]])
    write_text(out / "tables" / "effects_organs.csv", csv(table))
    write_text(out / "tables" / "effects_organs.md", markdown([_organ_sheet(rows, wording.origin(runs, runs.cases))]))
    return table


def _organ_sheet(rows: list[tuple[Any, ...]], origin: str) -> Sheet:
    columns = ("task", "Pct.", "arm", "against", "organs", "n", "difference", "95 % interval", "p")
    texts = [
        (title(task), f"{percent:g}", *names, str(n), f"{mean:+.4f}", interval(low, high), _p(p))
        for task, percent, *names, n, mean, low, high, p in rows
    ]
    caption = f"What it adds, for organs that the pre-training's collections label and for the others. {origin}"
    note = "Interval: bootstrap over pairs; p: Wilcoxon's signed ranks, not adjusted."
    return Sheet("Label term, by organ.", caption, [("", columns)], texts, [note])


def _against(folds: pd.DataFrame, reference: str) -> list[tuple[Any, ...]]:
    """Rows of :func:`effects`, without ``p_holm``, of all other arms against one."""
    by = ["task", "percent", "fold", "seed"]
    base = folds[folds["arm"] == reference].set_index(by)[["dice", "loss"]]
    both = folds[folds["arm"] != reference].join(base.add_prefix("reference_"), on=by)
    both = both.dropna(subset=["dice", "reference_dice"])
    return [(*cell, reference, *_effect(part)) for cell, part in both.groupby(CELL, sort=False)]


def holm(values: list[float]) -> list[float]:
    """Holm's step-down adjustment of p values (Holm, 1979); NaN stay NaN and are not counted.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted((p, k) for k, p in enumerate(values) if not math.isnan(p))
    adjusted, most = [math.nan] * len(values), 0.0
    for rank, (p, k) in enumerate(order):
        most = max(most, min(1.0, (len(order) - rank) * p))
        adjusted[k] = most
    return adjusted


def conclusion(table: pd.DataFrame) -> list[str]:
    """What the numbers support, in sentences: the paper's claim by task, its ablation's order, and the other arms."""
    said = []
    for task in dict.fromkeys(table["task"]):
        every = as_rows(table[table["task"] == task])
        rows = [row for row in every if row.against == REFERENCE]
        ours = sorted((row for row in rows if row.arm == "mixcl"), key=lambda row: row.percent)
        if ours and task in TITLES:
            said += _claim(ours)
        said += _order(every) + _labels(every)
        others = [row for row in rows if row.arm != "mixcl"]
        for word, sign in (("above", 1), ("below", -1)):
            told = [row.arm for row in others if row.p_holm < LEVEL and sign * row.difference > 0]
            if told:
                said.append(f"{title(task)}: told apart from training from scratch, {word} it: {', '.join(told)}.")
        if others and not any(row.p_holm < LEVEL for row in others):
            said.append(f"{title(task)}: no other arm is told apart from training from scratch.")
        said += _worth(every) + _readings(every)
    return said


def _effect(part: pd.DataFrame) -> tuple[float | str, ...]:
    """One row of :func:`effects` after the cell's name."""
    gains = part["dice"] - part["reference_dice"]
    found = compare(gains)
    spread = float(gains.std()) if found.n > 1 else math.nan
    z = stats.norm.ppf(1 - LEVEL / 2) + stats.norm.ppf(POWER)
    return (
        found.n, float(part["reference_dice"].mean()), float(part["dice"].mean()), found.difference, found.low,
        found.high, found.p, float(z * spread / math.sqrt(found.n)), float((gains > 0).mean()),
        " ".join(_points(gain) for gain in gains.groupby(part["seed"]).mean()),
        float((part["loss"] - part["reference_loss"]).mean()),
    )  # fmt: skip


def _last_loss(run: Path) -> float:
    """Mean of the last records of a run's training loss, NaN without any."""
    return float(np.mean([one["total"] for one in read_metrics(run / "metrics.jsonl")][-RECORDS:] or [math.nan]))


def _claim(ours: list[Effect]) -> list[str]:
    """The paper's claim on one task, from MixCL's rows by rising share of the labels."""
    first, name = ours[0], title(ours[0].task)
    share, told = min((percent, row) for (task, percent), row in TABLE1.items() if task == first.task)
    verdict = "not supported"
    if first.p_holm < LEVEL:
        verdict = "supported" if first.difference > 0 else "contradicted"
    said = [
        f"{name} with {first.percent:g} % of the labels: MixCL {_points(first.difference)} points against from scratch "
        f"({_interval(first)}, n = {first.n}, by seed {first.seeds}, "
        f"adjusted p = {first.p_holm:.2g}): a gain is {verdict}. "
        f"The paper's largest gain is {_points(told.difference)}, with {share} %; {_power([first])}."
    ]
    if len(ours) > 1:
        listed = ", ".join(f"{row.percent:g} %: {_points(row.difference)}" for row in ours)
        shrink = all(a.difference > b.difference for a, b in pairwise(ours))
        said.append(f"{name}: the gains {'shrink' if shrink else 'do not shrink steadily'} as labels grow ({listed}).")
    return said


def _worth(rows: list[Effect]) -> list[str]:
    """What the pre-trainings of frozen encoders are worth."""
    said = []
    for percent in sorted({row.percent for row in rows if row.against == RANDOM}):
        found = [row for row in rows if row.against == RANDOM and row.percent == percent]
        told, others = (
            ", ".join(f"{row.arm} {_points(row.difference)}" for row in found if (row.p_holm < LEVEL) == yes) or "none"
            for yes in (True, False)
        )
        said.append(
            f"{title(found[0].task)} with {percent:g} % of the labels, only the decoder trained, points against an "
            f"encoder of random weights: told apart: {told}; not told apart: {others}."
        )
    return said


def _order(rows: list[Effect]) -> list[str]:
    """Whether Dice rises in the paper's order where one cell has all arms of its ablation, and which steps are told."""
    said = []
    for ladder in LADDERS:
        for percent in sorted({row.percent for row in rows}):
            found = {(row.against, row.arm): row for row in rows if row.percent == percent}
            steps = [found[step] for step in pairwise(ladder) if step in found]
            if len(steps) < len(ladder) - 1:
                continue
            listed = ", ".join(
                f"{row.arm} {_points(row.difference)} ({_interval(row)}, adjusted p = {row.p_holm:.2g})"
                for row in steps
            )
            rises, told = all(row.difference > 0 for row in steps), sum(row.p_holm < LEVEL for row in steps)
            said.append(
                f"{title(steps[0].task)} with {percent:g} % of the labels, terms added one by one to "
                f"{ladder[0]} ({steps[0].reference:.4f}): {listed}; the means {'rise' if rises else 'do not rise'} in "
                f"the paper's order, and {told} of {len(steps)} steps are told from 0."
            )
    return said


def _labels(rows: list[Effect]) -> list[str]:
    """What the label term adds to the other two."""
    return [
        f"{title(row.task)} with {row.percent:g} % of the labels: the label term adds {_points(row.difference)} points "
        f"to the same pre-training without it ({row.against}; {_interval(row)}, n = {row.n}, "
        f"adjusted p = {row.p_holm:.2g})."
        for row in rows
        if (row.against, row.arm) in UNLABELLED
    ]


def _readings(rows: list[Effect]) -> list[str]:
    """Which other arms are told from MixCL, and what would have been."""
    said = []
    for ours in ("mixcl", "frozen"):
        found = [row for row in rows if row.against == ours]
        if not found:
            continue
        better = [row.arm for row in found if row.p_holm < LEVEL and row.difference > 0]
        worse = [row.arm for row in found if row.p_holm < LEVEL and row.difference < 0]
        alike = len(found) - len(better) - len(worse)
        said.append(
            f"{title(found[0].task)}, {len(found)} other arm{'s' * (len(found) > 1)} against {ours}: told apart above "
            f"it: {', '.join(better) or 'none'}; below it: {', '.join(worse) or 'none'}; not told apart: {alike}. "
            f"By arm, {_power(found)}."
        )
    return said


def as_rows(table: pd.DataFrame) -> list[Effect]:
    """The rows of :func:`effects`, typed."""
    return [Effect(**{str(key): value for key, value in row.items()}) for row in table.to_dict("records")]


def _points(value: float) -> str:
    return shown(100 * value, 1, "+")


def _interval(row: Effect) -> str:
    if math.isnan(row.low):
        return "one pair, which gives no interval"
    return f"95 % interval {_points(row.low)} to {_points(row.high)}"


def _power(rows: list[Effect]) -> str:
    """Which differences the rows' pairs would show in 4 of 5 trials."""
    known = [row.detectable for row in rows if row.n > 1]
    if not known:
        return "one pair does not tell which difference would show"
    ends = dict.fromkeys(f"{100 * end:.1f}" for end in (min(known), max(known)))
    return f"a difference of {' to '.join(ends)} points would show in 4 of 5 trials"


def _sheet(table: pd.DataFrame, task: str, origin: str) -> Sheet:
    rows = [
        (
            f"{r.percent:g}", r.arm, r.against, str(r.n), f"{r.reference:.4f}", f"{r.mean:.4f}", f"{r.difference:+.4f}",
            interval(r.low, r.high), _p(r.p), _p(r.p_holm), shown(r.detectable), f"{r.better:.0%}", r.seeds,
            shown(r.fit, 3, "+"),
        )
        for r in as_rows(table[table["task"] == task])
    ]  # fmt: skip
    columns = (
        "Pct.",
        "arm",
        "against",
        "n",
        "its Dice",
        "arm's Dice",
        "difference",
        "95 % interval",
        "p",
        "Holm",
        "detectable",
        "ahead",
        "by seed",
        "training loss",
    )
    caption = f"{title(task)}: each arm against training from scratch, or as named, paired by fold and seed. {origin}"
    note = (
        "Interval: bootstrap over pairs; p: Wilcoxon's signed ranks; Holm: adjusted for every row of both tasks; "
        "detectable: the true difference that so many pairs would show with 80 % power; ahead: share of pairs won; "
        "by seed: mean difference of each seed, in points; "
        "training loss: at the end, minus that of what is compared with; above 0 the training scans are fitted worse."
    )
    return Sheet("Effects.", caption, [("", columns)], rows, [note])


def _p(value: float) -> str:
    return MISSING if math.isnan(value) else f"{value:.2g}"
