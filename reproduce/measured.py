"""What was measured, and what was reckoned from it, as the lines that ``fill_readme.py`` writes into the pages.

Ratios are from ``reproduce/bench/measured/NAME.json``, which ``reproduce/bench/NAME.py --out`` wrote; costs, FLOP and
the time that a plan takes from ``reproduce/expected``.
"""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent / "bench"))

import dry_run
import gpu_plan

from mixcl.config import load_profile
from mixcl.files import human
from mixcl.run.jobs import finetunings, pretrainings

MEASURED = Path(__file__).resolve().parent / "bench" / "measured"
PLANS = ("smoke", "phantom", "fair", "map", "points", "handover", "stopped", "replication")


def report(name: str) -> Any:
    """What a benchmark wrote."""
    return json.loads((MEASURED / f"{name}.json").read_text(encoding="utf-8"))


def paragraph(text: str, indent: str = "") -> Iterator[str]:
    """A text of any layout as lines of a page; those after the first are indented below it."""
    below = " " * len(indent)
    yield from textwrap.wrap(
        " ".join(text.split()), 120, initial_indent=indent, subsequent_indent=below, break_on_hyphens=False
    )


def steps() -> Iterator[str]:
    """The table of losses, sampler and steps."""
    reports = {name: report(name) for name in ("step", "sampler", "label_loss", "identity_loss", "augment", "checks")}
    step = median(reports["step"]["seconds"]["ours"])
    yield from ("| question | script | measured |", "|---|---|---|")
    for question, scripts, result in _step_rows(reports, step):
        yield f"| {question} | {', '.join(f'`{script}.py`' for script in scripts.split())} | {result} |"
    cores = sorted({found["machine"]["cpu"] for found in reports.values()})
    busy = [f"`{name}.py`" for name, found in reports.items() if found["clock"] == "process_time"]
    clock = f", {', '.join(busy)} with `--processor`" if busy else ""
    yield ""
    yield from paragraph(
        f"""On one core ({", ".join(cores)}), both sides in turn{clock}; [reports](measured) tell commit and seconds. A
        step of `paper` took {step:.0f} s of the core."""
    )


def _step_rows(reports: Mapping[str, Any], step: float) -> Iterator[tuple[str, str, str]]:
    """Question, scripts and what was measured; ``step`` is the seconds of a pre-training step of ``paper``."""
    ratio = {key: value for found in reports.values() for key, value in found["ratio"].items()}
    loss = median(reports["label_loss"]["seconds"]["ours"])
    checks = {name: median(spent) for name, spent in reports["checks"]["seconds"].items()}
    more = 1e3 * (checks["checkpoint, checked"] - checks["checkpoint, bare"])
    wide = {name: kept / 1e6 for name, kept in reports["identity_loss"]["16 channels, 96^3"]["saved_bytes"].items()}
    flop = gpu_plan.FLOP["pretrain_sample"] / 1e9
    yield from (
        (
            "a pre-training step of `paper` against a bare UNETR over the same three views", "step",
            f"{ratio['step']:.2f} times as long, {ratio['step-memory']:.2f} times the saved memory",
        ),
        ("against MONAI's tutorial, step and loader", "tutorial", "GPU only"),
        ("patches a second against what the step takes", "pipeline", "GPU only"),
        (
            "distance, weights and draws against scipy and numpy, 96^3", "sampler",
            f"{ratio['sampler-13']:.0f} times faster with 13 labels, {ratio['sampler-1']:.1f} times with one",
        ),
        (
            "Eq. 6 against masked log-sum-exp", "label_loss",
            f"{ratio['label_loss']:.2f} times as fast, {ratio['label_loss-memory']:.1f} times less memory; "
            f"{100 * loss / step:.1f} % of a step",
        ),
        (
            "Eq. 4 and 5, folded, against the wide maps of the two large levels", "identity_loss",
            f"{ratio['identity_loss-16ch']:.2f} and {ratio['identity_loss-32ch']:.2f} times as fast; at the first it "
            f"keeps {wide['ours']:.2f} MB instead of {wide['plain']:.0f}",
        ),
        (
            "distortions against MONAI's", "augment",
            f"{ratio['augment']:.0f} times faster (standard error {reports['augment']['ratio_error']:.1f})",
        ),
        ("time and memory by batch, patch, classes, r, ranks", "scaling", "GPU only"),
        (
            "checks and checksums against none of them", "checks",
            f"a step of `phantom` {ratio['checks-step']:.2f} times as long, a 96^3 patch {ratio['checks-patch']:.2f} "
            f"times, a checkpoint {ratio['checks-checkpoint']:.1f} times ({more:.0f} ms more)",
        ),
        (
            "FLOP and bytes against the device's ceilings", "roofline flop",
            f"{flop:,.0f} GFLOP a sample, counted; {flop / step:.0f} GFLOP/s in `step.py`",
        ),
    )  # fmt: skip


