"""Figures of notebook 03: distances, W(S), the pixels drawn by it, and what a budget buys."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from torch import Tensor

from mixcl.figures import ct, panels
from mixcl.figures.choice import choose_slice
from mixcl.figures.style import OKABE_ITO, Sketch, write_caption
from mixcl.labels import UNKNOWN
from mixcl.lessons.scene import Pair, sketch

Choice = tuple[float, float]  # mu, eps


def steps(pair: Pair, distance: Tensor, weight: Tensor, pixels: Tensor) -> Sketch:
    """From labels to drawn pixels of P_1: S, D(S) and W(S) [e, e, e], and the pixels [n] over the CT, on a slice."""
    labels = pair.grid[0].numpy()
    index = choose_slice(labels)
    with sketch(8.4, 2.9) as figure:
        axes = figure.subplots(1, 4)
        present = panels.segmentation(axes[0], labels, pair.names, index)
        axes[0].set_title("S, labels")
        for ax, values, title in ((axes[1], distance, "D(S), voxels"), (axes[2], weight, "W(S)")):
            shown = ct.axial(values.numpy(), index)
            heat = ax.imshow(np.where(np.isinf(shown), 0, shown), cmap="viridis", vmin=0, interpolation="nearest")
            figure.colorbar(heat, ax=ax, shrink=0.8, location="bottom", pad=0.03)
            panels.bare(ax)
            ax.set_title(title)
        image, stride = pair.raw["image"][0, 0].numpy(), pair.raw["image"].shape[-1] // len(labels)
        title = f"{len(pixels)} pixels drawn"
        panels.patch(axes[3], image, index * stride + stride // 2, pair.spacing, title=title)
        kinds = labels.ravel()[pixels]
        for value in np.unique(kinds):
            colour = ct.organ_colour(pair.names[value]) if value else "0.75"
            style = {"marker": "o", "ms": 3, "color": colour, "mec": "black", "mew": 0.3}
            kept = pixels[kinds == value].numpy()
            panels.spots(axes[3], kept, len(labels), len(image), pair.spacing, (index, index), **style)
        handles = panels.organ_handles(present, background=True)
        figure.legend(handles=handles, loc="outside right upper", handlelength=1.0)
        write_caption(
            figure, f"{pair.first}, the slice of the label level's grid with most labelled voxels; right: the pixels "
            f"drawn in it, in the colour of their organ, the background's grey. {pair.origin}",
        )  # fmt: skip
    return figure


def curves(depth: Tensor, left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> Sketch:
    """W against D, both [n], for the choices named in the two panels; a ring where W is highest."""
    with sketch(7.0, 2.5) as figure:
        axes = figure.subplots(1, 2, sharey=True)
        for ax, shown in zip(axes, (left, right), strict=True):
            for (text, weight), colour in zip(shown.items(), OKABE_ITO, strict=False):
                ax.plot(depth, weight, ".-", color=colour, ms=3, label=text)
                ax.plot(depth[weight.argmax()], weight.max(), "o", ms=6, mfc="none", mec=colour)
            ax.set_xlabel("D(S), voxels")
            ax.legend()
        axes[0].set_ylabel("W(S)")
        write_caption(figure, "Eq. 7 on a row of voxels of one organ, the first beside its boundary. Rings: the peaks.")
    return figure


def multiples(pair: Pair, weights: Mapping[Choice, Tensor], pixels: Mapping[Choice, Tensor]) -> Sketch:
    """W(S) [e, e, e] of P_1 with the pixels drawn by it, rows mu, columns eps."""
    index = choose_slice(pair.grid[0].numpy())
    mus, epsilons = (list(dict.fromkeys(choice[k] for choice in weights)) for k in (0, 1))
    with sketch(1.9 * len(epsilons) + 0.9, 1.9 * len(mus) + 0.5) as figure:
        axes = figure.subplots(len(mus), len(epsilons), squeeze=False)
        for (mu, eps), weight in weights.items():
            ax = axes[mus.index(mu), epsilons.index(eps)]
            panels.weights(ax, (weight / weight.max()).numpy(), pixels[mu, eps].numpy(), index, 1.8).set_clim(0, 1)
            ax.set_title(rf"$\epsilon$ = {eps:g}" if mu == mus[0] else "")
            ax.set_ylabel(rf"$\mu$ = {mu:g}" if eps == epsilons[0] else "")
        write_caption(figure, f"{pair.first}: W(S) over its largest value; orange: drawn pixels. {pair.origin}")
    return figure


def depths(pair: Pair, distance: Tensor, ways: Mapping[str, Tensor]) -> Sketch:
    """How far from a boundary pixels of P_1's three largest labels lie that were drawn in several ways, [n] each."""
    flat, far = pair.grid[0].flatten(), distance.flatten()
    values, counts = flat[flat != UNKNOWN].unique(return_counts=True)
    order = counts.argsort(descending=True, stable=True)[:3]
    with sketch(2.7 * len(order), 2.4) as figure:
        axes = figure.subplots(1, len(order), squeeze=False)[0]
        for ax, value, count in zip(axes, values[order].tolist(), counts[order].tolist(), strict=True):
            edges = np.arange(0.5, float(far[flat == value].max()) + 1.5)
            for (text, pixels), colour in zip(ways.items(), (OKABE_ITO[1], OKABE_ITO[0]), strict=False):
                kept = far[pixels[flat[pixels] == value]].numpy()
                ax.hist(kept, edges, density=True, histtype="step", color=colour, label=text, linewidth=1.5)
            ax.set(title=f"{pair.names.get(value, 'background')}: {count} voxels", xlabel="D(S), voxels")
        axes[0].set_ylabel("share of drawn pixels")
        axes[0].legend()
        write_caption(figure, f"{pair.first}. Several draws of each kind together. {pair.origin}")
    return figure


def budgets(table: pd.DataFrame, origin: str) -> Sketch:
    """Eq. 6 of one pair of patches by budget r: each draw of pixels, and their mean; rows with ``r`` and ``loss``."""
    with sketch(4.6, 2.5) as figure:
        ax = figure.subplots()
        ax.plot(table["r"], table["loss"], "o", ms=3, color="0.5", label="a draw")
        ax.plot(table.groupby("r")["loss"].mean(), color=OKABE_ITO[1], label="mean")
        ax.set(xscale="log", xlabel="budget r, pixels a label", ylabel="Eq. 6 of one pair of patches")
        ax.legend()
        write_caption(figure, f"An untrained network; only the draw of pixels changes. {origin}")
    return figure
