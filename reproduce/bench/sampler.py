"""The sampler against one distance transform of scipy and one draw of numpy a label, on one patch.

Both sides start from a label map and end with the drawn pixels: distance, weights (Eq. 7) and r draws without
replacement of every label, the background being one.  Their squared distances are compared and must be equal.

    python reproduce/bench/sampler.py --out sampler.json
"""

from __future__ import annotations

from functools import partial

import numpy as np
import sides
import torch
from numpy.typing import NDArray
from scipy import ndimage

from mixcl import sampler

MU, EPS = 8.0, 0.05


def main() -> None:
    parser = sides.arguments(__doc__, repeats=7)
    parser.add_argument("--size", type=int, default=96, help="edge of the patch, voxels")
    parser.add_argument("--classes", type=int, nargs="+", default=[13, 1], help="labels beside the background")
    parser.add_argument("--budget", type=int, default=128, help="r, pixels a label")
    args = sides.parsed(parser)
    ratios, found = {}, {}
    for classes in args.classes:
        labels = organs(args.size, classes)
        _check(labels)
        tensor, generator = torch.from_numpy(labels), torch.Generator().manual_seed(0)
        random = np.random.RandomState(0)  # whose choice is numpy.random.choice
        sides_of = {
            "ours": partial(sampler.sample_pixels, tensor, args.budget, mu=MU, eps=EPS, generator=generator),
            "scipy": partial(by_label, labels, args.budget, random),
            "ours, distance alone": partial(sampler.boundary_distance, labels),
        }
        times = sides.seconds(sides_of, args.repeats)
        ratios[f"sampler-{classes}"] = sides.times_faster(times["scipy"], times["ours"])
        found[f"{classes} labels"] = {"seconds": times, "labelled share": float((labels > 0).mean())}
        of = f"{classes} labels and background, {args.size}^3, {args.budget} pixels a label"
        print(f"{of}: {sides.medians(times)}")
    sides.report("sampler", args, ratios, size=args.size, budget=args.budget, squared_distances="equal", **found)


def organs(size: int, classes: int, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth organs of different sizes that together take up to half of the patch."""
    rng = np.random.default_rng(seed)
    fields = [ndimage.gaussian_filter(rng.standard_normal((size,) * 3), size / 14) for _ in range(classes)]
    stack = np.stack([field / field.std() for field in fields])
    highest, share = stack.max(0), 0.5 * classes / (classes + 3)
    inside = highest > np.quantile(highest, 1 - share)
    return ((stack.argmax(0) + 1) * inside).astype(np.uint8)


def by_label(labels: NDArray[np.uint8], budget: int, random: np.random.RandomState) -> list[NDArray[np.int64]]:
    """What one writes first: a mask, a distance transform, a weight and a draw for every label."""
    drawn = []
    for label in np.unique(labels):
        own = labels == label
        distance = ndimage.distance_transform_edt(own)[own]
        weight = 0.5 * np.sqrt(distance) * np.exp(-distance / MU) + EPS
        voxels = np.flatnonzero(own)
        n = min(budget, len(voxels))
        drawn.append(random.choice(voxels, n, replace=False, p=weight / weight.sum()))
    return drawn


def _check(labels: NDArray[np.uint8]) -> None:
    """Squared distances are integers and must be the same ones."""
    ours = np.rint(sampler.boundary_distance(labels).astype(np.float64) ** 2)
    for label in np.unique(labels):
        own = labels == label
        theirs = np.rint(ndimage.distance_transform_edt(own)[own] ** 2)
        if not np.array_equal(ours[own], theirs):
            raise SystemExit(f"squared distances of label {label} differ by up to {abs(ours[own] - theirs).max()}")


if __name__ == "__main__":
    main()
