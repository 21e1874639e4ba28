"""One sample's pre-training distortions (Sec. 3.1) against MONAI's, on a patch and its label map.

Both sides draw elastic and affine with p = 0.5 each on image and labels, then shift, gamma, smoothing and noise with
p = 0.2 each.  MONAI's side is Rand3DElasticd and RandAffined, one after the other, and four of its intensity
transforms.  The sides take turns, draw by draw; the ratio is that of their mean times, since draws differ in what they
contain, and its standard error is told with it.  ``--every`` draws everything every time.

    python reproduce/bench/augment.py --out augment.json
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any

import numpy as np
import sides
import torch
from scipy import ndimage
from torch import Tensor

from mixcl import augment
from mixcl.config.settings import ViewsConfig

Sample = dict[str, Tensor]
SURE = ViewsConfig(spatial_prob=1.0, intensity_prob=1.0)


def main() -> None:
    parser = sides.arguments(__doc__, repeats=60)
    parser.add_argument("--size", type=int, default=96, help="edge of the patch, voxels")
    parser.add_argument("--every", action="store_true", help="every distortion in every draw, p = 1")
    args = sides.parsed(parser)
    config = SURE if args.every else ViewsConfig()
    sample = patch(args.size)
    for side in (ours, monai):
        side(sample, SURE)()  # what is loaded at first use
    times = sides.seconds({"ours": ours(sample, config), "monai": monai(sample, config)}, args.repeats)
    summary = {name: _summary(t) for name, t in times.items()}
    ratio = summary["monai"]["mean"] / summary["ours"]["mean"]
    error = ratio * math.hypot(*(s["standard error"] / s["mean"] for s in summary.values()))
    parts = ", ".join(f"{k} mean {s['mean']:.1f} median {s['median']:.1f} ms" for k, s in summary.items())
    print(f"{args.size}^3, image and labels, {args.repeats} draws, {args.threads} thread(s): {parts}")
    print(f"standard error of the ratio: {error:.2g}")
    versions = {name: metadata.version(name) for name in ("monai", "numpy")}
    found = {"size": args.size, "every": args.every, "config": config.model_dump(), "milliseconds": summary}
    sides.report("augment", args, {"augment": ratio}, ratio_error=error, **found, versions=versions, seconds=times)


def patch(size: int, seed: int = 0) -> Sample:
    """A smooth image in [0, 1] and labels 0 to 4 that follow it: [1, X, Y, Z] each, as MONAI takes them."""
    field = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((size,) * 3), size / 14)
    ranks = np.digitize(field, np.quantile(field, (0.5, 0.7, 0.85, 0.95))).astype(np.uint8)
    image = ((field - field.min()) / np.ptp(field)).astype(np.float32)
    return {"image": torch.from_numpy(image)[None], "label": torch.from_numpy(ranks)[None]}


def ours(sample: Sample, config: ViewsConfig) -> Callable[[], Sample]:
    """The spatial step and one view of it, with a generator of its own for each draw."""
    draw = iter(range(2**31))

    def run() -> Sample:
        g = torch.Generator().manual_seed(next(draw))
        image, labels = augment.spatial(sample["image"][None], sample["label"], config, [g])
        return {"image": augment.views(image, config, [g])[0], "label": labels}

    return run


def monai(sample: Sample, config: ViewsConfig) -> Callable[[], Sample]:
    """The same by MONAI: two resamplings where both are drawn, then four intensity transforms.

    The displacements are of the same size on both sides, about one voxel.  MONAI's field is noise smoothed by 5 to 7
    voxels, which is rougher than ours; the smoothing takes most of its time, and one as wide as ours takes 6 times it.
    """
    from monai import transforms as mt

    size = sample["image"].shape[1]
    how: dict[str, Any] = {"keys": ["image", "label"], "mode": ("bilinear", "nearest"), "prob": config.spatial_prob}
    how["padding_mode"] = "border"
    affine: dict[str, Any] = {
        "rotate_range": (np.deg2rad(config.rotate_deg),) * 3,
        "scale_range": (config.scale,) * 3,
        "shear_range": (config.shear,) * 6,
        "translate_range": (config.translate * size,) * 3,
    }
    once: dict[str, Any] = {"keys": "image", "prob": config.intensity_prob}
    sigma: dict[str, Any] = {f"sigma_{axis}": config.smooth_sigma for axis in "xyz"}
    pipeline = mt.Compose([
        mt.Rand3DElasticd(sigma_range=(5, 7), magnitude_range=(50, 150), **how),
        mt.RandAffined(spatial_size=(size,) * 3, cache_grid=True, **affine, **how),
        mt.RandShiftIntensityd(offsets=config.shift, **once),
        mt.RandAdjustContrastd(gamma=config.gamma, **once),
        mt.RandGaussianSmoothd(**sigma, **once),
        mt.RandGaussianNoised(std=config.noise_std[1], **once),
    ])  # fmt: skip
    pipeline.set_random_state(seed=0)
    return lambda: pipeline(dict(sample))


def _summary(times: list[float]) -> Mapping[str, float]:
    """Milliseconds a draw."""
    ms = [1e3 * t for t in times]
    spread = statistics.stdev(ms) / math.sqrt(len(ms)) if len(ms) > 1 else math.nan
    return {"median": statistics.median(ms), "mean": statistics.mean(ms), "standard error": spread}


if __name__ == "__main__":
    main()
