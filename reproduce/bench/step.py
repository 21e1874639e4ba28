"""A pre-training step against one forward and backward pass of a bare UNETR over the same three views in one batch.

Ours is the whole step but for reading the scan and for the optimiser: distortion of the patches into views, resizing
the labels, distance transform, drawing of pixels (on a GPU the last two are the loader's), Eq. 2, backward pass.  The
bare side is MONAI's UNETR with one output channel and a mean square as its loss, laid out in memory and compiled as
ours is.  Both sides alternate in one process; the saved memory counts what autograd keeps between forward and backward,
each storage once and parameters not at all.

    python reproduce/bench/step.py --profile paper --batch 1 --out step.json
    python reproduce/bench/step.py --batch 6 --device cuda --precision bf16 --out step.json
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable

import torch
import training
from sides import arguments, parsed, report, saved_bytes, seconds, times_faster
from torch import Tensor, nn

from mixcl.batches import pretraining_batch
from mixcl.model import seeded, segmentation_model
from mixcl.run.device import faster


def main() -> None:
    """Time both sides in turn, count what they save, print the ratios."""
    parser = arguments(__doc__, repeats=3)
    training.options(parser)
    args = parsed(parser)
    config, device = training.experiment(args), torch.device(args.device)
    ours, bare, (objective, net) = _sides(args)
    saved = {"ours": saved_bytes(ours, objective.parameters()), "bare": saved_bytes(bare, net.parameters())}
    sides = {"ours": _step(ours, objective, device), "bare": _step(bare, net, device)}
    times = seconds(sides, args.repeats)
    peak = {name: training.peak_bytes(side, device) for name, side in sides.items()}
    ratios = {"step": times_faster(times["ours"], times["bare"]), "step-memory": saved["ours"] / saved["bare"]}
    report(
        "step", args, ratios, **training.told(args, config), seconds=times, saved_bytes=saved, peak_bytes=peak,
        host_waits=_waits(sides["ours"], device),
    )  # fmt: skip


def _sides(args: argparse.Namespace) -> tuple[Callable[[], Tensor], Callable[[], Tensor], tuple[nn.Module, nn.Module]]:
    """Functions that run one forward pass and return the loss."""
    config, device = training.experiment(args), torch.device(args.device)
    step, raw = training.Step(config, device, args.precision), training.raw(config, args.batch, device)
    with seeded(0):
        net = segmentation_model(config.model, 0).to(device)
    faster(net, config.run)
    views = pretraining_batch(raw, config, device).views

    def bare() -> Tensor:
        with training.autocast(device, args.precision):
            return net(views).float().square().mean()

    return lambda: step.forward(raw), bare, (step.objective, net)


def _step(forward: Callable[[], Tensor], module: nn.Module, device: torch.device) -> Callable[[], None]:
    """Forward and backward pass, waited for."""

    def run() -> None:
        module.zero_grad(set_to_none=True)
        forward().backward()
        training.wait(device)

    return run


def _waits(side: Callable[[], None], device: torch.device) -> int | None:
    """How often a step makes the processor wait for the GPU, but for the wait at its end; None on a CPU."""
    if device.type != "cuda":
        return None
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            side()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(one.message) for one in caught)


if __name__ == "__main__":
    main()
