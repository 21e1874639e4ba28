"""Notebook 05: each distortion of Sec. 3.1 by itself and all together, on image and labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from mixcl import augment
from mixcl.batches import generator
from mixcl.config.settings import ViewsConfig
from mixcl.figures import ct, panels
from mixcl.figures.choice import choose_slice
from mixcl.figures.style import OKABE_ITO, STYLE, Sketch, write_caption
from mixcl.lessons.scene import Pair

NO_AFFINE = {"rotate_deg": 0.0, "scale": 0.0, "shear": 0.0, "translate": 0.0}
SPATIAL: dict[str, dict[str, Any]] = {  # what is switched off to see one alone
    "affine": {"elastic_magnitude": 0.0},
    "elastic": NO_AFFINE,
    "both": {},
}
NO_INTENSITY = {"shift": 0.0, "gamma": (1.0, 1.0), "smooth_sigma": (0.0, 0.0), "noise_std": (0.0, 0.0)}
INTENSITY = {"shift": ("shift",), "gamma": ("gamma",), "smoothing": ("smooth_sigma",), "noise": ("noise_std",),
             "all four": ("shift", "gamma", "smooth_sigma", "noise_std")}  # fmt: skip
LINES = 8  # voxels between two lines of the grid that shows a deformation


def moved(config: ViewsConfig, image: Tensor, label: Tensor, seed: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Image [E, E, E] and labels [E, E, E] after each spatial distortion, which is always on and of the same draw."""
    result = {"as cut": (image, label)}
    for name, off in SPATIAL.items():
        alone = config.model_copy(update={**off, "spatial_prob": 1.0})
        new_image, new_label = augment.spatial(image[None, None], label[None], alone, generator(seed))
        result[name] = (new_image[0, 0], new_label[0])
    return result


def changed(config: ViewsConfig, image: Tensor, seed: int) -> dict[str, Tensor]:
    """Image [E, E, E] after each intensity distortion, which is always on and of the same draw."""
    result = {"as cut": image}
    for name, kept in INTENSITY.items():
        on = {key: getattr(config, key) for key in kept}
        alone = config.model_copy(update={**NO_INTENSITY, **on, "intensity_prob": 1.0})
        result[name] = augment.views(image[None, None], alone, generator(seed))[0, 0]
    return result


def grid_of(edge: int) -> Tensor:
    """A lattice of bright lines [E, E, E], every `LINES` voxels in x and y, to see how a deformation bends it."""
    lines = torch.arange(edge) % LINES == 0
    return (lines[:, None, None] | lines[None, :, None]).float().expand(edge, edge, edge).contiguous()


def spatial(pair: Pair, config: ViewsConfig, seed: int) -> Figure:
    """P_1, its labels, and a lattice, under affine and elastic distortion, alone and together."""
    image, label = pair.raw["image"][0, 0], pair.raw["label"][0]
    index = choose_slice(label.numpy())
    bent = moved(config, grid_of(image.shape[-1]), label, seed)
    with matplotlib.rc_context(STYLE):
        figure = Sketch(figsize=(8.0, 4.5), layout="constrained")
        axes = figure.subplots(2, 4)
        for k, (name, (x, s)) in enumerate(moved(config, image, label, seed).items()):
            panels.patch(axes[0, k], x.numpy(), index, pair.spacing, s.numpy(), pair.names, bar=k == 0)
            axes[0, k].set_title(name)
            ct.show_ct(axes[1, k], bent[name][0].numpy(), index, pair.spacing, (0.0, 2.0))
            panels.outline(axes[1, k], s.numpy(), index, pair.spacing, pair.names)
        present = [name for value, name in pair.names.items() if (label[..., index] == value).any()]
        figure.legend(handles=panels.organ_handles(present), loc="outside right upper", handlelength=1.0)
        write_caption(
            figure, f"{_where(pair)}. Top: patch and labels; bottom: a lattice of lines {LINES} voxels apart, "
            f"distorted alike. One draw, number {seed}. {pair.told}",
        )  # fmt: skip
    return figure


