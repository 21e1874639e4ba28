"""Figures of notebook 05: each distortion of Sec. 3.1 by itself and all together, on image and labels."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mixcl.config.settings import ViewsConfig
from mixcl.figures import ct, panels
from mixcl.figures.style import Sketch, write_caption
from mixcl.lessons.scene import Pair

NO_AFFINE: dict[str, Any] = {"rotate_deg": 0.0, "scale": 0.0, "shear": 0.0, "translate": 0.0}
SPATIAL: dict[str, dict[str, Any]] = {"affine": {"elastic_magnitude": 0.0}, "elastic": NO_AFFINE, "both": {}}
NO_INTENSITY = {"shift": 0.0, "gamma": (1.0, 1.0), "smooth_sigma": (0.0, 0.0), "noise_std": (0.0, 0.0)}
INTENSITY = {"shift": ("shift",), "gamma": ("gamma",), "smoothing": ("smooth_sigma",), "noise": ("noise_std",),
             "all four": tuple(NO_INTENSITY)}  # fmt: skip
LINES = 8  # voxels between two lines of the lattice that shows a deformation


def spatial_alone(config: ViewsConfig) -> dict[str, ViewsConfig]:
    """The settings under which each spatial distortion, and both, are always on and the other is off."""
    return {name: config.model_copy(update={**off, "spatial_prob": 1.0}) for name, off in SPATIAL.items()}


def intensity_alone(config: ViewsConfig) -> dict[str, ViewsConfig]:
    """The settings under which each intensity distortion, and all four, are always on and the others are off."""
    kept = {name: {key: getattr(config, key) for key in keys} for name, keys in INTENSITY.items()}
    return {name: config.model_copy(update={**NO_INTENSITY, **on, "intensity_prob": 1.0}) for name, on in kept.items()}


def lattice(edge: int) -> Tensor:
    """Bright lines [1, 1, E, E, E], every `LINES` voxels in x and y, to see how a deformation bends them."""
    lines = torch.arange(edge) % LINES == 0
    return (lines[:, None, None] | lines[None, :, None]).float().expand(1, 1, edge, edge, edge).contiguous()


def spatial(pair: Pair, moved: Mapping[str, tuple[Tensor, Tensor]]) -> Sketch:
    """P_1 and a lattice [1, 2, E, E, E] with labels [1, E, E, E], by distortion."""
    index = pair.slice
    with Sketch.sized(2.3 * len(moved) + 1.6, 5.4, 2, len(moved), squeeze=False) as (figure, axes):
        for k, (name, (x, s)) in enumerate(moved.items()):
            (image, lines), labels = x[0].numpy(), s[0].numpy()
            panels.patch(axes[0, k], image, index, pair.spacing, labels, pair.names, title=name, bar=k == 0)
            ct.show_ct(axes[1, k], lines, index, pair.spacing, (0.0, 2.0))
            ct.outline(axes[1, k], labels, index, pair.spacing, pair.names)
        present = ct.organs_in(pair.raw["label"][0, ..., index].numpy(), pair.names).values()
        figure.legend(handles=panels.organ_handles(present), loc="outside right upper", handlelength=1.0)
        alt = "A patch with its labels and a lattice: turned by an affine map, bent by an elastic one, and both."
        text = f"Top: patch and labels; bottom: a lattice of lines {LINES} voxels apart, distorted alike. One draw."
        return write_caption(figure, text, alt)


def intensity(pair: Pair, changed: Mapping[str, Tensor]) -> Sketch:
    """P_1 [1, 1, E, E, E] by intensity distortion, and what each does to its voxels."""
    before = pair.raw["image"][0, 0].numpy()
    with Sketch.sized(1.9 * len(changed), 4.4, 2, len(changed), height_ratios=[1.35, 1]) as (figure, axes):
        for k, ((name, x), cloud) in enumerate(zip(changed.items(), axes[1], strict=True)):
            after = x[0, 0].numpy()
            panels.patch(axes[0, k], after, pair.slice, pair.spacing, title=name, bar=k == 0)
            counts, _, _ = np.histogram2d(before.ravel(), after.ravel(), bins=48, range=[[0, 1], [-0.2, 1.2]])
            cloud.imshow(np.log1p(counts.T), origin="lower", extent=(0, 1, -0.2, 1.2), cmap="Blues", aspect="auto")
            cloud.plot([0, 1], [0, 1], color="0.5", linewidth=0.7)
            cloud.set(xlabel="patch", xticks=(0, 0.5, 1))
        axes[1, 0].set_ylabel("view")
        return write_caption(
            figure, "Below: a voxel's intensity before and after, 0 and 1 are the ends of the HU window; grey: no "
            "change. One draw.",
            "A patch by distortion; below, clouds: lines for shift and gamma, a band for smoothing and noise.",
        )  # fmt: skip


def gallery(pair: Pair, shown: Sequence[tuple[Tensor, Tensor]]) -> Sketch:
    """Views [1, 1, E, E, E] with their labels [1, E, E, E], as training has them."""
    with Sketch.grid(len(shown), 6, 1.9, 1.9) as (figure, axes):
        for k, (ax, (view, labels)) in enumerate(zip(axes, shown, strict=False)):
            panels.patch(ax, view[0, 0].numpy(), pair.slice, pair.spacing, bar=k == 0)
            ct.outline(ax, labels[0].numpy(), pair.slice, pair.spacing, pair.names)
        alt = f"{len(shown)} views of one patch: some untouched, some brighter, blurred or noisy, some turned."
        return write_caption(figure, "Outlines: the labels, moved along with the patch.", alt)
