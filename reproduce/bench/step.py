"""A pre-training step against one forward and backward pass of a bare UNETR over the same three views in one batch.

Ours is the whole step but for reading the scan: distortion of the patches into views, resizing the labels, distance
transform, drawing of pixels, Eq. 2, backward pass.  The bare side is MONAI's UNETR with one output channel and a mean
square as its loss.  Both sides alternate in one process; the saved memory counts what autograd keeps between forward
and backward, each storage once and parameters not at all.

    python reproduce/bench/step.py --profile paper --batch 1 --out step.json
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from mixcl.config import Experiment, commit, load_profile
from mixcl.model import LABEL_LEVEL, MixCL, level_edges, seeded, segmentation_model
from mixcl.objective import Objective
from mixcl.stream import pretraining_batch


def main() -> None:
    args = _arguments()
    torch.set_num_threads(args.threads)
    config = load_profile(args.profile, args.set)
    device = torch.device(args.device)
    ours, bare, module = _sides(config, args.batch, device, args.precision)
    saved = {"ours": saved_bytes(ours, module[0]), "bare": saved_bytes(bare, module[1])}  # also the warm-up
    seconds: dict[str, list[float]] = {"ours": [], "bare": []}
    for _ in range(args.repeats):
        seconds["ours"].append(_time(ours, device))
        seconds["bare"].append(_time(bare, device))
    time_ratio = statistics.median(a / b for a, b in zip(seconds["ours"], seconds["bare"], strict=True))
    report = {
        "benchmark": "step", "profile": args.profile, "patch": config.model.patch, "batch": args.batch,
        "precision": args.precision, "threads": args.threads, "repeats": args.repeats, "device": _device(device),
        "torch": torch.__version__, "commit": commit(), "seconds": seconds, "saved_bytes": saved,
        "ratio": {"step": time_ratio, "step-memory": saved["ours"] / saved["bare"]},
    }  # fmt: skip
    if args.out:
        Path(args.out).write_text(json.dumps(report, indent=1), encoding="utf-8")
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for side in ("ours", "bare"):
        print(f"{side}: {medians[side]:.3f} s a step, {saved[side] / 1e6:.0f} MB saved")
    for name, value in report["ratio"].items():  # type: ignore[attr-defined]
        print(f"ratio {name} {value:.4f}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="paper", help="model and losses; paper is UNETR at 96^3")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--batch", type=int, default=1, help="samples a step, three views each")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("no", "bf16"), default="no")
    parser.add_argument("--out", help="JSON file to write")
    return parser.parse_args()


def _sides(
    config: Experiment, batch: int, device: torch.device, precision: str
) -> tuple[Callable[[], Tensor], Callable[[], Tensor], tuple[nn.Module, nn.Module]]:
    """Functions that run one forward pass and return the loss."""
    with seeded(0):
        objective = Objective(MixCL(config), config.loss).to(device)
        net = segmentation_model(config.model, 0).to(device)
    edge, raw = level_edges(config.model)[LABEL_LEVEL], _raw(config.model.patch, batch)
    views = pretraining_batch(raw, config, edge, device).views

    def ours() -> Tensor:
        inputs = pretraining_batch(raw, config, edge, device)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            total: Tensor = objective(inputs).total
        return total

    def bare() -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            return net(views).float().square().mean()

    return ours, bare, (objective, net)


def _raw(edge: int, batch: int, classes: int = 13) -> dict[str, Tensor]:
    """Smooth random patches whose label maps hold the background and 13 blobs."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(2 * batch, classes + 1, 6, 6, 6, generator=generator)
    fields = nn.functional.interpolate(coarse, size=(edge,) * 3, mode="trilinear")
    label = fields.argmax(1).to(torch.uint8).unflatten(0, (batch, 2))
    image = fields[:, :1].sigmoid().unflatten(0, (batch, 2)).contiguous()
    return {"image": image, "label": label, "sample": torch.arange(batch)}


def _time(forward: Callable[[], Tensor], device: torch.device) -> float:
    _wait(device)
    start = time.perf_counter()
    forward().backward()
    _wait(device)
    return time.perf_counter() - start


def saved_bytes(forward: Callable[[], Tensor], module: nn.Module) -> int:
    """Bytes that autograd keeps between the forward and the backward pass, without the module's parameters."""
    own = {p.untyped_storage().data_ptr() for p in module.parameters()}
    seen: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = forward()
    total = sum(seen.values())
    loss.backward()
    return total


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _device(device: torch.device) -> str:
    return (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{platform.processor() or platform.machine()} CPU"
    )


if __name__ == "__main__":
    main()
