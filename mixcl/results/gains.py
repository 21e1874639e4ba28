"""When a pre-training helps: its gain over fine-tuning steps and learning rates, by pairs of trainings.

A point is a length, a rate and what the encoder starts from.  At each point the trainings of an arm are paired, fold by
fold and seed by seed, with those from scratch of the same length and rate.  Nothing here is chosen by the gain:
:func:`tuned`, which chooses a rate, says so.
"""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from mixcl.config.settings import Experiment
from mixcl.errors import InputError
from mixcl.files import write_text
from mixcl.results import notes, wording
from mixcl.results.formats import MISSING, TextTable, csv, write_table
from mixcl.results.inference import LEVEL, estimate
from mixcl.results.runs import read_runs
from mixcl.results.statistics import DIFFERENCE, REFERENCE, compared, fold_scores, holm
from mixcl.results.wording import arm_title, interval_texts, pair_texts, shown, title
from mixcl.run.jobs import arm_and_seed
from mixcl.run.record import read_metrics
from mixcl.spreadsheet import to_csv

ARM = ["task", "percent", "start"]
POINT = [*ARM, "steps", "rate"]
PAIRED = ["task", "percent", "steps", "rate", "fold", "seed"]
TRAINING = [*POINT, "fold", "seed", "dice", "entropy", "organs", "weights"]
GAIN = ["scratch", "dice", *({"seeds": "n_seeds"}.get(name, name) for name in DIFFERENCE)]
FINER = ("entropy", "organs")
FEATURES = ("alignment", "uniformity", "agreement", "probe_dice")
FOUND = 0.3  # a network has found an organ from this Dice on
THIRD, MOST = 1 / 3, 3 / 4  # of the highest Dice from scratch: the paper's 15 and 50 % of BTCV (0.33 and 0.78)


class Gains(NamedTuple):
    """The tables of a map: a row a training, and what the functions below give that are named as they are."""

    trainings: pd.DataFrame
    map: pd.DataFrame
    tuned: pd.DataFrame
    found: pd.DataFrame
    features: pd.DataFrame


def write_map(out: Path, plan: Experiment | None = None) -> Gains:
    """Write tables/map.csv, .md and .tex, and the other tables as .csv, of the runs of ``plan``, or of all in ``out``.

    There is a tuned.csv where there is more than one rate.
    Raises `InputError` as :func:`trainings` and :func:`gain_map` do.
    """
    rows, folder = trainings(out, plan), out / "tables"
    made = Gains(rows, gain_map(rows), tuned(rows), organs_found(rows), features(rows, out))
    write_table(folder, "map", made.map, [_text_table(made.map)])
    tables = {"trainings": rows[TRAINING], "found": made.found}
    if rows["rate"].nunique() > 1:
        tables["tuned"] = made.tuned
    else:
        (folder / "tuned.csv").unlink(missing_ok=True)
    for name, table in tables.items():
        write_text(folder / f"{name}.csv", csv(table))
    write_text(folder / "features.csv", to_csv(made.features))
    return made


def trainings(out: Path, plan: Experiment | None = None) -> pd.DataFrame:
    """A row a training: `POINT`, fold, seed, weights, Dice, and what was measured on the way.

    ``start`` is scratch or the arm whose pre-training it was, ``pretraining`` its job, of equal ones that with the
    shortest name.  ``entropy`` is the last cross-entropy on the test cases and ``organs`` how many organs had passed
    `FOUND` by then, NaN without ``finetune.probe_every``; ``found`` is the step at which each did, by organ.  Raises
    `InputError` as :func:`mixcl.results.runs.read_runs` does, and for two trainings of one point, fold and seed.
    """
    runs = read_runs(out, plan)
    table = fold_scores(runs.cases)
    cards = [runs.cards[job] for job in table["job"]]
    before = [card.get("pretraining") or {} for card in cards]
    made = pd.Series([of.get("job", "") for of in before], table.index)
    weights = [of.get("id", number) for number, of in enumerate(before)]
    table["pretraining"] = made.groupby(weights).transform(lambda names: min(names, key=len))
    table["start"] = [(arm_and_seed(job) or (job,))[0] if job else REFERENCE for job in table["pretraining"]]
    table["steps"] = [int(card["steps"]) for card in cards]
    table["rate"] = [float(card["config"]["finetune"]["lr"]) for card in cards]
    tests = [_tests(out / "runs" / job) for job in table["job"]]
    table["entropy"] = [entropy for entropy, _ in tests]
    table["found"] = pd.Series([organs for _, organs in tests], table.index, dtype=object)
    table["organs"] = [sum(s < math.inf for s in organs.values()) if organs else math.nan for _, organs in tests]
    if twice := table.loc[table.duplicated([*POINT, "fold", "seed"], keep=False), "job"].tolist():
        raise InputError(
            f"{out}: {twice[0]} and {twice[1]} have one length, rate and start; the map of the gain is for arms that "
            "differ in these alone"
        )
    table.attrs |= {"origin": notes.origin(runs, table), "folder": str(out)}
    return table


