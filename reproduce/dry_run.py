"""What run_all.sh would do, how long it would take and what it would write: shown by ``run_all.sh --dry-run``.

The jobs come from Snakemake's own plan.  Times are patches times the seconds a patch measured by
``reproduce/bench/costs.py``, whose results are in ``reproduce/expected/costs-<profile>.json``.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

from mixcl.config import load_profile, with_settings
from mixcl.config.settings import Experiment, ModelConfig
from mixcl.data.registry import expected_count
from mixcl.data.splits import folds, fraction
from mixcl.data.store import expected_bytes
from mixcl.files import human
from mixcl.run.jobs import NOTEBOOKS, Job, all_jobs, kernels, pretrainings

EXPECTED = Path(__file__).resolve().parent / "expected"
KINDS = ("prepare", "pretrain", "finetune", "tables and figures")
EXTENT = {"files": (410.0, 410.0, 400.0), "phantom": (320.0, 253.0, 256.0)}  # mm: means of KiTS19 and of 9 phantoms
LONG = 2 * 86400.0  # seconds from which it is said that a processor takes so long
YEAR = 365.25 * 86400
RAW_BYTES = 1.4  # a voxel of a phantom as drawn, with its label, packed


def show(summary: str, config: Experiment, out: Path, cores: int, gpus: int) -> None:
    """Print the table of what ``snakemake --summary`` has told."""
    pending = pending_rules(summary)
    costs = read_costs(config)
    total = 0.0
    for kind in KINDS:
        rules = {rule: todo for rule, todo in pending.items() if kind_of(rule) == kind}
        seconds = sum(seconds_of(rule, config, costs) for rule, todo in rules.items() if todo) if costs else 0.0
        total += seconds
        runs = f"{sum(rules.values())} to do, {len(rules) - sum(rules.values())} done"
        print(f"  {kind:20} {runs:24}" + (f" about {span(seconds)} of one core" if seconds else ""))
        for rule, todo in rules.items():
            print(f"    {'to do' if todo else 'done ':6} {rule}")
    print(verdict(total, cores, gpus, costs) if any(pending.values()) else "  nothing is left to do")
    if uncounted := ", ".join(name for name, number in cases(config).items() if not number):
        print(f"  without the scans of {uncounted}: no count is given under data.collections")
    free = human(shutil.disk_usage(out).free)
    print(f"  the whole plan writes about {human(disk(config))}; {free} are free in {out}")


def pending_rules(summary: str) -> dict[str, bool]:
    """Whether a rule has anything to do, from ``snakemake --summary``."""
    pending: dict[str, bool] = {}
    for line in summary.splitlines()[1:]:
        _, _, rule, _, _, todo = line.split("\t")
        pending[rule] = pending.get(rule, False) or todo != "no update"
    return pending


def kind_of(rule: str) -> str:
    """Which line of the table a rule belongs to."""
    return next((kind for kind in KINDS[:3] if rule.startswith(kind)), KINDS[3])


def read_costs(config: Experiment) -> dict[str, Any]:
    """The measured costs of the profile, or of one with the same network and voxels, or nothing."""
    for path in sorted(EXPECTED.glob("costs-*.json"), key=lambda path: path.stem != f"costs-{config.profile}"):
        costs: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        measured = load_profile(costs["profile"])
        alike = (measured.model, measured.data.spacing) == (config.model, config.data.spacing)
        if alike or measured.profile == config.profile:
            return costs
    return {}


def cases(config: Experiment) -> dict[str, int]:
    """Scans a collection that the plan prepares; none are reckoned for one whose number nobody has told."""
    return {name: expected_count(config.data, name) or 0 for name in (*config.data.pretrain, *config.data.finetune)}


def seconds_of(rule: str, config: Experiment, costs: dict[str, Any]) -> float:
    """Seconds of one core that a rule takes."""
    kind, seconds = kind_of(rule), float(costs["kernel"])
    if kind == "prepare":
        return float(costs["prepare_case"] * sum(cases(config).values()))
    if kind == "pretrain":
        job = next(job for job in pretrainings(config) if job.name == rule)
        return seconds + samples(job, config) * float(costs["pretrain_sample"])
    if kind == "finetune":
        for job in kernels(config)[rule]:
            tested = cases(config)[job.parameters["TASK"]] / config.grid.n_folds
            seconds += samples(job, config) * costs["finetune_sample"] + tested * costs["case"] + costs["copy"]
    return seconds


def plan_seconds(config: Experiment, costs: dict[str, Any]) -> float:
    """Seconds of one core that the whole plan takes, the tables' and figures' own computing left out."""
    rules = ["prepare", *(job.name for job in pretrainings(config)), *kernels(config), *NOTEBOOKS]
    return sum(seconds_of(rule, config, costs) for rule in rules)


def samples(job: Job, config: Experiment) -> int:
    """Patches (of a pre-training: samples) that a job trains on, all steps together."""
    mine, number = with_settings(config, job.settings), cases(config)
    if job.notebook == "10_pretrain":
        settings, scans = mine.pretrain, sum(number[name] for name in mine.data.pretrain)
        return settings.total_steps(scans) * settings.batch
    scans, share = number[job.parameters["TASK"]], 0  # where there are not known to be enough for the folds
    if scans >= config.grid.n_folds:
        train, _ = folds(map(str, range(scans)), config.grid.n_folds)[job.parameters["FOLD"]]
        share = len(fraction(train, job.parameters["PERCENT"]))
    return mine.finetune.total_steps(share) * mine.finetune.batch


def disk(config: Experiment) -> float:
    """Bytes that the whole plan writes: phantoms as drawn, prepared scans, and the weights of every run."""
    source, number = config.data.source, sum(cases(config).values())
    prepared, drawn = (
        [round(extent / edge) for extent, edge in zip(EXTENT[source], edges, strict=True)]
        for edges in (config.data.spacing, config.data.phantom.spacing)
    )
    raw = RAW_BYTES * math.prod(drawn) if source == "phantom" else 0.0
    return number * (raw + expected_bytes(prepared, 1)) + 4 * len(all_jobs(config)) * weights(config.model)


def weights(model: ModelConfig) -> float:
    """Numbers of a UNETR to a few per cent: twelve blocks, the embedding of patches, and convolutions."""
    h, f = model.hidden, model.feature
    blocks = 12 * (4 * h * h + 2 * h * model.mlp) + (16**3 + (model.patch // 16) ** 3) * h
    return blocks + 9200 * f * f + 180 * f * h  # the convolutions by a fit to the profiles' networks


def verdict(total: float, cores: int, gpus: int, costs: dict[str, Any]) -> str:
    """The line on wall time, or why there is none."""
    if not costs:
        return "  no costs were measured for this profile: python reproduce/bench/costs.py --help"
    where = f"measured on {costs['machine']['cpu']}, {costs['device']}"
    if gpus and costs["device"] == "CPU":
        return f"  on one core {span(total)}; how much faster {gpus} GPU(s) are was not measured ({where})"
    return f"  all in all about {span(total / cores)} on {cores} core(s) ({where})"


def without_gpu(config: Experiment, cores: int) -> str:
    """A sentence on how long the whole plan takes on a processor, where that is more than `LONG` seconds."""
    costs = read_costs(config)
    seconds = plan_seconds(config, costs) / cores if costs else 0.0
    if seconds < LONG:
        return ""
    return (
        f"mixcl: no GPU is used: the whole plan of profile {config.profile} takes about {span(seconds)} on {cores} "
        "core(s), by the seconds that a patch took; what is done is kept, and --profile phantom takes half an hour"
    )


def span(seconds: float) -> str:
    """A span of time in the unit that suits it.

    >>> span(90), span(7200), span(400000), span(1e8)
    ('2 min', '2.0 h', '4.6 days', '3.2 years')
    """
    if seconds < 5400:
        return f"{max(seconds / 60, 1):.0f} min"
    if seconds < 172800:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days" if seconds < 2 * YEAR else f"{seconds / YEAR:.1f} years"
