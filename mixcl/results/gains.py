"""When a pre-training helps: its gain over fine-tuning steps and learning rates, by pairs of trainings.

A point is a length, a rate and what the encoder starts from.  At each point the trainings of an arm are paired, fold by
fold and seed by seed, with those from scratch of the same length and rate.  Nothing here is chosen by the gain:
:func:`tuned`, which chooses a rate, says so.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from mixcl.config.settings import Experiment
from mixcl.errors import InputError
from mixcl.files import write_text
from mixcl.results import notes, wording
from mixcl.results.formats import TextTable, csv, write_table
from mixcl.results.inference import LEVEL, estimate
from mixcl.results.runs import read_runs
from mixcl.results.statistics import DIFFERENCE, REFERENCE, compared, fold_scores, holm
from mixcl.results.wording import alone, arm_title, interval, shown, title
from mixcl.run.jobs import arm_and_seed
from mixcl.run.record import read_metrics
from mixcl.spreadsheet import to_csv

ARM = ["task", "percent", "start"]
POINT = [*ARM, "steps", "rate"]
PAIRED = ["task", "percent", "steps", "rate", "fold", "seed"]
TRAINING = [*POINT, "fold", "seed", "dice", "entropy", "organs", "weights"]
GAIN = ["scratch", "dice", *({"seeds": "n_seeds"}.get(name, name) for name in DIFFERENCE)]
FINER = ("entropy", "organs")
SEEN = ("alignment", "uniformity", "agreement", "probe_dice")
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
    others = {"trainings": rows[TRAINING], "tuned": made.tuned, "found": made.found}
    if rows["rate"].nunique() == 1:
        del others["tuned"]
        (folder / "tuned.csv").unlink(missing_ok=True)
    for name, table in others.items():
        write_text(folder / f"{name}.csv", csv(table))
    write_text(folder / "features.csv", to_csv(made.features))
    return made


def trainings(out: Path, plan: Experiment | None = None) -> pd.DataFrame:
    """A row a training: `POINT`, fold, seed, weights, Dice, and what was seen on the way.

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
    seen = [_seen(out / "runs" / job) for job in table["job"]]
    table["entropy"] = [entropy for entropy, _ in seen]
    table["found"] = pd.Series([found for _, found in seen], table.index, dtype=object)
    table["organs"] = [sum(s < math.inf for s in found.values()) if found else math.nan for _, found in seen]
    twice = table[table.duplicated([*POINT, "fold", "seed"], keep=False)]
    if len(twice):
        raise InputError(
            f"{out}: {twice['job'].iloc[0]} and {twice['job'].iloc[1]} have one length, rate and start; the map of the "
            "gain is for arms that differ in these alone"
        )
    table.attrs |= {"origin": notes.origin(runs, table), "folder": str(out)}
    return table