def gain_map(rows: pd.DataFrame) -> pd.DataFrame:
    """At every point, an arm against scratch; ``rows`` are :func:`trainings`.

    The columns: `POINT`; ``scratch`` and ``dice``, the mean Dice of both; :class:`Estimate` of the ``difference``;
    ``better``, the share of pairs in which the arm is ahead; ``entropy``, the mean difference of the last cross-entropy
    on the test cases (below 0 where the arm is better), and ``organs``, of organs found, both with an interval
    (``entropy_low``, ...); ``alike``, the steps at which training from scratch at that rate has the arm's Dice, on
    straight lines over their logarithm: infinite where it never has, NaN below its first point.  ``attrs["origin"]``:
    where it is from.

    Raises `InputError` where no training from scratch has the length and rate of one from a pre-training.
    """
    both = _joined(rows, PAIRED)
    if both.empty:
        raise InputError(
            f"{rows.attrs['folder']}: no training from scratch and from a pre-training at one length and rate; "
            "train them"
        )
    fresh = rows[rows["start"] == REFERENCE].groupby(["task", "percent", "rate"])
    curves: dict[Any, pd.Series] = {key: part.groupby("steps")["dice"].mean() for key, part in fresh}
    lines = []
    for (task, percent, start, steps, rate), part in both.groupby(POINT):
        better = (part["dice"] > part["dice_scratch"]).mean()
        finer = [estimate(part[name] - part[f"{name}_scratch"], part["fold"], part["seed"]) for name in FINER]
        ends = [number for of in finer for number in (of.mean, of.low, of.high)]
        alike = _alike(curves[task, percent, rate], part["dice"].mean())
        lines.append((task, percent, start, steps, rate, *_gain(part), better, *ends, alike))
    columns = [f"{name}{end}" for name in FINER for end in ("", "_low", "_high")]
    table = pd.DataFrame(lines, columns=[*POINT, *GAIN, "better", *columns, "alike"])
    table.attrs["origin"] = rows.attrs["origin"]
    return table


def tuned(rows: pd.DataFrame) -> pd.DataFrame:
    """Each arm at the rate that is best for it, by task, percent, start and steps; ``rows`` are :func:`trainings`.

    The rate of an arm is that of its highest mean Dice; it is chosen on the very trainings that are compared, in both
    arms alike, so that each Dice is a little too high.  Both rates, and the rest as in :func:`gain_map`.
    """
    length = [*ARM, "steps"]
    best = rows.groupby(POINT)["dice"].mean().dropna().reset_index()
    best = best.loc[best.groupby(length)["dice"].idxmax(), POINT]
    both = _joined(rows.merge(best, on=POINT), [name for name in PAIRED if name != "rate"])
    rates = ["rate_scratch", "rate"]
    lines = [(*cell, *part[rates].iloc[0], *_gain(part)) for cell, part in both.groupby(length)]
    return pd.DataFrame(lines, columns=[*length, *rates, *GAIN])


def organs_found(rows: pd.DataFrame) -> pd.DataFrame:
    """The step at which each organ first passes a Dice of `FOUND` on the test cases, by `POINT`, of :func:`trainings`.

    `POINT`, ``organ``, ``n`` trainings, ``found``, the share of them that found it, and ``step``, the median step of
    all of them, infinite where fewer than half found it.  Steps are those of ``finetune.probe_every``.
    """
    lines = [(*point, *item) for *point, steps in rows[[*POINT, "found"]].to_numpy() for item in steps.items()]
    table = pd.DataFrame(lines, columns=[*POINT, "organ", "step"])
    groups = table.groupby([*POINT, "organ"], sort=False)["step"]
    return groups.agg(n="count", found=lambda steps: float(np.isfinite(steps).mean()), step="median").reset_index()


