"""Figures of notebook 03: distances, W(S), the pixels drawn by it, and what a budget buys."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from torch import Tensor

from mixcl.figures import ct, panels
from mixcl.figures.style import OKABE_ITO, Sketch, write_caption
from mixcl.labels import UNKNOWN
from mixcl.lessons.scene import Pair

Choice = tuple[float, float]  # mu, eps


def steps(pair: Pair, distance: Tensor, weight: Tensor, pixels: Tensor) -> Sketch:
    """From labels to drawn pixels of P_1: S, D(S) and W(S) [e, e, e], and the pixels [n] over the CT, on a slice."""
    labels = pair.grid[0].numpy()
    index = ct.choose_slice(labels)
    with Sketch.sized(12.0, 3.7, 1, 4) as (figure, axes):
        present = panels.segmentation(axes[0], labels, pair.names, index)
        axes[0].set_title("S, labels")
        relative = weight / weight.max()  # what the draw depends on; its scale stays when a slider moves
        for ax, values, title, most in (
            (axes[1], distance, "D(S), voxels", None), (axes[2], relative, "W(S) / its peak", 1.0),
        ):  # fmt: skip
            shown = ct.axial(values.numpy(), index)
            heat = ax.imshow(np.where(np.isinf(shown), 0, shown), cmap="viridis", vmin=0, vmax=most)
            figure.colorbar(heat, ax=ax, shrink=0.8, location="bottom", pad=0.03)
            ax.set(xticks=[], yticks=[], title=title)
        image, stride = pair.raw["image"][0, 0].numpy(), pair.raw["image"].shape[-1] // len(labels)
        title = f"{len(pixels)} pixels drawn"
        panels.patch(axes[3], image, index * stride + stride // 2, pair.spacing, title=title)
        kinds = labels.ravel()[pixels]
        for value in np.unique(kinds):
            colour = ct.organ_colour(pair.names[value]) if value else "0.75"
            style = {"marker": "o", "ms": 4.5, "color": colour, "mec": "black", "mew": 0.3}
            kept = pixels[kinds == value].numpy()
            panels.spots(axes[3], kept, len(labels), len(image), pair.spacing, (index, index), **style)
        for ax in axes:
            ax.set_anchor("N")
        handles = panels.organ_handles(present, background=True)
        figure.legend(handles=handles, loc="outside right upper", handlelength=1.0)
        return write_caption(
            figure, "Right: the pixels drawn in the slice, in the colour of their organ, the background's grey.",
            f"Labels of {len(present)} organs, their distance maps, bright rims of weight some voxels inside each "
            f"boundary, and {len(pixels)} dots, dense in small organs.",
        )  # fmt: skip


def curves(depth: Tensor, left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> Sketch:
    """W against D, both [n], for the choices named in the two panels; a ring where W is highest."""
    with Sketch.sized(10.5, 3.3, 1, 2, sharey=True) as (figure, axes):
        for ax, shown in zip(axes, (left, right), strict=True):
            for (text, weight), colour in zip(shown.items(), OKABE_ITO, strict=False):
                ax.plot(depth, weight, ".-", color=colour, ms=5, label=text)
                ax.plot(depth[weight.argmax()], weight.max(), "o", ms=10, mfc="none", mec=colour)
            ax.set_xlabel("D(S), voxels")
            ax.legend()
        axes[0].set_ylabel("W(S)")
        text = "Eq. 7 on a row of voxels of one organ, the first beside its boundary. Rings: the peaks."
        alt = "Humps that peak at half of mu and fall again; with epsilon they are lifted as a whole."
        return write_caption(figure, text, alt)


def multiples(pair: Pair, weights: Mapping[Choice, Tensor], pixels: Mapping[Choice, Tensor]) -> Sketch:
    """W(S) [e, e, e] of P_1 with the pixels drawn by it, rows mu, columns eps."""
    index = ct.choose_slice(pair.grid[0].numpy())
    mus, epsilons = (list(dict.fromkeys(choice[k] for choice in weights)) for k in (0, 1))
    wide, tall = 2.5 * len(epsilons) + 0.9, 2.2 * len(mus) + 0.6
    with Sketch.sized(wide, tall, len(mus), len(epsilons), squeeze=False) as (figure, axes):
        for (mu, eps), weight in weights.items():
            ax = axes[mus.index(mu), epsilons.index(eps)]
            panels.weights(ax, (weight / weight.max()).numpy(), pixels[mu, eps].numpy(), index).set_clim(0, 1)
            ax.set_title(rf"$\epsilon$ = {eps:g}" if mu == mus[0] else "")
            ax.set_ylabel(rf"$\mu$ = {mu:g}" if eps == epsilons[0] else "")
        alt = "Maps of W: for a small mu thin rims, for a large one filled organs, for a large epsilon all alike."
        return write_caption(figure, "W(S) over its largest value; orange: drawn pixels.", alt)


def depths(pair: Pair, distance: Tensor, ways: Mapping[str, Tensor]) -> Sketch:
    """How far from a boundary pixels of P_1's three largest labels lie that were drawn in several ways, [n] each."""
    flat, far = pair.grid[0].flatten(), distance.flatten()
    values, counts = flat[flat != UNKNOWN].unique(return_counts=True)
    order = counts.argsort(descending=True, stable=True)[:3]
    with Sketch.grid(len(order), 3, 3.7, 2.9) as (figure, axes):
        for ax, value, count in zip(axes, values[order].tolist(), counts[order].tolist(), strict=True):
            edges = np.arange(0.5, float(far[flat == value].max()) + 1.5).tolist()
            for (text, pixels), colour in zip(ways.items(), (OKABE_ITO[1], OKABE_ITO[0]), strict=False):
                kept = far[pixels[flat[pixels] == value]].numpy()
                ax.hist(kept, edges, density=True, histtype="step", color=colour, label=text, linewidth=2)
            ax.set(title=f"{pair.names.get(value, 'background')}:\n{count} voxels", xlabel="D(S), voxels")
        axes[0].set_ylabel("share of drawn pixels")
        axes[0].legend()
        alt = "Histograms of depth of drawn pixels: by weight and evenly, nearly the same but for the deep ones."
        return write_caption(figure, "Several draws of each kind together.", alt)


def budgets(table: pd.DataFrame) -> Sketch:
    """Eq. 6 of one pair of patches by budget r: each draw of pixels, and their mean; rows with ``r`` and ``loss``."""
    with Sketch.sized(7.0, 3.4) as (figure, ax):
        ax.plot(table["r"], table["loss"], "o", ms=5, color="0.5", label="a draw")
        ax.plot(table.groupby("r")["loss"].mean(), color=OKABE_ITO[1], label="mean")
        ax.set(xscale="log", xlabel="budget r, pixels a label", ylabel="Eq. 6 of one pair of patches")
        ax.legend()
        alt = "Eq. 6 by budget: the draws scatter widely for few pixels and hardly for many."
        return write_caption(figure, "Only the draw of pixels changes.", alt)
