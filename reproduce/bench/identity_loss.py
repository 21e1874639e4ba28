"""The identity loss, Eq. 4 and 5, of the two large levels: folded and recomputed against the projected map.

``ours`` folds the projector's last convolution into the sums of Eq. 5 and computes the projector again in the
backward pass, as training does; ``plain`` makes the wide map of both views and correlates it.  Both are timed
from the encoder's output to its gradient, projector included; ``sums`` are the statistics alone.

    python reproduce/bench/identity_loss.py --out identity_loss.json
"""

from __future__ import annotations

import argparse

import sides
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mixcl import losses, moments
from mixcl.model import Projector, seeded

LEVELS = ((16, 1), (32, 2))  # channels, and how many times coarser than the patch


def main() -> None:
    parser = sides.arguments(__doc__, repeats=5)
    parser.add_argument("--patch", type=int, default=96, help="edge of the patch, voxels")
    args = sides.parsed(parser)
    ratios, found = {}, {}
    for channels, coarser in LEVELS:
        name, edge = f"{channels}ch", args.patch // coarser
        level = _level(channels, edge, args)
        found[f"{channels} channels, {edge}^3"] = level
        seconds, saved = level["seconds"], level["saved_bytes"]
        ratios[f"identity_loss-{name}"] = sides.times_faster(seconds["plain"], seconds["ours"])
        ratios[f"identity_loss-{name}-sums"] = sides.times_faster(seconds["plain sums"], seconds["folded sums"])
        ratios[f"identity_loss-{name}-memory"] = saved["plain"] / saved["ours"]
        print(f"{channels} channels, {edge}^3: {sides.medians(seconds)}")
        print("  kept " + ", ".join(f"{side} {n / 1e6:.1f} MB" for side, n in saved.items()))
        print("  largest error of C " + ", ".join(f"{side} {e:.1e}" for side, e in level["errors"].items()))
    sides.report("identity_loss", args, ratios, patch=args.patch, **found)


def _level(channels: int, edge: int, args: argparse.Namespace) -> dict[str, dict]:
    """Times, kept bytes and errors of one level with random maps of two views that resemble each other."""
    with seeded(0):
        projector = Projector(channels)
        first = torch.randn(1, channels, edge, edge, edge)
        z = torch.cat([first, first + 0.5 * torch.randn_like(first)]).requires_grad_()
    own = [z, *projector.parameters()]
    trunk = projector.trunk(z).detach().requires_grad_()
    forward = {
        "ours": lambda: _bracket(checkpoint(_folded, projector, projector.trunk, z, use_reentrant=False)),
        "plain": lambda: _bracket(_plain(projector, projector.trunk, z)),
        "folded sums": lambda: _bracket(_folded(projector, torch.nn.Identity(), trunk)),
        "plain sums": lambda: _bracket(_plain(projector, torch.nn.Identity(), trunk)),
    }
    saved = {name: sides.saved_bytes(forward[name], own) for name in ("ours", "plain")}
    times = sides.seconds({name: lambda side=side: side().backward() for name, side in forward.items()}, args.repeats)
    with torch.no_grad():
        sums = {"folded": _folded(projector, projector.trunk, z), "plain": _plain(projector, projector.trunk, z)}
        c = {name: moments.correlation_from_moments(m) for name, m in sums.items()}
        exact = moments.correlation_from_moments(_plain(projector.double(), projector.trunk, z.double()))
    errors = {name: (value - exact).abs().max().item() for name, value in c.items()}
    return {"seconds": times, "saved_bytes": saved, "errors": errors}


def _folded(projector: Projector, trunk: torch.nn.Module, z: Tensor) -> moments.Moments:
    h = trunk(z)
    return moments.folded_moments(h[:1], h[1:], projector.last.weight.flatten(1), projector.last.bias)


def _plain(projector: Projector, trunk: torch.nn.Module, z: Tensor) -> moments.Moments:
    projected = projector.last(trunk(z))
    return moments.moments(projected[:1], projected[1:])


def _bracket(sums: moments.Moments) -> Tensor:
    return losses.decorrelation(moments.correlation_from_moments(sums))


if __name__ == "__main__":
    main()
