"""Single panels that several figures share: a patch, a segmentation map, W(S), C, A.  Each draws on given axes."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import seaborn
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch

from mixcl.figures import ct
from mixcl.figures.ct import Array
from mixcl.figures.style import OKABE_ITO, plain

RELATIONS = {1: "A = 1, same label", 0: "A = 0, different", -1: "A = -1, left out"}
RELATION_COLOURS = {1: OKABE_ITO[2], 0: OKABE_ITO[1], -1: "0.85"}


def patch(
    ax: Axes, image: Array, index: int, spacing: Sequence[float], labels: Array | None = None,
    names: Mapping[int, str] = {}, *, title: str = "", bar: bool = True,
) -> None:  # fmt: skip
    """An axial slice of a patch [X, Y, Z] in [0, 1] on axes in mm, with a scale bar, and its labels laid over it."""
    ct.show_ct(ax, image, index, spacing, (0.0, 1.0))
    if labels is not None:
        ct.show_labels(ax, labels, index, spacing, names, opacity=0.35)
    if bar:
        ct.scale_bar(ax, image.shape, spacing)
    ax.set_title(title)


def spots(
    ax: Axes, pixels: Array, grid: int, edge: int, spacing: Sequence[float], slices: tuple[int, int], **style: Any
) -> None:
    """Points on a panel of :func:`patch` where ``pixels``, flat indices into a coarser grid, lie (R12).

    ``grid`` and ``edge`` are the edges of that grid and of the patch in voxels, ``slices`` the first and last axial
    slice of the grid whose pixels are drawn, ``style`` is as for ``Axes.plot``.
    """
    x, y, z = np.unravel_index(np.asarray(pixels, np.int64), (grid,) * 3)
    shown, stride = (slices[0] <= z) & (z <= slices[1]), edge // grid
    across, up = ((k[shown] * stride + stride // 2 + 0.5) for k in (x, y))
    ax.plot((edge - across) * spacing[0], up * spacing[1], **{"linestyle": "none", "mew": 0, **style})


def organ_handles(names: Iterable[str], background: bool = False) -> list[Patch]:
    """Entries of a legend of organs, each name once and in its colour."""
    handles = [Patch(fc=ct.organ_colour(name), ec="black", lw=0.3, label=plain(name)) for name in dict.fromkeys(names)]
    return [Patch(fc="0.6", ec="black", lw=0.3, label="background"), *handles] if background else handles


def segmentation(ax: Axes, labels: Array, names: Mapping[int, str], index: int) -> list[str]:
    """Fig. 2a: an axial slice of a label map, organs in their colours, the background grey; the organs in it."""
    ax.set(facecolor="0.6", xticks=[], yticks=[])
    return ct.show_labels(ax, labels, index, (1.0, 1.0), names, opacity=1.0)


def weights(ax: Axes, weight: Array, pixels: Array, index: int) -> Any:
    """Fig. 2b: an axial slice of W(S) [X, Y, Z], the drawn pixels (flat indices) in it; what a colour bar needs."""
    image = ax.imshow(ct.axial(weight, index), cmap="viridis", interpolation="nearest")
    drawn = np.zeros(weight.size, bool)
    drawn[pixels] = True
    rows, columns = np.nonzero(ct.axial(drawn.reshape(weight.shape), index))
    ax.plot(columns, rows, "o", color=OKABE_ITO[1], markersize=2.5, mew=0, label="drawn pixels")
    ax.set(xticks=[], yticks=[])
    return image


def correlation(ax: Axes, matrix: Array) -> Any:
    """Fig. 2c: a cross-correlation matrix [C, C] between -1 (blue) and 1 (red); what a colour bar needs."""
    _heatmap(ax, matrix, cmap="RdBu_r", vmin=-1, vmax=1, square=True)
    return ax.collections[-1]


def relation(ax: Axes, matrix: Array, labels: tuple[Array, Array]) -> None:
    """Fig. 2d: A [n, m], with a line where the label of the rows or columns changes; no axis labels, no title."""
    _heatmap(ax, matrix, cmap=ListedColormap([RELATION_COLOURS[value] for value in (-1, 0, 1)]), vmin=-1.5, vmax=1.5)
    for values, line in zip(labels, (ax.axhline, ax.axvline), strict=True):
        for border in np.flatnonzero(np.diff(values)):
            line(int(border) + 1, color="white", linewidth=0.5)
    ax.set_box_aspect(1)


def _heatmap(ax: Axes, matrix: Array, **style: Any) -> None:
    """A matrix without ticks; entry (i, j) lies between i and i + 1 from the top, j and j + 1 from the left."""
    seaborn.heatmap(matrix, cbar=False, xticklabels=False, yticklabels=False, rasterized=True, zorder=0, ax=ax, **style)


def relation_handles(matrix: Array) -> list[Patch]:
    """Entries of a legend of the values that A has."""
    present = [value for value in RELATIONS if (matrix == value).any()]
    return [Patch(fc=RELATION_COLOURS[value], ec="black", lw=0.3, label=RELATIONS[value]) for value in present]
