"""Patches a second of the data pipeline, by number of worker processes, against what a pre-training step consumes.

A sample is two patches with their labels, cut from prepared scans; for a GPU its pixels are drawn as well.  ``idle`` is
the part of a training's time that the device spends without data: how much longer steps take with the pipeline than
with a batch that is always there.

    python reproduce/bench/pipeline.py --batch 6 --device cuda --precision bf16 --workers 0 2 4 8 --out pipeline.json
    python reproduce/bench/pipeline.py --profile smoke --batch 2 --workers 0 1 --steps 4 --out pipeline.json
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import sides
import torch
import training

from mixcl import batches


def main() -> None:
    """Rate the step, then the pipeline and both together for each number of workers."""
    args = _arguments()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    with tempfile.TemporaryDirectory() as new:
        config, cases = training.cases(training.experiment(args), Path(args.work or new), args.volumes)
        step = training.Step(config, device, args.precision)
        pairs = batches.PairDataset(cases, config, 1 << 20)

        def loader(workers: int) -> Iterator[dict[str, Any]]:
            cut = batches.batches(
                pairs, args.batch, start=0, steps=args.steps, workers=workers, pin=device.type == "cuda"
            )
            return batches.prefetch(cut, device)

        raw = training.raw(config, args.batch, device)
        alone = _pace((raw for _ in range(args.steps)), step, device)
        found = {
            w: {"pipeline": _pace(loader(w), lambda _: None, device), "both": _pace(loader(w), step, device)}
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
        **rates, draw=lambda axes: _draw(axes, patches, consumed),
    )  # fmt: skip


def _arguments() -> argparse.Namespace:
    parser = sides.arguments(__doc__, repeats=1)
    training.options(parser)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2, 4])
    parser.add_argument("--steps", type=int, default=20, help="batches a measurement, the first two not counted")
    parser.add_argument("--volumes", type=int, default=2, help="scans of real size; a profile of phantoms has its own")
    parser.add_argument("--work", help="folder of scans, made when they are not there; default a passing one")
    return parser.parse_args()


def _pace(drawn: Iterator[dict[str, Any]], use: Callable[[Any], object], device: torch.device) -> float:
    """Mean seconds a batch, the first two left out."""
    started, count = 0.0, 0
    for count, batch in enumerate(drawn, start=1):
        use(batch)
        if count == 2:
            training.wait(device)
            started = time.perf_counter()
    training.wait(device)
    return (time.perf_counter() - started) / (count - 2)


def _draw(axes: Any, patches: dict[int, float], consumed: float) -> None:
    axes.plot(list(patches), list(patches.values()), marker="o", label="pipeline")
    axes.axhline(consumed, color="black", linestyle="--", label="what a step consumes")
    axes.set_xlabel("worker processes")
    axes.set_ylabel("patches a second")
    axes.set_ylim(bottom=0)
    axes.legend()


if __name__ == "__main__":
    main()
