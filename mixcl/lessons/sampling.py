"""Notebook 03: distances, W(S), the pixels drawn by it, and what a budget costs and buys."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from mixcl import losses, sampler
from mixcl.figures import ct, panels
from mixcl.figures.choice import choose_slice
from mixcl.figures.style import OKABE_ITO, STYLE, Sketch, write_caption
from mixcl.lessons.scene import Pair
from mixcl.model import LABEL_LEVEL, MixCL

NO_PREFERENCE = 1e9  # as eps: beside it D does not count, and every pixel of a label is as likely


class Maps(NamedTuple):
    """Of one patch on the label level's grid [e, e, e]: labels, D(S) in voxels, W(S), and the drawn flat indices."""

    labels: NDArray[Any]
    distance: NDArray[np.float32]
    weight: NDArray[np.float32]
    pixels: NDArray[np.int64]


def maps(grid: Tensor, budget: int, mu: float, eps: float, seed: int = 0) -> Maps:
    """Everything of Eq. 7 for a label map [e, e, e]."""
    g = torch.Generator().manual_seed(seed)
    return Maps(
        grid.numpy(),
        sampler.boundary_distance(grid).numpy(),
        sampler.weight_map(grid, mu=mu, eps=eps).numpy(),
        sampler.sample_pixels(grid, budget, mu=mu, eps=eps, generator=g).numpy(),
    )