def gain_map(rows: pd.DataFrame) -> pd.DataFrame:
    """At every point, an arm against scratch; ``rows`` are :func:`trainings`.

    The columns: `POINT`; ``scratch`` and ``dice``, the mean Dice of both; :class:`Estimate` of the ``difference``;
    ``better``, the share of pairs in which the arm is ahead; ``entropy``, the mean difference of the last cross-entropy
    on the test cases (below 0 where the arm is better), and ``organs``, of organs found, both with an interval
    (``entropy_low``, ...); ``alike``, the steps at which training from scratch at that rate has the arm's Dice, on
    straight lines between its points over the logarithm of the steps: infinite where it never has, NaN below its first
    point.  ``attrs["origin"]``: where it is from.

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
    lines = [(*point, *item) for *point, found in rows[[*POINT, "found"]].to_numpy() for item in found.items()]
    table = pd.DataFrame(lines, columns=[*POINT, "organ", "step"])
    groups = table.groupby([*POINT, "organ"], sort=False)["step"]
    return groups.agg(n="count", found=lambda steps: float(np.isfinite(steps).mean()), step="median").reset_index()


def features(rows: pd.DataFrame, out: Path) -> pd.DataFrame:
    """What the features of each pre-training of :func:`trainings` were like at its last look (`mixcl.diagnostics`).

    A row a pre-training: ``start``, ``seed``, its ``steps``, the effective rank of each level over its ceiling
    (``rank_0``, ...), and alignment, uniformity, agreement and the linear probe's Dice.
    """
    made, lines = rows[rows["pretraining"] != ""].drop_duplicates("pretraining"), []
    for start, seed, job in zip(made["start"], made["seed"], made["pretraining"], strict=True):
        looks = [record for record in read_metrics(out / "runs" / job / "metrics.jsonl") if "probe" in record]
        if looks:
            step, look = looks[-1]["step"], looks[-1]["probe"]
            ranks = {f"rank_{k}": r / c for k, (r, c) in enumerate(zip(look["rank"], look["ceiling"], strict=True))}
            lines.append({"start": start, "seed": seed, "steps": step, **ranks, **{key: look.get(key) for key in SEEN}})
    return pd.DataFrame(lines, columns=None if lines else ["start", "seed", "steps"])


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Of each arm of a map: at how many ``points`` its gain is told from 0, a row an arm.

    ``n`` and ``n_seeds``: the fewest pairs and pre-trainings of a point.  ``ahead`` and ``behind`` of training from
    scratch by the 95 % interval, and ``_holm`` after Holm's adjustment over the points of all arms; ``tested`` points
    have a p.
    """
    sure = pd.Series(holm(table["p"].tolist()), table.index) < LEVEL
    sides = {"ahead": table["low"] > 0, "behind": table["high"] < 0}
    sides |= {f"{name}_holm": side & sure for name, side in sides.items()}
    groups = table.assign(points=1, tested=table["p"].notna(), **sides).groupby(ARM, sort=False)
    counts = groups[["points", *sides, "tested"]].sum()
    return groups[["n", "n_seeds"]].min().join(counts).reset_index()


def extremes(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of a map at which each arm's gain is least and most."""
    return pd.DataFrame(table.sort_values([*ARM, "difference"]).groupby(ARM).nth([0, -1]))


def _seen(run: Path) -> tuple[float, dict[str, float]]:
    """What a fine-tuning saw of its test cases: the last cross-entropy, and the step at which each organ was found."""
    looks = [record["test"] for record in read_metrics(run / "metrics.jsonl") if "test" in record]
    found: dict[str, float] = {organ: math.inf for look in looks for organ in look["dice"]}
    for look in reversed(looks):
        found |= {organ: float(look["step"]) for organ, dice in look["dice"].items() if dice >= FOUND}
    return float(looks[-1]["cross_entropy"]) if looks else math.nan, found


def _gain(pairs: pd.DataFrame) -> tuple[float, ...]:
    estimate = compared(pairs, pairs["dice"] - pairs["dice_scratch"], "dice", "dice_scratch")
    return (pairs["dice_scratch"].mean(), pairs["dice"].mean(), *estimate)


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


def _finer(row: Mapping[Any, Any], name: str, digits: int) -> str:
    """A difference and its interval, or one sign that both are missing."""
    parts = shown(row[name], digits, "+"), interval(row[f"{name}_low"], row[f"{name}_high"], digits)
    return " ".join(dict.fromkeys(parts))


def _text_table(table: pd.DataFrame) -> TextTable:
    rows = [
        (
            title(row["task"]), f"{row['percent']:g}", arm_title(row["start"]), f"{row['steps']}", f"{row['rate']:g}",
            f"{row['n']}{alone(row['folds'], row['n_seeds'])}", f"{row['scratch']:.3f}", f"{row['dice']:.3f}",
            shown(100 * row["difference"], 1, "+"), interval(100 * row["low"], 100 * row["high"], 1),
            _finer(row, "entropy", 3), _finer(row, "organs", 1),
            f"more than {int(table['steps'].max())}" if row["alike"] == math.inf else shown(row["alike"], 0),
        )
        for row in table.to_dict("records")
    ]  # fmt: skip
    names = (
        "task", "%", "arm", "steps", "rate", "pairs", "from scratch, Dice", "arm, Dice", "points", "95 %",
        "cross-entropy", "organs found", "from scratch as good at step",
    )  # fmt: skip
    return TextTable(
        "The map of the gain.",
        "An arm against training from scratch of the same length and rate, pairs of fold and seed; cross-entropy and "
        f"organs found are differences on the test cases, with their 95 % intervals. {table.attrs['origin']}",
        [("", names)],
        rows,
        (f"{wording.INTERVAL} Intervals are not adjusted for their number.",),
    )
