"""Figures of notebook 02: labels of two patches, the relation A on them, background, and labels that contradict."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from torch import Tensor

from mixcl import sampler
from mixcl.figures import ct, panels
from mixcl.figures.style import Sketch, plain, write_caption
from mixcl.lessons.scene import Pair

BACKGROUND = "background"
MANY = 5  # names beside a matrix that have no room one after the other
SLAB = 1  # slices of the label level's grid on either side of the shown one whose pixels are drawn
SYMBOLS: dict[int, dict[str, Any]] = {  # of drawn pixels, by A
    1: {"marker": "o", "color": panels.RELATION_COLOURS[1], "mec": "black", "mew": 0.4},
    0: {"marker": "x", "color": panels.RELATION_COLOURS[0], "mew": 1.2},
    -1: {"marker": ".", "color": "0.75"},
}
STAR: dict[str, Any] = {"marker": "*", "color": "white", "mec": "black", "mew": 0.8}


def patches(pair: Pair) -> Sketch:
    """P_1 and P_2: CT, and labels laid over it, on the axial slice with most labelled voxels."""
    with Sketch.sized(11.0, 3.2, 1, 4) as (figure, axes):
        for k, (case, _) in enumerate(pair.places):
            image, label = pair.raw["image"][k, 0].numpy(), pair.raw["label"][k].numpy()
            index = ct.choose_slice(label)
            panels.patch(axes[2 * k], image, index, pair.spacing, title=f"$P_{k + 1}$: {plain(case.id)}")
            title = f"its labels $S_{k + 1}$"
            panels.patch(axes[2 * k + 1], image, index, pair.spacing, label, pair.names, title=title, bar=False)
        present = ct.organs_in(pair.raw["label"].numpy(), pair.names).values()
        figure.legend(handles=panels.organ_handles(present), loc="outside right upper", handlelength=1.0)
        alt = f"Two patches of CT, and laid over them the labels: {', '.join(present)}."
        return write_caption(figure, "What has no colour is background.", alt)


def relations(
    shown: Mapping[str, Tensor], labels: Sequence[Tensor], names: Mapping[int, str], *, true: bool = False
) -> Sketch:
    """Several A [n, m] of pixels with these labels, by title; with ``true`` ones, what contradicts them is black."""
    wide = 3.3 * len(shown) + 1.2 + (len(shown) == 1)
    with Sketch.sized(wide, 4.7, 1, len(shown), squeeze=False) as (figure, (axes,)):
        for ax, (title, matrix) in zip(axes, shown.items(), strict=True):
            _matrix(ax, matrix, labels, names)
            ax.set_title(title)
            if true:
                wrong = contradicts(matrix, *labels)
                box = (0, matrix.shape[1], matrix.shape[0], 0)
                ax.imshow(np.zeros(matrix.shape), cmap="gray", alpha=wrong.float().numpy(), aspect="auto", extent=box)
                ax.set_title(f"{title}:\n{wrong.sum()} of {wrong.numel()} pairs contradict")
                ax.set_box_aspect(1)
        handles = panels.relation_handles(np.array([1, 0, -1]))
        handles += [Patch(fc="black", label="contradicts both organs' labels")] if true else []
        figure.legend(handles=handles, loc="outside upper center", ncols=4)
        ticks = "ticks name what each pixel truly is" if true else "ticks name their labels"
        each = [f"{' '.join(title.split())}: {(a == 1).float().mean():.0%} positive." for title, a in shown.items()]
        alt = f"Matrices of pixel pairs. {' '.join(each)}"
        return write_caption(figure, f"Rows: pixels of $P_1$, columns: of $P_2$; {ticks}.", alt)


def pairs(
    pair: Pair, matrix: Tensor, pixels: Sequence[Tensor], labels: Sequence[Tensor], anchors: Sequence[int]
) -> Sketch:
    """For some drawn pixels of P_1 (a row each): the pixel, and the drawn pixels of P_2 by their relation A to it.

    ``anchors`` are rows of A [n, m]; ``pixels`` and ``labels`` are those of P_1 [n] and of P_2 [m].
    """
    size, middle, sentences = len(pair.grid[0]), ct.choose_slice(pair.grid[1].numpy()), []
    grid: dict[str, Any] = {"grid": size, "edge": pair.raw["image"].shape[-1], "spacing": pair.spacing}
    with Sketch.sized(6.4, 2.8 * len(anchors) + 0.9, len(anchors), 2, squeeze=False) as (figure, axes):
        for (left, right), anchor in zip(axes, anchors, strict=True):
            pixel, row = pixels[0][anchor : anchor + 1].numpy(), matrix[anchor].numpy()
            height = int(pixel[0]) % size  # z changes fastest
            _on_patch(left, pair, 0, height)
            panels.spots(left, pixel, slices=(height, height), ms=13, **grid, **STAR)
            organ = pair.names.get(int(labels[0][anchor]), BACKGROUND)
            left.set_title(f"a pixel of $P_1$: {organ}")
            _on_patch(right, pair, 1, middle)
            for value, style in SYMBOLS.items():
                chosen = pixels[1].numpy()[row == value]
                panels.spots(right, chosen, slices=(middle - SLAB, middle + SLAB), ms=4, **grid, **style)
            same, other = (row == 1).sum(), (row == 0).sum()
            right.set_title(f"$P_2$: {same} positives, {other} negatives")
            marked = f"{same} pixels of the same label are marked, and {other} others."
            sentences.append(f"A star on a pixel of {organ} in P1; in P2 {marked}")
        symbols = {"the pixel": STAR} | {panels.RELATIONS[value]: style for value, style in SYMBOLS.items()}
        handles = [Line2D([], [], linestyle="none", ms=9, label=text, **style) for text, style in symbols.items()]
        figure.legend(handles=handles, loc="outside upper center", ncols=4, handletextpad=0.2)
        text = f"Of $P_2$, the drawn pixels within {SLAB} slice(s) of the shown one are drawn; numbers are of all."
        return write_caption(figure, text, " ".join(sentences))


def deepest(pair: Pair, pixels: Tensor, labels: Tensor, value: int) -> int:
    """Of the drawn pixels of P_1 [n] and their labels: where the one furthest inside of label ``value`` stands."""
    depth = sampler.boundary_distance(pair.grid[0]).flatten()[pixels]
    return int(torch.where(labels == value, depth, -1.0).argmax())


def two_organs(pair: Pair) -> tuple[Tensor, dict[int, str]]:
    """Both grids with the two organs of which the patch with fewer has most as 1 and 2, [2, e, e, e]; all names."""
    sizes = {value: int((pair.grid == value).flatten(1).sum(1).min()) for value in pair.names}
    kept = sorted(sorted(sizes, key=lambda value: -sizes[value])[:2])
    grids = torch.stack([pair.grid == value for value in kept])  # [2, 2, e, e, e]
    names = {k: pair.names[value] for k, value in enumerate(kept, start=1)}
    return grids[0].long() + 2 * grids[1].long(), {0: BACKGROUND, **names}


def contradicts(matrix: Tensor, true_1: Tensor, true_2: Tensor) -> Tensor:
    """Where A says 1 of two organs, or 0 of one and the same: bool [n, m]; ``true``: what each pixel is, [n] and [m].

    >>> contradicts(torch.tensor([[1, 0]]), torch.tensor([1]), torch.tensor([2, 1])).tolist()
    [[True, True]]
    """
    same = true_1[:, None] == true_2[None, :]
    organ = (true_1[:, None] > 0) | (true_2[None, :] > 0)
    return ((matrix == 1) & ~same) | ((matrix == 0) & same & organ)


def _matrix(ax: Any, matrix: Tensor, labels: Sequence[Tensor], names: Mapping[int, str]) -> None:
    """A with the name of each run of equal labels beside it."""
    panels.relation(ax, matrix.numpy(), (labels[0].numpy(), labels[1].numpy()))
    for values, axis in zip(labels, (ax.yaxis, ax.xaxis), strict=True):
        kinds, counts = np.unique(values.numpy(), return_counts=True)
        axis.set_ticks(counts.cumsum() - counts / 2, [names.get(int(v), BACKGROUND) for v in kinds])
        upright, few = axis is ax.yaxis, len(kinds) < MANY
        axis.set_tick_params(length=0, labelrotation=90 if upright == few else 0, labelsize=10)
        for text in axis.get_ticklabels():
            text.set_verticalalignment("center" if upright else "top")


def _on_patch(ax: Any, pair: Pair, which: int, coarse: int) -> None:
    """A patch with its labels at the slice of the label level's grid ``coarse``."""
    image, label = pair.raw["image"][which, 0].numpy(), pair.raw["label"][which].numpy()
    stride = image.shape[-1] // len(pair.grid[which])
    panels.patch(ax, image, coarse * stride + stride // 2, pair.spacing, label, pair.names)