def features(rows: pd.DataFrame, out: Path) -> pd.DataFrame:
    """What the features of each pre-training of :func:`trainings` were like at its last probe (`mixcl.diagnostics`).

    A row a pre-training: ``start``, ``seed``, its ``steps``, the effective rank of each level over its ceiling
    (``rank_0``, ...), and alignment, uniformity, agreement and the linear probe's Dice.
    """
    lines, made = [], rows[rows["pretraining"] != ""].drop_duplicates("pretraining")
    for start, seed, job in made[["start", "seed", "pretraining"]].itertuples(index=False, name=None):
        probes = [record for record in read_metrics(out / "runs" / job / "metrics.jsonl") if "probe" in record]
        if probes:
            step, probe = probes[-1]["step"], probes[-1]["probe"]
            ranks = {f"rank_{k}": r / c for k, (r, c) in enumerate(zip(probe["rank"], probe["ceiling"], strict=True))}
            values = {key: probe.get(key) for key in FEATURES}
            lines.append({"start": start, "seed": seed, "steps": step, **ranks, **values})
    return pd.DataFrame(lines, columns=None if lines else ["start", "seed", "steps"])


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Of each arm of a map: at how many ``points`` its gain is told from 0, a row an arm.

    ``n``, ``n_seeds``: the fewest pairs and pre-trainings of a point.  ``ahead``, ``behind``: of training from scratch,
    by the 95 % interval, with ``_holm`` after Holm's adjustment over the points of all arms; ``tested`` ones have a p.
    """
    sure = pd.Series(holm(table["p"].tolist()), table.index) < LEVEL
    sides = {"ahead": table["low"] > 0, "behind": table["high"] < 0}
    sides |= {f"{name}_holm": side & sure for name, side in sides.items()}
    groups = table.assign(points=1, tested=table["p"].notna(), **sides).groupby(ARM, sort=False)
    return groups[["n", "n_seeds"]].min().join(groups[["points", *sides, "tested"]].sum()).reset_index()


def extremes(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of a map at which each arm's gain is least and most."""
    return pd.DataFrame(table.sort_values([*ARM, "difference"]).groupby(ARM).nth([0, -1]))


def _tests(run: Path) -> tuple[float, dict[str, float]]:
    """What a fine-tuning measured on its test cases: its last cross-entropy, and at which step it found each organ."""
    tests = [record["test"] for record in read_metrics(run / "metrics.jsonl") if "test" in record]
    steps: dict[str, float] = {organ: math.inf for test in tests for organ in test["dice"]}
    for test in reversed(tests):
        steps |= {organ: float(test["step"]) for organ, dice in test["dice"].items() if dice >= FOUND}
    return float(tests[-1]["cross_entropy"]) if tests else math.nan, steps


def _gain(both: pd.DataFrame) -> tuple[float, ...]:
    estimate = compared(both, both["dice"] - both["dice_scratch"], "dice", "dice_scratch")
    return (both["dice_scratch"].mean(), both["dice"].mean(), *estimate)


def _joined(rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Trainings of arms beside those from scratch that agree in ``by``, each training once."""
    fresh = rows[rows["start"] == REFERENCE]
    both = rows[rows["start"] != REFERENCE].merge(fresh, on=by, suffixes=("", "_scratch"))
    return both[both["weights"] != both["weights_scratch"]].drop_duplicates([*ARM, "weights", "weights_scratch"])


def _alike(curve: pd.Series, dice: float) -> float:
    """Steps at which a curve of Dice over steps first has ``dice``."""
    steps, values = np.log(curve.index.to_numpy(float)), np.maximum.accumulate(curve.to_numpy(float))
    exactly = steps[values == dice]
    return float(np.exp(exactly[0] if len(exactly) else np.interp(dice, values, steps, left=math.nan, right=math.inf)))


def _finer(rows: pd.DataFrame, name: str, digits: int) -> list[str]:
    """A difference and its interval, or one sign that both are missing."""
    both = zip(rows[name], interval_texts(rows, digits, name=name), strict=True)
    return [MISSING if math.isnan(value) else f"{shown(value, digits, '+')} {ends}" for value, ends in both]


def _text_table(table: pd.DataFrame) -> TextTable:
    beyond = f"more than {int(table['steps'].max())}"
    columns: dict[str, Iterable[str]] = {
        "task": table["task"].map(title),
        "%": table["percent"].map("{:g}".format),
        "arm": table["start"].map(arm_title),
        "steps": table["steps"].map(str),
        "rate": table["rate"].map("{:g}".format),
        "pairs": pair_texts(table),
        "from scratch, Dice": table["scratch"].map("{:.3f}".format),
        "arm, Dice": table["dice"].map("{:.3f}".format),
        "points": [shown(100 * difference, 1, "+") for difference in table["difference"]],
        "95 %": interval_texts(table, 1, 100),
        "cross-entropy": _finer(table, "entropy", 3),
        "organs found": _finer(table, "organs", 1),
        "from scratch as good at step": [beyond if at == math.inf else shown(at, 0) for at in table["alike"]],
    }
    return TextTable.of(
        "The map of the gain.",
        "An arm against training from scratch of the same length and rate, pairs of fold and seed; cross-entropy and "
        f"organs found are differences on the test cases, with their 95 % intervals. {table.attrs['origin']}",
        columns,
        (f"{wording.INTERVAL} Intervals are not adjusted for their number.",),
    )
