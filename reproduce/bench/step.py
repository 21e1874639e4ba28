"""A pre-training step against one forward and backward pass of a bare UNETR over the same three views in one batch.

Ours is the whole step but for reading the scan: distortion of the patches into views, resizing the labels, distance
transform, drawing of pixels, Eq. 2, backward pass.  The bare side is MONAI's UNETR with one output channel and a mean
square as its loss.  Both sides alternate in one process; the saved memory counts what autograd keeps between forward
and backward, each storage once and parameters not at all.

    python reproduce/bench/step.py --profile paper --batch 1 --out step.json
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from sides import arguments, report, saved_bytes, seconds, times_faster
from torch import Tensor, nn

from mixcl.config import Experiment, load_profile
from mixcl.model import LABEL_LEVEL, MixCL, level_edges, seeded, segmentation_model
from mixcl.objective import Objective
from mixcl.stream import pretraining_batch


def main() -> None:
    """Time both sides in turn, count what they save, print the ratios."""
    args = _arguments()
    torch.set_num_threads(args.threads)
    config, device = load_profile(args.profile, args.set), torch.device(args.device)
    ours, bare, (objective, net) = _sides(config, args.batch, device, args.precision)
    saved = {"ours": saved_bytes(ours, list(objective.parameters())), "bare": saved_bytes(bare, list(net.parameters()))}
    times = seconds({"ours": _step(ours, device), "bare": _step(bare, device)}, args.repeats)
    ratios = {"step": times_faster(times["ours"], times["bare"]), "step-memory": saved["ours"] / saved["bare"]}
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    report(
        "step", args, ratios, profile=args.profile, patch=config.model.patch, batch=args.batch, device=where,
        precision=args.precision, seconds=times, saved_bytes=saved,
    )  # fmt: skip


def _arguments() -> argparse.Namespace:
    parser = arguments(__doc__, repeats=3)
    parser.add_argument("--profile", default="paper", help="model and losses; paper is UNETR at 96^3")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--batch", type=int, default=1, help="samples a step, three views each")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("no", "bf16"), default="no")
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
    return {"image": image, "label": label, "sample": torch.arange(batch), "collection": torch.zeros(batch)}


def _step(forward: Callable[[], Tensor], device: torch.device) -> Callable[[], None]:
    """Forward and backward pass, waited for."""

    def run() -> None:
        forward().backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return run


if __name__ == "__main__":
    main()