def curves(mus: Sequence[float], epsilons: Sequence[float], mu: float, eps: float) -> Figure:
    """W against D for some mu at one ``eps`` and for some eps at one ``mu``; dots where W peaks, D = mu / 2."""
    distance = np.linspace(0, 30, 301)
    with matplotlib.rc_context(STYLE):
        figure = Sketch(figsize=(7.0, 2.5), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        for ax, pairs in ((left, [(m, eps) for m in mus]), (right, [(mu, e) for e in epsilons])):
            for (m, e), colour in zip(pairs, OKABE_ITO, strict=False):
                text = rf"$\mu$ = {m:g}" if ax is left else rf"$\epsilon$ = {e:g}"
                ax.plot(distance, weight(distance, m, e), color=colour, label=text)
                ax.plot(m / 2, weight(np.array(m / 2), m, e), "o", color=colour, ms=4)
            ax.axvspan(0, 1, color="0.9", zorder=0)
            ax.set_xlabel("D(S), voxels")
            ax.legend()
        left.set_ylabel("W(S)")
        left.set_title(rf"$\epsilon$ = {eps:g}")
        right.set_title(rf"$\mu$ = {mu:g}")
        write_caption(figure, "Eq. 7. Dots: the peaks. Grey: no voxel lies there, the least distance is 1.")
    return figure


def weight(distance: NDArray[Any], mu: float, eps: float) -> NDArray[Any]:
    """Eq. 7 as a function of the distance alone, for a curve; on label maps :func:`mixcl.sampler.weight_map`.

    >>> weight(np.array([0.0, 4.0]), 8.0, 0.05).round(5).tolist()
    [0.05, 0.65653]
    """
    result: NDArray[Any] = 0.5 * np.sqrt(distance) * np.exp(-distance / mu) + eps
    return result


def steps(pair: Pair, shown: Maps) -> Figure:
    """From labels to drawn pixels of P_1: S, D(S), W(S), and the pixels over the CT, on one axial slice."""
    index = choose_slice(shown.labels)
    finite = np.where(np.isinf(shown.distance), 0, shown.distance)
    with matplotlib.rc_context(STYLE):
        figure = Sketch(figsize=(8.4, 2.6), layout="constrained")
        axes = figure.subplots(1, 4)
        panels.segmentation(axes[0], shown.labels, pair.names, index)
        axes[0].get_legend().remove()
        axes[0].set_title("S, labels")
        for ax, values, title in ((axes[1], finite, "D(S), voxels"), (axes[2], shown.weight, "W(S)")):
            image = ax.imshow(ct.axial(values, index), cmap="viridis", vmin=0, interpolation="nearest")
            figure.colorbar(image, ax=ax, shrink=0.8, location="bottom", pad=0.03)
            panels.bare(ax)
            ax.set_title(title)
        drawn(axes[3], pair, shown.pixels, index)
        axes[3].set_title(f"{len(shown.pixels)} pixels drawn")
        seen = [name for value, name in pair.names.items() if (shown.labels[..., index] == value).any()]
        figure.legend(handles=panels.organ_handles(seen, background=True), loc="outside right upper", handlelength=1.0)
        write_caption(
            figure, f"{_where(pair)}, the slice of the label level's grid with most labelled voxels; right: the pixels "
            f"drawn in it, in the colour of their organ, the background's grey. {pair.told}",
        )  # fmt: skip
    return figure


def multiples(pair: Pair, grid: Tensor, budget: int, mus: Sequence[float], epsilons: Sequence[float]) -> Figure:
    """W(S) with the pixels drawn by it, rows mu, columns eps."""
    index = choose_slice(grid.numpy())
    with matplotlib.rc_context(STYLE):
        figure = Sketch(figsize=(1.9 * len(epsilons) + 0.9, 1.9 * len(mus) + 0.5), layout="constrained")
        axes = figure.subplots(len(mus), len(epsilons), squeeze=False)
        for row, mu in zip(axes, mus, strict=True):
            for ax, eps in zip(row, epsilons, strict=True):
                shown = maps(grid, budget, mu, eps)
                part = ct.axial(shown.weight, index)
                ax.imshow(part / shown.weight.max(), cmap="viridis", vmin=0, vmax=1, interpolation="nearest")
                flags = np.zeros(shown.labels.size, bool)
                flags[shown.pixels] = True
                y, x = np.nonzero(ct.axial(flags.reshape(shown.labels.shape), index))
                ax.plot(x, y, "o", ms=1.8, mew=0, color=OKABE_ITO[1])
                panels.bare(ax)
                if mu == mus[0]:
                    ax.set_title(rf"$\epsilon$ = {eps:g}")
            row[0].set_ylabel(rf"$\mu$ = {mu:g}")
        write_caption(
            figure, f"{_where(pair)}: W(S) as a share of its largest value, dark 0, yellow 1; orange: drawn pixels of "
            f"the slice. {pair.told}",
        )  # fmt: skip
    return figure


def against_uniform(pair: Pair, grid: Tensor, budget: int, mu: float, eps: float, draws: int = 20) -> Figure:
    """How far from a boundary the drawn pixels of the largest labels lie: all pixels, drawn by W(S), drawn evenly."""
    distance = sampler.boundary_distance(grid).numpy().ravel()
    flat = grid.numpy().ravel()
    values = sorted(np.unique(flat).tolist(), key=lambda v: -int((flat == v).sum()))[:3]
    ways = {
        "drawn by W(S)": (mu, eps, OKABE_ITO[1]),
        "drawn evenly": (mu, NO_PREFERENCE, OKABE_ITO[0]),
    }
    chosen = {
        name: np.concatenate([maps(grid, budget, m, e, seed).pixels for seed in range(draws)])
        for name, (m, e, _) in ways.items()
    }
    with matplotlib.rc_context(STYLE):
        figure = Sketch(figsize=(2.7 * len(values), 2.4), layout="constrained")
        axes = figure.subplots(1, len(values), squeeze=False)[0]
        for ax, value in zip(axes, values, strict=True):
            edges = np.arange(0.5, distance[flat == value].max() + 1.5)
            for name, (_, _, colour) in ways.items():
                kept = chosen[name][flat[chosen[name]] == value]
                ax.hist(distance[kept], edges, density=True, histtype="step", color=colour, label=name, linewidth=1.5)
            ax.set_title(f"{pair.names.get(value, 'background')}: {int((flat == value).sum())} voxels")
            ax.set_xlabel("D(S), voxels")
        axes[0].set_ylabel("share of drawn pixels")
        axes[0].legend()
        write_caption(figure, f"{_where(pair)}, {draws} draws of at most {budget} pixels a label. {pair.told}")
    return figure


def budgets(model: MixCL, pair: Pair, rs: Sequence[int], mu: float, eps: float, draws: int = 8) -> pd.DataFrame:
    """For each budget r: pixels and pairs of Eq. 6, its value over some draws, and the time of loss and gradient.

    The embeddings are those of the undistorted patches under ``model``; only the draw changes.
    """
    projector = model.projector(LABEL_LEVEL)
    with torch.no_grad():
        encoded = model.backbone.encode(pair.raw["image"])
        trunk = projector.trunk(model.level_maps(encoded)[LABEL_LEVEL])
    rows = []
    for r in rs:
        for seed in range(draws):
            pixels = [torch.from_numpy(maps(g, r, mu, eps, 2 * seed + k).pixels) for k, g in enumerate(pair.grid)]
            labels = [g.flatten()[p].long() for g, p in zip(pair.grid, pixels, strict=True)]
            with torch.no_grad():
                z = [projector.pixels(trunk[k], p) for k, p in enumerate(pixels)]
            leaves = [part.requires_grad_() for part in z]
            start = time.perf_counter()
            loss = losses.label_consistency(leaves[0], leaves[1], labels[0], labels[1])
            loss.backward()
            seconds = time.perf_counter() - start
            rows.append((r, len(pixels[0]), len(pixels[0]) * len(pixels[1]), loss.item(), 1000 * seconds))
    return pd.DataFrame(rows, columns=["r", "pixels", "pairs", "loss", "ms"])


def cost(table: pd.DataFrame, told: str) -> Figure:
    """What a budget costs (time against pairs) and buys (spread of the loss over draws)."""
    grouped = table.groupby("r")
    with matplotlib.rc_context(STYLE):
        figure = Sketch(figsize=(7.6, 2.5), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.plot(grouped["pairs"].median(), grouped["ms"].median(), "o-", color=OKABE_ITO[0])
        for r, part in grouped:
            left.annotate(
                f"r = {r}",
                (part["pairs"].median(), part["ms"].median()),
                (-6, 5),
                textcoords="offset points",
                ha="right",
            )
        left.margins(x=0.15, y=0.15)
        left.set(xscale="log", yscale="log", xlabel="pairs in Eq. 6", ylabel="loss and gradient, ms")
        right.plot(table["r"], table["loss"], "o", ms=3, color="0.5", label="a draw")
        right.plot(grouped["loss"].mean().index, grouped["loss"].mean(), "-", color=OKABE_ITO[1], label="mean")
        right.set(xscale="log", xlabel="budget r, pixels a label", ylabel="Eq. 6 of one pair of patches")
        right.legend()
        write_caption(
            figure, f"An untrained network; times are medians, of the machine that this notebook ran on. {told}"
        )
    return figure


def over_ct(pair: Pair, grid: Tensor, budget: int, mu: float, eps: float) -> Figure:
    """The pixels of P_1 drawn with one choice of r, mu and eps, over the CT; for a slider."""
    shown = maps(grid, budget, mu, eps)
    with matplotlib.rc_context(STYLE):
        figure = Sketch(figsize=(3.6, 3.9), layout="constrained")
        ax = figure.subplots()
        drawn(ax, pair, shown.pixels, choose_slice(shown.labels))
        ax.set_title(rf"r = {budget}, $\mu$ = {mu:g}, $\epsilon$ = {eps:g}: {len(shown.pixels)} pixels")
        write_caption(figure, pair.told)
    return figure


def drawn(ax: Any, pair: Pair, pixels: NDArray[np.int64], index: int) -> None:
    """P_1 at the slice ``index`` of the label level's grid, and the drawn pixels in it in the colour of their organ."""
    image, size = pair.raw["image"][0, 0].numpy(), len(pair.grid[0])
    edge, stride = image.shape[-1], image.shape[-1] // size
    panels.patch(ax, image, index * stride + stride // 2, pair.spacing)
    flat = pair.grid[0].flatten().numpy()
    for value in np.unique(flat[pixels]).tolist():
        colour: Any = ct.organ_colour(pair.names[value]) if value else "0.75"
        chosen = pixels[flat[pixels] == value]
        panels.spots(
            ax, chosen, size, edge, pair.spacing, (index, index), marker="o", ms=3, color=colour, mec="black", mew=0.3
        )


def _where(pair: Pair) -> str:
    case = pair.places[0][0]
    return f"$P_1$: {case.collection}, case {case.id}"
