"""The evaluated runs of a folder: what they measured, which ones there should be, whether they were made alike."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import ValidationError

from mixcl.config.settings import Experiment
from mixcl.errors import InputError
from mixcl.results.paper import ARMS, TITLES
from mixcl.results.statistics import CELL, KEYS, METRICS, Cell
from mixcl.run.jobs import SCRATCH, by_key, finetunings, table1_cells, table2_cells
from mixcl.run.record import flat, read_card
from mixcl.spreadsheet import read_csv

COUNTS = ["voxels_label", "voxels_predicted"]
DRAWN = {"percent", "fold", "arm", "seed", "start", "train"}  # what a run is named by, and what follows from that


@dataclass(frozen=True)
class Runs:
    """Evaluated runs of a folder: ``cases``, a row a run, case and organ; ``cards``, run.json by job.

    ``plan``: the settings whose jobs they are; None where all count, and each says what it was planned with.
    """

    cases: pd.DataFrame
    cards: dict[str, dict[str, Any]] = field(repr=False)
    plan: Experiment | None = None

    def planned(self, table: int) -> list[tuple[str, float, str, int, int]]:
        """(task, percent, arm, fold, seed) of all that the runs' settings ask for in Table 1 or 2, in order."""
        runs: dict[tuple[str, float, str, int, int], None] = {}
        order = {SCRATCH: -1}
        plans = dict.fromkeys(json.dumps(_plan(card)) for card in self.cards.values())
        for config in [self.plan] if self.plan else map(Experiment.model_validate_json, plans):
            for number, arm in enumerate(config.grid.variants):
                order.setdefault(arm, number)
            for cell in table1_cells(config) if table == 1 else table2_cells(config):
                runs |= {(*cell, fold, seed): None for fold in config.grid.folds for seed in config.grid.seeds}
        last = len(order)
        return sorted(runs, key=lambda run: (rank(run[0], TITLES), run[1], order.get(run[2], last), *run[3:]))

    def cells(self, table: int) -> list[Cell]:
        """(task, percent, arm) that the runs' settings ask for in Table 1 or 2."""
        return list(dict.fromkeys(run[:3] for run in self.planned(table)))

    def only(self, cells: Iterable[Cell]) -> Runs:
        """The runs of some cells."""
        kept = set(cells)
        cards = {job: card for job, card in self.cards.items() if tuple(card[key] for key in CELL) in kept}
        return Runs(self.cases[self.cases["job"].isin(list(cards))], cards, self.plan)

    def values(self, key: str, task: str | None = None) -> list[Any]:
        """What the runs (of a task) have under a key of run.json, each once."""
        return sorted({card[key] for card in self.cards.values() if task in (None, card["task"])})

    @property
    def phantoms(self) -> list[str]:
        """Seed and difficulty of the phantoms, each pair once; none where the data are files."""
        data = [card["config"]["data"] for card in self.cards.values()]
        made = [of["phantom"] for of in data if of["source"] == "phantom"]
        return sorted({f"phantom.seed {phantom['seed']}, difficulty {phantom['difficulty']:g}" for phantom in made})

    def unlike(self, task: str) -> list[str]:
        """Settings in which the runs of a task differ without a reason.

        Runs of one arm may differ in share, fold and seed, of two arms also in the weights they start from and in what
        ``grid.variants`` changes for an arm.
        """
        runs = []
        for card in (card for card in self.cards.values() if card["task"] == task):
            variant = card["config"]["grid"].get("variants", {}).get(card["arm"], ())
            runs.append((card["arm"], by_key(variant), flat(card.get("decides", {}))))
        differing = []
        for key in sorted({key for *_, settings in runs for key in settings} - DRAWN):
            values = [(arm, json.dumps(settings.get(key))) for arm, _, settings in runs]
            varies = [key == "init" or any(f"{key}.".startswith(f"{v}.") for v in varied) for _, varied, _ in runs]
            fixed = {value for (_, value), free in zip(values, varies, strict=True) if not free}
            if len(fixed) > 1 or len(set(values)) > len({arm for arm, _ in values}):
                differing.append(key)
        return differing


