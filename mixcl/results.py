"""From evaluated runs to tables: Table 1 in the paper's shape, the organs, and the run card.

Everything is read from ``OUT/runs/<job>/cases.csv`` and ``run.json``; nothing is measured here.

Dice of a fold is the mean over its test cases of each case's mean over the organs that it has.  Organs that a
case does not have are left out, never counted as 0 or 1, and means are taken once, from the cases.  With
several seeds a fold's value is the mean over its seeds.  Standard deviations are over folds (n - 1).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from mixcl.checkpoint import write_text
from mixcl.config import InputError
from mixcl.paper import ARMS, TABLE1, TITLES
from mixcl.runcard import run_card as run_card
from mixcl.tables import caption, latex, markdown, notes, organs_markdown, origin

KEYS = ["task", "percent", "arm", "fold", "seed"]
METRICS = ["dice", "hd95_mm", "surface_dice"]
COUNTS = ["voxels_label", "voxels_predicted"]


@dataclass(frozen=True)
class Runs:
    """All evaluated runs of a folder: ``cases``, a row a run, case and organ; ``cards``, run.json by job."""

    cases: pd.DataFrame
    cards: dict[str, dict[str, Any]] = field(repr=False)

    def planned(self) -> list[tuple[str, float, int, int]]:
        """(task, percent, fold, seed) of all that the runs' settings ask for, whether there or not."""
        wanted = set()
        for card in self.cards.values():
            grid = card["config"]["grid"]
            for task in set(grid["percents"]) & set(card["config"]["data"]["finetune"]):
                wanted |= {
                    (task, float(p), f, s) for p in grid["percents"][task] for f in grid["folds"] for s in grid["seeds"]
                }
        return sorted(wanted, key=lambda one: (_rank(one[0], TITLES), *one[1:]))

    def told(self, key: str, task: str | None = None) -> list[Any]:
        """What the runs (of a task) say under a key of run.json, each once."""
        cards = [card for card in self.cards.values() if task in (None, card["task"])]
        return sorted({card[key] for card in cards})

    @property
    def sources(self) -> list[str]:
        """``phantom``, ``files`` or both."""
        return sorted({card["config"]["data"]["source"] for card in self.cards.values()})

    def unlike(self, task: str) -> list[str]:
        """Settings in which the runs of a task differ, though only arm, share, fold and seed may."""
        free = {"percent", "fold", "arm", "seed", "init"}
        flat = [_flat(card.get("decides", {})) for card in self.cards.values() if card["task"] == task]
        keys = sorted({key for one in flat for key in one if key not in free})
        return [key for key in keys if len({json.dumps(one.get(key)) for one in flat}) > 1]


@dataclass(frozen=True)
class Table1:
    """Table 1 of a folder of results.

    ``folds``: one row a fold, as in table1.csv.  ``cells``: task, percent, arm, mean, sd, folds, seeds.
    ``differences``: the same, of the differences to ``scratch`` paired by fold and seed.
    ``caption`` and ``notes``: what to say about it.  ``phantom``: whether any of it is from phantoms.
    """

    folds: pd.DataFrame
    cells: pd.DataFrame
    differences: pd.DataFrame
    caption: str
    notes: tuple[str, ...]
    phantom: bool


def read_runs(out: Path) -> Runs:
    """Read all evaluated fine-tuning runs below ``out``/runs.

    Raises
    ------
    InputError
        There is none, a file is damaged or does not have all cases, or two runs are of the same job.
    """
    cards: dict[str, dict[str, Any]] = {}
    jobs: dict[tuple[Any, ...], str] = {}
    tables = []
    for path in sorted((out / "runs").glob("*/cases.csv")):
        card, table = _read_run(path)
        key = tuple(card[name] for name in KEYS)
        if key in jobs:
            raise InputError(f"{path.parent}: is the same job as {jobs[key]}; take one of the two away")
        jobs[key] = path.parent.name
        cards[path.parent.name] = card
        tables.append(table.assign(job=path.parent.name))
    if not tables:
        raise InputError(f"{out / 'runs'}: no evaluated run here; run mixcl finetune and mixcl evaluate first")
    cases = pd.concat(tables, ignore_index=True)
    cases["percent"] = cases["percent"].astype(float)
    return Runs(_ordered(cases), cards)


def fold_scores(cases: pd.DataFrame) -> pd.DataFrame:
    """One row a run: the metrics of its fold, ``cases`` (that have an organ) and ``missed`` organs."""
    rows = cases.assign(missed=(cases["voxels_label"] > 0) & (cases["voxels_predicted"] == 0))
    by_case = rows.groupby([*KEYS, "job", "case"], sort=False)[METRICS].mean()
    folds = by_case.groupby([*KEYS, "job"], sort=False).mean()
    folds["cases"] = by_case["dice"].groupby([*KEYS, "job"], sort=False).count()
    folds["missed"] = rows.groupby([*KEYS, "job"], sort=False)["missed"].sum()
    return _ordered(folds.reset_index())


def over_folds(folds: pd.DataFrame, column: str = "dice") -> pd.DataFrame:
    """Mean and standard deviation over folds for each task, percent and arm; seeds are averaged first."""
    by = ["task", "percent", "arm"]
    present = folds.dropna(subset=[column])
    per_fold = present.groupby([*by, "fold"], sort=False)[column].mean().groupby(by, sort=False)
    table = per_fold.agg(["mean", "std", "count"]).rename(columns={"std": "sd", "count": "folds"})
    table["seeds"] = present.groupby(by, sort=False)["seed"].nunique()
    return table.reset_index()