def intensity(pair: Pair, config: ViewsConfig, seed: int) -> Figure:
    """P_1 under each intensity distortion, alone and together, and what each does to its voxels."""
    image = pair.raw["image"][0, 0]
    index = choose_slice(pair.raw["label"][0].numpy())
    shown = changed(config, image, seed)
    with matplotlib.rc_context(STYLE):
        figure = Sketch(figsize=(9.0, 3.5), layout="constrained")
        axes = figure.subplots(2, len(shown), height_ratios=[1.35, 1])
        for k, (name, x) in enumerate(shown.items()):
            panels.patch(axes[0, k], x.numpy(), index, pair.spacing, bar=k == 0)
            axes[0, k].set_title(name)
            _cloud(axes[1, k], image.numpy(), x.numpy())
        axes[1, 0].set_ylabel("view")
        write_caption(
            figure, f"{_where(pair)}. Below: a voxel's intensity before and after, 0 and 1 are the ends of the HU "
            f"window; grey: no change. One draw, number {seed}. {pair.told}",
        )  # fmt: skip
    return figure


def gallery(pair: Pair, config: ViewsConfig, seeds: int) -> Figure:
    """Views as training has them, each of another draw and with the probabilities of the settings."""
    image, label = pair.raw["image"][0, 0], pair.raw["label"][0]
    index = choose_slice(label.numpy())
    with matplotlib.rc_context(STYLE):
        columns = 6
        lines = -(-seeds // columns)
        figure = Sketch(figsize=(9.0, 1.5 * lines + 0.4), layout="constrained")
        axes = figure.subplots(lines, columns, squeeze=False).ravel()
        for seed, ax in enumerate(axes):
            x, s = augment.spatial(image[None, None], label[None], config, generator(seed, 0))
            view = augment.views(x, config, generator(seed, 1))[0, 0]
            panels.patch(ax, view.numpy(), index, pair.spacing, bar=seed == 0)
            panels.outline(ax, s[0].numpy(), index, pair.spacing, pair.names)
        write_caption(figure, f"{_where(pair)}. Outlines: the labels, moved along with the patch. {pair.told}")
    return figure


def chances(config: ViewsConfig) -> Figure:
    """How many of the four intensity distortions a view gets."""
    p = config.intensity_prob
    shares = [(1, 4, 6, 4, 1)[k] * p**k * (1 - p) ** (4 - k) for k in range(5)]
    with matplotlib.rc_context(STYLE):
        figure = Sketch(figsize=(4.2, 2.2), layout="constrained")
        ax = figure.subplots()
        bars = ax.bar(range(5), shares, color=OKABE_ITO[0])
        ax.bar_label(bars, [f"{share:.1%}" for share in shares], fontsize=7)
        ax.set(xlabel="intensity distortions of a view", ylabel="share of views", ylim=(0, 1.15 * max(shares)))
        write_caption(figure, f"Four independent coins with probability {p:g} each (views.intensity_prob).")
    return figure


def values(shown: Mapping[str, tuple[Tensor, Tensor]], names: Mapping[int, str]) -> dict[str, dict[str, int]]:
    """Voxels of each label that is there, after each of the distortions of :func:`moved`."""
    every = {0: "background", **names}
    found = {name: torch.unique(label, return_counts=True) for name, (_, label) in shown.items()}
    return {
        name: {every.get(int(v), f"unknown {int(v)}"): int(n) for v, n in zip(*counted, strict=True)}
        for name, counted in found.items()
    }


def _cloud(ax: Any, before: NDArray[Any], after: NDArray[Any]) -> None:
    """Where voxels of one intensity go."""
    counts, _, _ = np.histogram2d(before.ravel(), after.ravel(), bins=48, range=[[0, 1], [-0.2, 1.2]])
    ax.imshow(np.log1p(counts.T), origin="lower", extent=(0, 1, -0.2, 1.2), cmap="Blues", aspect="auto")
    ax.plot([0, 1], [0, 1], color="0.5", linewidth=0.7)
    ax.set_xlabel("patch")


def _where(pair: Pair) -> str:
    case = pair.places[0][0]
    return f"$P_1$: {case.collection}, case {case.id}"
