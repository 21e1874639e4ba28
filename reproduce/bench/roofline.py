"""What bounds a pre-training step: its FLOP and bytes against the device's measured ceilings.

FLOP are those of matrix products and convolutions (torch.utils.flop_counter).  Bytes are what every operator reads and
writes, added up: what a step moves when nothing is fused and nothing stays in a cache.  The ceilings are a large matrix
product in the step's precision and a large copy.  A fine-tuning step (a UNETR, Dice + cross-entropy, batch 2) and a
window of a test case are counted too: what the paper's plan costs follows from them.

    python reproduce/bench/roofline.py --batch 6 --device cuda --precision bf16 --out roofline.json
    python reproduce/bench/roofline.py --profile smoke --edge 512 --megabytes 64 --out roofline.json
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import median
from typing import Any

import sides
import torch
import training
from monai.losses import DiceCELoss
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from mixcl.config.settings import Experiment
from mixcl.model import seeded, segmentation_model
from mixcl.run.device import faster

CLASSES = 13  # BTCV's organs


def main() -> None:
    """Count, time, compare with the ceilings."""
    parser = sides.arguments(__doc__, repeats=3)
    training.options(parser)
    parser.add_argument("--edge", type=int, default=4096, help="of the square matrices of the ceiling")
    parser.add_argument("--megabytes", type=int, default=512, help="of the copy")
    args = sides.parsed(parser)
    device, config = torch.device(args.device), training.experiment(args)
    step, raw = training.Step(config, device, args.precision), training.raw(config, args.batch, device)
    tune, predict = _finetuning(config, device, args.precision)
    found = {
        "pretrain": _count(lambda: step(raw), args, device) | {"samples": args.batch},
        "finetune": _count(tune, args, device) | {"samples": config.finetune.batch},
        "window": _count(predict, args, device) | {"samples": 1},
    }
    ceiling = {"flop": _matmul(args, device), "bytes": _copy(args, device)}
    for name, one in found.items():
        one["flop_seconds"], one["byte_seconds"] = one["flop"] / ceiling["flop"], one["bytes"] / ceiling["bytes"]
        print(
            f"{name}: {one['flop'] / 1e9:.1f} GFLOP, {one['bytes'] / 1e9:.2f} GB, {one['operators']} operators, "
            f"{1e3 * one['seconds']:.1f} ms; at the ceilings {1e3 * one['flop_seconds']:.1f} and "
            f"{1e3 * one['byte_seconds']:.1f} ms"
        )
    ours = found["pretrain"]
    ratios = {
        "roofline-matrix": ours["flop_seconds"] / ours["seconds"],
        "roofline-bytes": ours["byte_seconds"] / ours["seconds"],
    }
    sides.report(
        "roofline", args, ratios, **training.told(args, config), ceiling=ceiling, steps=found,
        draw=lambda axes: _draw(axes, found, ceiling),
    )  # fmt: skip


def _finetuning(
    config: Experiment, device: torch.device, precision: str
) -> tuple[Callable[[], None], Callable[[], object]]:
    """A fine-tuning step and the prediction of one window."""
    with seeded(0):
        net = segmentation_model(config.model, CLASSES).to(device)
    faster(net, config.run)
    optimizer, criterion = training.optimizer(net), DiceCELoss(to_onehot_y=True, softmax=True)
    image = torch.rand(config.finetune.batch, 1, *(config.model.patch,) * 3, device=device)
    label = torch.randint(CLASSES + 1, image.shape, device=device)

    def tune() -> None:
        with training.autocast(device, precision):
            predicted = net(image)
        criterion(predicted.float(), label).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def predict() -> object:
        with training.autocast(device, precision):
            return net(image[:1])

    return tune, predict


def _count(step: Callable[[], object], args: argparse.Namespace, device: torch.device) -> dict[str, float]:
    """FLOP, bytes, operators and median seconds of a step, and the most memory it held on a GPU."""
    waited = training.waited(step, device)
    seconds = median(sides.seconds({"step": waited}, args.repeats)["step"])
    with FlopCounterMode(display=False) as counted:
        waited()
    with Traffic() as traffic:
        waited()
    return {
        "flop": counted.get_total_flops(), "bytes": traffic.bytes, "operators": traffic.operators, "seconds": seconds,
        "peak_bytes": training.peak_bytes(step, device),
    }  # fmt: skip


class Traffic(TorchDispatchMode):
    """Bytes that operators read and write, and their number; views and the making of empty memory do not count."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes, self.operators = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = func(*args, **(kwargs or {}))
        if not func.is_view and "empty" not in func.__name__ and "detach" not in func.__name__:
            tensors = [x for x in tree_leaves((args, kwargs, given)) if isinstance(x, Tensor)]
            self.bytes += sum(x.numel() * x.element_size() for x in tensors)
            self.operators += 1
        return given


def _matmul(args: argparse.Namespace, device: torch.device) -> float:
    """FLOP a second of a large matrix product."""
    dtype = torch.bfloat16 if args.precision == "bf16" else torch.float32
    a, b = (torch.randn(args.edge, args.edge, device=device, dtype=dtype) for _ in range(2))
    return 2 * args.edge**3 / _least(lambda: a @ b, device)


def _copy(args: argparse.Namespace, device: torch.device) -> float:
    """Bytes a second, read and written, of a large copy."""
    a = torch.ones(args.megabytes * 2**18, device=device)
    b = torch.empty_like(a)
    return 2 * a.numel() * a.element_size() / _least(lambda: b.copy_(a), device)


def _least(run: Callable[[], object], device: torch.device) -> float:
    """Seconds of the best of some calls, five in a row."""

    def five() -> None:
        for _ in range(5):
            run()
        training.wait(device)

    return min(sides.seconds({"ceiling": five}, 5)["ceiling"]) / 5


def _draw(axes: Any, found: dict[str, dict[str, float]], ceiling: dict[str, float]) -> None:
    """FLOP a second over FLOP a byte, under the roof."""
    x = [2.0**k for k in range(-3, 13)]
    axes.plot(x, [min(ceiling["flop"], k * ceiling["bytes"]) for k in x], color="black")
    for name, one in found.items():
        axes.plot(one["flop"] / one["bytes"], one["flop"] / one["seconds"], marker="o", linestyle="", label=name)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("FLOP a byte")
    axes.set_ylabel("FLOP a second")
    axes.legend()


if __name__ == "__main__":
    main()
