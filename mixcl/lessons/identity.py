"""Figures of notebook 01: two views, the cross-correlation of each level, and what each level and term weighs."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from mixcl.batches import Batch
from mixcl.figures import ct, panels
from mixcl.figures.style import OKABE_ITO, SMALL, Sketch, write_caption
from mixcl.figures.training import TERMS
from mixcl.lessons.scene import Pair


def toy(stages: Mapping[str, Tensor]) -> Sketch:
    """C [n, n] of two sets of free vectors, a panel a number of steps."""
    with Sketch.sized(2.6 * len(stages) + 0.8, 2.9, 1, len(stages)) as (figure, axes):
        for ax, (title, matrix) in zip(axes, stages.items(), strict=True):
            image = panels.correlation(ax, matrix.numpy())
            ax.set_title(title)
        figure.colorbar(image, ax=axes, shrink=0.8)
        text = "C of Eq. 5 between two sets of free vectors, which nothing but Eq. 4 moves."
        alt = "At first a chessboard of reds and blues; in the end a red diagonal on white: the identity matrix."
        return write_caption(figure, text, alt)


def alignment(batch: Batch, span: int = 6) -> NDArray[np.float64]:
    """Correlation of V_1 with V'_1 moved by -span..span voxels along the patient's x axis, [2 span + 1]."""
    first, second = (view[0].numpy() for view in batch.views[:2])
    inner = slice(span, -span)
    moved = [np.roll(second, k, axis=0)[inner].ravel() for k in range(-span, span + 1)]
    return np.array([np.corrcoef(first[inner].ravel(), m)[0, 1] for m in moved])


def views(pair: Pair, batch: Batch) -> Sketch:
    """P_1, its two views with the same outline of the labels, their difference, and how they are aligned."""
    patch, first, second = (x[0].numpy() for x in (batch.patches[0], batch.views[0], batch.views[1]))
    shown = {"$P_1$": patch, "view $V_1$": first, "view $V'_1$": second, "$V_1 - V'_1$": (first - second) / 2 + 0.5}
    with Sketch.sized(11.5, 2.9, 1, 5, width_ratios=[1, 1, 1, 1, 1.1]) as (figure, axes):
        for ax, (title, image) in zip(axes, shown.items(), strict=False):
            panels.patch(ax, image, pair.slice, pair.spacing, title=title, bar=title == "$P_1$")
            ct.outline(ax, pair.raw["label"][0].numpy(), pair.slice, pair.spacing, pair.names)
        values = alignment(batch)
        shifts = (np.arange(len(values)) - len(values) // 2) * pair.spacing[0]
        axes[4].plot(shifts, values, "o-", ms=4, color=OKABE_ITO[0])
        axes[4].set(xlabel="shift of $V'_1$, mm", ylabel="correlation of views", title="alignment")
        return write_caption(
            figure, "Outlines: the labels of $P_1$, the same in every panel. Difference: grey is 0. All four intensity "
            "distortions are on, without the spatial step.",
            "A patch and two views of it that differ in brightness and sharpness but not in place: their correlation "
            f"is highest at a shift of {shifts[values.argmax()]:g} mm.",
        )  # fmt: skip


def matrices(stages: Mapping[str, Sequence[Tensor]]) -> Sketch:
    """C [2c, 2c] of every given level (columns) at every stage of training (rows)."""
    width = len(next(iter(stages.values())))
    wide, tall = max(1.75 * width + 1.3, 4.4), 1.85 * len(stages) + 0.8
    with Sketch.sized(wide, tall, len(stages), width, squeeze=False) as (figure, axes):
        means = []
        for row, (title, levels) in zip(axes, stages.items(), strict=True):
            for ax, matrix in zip(row, levels, strict=True):
                image = panels.correlation(ax, matrix.numpy())
            row[0].set_ylabel(title)
            rest = torch.cat([matrix[~torch.eye(len(matrix), dtype=torch.bool)].abs() for matrix in levels])
            means.append(f"{title}: off the diagonal {rest.mean():.2f} on average.")
        for level, (ax, matrix) in enumerate(zip(axes[0], next(iter(stages.values())), strict=True)):
            where = f"level {level}:\n" if width > 1 else ""
            ax.set_title(f"{where}{len(matrix)} channels")
        figure.colorbar(image, ax=axes, shrink=0.6, pad=0.01)
        alt = f"Matrices from red, 1, to blue, -1. {' '.join(means)}"
        return write_caption(figure, "Cross-correlation C of the projected channels of two views, Eq. 5.", alt)


def balance(parts: pd.DataFrame, lam: float) -> Sketch:
    """Both parts of Eq. 4 for every level as lambda grows; ``lam`` is marked.

    ``parts`` has a row a level: ``channels``, and ``diagonal`` and ``off-diagonal`` at lambda = 1.
    """
    lams = np.geomspace(1e-4, 1, 30)
    with Sketch.grid(len(parts), len(parts), 2.2, 2.5, sharey=True) as (figure, axes):
        for ax, (level, row) in zip(axes, parts.iterrows(), strict=True):
            ax.plot(lams, np.full_like(lams, row["diagonal"]), color=OKABE_ITO[0], label="diagonal")
            ax.plot(lams, lams * row["off-diagonal"], color=OKABE_ITO[1], label="off-diagonal")
            ax.axvline(lam, color="black", linestyle=":", linewidth=1)
            ax.set(xscale="log", yscale="log", xlabel=r"$\lambda$")
            ax.set_title(f"level {level}:\n{row['channels']:.0f} channels")
        axes[0].set_ylabel("part of Eq. 4")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
        return write_caption(
            figure, rf"Dotted: $\lambda$ = {lam:g}.",
            "On each level a flat line, the diagonal, and a rising one, the rest; they cross at another lambda a "
            "level.",
        )  # fmt: skip


def weighed(parts: pd.DataFrame, lam: float) -> Sketch:
    """Both parts of Eq. 4 for every level at one lambda, on axes that hold them for any between 1e-4 and 1."""
    places, values = np.arange(len(parts)), parts[["diagonal", "off-diagonal"]].to_numpy()
    with Sketch.sized(7.0, 3.2) as (figure, ax):
        ax.bar(places - 0.2, values[:, 0], 0.4, color=OKABE_ITO[0], label="diagonal")
        ax.bar(places + 0.2, lam * values[:, 1], 0.4, color=OKABE_ITO[1], label=r"$\lambda$ x off-diagonal")
        ax.set(yscale="log", ylim=(1e-4 * values[:, 1].min(), 2 * values.max()), xlabel="level", ylabel="part of Eq. 4")
        ax.set(xticks=places, title=rf"$\lambda$ = {lam:g}")
        figure.legend(loc="outside right upper")
        return write_caption(figure, "", f"Two bars a level, both parts of Eq. 4 at lambda = {lam:g}.")


def shares(brackets: pd.DataFrame, floors: Sequence[float]) -> Sketch:
    """Eq. 4 by level (rows) and stage (columns) with each level's floor, and the share of the sum each level has."""
    part = brackets / brackets.sum()
    with Sketch.sized(10.5, 3.4, 1, 2) as (figure, (left, right)):
        colours = ["0.7", OKABE_ITO[5], OKABE_ITO[0]][: brackets.shape[1]]
        brackets.plot(kind="bar", ax=left, color=colours, width=0.8, rot=0, logy=True, xlabel="level")
        left.set_ylabel("bracket of Eq. 4")
        for level, least in enumerate(floors):
            if least > 0:
                left.plot([level - 0.45, level + 0.45], [least] * 2, color="black", linestyle="--", linewidth=1.2)
        part.T.plot(kind="barh", ax=right, stacked=True, width=0.8, color=list(OKABE_ITO))
        right.invert_yaxis()
        right.set_xlabel("share of the sum over levels")
        right.legend(title="level", ncols=len(floors), loc="lower center", bbox_to_anchor=(0.4, 1.0), handlelength=1)
        note = "Dashed: the floor of a level with more channels than positions (R28)." if max(floors) > 0 else ""
        last = part.iloc[:, -1]
        alt = f"Bars by level; level {last.idxmax()} holds {last.max():.0%} of Eq. 4 at last."
        return write_caption(figure, note, alt)


def gradients(stages: Mapping[str, Mapping[str, float]]) -> Sketch:
    """Norm of the gradient of each weighted term of Eq. 2 on the encoder, at every stage."""
    with Sketch.sized(8.5, 2.8) as (figure, ax):
        for k, (name, text) in enumerate(list(TERMS.items())[1:]):  # without their sum
            values = [norms[name] for norms in stages.values()]
            ax.plot(values, range(len(stages)), "osD"[k], ms=9, color=OKABE_ITO[k], label=text)
        ax.set_yticks(range(len(stages)), list(stages))
        ax.set_ylim(len(stages) - 0.5, -0.5)
        ax.set(xscale="log", xlabel="norm of the gradient on the encoder, weighted as in Eq. 2")
        ax.grid(axis="x", color="0.9")
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, fontsize=SMALL)
        alt = "Three points a stage on a logarithmic axis: the label term's gradient is the smallest by far."
        return write_caption(figure, "One sample, all of theta.", alt)
