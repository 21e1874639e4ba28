"""Patches a second of the data pipeline, by number of worker processes, against what a pre-training step consumes.

A sample is two patches with their labels, cut from prepared scans; for a GPU its pixels are drawn as well.  ``idle`` is
the part of a training's time that the device spends without data: how much longer steps take with the pipeline than
with a batch that is always there.

    python reproduce/bench/pipeline.py --batch 6 --device cuda --precision bf16 --workers 0 2 4 8 --out pipeline.json
    python reproduce/bench/pipeline.py --profile smoke --batch 2 --workers 0 1 --steps 4 --out pipeline.json
"""

from __future__ import annotations

from functools import partial
from typing import Any

import scans
import sides
import torch
import training


def main() -> None:
    """Rate the step, then the pipeline and both together for each number of workers."""
    parser = sides.arguments(__doc__, repeats=1)
    training.options(parser)
    scans.options(parser, 2, "scans of real size; a profile of phantoms has its own")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2, 4])
    parser.add_argument("--steps", type=int, default=20, help="batches a measurement, the first two not counted")
    args = sides.parsed(parser)
    device = torch.device(args.device)
    with scans.folder_of(args) as work:
        config, cases = training.cases(training.experiment(args), work, args.volumes)
        step, raw = training.Step(config, device, args.precision), training.raw(config, args.batch, device)
        loader = partial(training.loader, cases, config, args.batch, args.steps, device=device)
        alone = training.pace((raw for _ in range(args.steps)), step, device)
        found = {
            w: {
                "pipeline": training.pace(loader(w), lambda _: None, device),
                "both": training.pace(loader(w), step, device),
            }
            for w in args.workers
        }
    patches = {w: 2 * args.batch / paces["pipeline"] for w, paces in found.items()}
    consumed = 2 * args.batch / alone
    idle = {w: max(0.0, 1 - alone / paces["both"]) for w, paces in found.items()}
    for w, rate in patches.items():
        print(f"{w} workers: {rate:.1f} patches/s, the step consumes {consumed:.1f}, idle {100 * idle[w]:.1f} %")
    rates = {"patches_a_second": patches, "consumed_a_second": consumed, "idle": idle}
    most = max(patches, key=lambda w: patches[w])
    sides.report(
        "pipeline", args, {"pipeline": patches[most] / consumed}, **training.told(args, config), seconds_a_step=alone,
        clock="perf_counter", **rates, draw=lambda axes: _draw(axes, patches, consumed),
    )  # fmt: skip


def _draw(axes: Any, patches: dict[int, float], consumed: float) -> None:
    axes.plot(list(patches), list(patches.values()), marker="o", label="pipeline")
    axes.axhline(consumed, color="black", linestyle="--", label="what a step consumes")
    axes.set_xlabel("worker processes")
    axes.set_ylabel("patches a second")
    axes.set_ylim(bottom=0)
    axes.legend()


if __name__ == "__main__":
    main()