def main_job_step() -> Iterator[str]:
    """How much of a core the main job's steps use."""
    narrow, lone, whole = (
        {kind: f"{100 * found['flop_seconds'] / found['seconds']:.0f} %" for kind, found in part["steps"].items()}
        for part in report("phantom-step").values()
    )
    yield from paragraph(
        f"""Of the rate at which the same core multiplies large matrices, a fine-tuning step reaches
        {narrow["finetune"]} with feature 4 and one sample, {lone["finetune"]} with feature 8 and one sample, and
        {whole["finetune"]} with feature 8 and two samples, as profile `phantom` has it; a pre-training step, of three
        views, {narrow["pretrain"]} and {lone["pretrain"]} ([report](measured/phantom-step.json), `roofline.py --profile
        phantom --set model.feature=4 --set finetune.batch=1` and so on)."""
    )


def data() -> Iterator[str]:
    """What prepared scans take, and how they were chosen to be kept."""
    runs, patches, shapes = report("prepare")["runs"], report("patches"), report("labels")["shapes"]
    one, two = (min(runs[workers], key=lambda run: run["seconds a scan"]) for workers in ("1", "2"))
    config = load_profile("paper")
    scans = dry_run.cases(config)
    yield from ("| 512 x 512 x 200 scans | store | processor time | memory |", "|---|---|---|---|")
    yield (
        f"| one | {one['megabytes a scan']:.0f} MB | {one['processor seconds a scan']:.1f} s "
        f"| {one['peak gigabytes']:.1f} GB with one worker, {two['peak gigabytes']:.1f} GB with two |"
    )
    for name, number in (("pre-training", sum(scans[k] for k in config.data.pretrain)), ("all", sum(scans.values()))):
        store, spent = number * one["megabytes a scan"] / 1e3, number * one["processor seconds a scan"] / 60
        yield f"| {name} {number} | {store:.0f} GB | {spent:.0f} min | |"
    ratio, held, plain = patches["ratio"], patches["megabytes"], patches["formats"]["npy, fetched"]
    packed = [found for name, found in patches["formats"].items() if not name.startswith("npy")]
    room = [found["bytes a voxel"] / plain["bytes a voxel"] for found in packed]
    longer = [found["ms warm"] / plain["ms warm"] for found in packed]
    lost = [-100 * ways["linear"]["volume"] for name, ways in shapes.items() if name.startswith("tube")]
    yield ""
    yield from paragraph(
        f"""Measured with `prepare.py` on scans of KiTS19's mean size, and multiplied. The store is plain arrays mapped
        into memory: compressed ones (blosc2, zarr) take {100 * min(room):.0f} to {100 * max(room):.0f} % of the room
        and {min(longer):.0f} to {max(longer):.0f} times as long for a patch (`formats.py`). Random 96^3 patches with
        labels come {ratio["patches-monai"]:.0f} times as fast as from MONAI's CacheDataset with its defaults and
        {ratio["patches-nibabel"]:.0f} times as fast as from `.nii.gz` ({patches["volumes"]} scans, one core,
        `patches.py`), while the process holds {held["ours"]["anonymous"]:.0f} MB of them instead of
        {held["monai"]["anonymous"]:.0f}; with `copy_cache=False` MONAI's cache, which keeps all scans in memory, takes
        {ratio["patches-monai-no-copy"]:.1f} times as long as the store. Label maps are resampled by the nearest voxel:
        interpolated ones have slightly smoother borders but take {min(lost):.0f} to {max(lost):.0f} % off tubes of 2 to
        6 mm (`labels.py`)."""
    )


def plans() -> Iterator[str]:
    """How long whole plans take, as ``--dry-run`` reckons it."""
    configs = {name: load_profile(name) for name in PLANS}
    spans = ", ".join(
        f"`{name}` {dry_run.span(dry_run.plan_seconds(config, dry_run.read_costs(config)))}"
        for name, config in configs.items()
    )
    costs = dry_run.read_costs(configs["phantom"])
    yield from paragraph(
        f"""On one core of an {costs["machine"]["cpu"]}, reckoned from `expected/costs-*.json`, without tables and
        figures: {spans}. A job of `phantom` takes up to {costs["pretrain_gb"]:.1f} GB."""
    )


def paper_plan() -> Iterator[str]:
    """What the profile ``paper`` takes: measured in part, the rest arithmetic."""
    config = load_profile("paper")
    costs, work, jobs = dry_run.read_costs(config), gpu_plan.work(config), pretrainings(config)
    total, shorter = sum(work.values()), sum(gpu_plan.work(load_profile("paper-steps")).values())
    slow, fast = (total / speed / 3600 for speed in gpu_plan.SPEEDS)
    each, (low, high) = work["pre-training"] / total / len(jobs), (speed / 1e12 for speed in gpu_plan.SPEEDS)
    yield from paragraph(
        f"""**What it takes**: {costs["pretrain_gb"]:.1f} GB for a pre-training with batch 1 and
        {costs["finetune_gb"]:.1f} GB for a fine-tuning with batch 2, both in float32 on a CPU
        (`expected/costs-paper.json`). By arithmetic, not measured: {total / 1e18:.1f} exaFLOP for {len(jobs)}
        pre-trainings and {len(finetunings(config))} fine-tunings, {fast:.0f} to {slow:.0f} GPU hours where a GPU keeps
        up {high:.0f} to {low:.0f} TFLOP/s, {each * fast:.0f} to {each * slow:.0f} of them for each pre-training;
        `paper-steps` takes {100 * shorter / total:.0f} % of that. The plan writes {human(dry_run.disk(config))}.""",
        indent="- ",
    )
