"""How the time and memory of a pre-training step grow with batch, patch size, classes, r and ranks.

One thing is changed at a time.  Memory is the most that a GPU held; on a CPU, what autograd keeps between forward and
backward pass.  ``label`` is the part of the step that the label term takes, with everything as given: the step with
alpha against the step without.  Ranks share the batch over gloo on one processor, or over NCCL, a GPU each.

    python reproduce/bench/scaling.py --batch 6 --device cuda --precision bf16 --batches 1 2 6 --out scaling.json
    python reproduce/bench/scaling.py --profile smoke --batch 2 --batches 1 2 --patches 32 48 --ranks 1 2 --out s.json
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import sides
import torch
import training
from torch import multiprocessing
from torch.nn.parallel import DistributedDataParallel

from mixcl.config.settings import Experiment


def main() -> None:
    """Measure every axis and the label term's part."""
    args = sides.parsed(_options())
    found: dict[str, dict[int, dict[str, float]]] = {
        "batch": {n: _measure(args, training.experiment(args), n) for n in args.batches},
        "patch": {n: _measure(args, training.experiment(args, f"model.patch={n}"), args.batch) for n in args.patches},
        "classes": {n: _measure(args, training.experiment(args), args.batch, classes=n) for n in args.classes},
        "r": {n: _measure(args, training.experiment(args, f"sampler.budget={n}"), args.batch) for n in args.budgets},
        "ranks": {n: {"seconds": _ranked(args, n)} for n in args.ranks},
    }
    for axis, points in found.items():
        for value, point in points.items():
            memory = f", {point['bytes'] / 1e9:.3f} GB" if "bytes" in point else ""
            print(f"{axis} {value}: {1e3 * point['seconds']:.1f} ms{memory}")
    share = _label_share(args)
    print(f"the label term takes {100 * share:.2f} % of a step")
    config = training.experiment(args)
    sides.report(
        "scaling", args, {"scaling-label-term": 1 + share}, **training.told(args, config), scaling=found,
        label_share=share, draw=lambda axes: _draw(axes, found),
    )  # fmt: skip


def _options() -> argparse.ArgumentParser:
    parser = sides.arguments(__doc__, repeats=3)
    training.options(parser)
    for name, default, text in (
        ("batches", [1, 2], "samples a step"), ("patches", [], "edges, multiples of 16"),
        ("classes", [1, 5, 13], "organs in the patches"), ("budgets", [32, 128, 512], "r, pixels a class"),
        ("ranks", [], "processes that share the batch"),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, nargs="*", default=default, help=text)
    return parser


def _measure(args: argparse.Namespace, config: Experiment, batch: int, classes: int = 13) -> dict[str, float]:
    """Median seconds and bytes of a step."""
    device = torch.device(args.device)
    step, raw = training.Step(config, device, args.precision), training.raw(config, batch, device, classes)
    run = training.waited(partial(step, raw), device)
    spent = median(sides.seconds({"step": run}, args.repeats)["step"])
    if device.type == "cuda":  # after steps: the first one makes AdamW's moments
        memory = training.peak_bytes(run, device)
    else:
        memory = sides.saved_bytes(lambda: step.forward(raw), step.objective.parameters())
    return {"seconds": spent, "bytes": memory}


def _label_share(args: argparse.Namespace) -> float:
    """(with - without) / with, of the medians; both sides in turn."""
    device = torch.device(args.device)
    steps = {n: training.Step(training.experiment(args, *s), device, args.precision) for n, s in SHARES.items()}
    raw = training.raw(training.experiment(args), args.batch, device)
    runs = {name: training.waited(partial(step, raw), device) for name, step in steps.items()}
    times = sides.seconds(runs, 2 * args.repeats + 1)
    return 1 - median(times["without"]) / median(times["with"])


SHARES: Mapping[str, tuple[str, ...]] = {"with": (), "without": ("loss.alpha=0",)}


def _ranked(args: argparse.Namespace, ranks: int) -> float:
    """Median seconds of a step whose batch is shared by ``ranks`` processes."""
    if args.batch % ranks:
        raise SystemExit(f"--batch {args.batch} cannot be shared by {ranks} ranks; make it a multiple")
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(_rank, args=(args, ranks, folder), nprocs=ranks)
        return float(Path(folder, "seconds").read_text(encoding="utf-8"))


def _rank(rank: int, args: argparse.Namespace, ranks: int, folder: str) -> None:
    torch.set_num_threads(args.threads)
    device = torch.device(f"cuda:{rank}" if args.device.startswith("cuda") else "cpu")
    if device.type == "cpu":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.distributed.init_process_group(
        "nccl" if device.type == "cuda" else "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=ranks
    )
    try:
        step = training.Step(training.experiment(args), device, args.precision)
        raw = training.raw(step.config, args.batch // ranks, device)
        step.objective = DistributedDataParallel(step.objective)  # type: ignore[assignment]
        times = sides.seconds({"step": training.waited(partial(step, raw), device)}, args.repeats)["step"]
        if rank == 0:
            Path(folder, "seconds").write_text(str(median(times)), encoding="utf-8")
    finally:
        torch.distributed.destroy_process_group()


def _draw(axes: Any, found: dict[str, dict[int, dict[str, float]]]) -> None:
    """Time of each axis, relative to its first point."""
    for axis, points in found.items():
        if points:
            first, *_ = points
            x = [value / first for value in points]
            axes.plot(x, [p["seconds"] / points[first]["seconds"] for p in points.values()], marker="o", label=axis)
    axes.set_xlabel("times the first value")
    axes.set_ylabel("times its time")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.legend()


if __name__ == "__main__":
    main()