def differences(folds: pd.DataFrame, column: str = "dice", reference: str = "scratch") -> pd.DataFrame:
    """As :func:`over_folds`, of each arm minus ``reference``, paired by fold and seed."""
    by = ["task", "percent", "fold", "seed"]
    base = folds[folds["arm"] == reference].set_index(by)[column]
    others = folds[folds["arm"] != reference].join(base.rename("reference"), on=by)
    others[column] = others[column] - others["reference"]
    return over_folds(others, column)


def table1(out: Path) -> Table1:
    """Write tables/table1.csv, .md and .tex from all evaluated runs; cells without a run are ``-`` and named.

    Raises
    ------
    InputError
        See :func:`read_runs`.
    """
    runs = read_runs(out)
    folds = fold_scores(runs.cases)
    table = Table1(
        folds=_described(folds, runs),
        cells=over_folds(folds),
        differences=differences(folds),
        caption=caption(runs, folds),
        notes=notes(runs, folds),
        phantom="phantom" in runs.sources,
    )
    write_text(out / "tables" / "table1.csv", _csv(table.folds))
    write_text(out / "tables" / "table1.md", markdown(table, runs))
    write_text(out / "tables" / "table1.tex", latex(table, runs))
    return table


def organs(out: Path) -> pd.DataFrame:
    """Write tables/organs.csv and .md: the metrics of every organ over all test cases, folds and seeds.

    ``n`` counts the (case, seed) pairs that have the organ and ``missed`` those of them in which nothing was
    found; Dice and surface Dice are 0 there, and HD95 is the mean over the others.  ``invented`` counts the
    pairs without the organ in which it was found nevertheless.
    """
    runs = read_runs(out)
    rows = runs.cases.assign(
        n=runs.cases["voxels_label"] > 0,
        missed=(runs.cases["voxels_label"] > 0) & (runs.cases["voxels_predicted"] == 0),
        invented=(runs.cases["voxels_label"] == 0) & (runs.cases["voxels_predicted"] > 0),
    )
    groups = rows.groupby(["task", "percent", "arm", "label", "organ"], sort=False)
    table = pd.concat([groups[METRICS].mean(), groups[["n", "missed", "invented"]].sum()], axis=1).reset_index()
    write_text(out / "tables" / "organs.csv", _csv(table))
    write_text(out / "tables" / "organs.md", organs_markdown(table, origin(runs, runs.cases)))
    return table


def _read_run(path: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    job, again = path.parent, f"run mixcl evaluate --run {path.parent.name} again"
    try:
        card = json.loads((job / "run.json").read_text(encoding="utf-8"))
        expected = {(case, int(label)) for case in card["test"] for label in card["labels"]}
        missing = [name for name in (*KEYS, "commit", "profile", "data", "config") if name not in card]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{job / 'run.json'}: missing or damaged; take {job} away or train it again") from None
    if missing:
        raise InputError(f"{job / 'run.json'}: has no {missing[0]}; take {job} away or train it again")
    try:
        table = pd.read_csv(path, dtype={"case": str, "task": str, "arm": str, "organ": str, "data": str})
        found = set(zip(table["case"], table["label"].astype(int), strict=True))
        table[METRICS + COUNTS] = table[METRICS + COUNTS].astype(float)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: cannot be read ({' '.join(str(error).split())}); {again}") from None
    if found != expected or len(table) != len(expected):
        raise InputError(f"{path}: has {len(table)} rows where the run has {len(expected)}; {again}")
    told = {key: [card[key]] for key in KEYS}
    if any(sorted(set(table[key])) != value for key, value in told.items()):
        raise InputError(f"{path}: is of another job than run.json; {again}")
    return card, table


def _described(folds: pd.DataFrame, runs: Runs) -> pd.DataFrame:
    """The folds with the paper's value and where each comes from."""
    quoted = [TABLE1.get(key) for key in zip(folds["task"], folds["percent"], strict=True)]
    paper = [getattr(row, arm, None) if row else None for row, arm in zip(quoted, folds["arm"], strict=True)]
    cards = [runs.cards[job] for job in folds["job"]]
    return folds.assign(
        paper_dice=pd.Series(paper, dtype=float, index=folds.index),
        profile=[card["profile"] for card in cards],
        source=[card["config"]["data"]["source"] for card in cards],
        commit=[card["commit"] for card in cards],
        data=[card["data"] for card in cards],
    )[[*KEYS, *METRICS, "cases", "missed", "paper_dice", "profile", "source", "commit", "data", "job"]]


def _csv(table: pd.DataFrame) -> str:
    """As CSV, percent as it is said (15, not 15.0)."""
    return table.assign(percent=[f"{p:g}" for p in table["percent"]]).to_csv(index=False)


def _ordered(table: pd.DataFrame) -> pd.DataFrame:
    """Tasks and arms in the paper's order, others after them."""
    ranks = {"task": TITLES, "arm": ARMS}
    by = [name for name in (*KEYS, "case", "label") if name in table]
    return table.sort_values(
        by,
        key=lambda column: (
            column.map(lambda name: _rank(name, ranks[str(column.name)])) if column.name in ranks else column
        ),
        kind="stable",
        ignore_index=True,
    )


def _rank(name: str, order: Iterable[str]) -> tuple[int, str]:
    """Where a name stands: as listed, or behind, by the alphabet."""
    listed = list(order)
    return (listed.index(name), "") if name in listed else (len(listed), name)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
