"""Hours, GPU memory and money of a profile's whole plan on some machines; printed by ``run_all.sh --dry-run``.

A machine in ``reproduce/bench/results`` (written by ``reproduce/bench/gpu.sh``) is reckoned from the seconds and memory
measured on it.  Any other is estimated from the plan's FLOP, which ``reproduce/bench/flop.py`` counted, its published
peak and the span of utilisation that ``reproduce/machines.yaml`` states.  Every line says which of the two it is.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from mixcl.config.settings import Experiment
from mixcl.run import jobs

HERE = Path(__file__).resolve().parent
EXTENT = (410.0, 410.0, 400.0)  # mm of a scan, the mean of KiTS19's 210; for the number of windows of a test case
CASES = {"msd_spleen": 41, "btcv": 30}  # Sec. 3.1
KINDS = ("pretrain_sample", "finetune_sample", "window")


class Cost(NamedTuple):
    """``hours`` at best and at worst, memory of a card in ``gb``, ``measured`` on the machine or estimated."""

    hours: tuple[float, float]
    gb: float
    measured: bool


def lines(config: Experiment) -> list[str]:
    """The table's lines; none where the profile's FLOP were not counted."""
    counted = read_flop(config)
    if not counted:
        return []
    settings = yaml.safe_load((HERE / "machines.yaml").read_text(encoding="utf-8"))
    work = amounts(config)
    total = sum(work[kind] * counted[kind] for kind in KINDS) / 1e18
    told = [f"  the whole plan on GPUs, {total:.3g} exaFLOP, preparation and metrics not counted:"]
    estimates = False
    for machine in settings["machines"]:
        cost = reckon(config, machine, settings["utilisation"], counted, read_measured(machine["match"]))
        estimates |= not cost.measured
        money = [machine["cards"] * machine["usd_hour"] * hours for hours in cost.hours]
        fits = "" if cost.gb <= machine["gb"] else ", more than a card has"
        told.append(
            f"    {machine['name']:38} {span(cost.hours)} h, {span(money)} USD, {cost.gb:.0f} GB a card{fits} "
            f"({'measured' if cost.measured else 'estimated'})"
        )
    if estimates:
        low, high = settings["utilisation"]
        told.append(
            f"    estimated: {100 * low:.0f} to {100 * high:.0f} % of the peak is assumed; peaks: {settings['peaks']}; "
            "memory: what autograd keeps in float32, weights and optimiser"
        )
    told.append(f"    prices: {settings['prices']}; change them in reproduce/machines.yaml")
    return told


def amounts(config: Experiment) -> dict[str, float]:
    """Samples of pre-training and of fine-tuning, and windows of test cases, of the whole plan."""
    tunings = jobs.finetunings(config)
    cases = sum(CASES.get(job.parameters["TASK"], 0) / config.grid.n_folds for job in tunings)
    return {
        "pretrain_sample": len(jobs.pretrainings(config)) * config.pretrain.steps * config.pretrain.batch,
        "finetune_sample": len(tunings) * config.finetune.steps * config.finetune.batch,
        "window": cases * windows(config),
    }


def windows(config: Experiment) -> int:
    """Windows of a test case of the mean extent."""
    edge = config.model.patch
    stride = max(edge * (1 - config.evaluate.overlap), 1.0)
    voxels = [extent / size for extent, size in zip(EXTENT, config.data.spacing, strict=True)]
    return math.prod(math.ceil(max(n - edge, 0) / stride) + 1 for n in voxels)


def reckon(
    config: Experiment, machine: dict[str, Any], utilisation: list[float], counted: dict[str, Any],
    measured: dict[str, Any],
) -> Cost:  # fmt: skip
    """The plan on a machine; cards share it without a loss."""
    work = amounts(config)
    if measured:
        names = zip(KINDS, ("pretrain", "finetune", "window"), strict=True)
        steps = {kind: measured["steps"][name] for kind, name in names}
        seconds = sum(work[kind] * one["seconds"] / one["samples"] for kind, one in steps.items())
        gb = max(one["peak_bytes"] for one in steps.values()) / 1e9
        hours = seconds / 3600 / machine["cards"]
        return Cost((hours, hours), gb, True)
    flop = sum(work[kind] * counted[kind] for kind in KINDS)
    low, high = (flop / (1e12 * machine["tflops"] * machine["cards"] * part) / 3600 for part in reversed(utilisation))
    share = math.ceil(config.pretrain.batch / machine["cards"])
    gb = (share * counted["saved_bytes"] + 16 * counted["weights"]) / 1e9  # weight, gradient and two moments
    return Cost((low, high), gb, False)


def read_flop(config: Experiment) -> dict[str, Any]:
    """What was counted for a network like the profile's, or nothing."""
    for path in sorted((HERE / "expected").glob("flop-*.json")):
        counted: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if counted["model"] == config.model.model_dump(mode="json"):
            return counted
    return {}


def read_measured(match: str, folder: Path = HERE / "bench" / "results") -> dict[str, Any]:
    """The roofline's report of a machine that was measured, or nothing."""
    for path in sorted(folder.glob("*.json")):
        if match in path.stem:
            parts = json.loads(path.read_text(encoding="utf-8"))["parts"]
            return dict(parts.get("roofline", {}))
    return {}


def span(values: tuple[float, float] | list[float]) -> str:
    """One number, or from one to another.

    >>> span([1.0, 1.0]), span([0.52, 12.3])
    ('1', '0.52 to 12')
    """
    low, high = (f"{value:.2g}" for value in values)
    return low if low == high else f"{low} to {high}"