def read_runs(out: Path, plan: Experiment | None = None) -> Runs:
    """Read the evaluated fine-tuning runs below ``out``/runs: all, or those of the jobs of ``plan``.

    Raises `InputError` where there is none, a file is damaged or lacks cases, or two runs are of the same job.
    """
    wanted = None if plan is None else {job.name for job in finetunings(plan)}
    cards: dict[str, dict[str, Any]] = {}
    jobs: dict[tuple[Any, ...], str] = {}
    tables = []
    for path in sorted((out / "runs").glob("[!.]*/cases.csv")):
        if wanted is not None and path.parent.name not in wanted:
            continue
        try:
            card, table = _read_run(path)
        except InputError:
            if path.exists():
                raise
            continue  # is being made again
        key = tuple(card[name] for name in KEYS)
        if key in jobs:
            raise InputError(f"{path.parent}: is the same job as {jobs[key]}; take one of the two away")
        jobs[key] = path.parent.name
        cards[path.parent.name] = card
        tables.append(table.assign(job=path.parent.name, weights=card["weights"]))
    if not tables:
        raise InputError(f"{out / 'runs'}: no evaluated run here; run mixcl finetune and mixcl evaluate first")
    cases = pd.concat(tables, ignore_index=True)
    cases["percent"] = cases["percent"].astype(float)
    cases = cases.sort_values([*KEYS, "case", "label"], key=_ranks, kind="stable", ignore_index=True)
    return Runs(cases, cards, plan)


def _read_run(path: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    job, again = path.parent, f"run mixcl evaluate --run {path.parent.name} again"
    card = _checked_card(job)
    expected = {(case, int(label)) for case in card["test"] for label in card["labels"]}
    try:
        table = read_csv(path, ("case", "task", "arm", "organ", "profile", "data", "grid"))
        present = set(zip(table["case"], table["label"].astype(int), strict=True))
        table[METRICS + COUNTS] = table[METRICS + COUNTS].astype(float)
        table["pretrained_on"] = table["pretrained_on"].astype(int)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: cannot be read ({' '.join(str(error).split())}); {again}") from None
    if present != expected or len(table) != len(expected):
        raise InputError(f"{path}: has {len(table)} rows where the run has {len(expected)}; {again}")
    if any(set(table[key]) != {card[key]} for key in KEYS):
        raise InputError(f"{path}: is of another job than run.json; {again}")
    return card, table


def _checked_card(job: Path) -> dict[str, Any]:
    """run.json of a run, with all that the tables need in it."""
    again = f"take {job} away or train it again"
    try:
        card = read_card(job)
        Experiment.model_validate(_plan(card))
        card["decides"]["init"]
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"{job / 'run.json'}: {where}: {first['msg']}; {again}") from None
    except (InputError, KeyError, TypeError):
        raise InputError(f"{job / 'run.json'}: missing or damaged; {again}") from None
    needed = (*KEYS, "test", "labels", "commit", "profile", "data", "weights")
    if lacking := [name for name in needed if name not in card]:
        raise InputError(f"{job / 'run.json'}: has no {lacking[0]}; {again}")
    return card


def _ranks(column: pd.Series) -> pd.Series:
    """What sorts tasks and arms in the paper's order, others after them, and anything else by itself."""
    order = {"task": TITLES, "arm": ARMS}.get(str(column.name))
    return column if order is None else column.map(lambda name: rank(name, order))


def rank(name: str, order: Iterable[str]) -> tuple[int, str]:
    """Where a name stands: as listed, or behind, by the alphabet."""
    listed = list(order)
    return (listed.index(name), "") if name in listed else (len(listed), name)


def _plan(card: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run that decide which runs there should be."""
    config = card["config"]
    return {"grid": config["grid"], "data": {"pretrain": (), "finetune": config["data"]["finetune"]}}
