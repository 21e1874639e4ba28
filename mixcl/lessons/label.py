"""Figures of notebook 02: labels of two patches, the relation A on them, background, and labels that contradict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from mixcl.figures import panels
from mixcl.figures.choice import choose_slice
from mixcl.figures.style import STYLE, Sketch, write_caption
from mixcl.lessons.pixels import Conflict, Drawn
from mixcl.lessons.scene import Pair

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SYMBOLS = {1: "o", 0: "x", -1: "."}
FEW = 4  # names beside a matrix that have room in full size
SLAB = 1  # slices of the label level's grid on either side of the shown one whose pixels are drawn


def patches(pair: Pair) -> Figure:
    """P_1 and P_2: CT, and labels laid over it, on the axial slice with most labelled voxels."""
    with matplotlib.rc_context(STYLE):
        figure = Sketch(figsize=(8.4, 2.35), layout="constrained")
        axes = figure.subplots(1, 4)
        for k, (case, _) in enumerate(pair.places):
            image, label = pair.raw["image"][k, 0].numpy(), pair.raw["label"][k].numpy()
            index = choose_slice(label)
            panels.patch(axes[2 * k], image, index, pair.spacing)
            panels.patch(axes[2 * k + 1], image, index, pair.spacing, label, pair.names, bar=False)
            axes[2 * k].set_title(f"$P_{k + 1}$: {case.collection}, {case.id}")
            axes[2 * k + 1].set_title(f"$P_{k + 1}$ with its labels $S_{k + 1}$")
        present = [name for value, name in pair.names.items() if (pair.raw["label"] == value).any()]
        figure.legend(handles=panels.organ_handles(present), loc="outside right upper", handlelength=1.0)
        write_caption(figure, f"Axial slices with most labelled voxels; what has no colour is background. {pair.told}")
    return figure


def relation(pair: Pair, drawn: Drawn) -> Figure:
    """Fig. 2a for both patches, on the label level's grid, and Fig. 2d for the drawn pixels."""
    with matplotlib.rc_context(STYLE):
        figure = Sketch(figsize=(7.6, 3.2), layout="constrained")
        axes = figure.subplots(1, 3)
        for k in (0, 1):
            grid = pair.grid[k].numpy()
            panels.segmentation(axes[k], grid, pair.names, choose_slice(grid))
            axes[k].set_title(f"(a) $S_{k + 1}$ on the label level's grid, {len(grid)}$^3$")
        matrix = drawn.relation().numpy()
        panels.relation(axes[2], matrix, (drawn.labels[0].numpy(), drawn.labels[1].numpy()))
        axes[2].set_title("(d) label relation A")
        for values, axis, name in zip(drawn.labels, (axes[2].yaxis, axes[2].xaxis), "12", strict=True):
            _organ_ticks(axis, [pair.names.get(int(v), "background") for v in values])
            axis.set_label_text(f"drawn pixels of $P_{name}$")
        axes[2].legend(
            handles=panels.relation_handles(matrix),
            loc="upper center",
            bbox_to_anchor=(0.5, -0.3 if drawn.labels[0].unique().numel() <= FEW else -0.75),
            handlelength=1.0,
        )
        count = [int((matrix == value).sum()) for value in (1, 0, -1)]
        said = "Pairs of drawn pixels: {} positive, {} negative, {} left out (background with background, R9)."
        write_caption(figure, f"{said.format(*count)} {pair.told}")
    return figure


def pairs(pair: Pair, drawn: Drawn, anchors: Sequence[int]) -> Figure:
    """For some drawn pixels of P_1 (a row each): the pixel, and the drawn pixels of P_2 by their relation to it.

    Parameters
    ----------
    anchors
        Positions among the drawn pixels of P_1.
    """
    edge, matrix = pair.raw["image"].shape[-1], drawn.relation().numpy()
    size = len(pair.grid[0])
    shown = choose_slice(pair.grid[1].numpy())
    with matplotlib.rc_context(STYLE):
        figure = Sketch(figsize=(7.0, 2.9 * len(anchors) + 0.4), layout="constrained")
        axes = figure.subplots(len(anchors), 2, squeeze=False)
        for (left, right), anchor in zip(axes, anchors, strict=True):
            pixel = drawn.pixels[0][anchor : anchor + 1].numpy()
            where = int(np.unravel_index(int(pixel[0]), (size,) * 3)[2])
            organ = pair.names.get(int(drawn.labels[0][anchor]), "background")
            _on_patch(left, pair, 0, where)
            panels.spots(
                left,
                pixel,
                size,
                edge,
                pair.spacing,
                (where, where),
                marker="*",
                color="white",
                ms=13,
                mec="k",
                mew=0.8,
            )
            left.set_title(f"a pixel of $P_1$: {organ}")
            _on_patch(right, pair, 1, shown)
            for value, symbol in SYMBOLS.items():
                chosen = drawn.pixels[1].numpy()[matrix[anchor] == value]
                colour = "0.75" if value == -1 else panels.RELATION_COLOURS[value]
                style = {
                    "marker": symbol,
                    "color": colour,
                    "ms": 4.5,
                    "mew": 1.2 if symbol == "x" else 0.4,
                    "mec": colour,
                }
                slices = (shown - SLAB, shown + SLAB)
                panels.spots(
                    right, chosen, size, edge, pair.spacing, slices, **(style | ({"mec": "k"} if value == 1 else {}))
                )
            positive, negative = (int((matrix[anchor] == value).sum()) for value in (1, 0))
            right.set_title(f"$P_2$: {positive} positives, {negative} negatives")
        figure.legend(handles=_symbols(), loc="outside upper center", ncols=4, handletextpad=0.2)
        told = (
            f"Of $P_2$, the drawn pixels within {SLAB} slice(s) of the shown one are drawn; numbers are of all of them."
        )
        write_caption(figure, f"{told} {pair.told}")
    return figure


