"""The jobs of a profile: which runs Tables 1 and 2 need, and what each needs before it.

An arm is ``scratch`` (no pre-training), ``mixcl`` (the full objective) or a variant of ``grid.variants``.  A seed is
one of the whole chain: of the pre-training (added to ``pretrain.seed``) and, with the fold, of the fine-tuning.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from mixcl.config.settings import SEGMENTATION_LOSS, SUPERVISED, Experiment

FULL, SCRATCH = "mixcl", "scratch"
LOSS = tuple(f"finetune.{name}" for name in SEGMENTATION_LOSS)  # decides a supervised pre-training as well
NOTEBOOKS = {  # what is made of the runs, and the notebook that makes it
    "table1": "20_table1", "table2": "21_table2", "figures": "22_figures", "effects": "30_what_matters",
    "map": "32_when_does_it_help",
}  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One training run: ``parameters`` are those of its notebook, ``needs`` the pre-training it starts from."""

    name: str
    notebook: str
    parameters: dict[str, Any]
    settings: tuple[str, ...] = ()
    needs: str | None = None


def pretraining_job(arm: str, seed: int = 0) -> str:
    """Name of the pre-training of an arm.

    >>> pretraining_job("mixcl"), pretraining_job("id-label"), pretraining_job("id", 2)
    ('pretrain', 'pretrain-id-label', 'pretrain-id-s2')
    """
    return "pretrain" + ("" if arm == FULL else f"-{arm}") + (f"-s{seed}" if seed else "")


def arm_and_seed(job: str) -> tuple[str, int] | None:
    """What :func:`pretraining_job` was given, by the name that it gave; nothing for a name of another kind.

    >>> arm_and_seed("pretrain"), arm_and_seed("pretrain-id-label-s2"), arm_and_seed("finetune-btcv")
    (('mixcl', 0), ('id-label', 2), None)
    """
    match = re.fullmatch(r"pretrain(?:-(?P<arm>.+?))??(?:-s(?P<seed>\d+))?", job)
    return (match["arm"] or FULL, int(match["seed"] or 0)) if match else None


def finetune_job(task: str, percent: float, arm: str, fold: int, seed: int) -> str:
    """Name of a fine-tuning run.

    >>> finetune_job("btcv", 15, "mixcl", 0, 0)
    'finetune-btcv-p015-mixcl-f0-s0'
    """
    return f"finetune-{task}-p{percent:03g}-{arm}-f{fold}-s{seed}"


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
    """What the arms start from, one a seed; arms that differ in the fine-tuning alone share it."""
    made = [_pretraining(config, arm, seed) for _, _, arm in cells(config) for seed in config.grid.seeds]
    return list({job.name: job for job in made if job}.values())


def all_jobs(config: Experiment) -> list[Job]:
    """Every job of the plan, each after the one that it needs."""
    return pretrainings(config) + finetunings(config)


def finetunings(config: Experiment) -> list[Job]:
    """Every fold and seed of every cell, those of a cell next to each other."""
    jobs = []
    for task, percent, arm in cells(config):
        for seed in config.grid.seeds:
            before = _pretraining(config, arm, seed)
            for fold in config.grid.folds:
                parameters = {"TASK": task, "PERCENT": percent, "ARM": arm, "FOLD": fold, "SEED": seed}
                name, settings = finetune_job(task, percent, arm, fold, seed), config.grid.variants.get(arm, ())
                jobs.append(Job(name, "11_finetune", parameters, settings, before.name if before else None))
    return jobs


def _pretraining(config: Experiment, arm: str, seed: int) -> Job | None:
    """What an arm starts from: the first of the arms that is pre-trained as it is, or nothing."""
    if arm == SCRATCH:
        return None
    arms = {FULL: (), **config.grid.variants}
    before = {}
    for name, settings in arms.items():
        decides = LOSS if _method(config, settings) == SUPERVISED else ()
        before[name] = tuple(
            s for s in map(str.strip, settings) if not s.startswith("finetune.") or s.startswith(decides)
        )
    if _method(config, arms[arm]) == "none":
        return None
    name = pretraining_job(next(other for other in before if before[other] == before[arm]), seed)
    own = int(by_key(before[arm]).get("pretrain.seed", config.pretrain.seed))
    seeded = (f"pretrain.seed={own + seed}",) if seed else ()
    return Job(name, "10_pretrain", {"JOB": name}, before[arm] + seeded)


def _method(config: Experiment, settings: Iterable[str]) -> str:
    """How an arm with these settings is pre-trained."""
    return by_key(settings).get("pretrain.method", config.pretrain.method)


def by_key(settings: Iterable[str]) -> dict[str, str]:
    """The settings of an arm by their dotted names.

    >>> by_key(["loss.alpha=0", "pretrain.method = none"])
    {'loss.alpha': '0', 'pretrain.method': 'none'}
    """
    return {key.strip(): value.strip() for key, _, value in (item.partition("=") for item in settings)}


def kernels(config: Experiment) -> dict[str, list[Job]]:
    """Fine-tunings of one cell, at most ``run.folds_a_kernel`` together, under the name of the first.

    Each group shares a notebook kernel.
    """
    groups, most, cell = dict[str, list[Job]](), config.run.folds_a_kernel, ("TASK", "PERCENT", "ARM")
    for _, group in groupby(finetunings(config), lambda job: (*map(job.parameters.get, cell), job.needs)):
        alike = list(group)
        groups |= {alike[at].name: alike[at : at + most] for at in range(0, len(alike), most)}
    return groups
