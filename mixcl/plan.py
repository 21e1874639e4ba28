"""The jobs of a profile: which runs Tables 1 and 2 need, and what each needs before it.

An arm is ``scratch`` (no pre-training), ``mixcl`` (the full objective) or a variant of ``grid.variants``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from mixcl.config import Experiment, finetune_job

FULL, SCRATCH = "mixcl", "scratch"


@dataclass(frozen=True)
class Job:
    """One training run: ``parameters`` are those of its notebook, ``needs`` the pre-training it starts from."""

    name: str
    notebook: str
    parameters: dict[str, Any] = field(repr=False, hash=False)
    settings: tuple[str, ...] = ()
    needs: str | None = None


def pretraining_job(arm: str) -> str:
    """Name of the pre-training of an arm.

    >>> pretraining_job("mixcl"), pretraining_job("id-label")
    ('pretrain', 'pretrain-id-label')
    """
    return "pretrain" if arm == FULL else f"pretrain-{arm}"


def table1_cells(config: Experiment) -> list[tuple[str, float, str]]:
    """(task, percent, arm) of every cell of Table 1."""
    percents = config.grid.percents
    return [(t, float(p), arm) for t in config.data.finetune for p in percents.get(t, ()) for arm in (FULL, SCRATCH)]


def table2_cells(config: Experiment) -> list[tuple[str, float, str]]:
    """(task, percent, arm) of every cell of Table 2, arms in the order of its rows."""
    ablation, arms = config.grid.ablation, (SCRATCH, *config.grid.variants, FULL)
    return [(t, float(ablation[t]), arm) for t in config.data.finetune if t in ablation for arm in arms]


def cells(config: Experiment) -> list[tuple[str, float, str]]:
    """(task, percent, arm) of every cell of both tables, each once."""
    return list(dict.fromkeys(table1_cells(config) + table2_cells(config)))


def pretrainings(config: Experiment) -> list[Job]:
    """The pre-training of every arm that has one."""
    arms = [arm for arm in dict.fromkeys(arm for *_, arm in cells(config)) if arm != SCRATCH]
    return [
        Job(pretraining_job(arm), "10_pretrain", {"JOB": pretraining_job(arm)}, config.grid.variants.get(arm, ()))
        for arm in arms
    ]


def finetunings(config: Experiment) -> list[Job]:
    """Every fold and seed of every cell, those of a cell next to each other."""
    return [
        Job(
            finetune_job(task, percent, arm, fold, seed), "11_finetune",
            {"TASK": task, "PERCENT": percent, "ARM": arm, "FOLD": fold, "SEED": seed},
            config.grid.variants.get(arm, ()), None if arm == SCRATCH else pretraining_job(arm),
        )
        for task, percent, arm in cells(config) for seed in config.grid.seeds for fold in config.grid.folds
    ]  # fmt: skip


def kernels(jobs: Iterable[Job], most: int) -> dict[str, list[Job]]:
    """Jobs of one cell, at most ``most`` together, under the name of the first; each group shares a notebook kernel."""
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        last = next(reversed(groups.values()), [])
        alike = last and all(job.parameters[key] == last[0].parameters[key] for key in ("TASK", "PERCENT", "ARM"))
        if alike and len(last) < most:
            last.append(job)
        else:
            groups[job.name] = [job]
    return groups