def background(pair: Pair, drawn: Drawn) -> Figure:
    """A under both readings of "background pixel pairs are not considered" (R9)."""
    labels = (drawn.labels[0].numpy(), drawn.labels[1].numpy())
    with matplotlib.rc_context(STYLE):
        figure = Sketch(figsize=(6.4, 3.3), layout="constrained")
        axes = figure.subplots(1, 2)
        for ax, choice in zip(axes, ("ignore_pairs", "ignore_all"), strict=True):
            matrix = drawn.relation(choice).numpy()
            panels.relation(ax, matrix, labels)
            for values, axis in zip(drawn.labels, (ax.yaxis, ax.xaxis), strict=True):
                _organ_ticks(axis, [pair.names.get(int(v), "background") for v in values])
            ax.set_title(f"{choice}: {(matrix == 0).mean():.0%} negative, Eq. 6 = {drawn.loss(background=choice):.2f}")
        figure.legend(handles=panels.relation_handles(drawn.relation().numpy()), loc="outside upper center", ncols=3)
        write_caption(figure, f"The same drawn pixels of $P_1$ (rows) and $P_2$ (columns). {pair.told}")
    return figure


def conflicts(shown: Conflict, told: str) -> Figure:
    """A by three sets of labels on the same pixels; entries that contradict the full labels are black."""
    with matplotlib.rc_context(STYLE):
        figure = Sketch(figsize=(8.2, 3.4), layout="constrained")
        axes = figure.subplots(1, len(shown.matrices))
        for ax, (title, matrix) in zip(axes, shown.matrices.items(), strict=True):
            panels.relation(ax, matrix, shown.true)
            overlay = np.zeros((*matrix.shape, 4))
            overlay[shown.wrong[title]] = (0, 0, 0, 1)
            ax.imshow(overlay, aspect="auto", interpolation="nearest", extent=(0, matrix.shape[1], matrix.shape[0], 0))
            ax.set_box_aspect(1)
            for values, axis in zip(shown.true, (ax.yaxis, ax.xaxis), strict=True):
                _organ_ticks(axis, [shown.names[v] for v in values])
            ax.set_title(f"{title}:\n{int(shown.wrong[title].sum())} of {matrix.size} pairs contradict")
        handles = [
            *panels.relation_handles(np.array([1, 0, -1])),
            Patch(fc="black", label="contradicts both organs' labels"),
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=4)
        write_caption(figure, f"Rows: pixels of $P_1$, columns: of $P_2$; ticks name what each pixel truly is. {told}")
    return figure


def _organ_ticks(axis: Any, names: Sequence[str]) -> None:
    """A tick in the middle of each run of equal names; where there are many, small ones that do not overlap."""
    starts = [k for k, name in enumerate(names) if k == 0 or names[k - 1] != name]
    ends = [*starts[1:], len(names)]
    axis.set_ticks([(a + b) / 2 for a, b in zip(starts, ends, strict=True)], [names[a] for a in starts])
    upright, few = axis.axis_name == "y", len(starts) <= FEW
    axis.set_tick_params(length=0, labelrotation=90 if upright == few else 0, labelsize=7 if few else 4)
    for text in axis.get_ticklabels():
        text.set_verticalalignment("center" if upright else "top")


def _on_patch(ax: Axes, pair: Pair, which: int, coarse: int) -> None:
    """A patch with its labels at the slice of the label level's grid ``coarse``."""
    image, label = pair.raw["image"][which, 0].numpy(), pair.raw["label"][which].numpy()
    stride = image.shape[-1] // len(pair.grid[which])
    panels.patch(ax, image, coarse * stride + stride // 2, pair.spacing, label, pair.names)


def _symbols() -> list[Line2D]:
    style: dict[str, Any] = {"linestyle": "none", "ms": 6}
    return [
        Line2D([], [], marker="*", color="white", mec="black", label="the pixel", **style),
        Line2D([], [], marker="o", color=panels.RELATION_COLOURS[1], mec="black", label=panels.RELATIONS[1], **style),
        Line2D([], [], marker="x", color=panels.RELATION_COLOURS[0], mew=1.4, label=panels.RELATIONS[0], **style),
        Line2D([], [], marker=".", color="0.6", label=panels.RELATIONS[-1], **style),
    ]
