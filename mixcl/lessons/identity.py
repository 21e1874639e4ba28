"""Figures of notebook 01: two views, the cross-correlation of each level, and what each level and term weighs."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from mixcl.batches import Batch
from mixcl.figures import panels
from mixcl.figures.style import OKABE_ITO, Sketch, write_caption
from mixcl.figures.training import TERMS
from mixcl.lessons.scene import Pair, sketch


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
    with sketch(9.0, 2.3) as figure:
        axes = figure.subplots(1, 5, width_ratios=[1, 1, 1, 1, 1.15])
        for ax, (title, image) in zip(axes, shown.items(), strict=False):
            panels.patch(ax, image, pair.slice, pair.spacing, title=title, bar=title == "$P_1$")
            panels.outline(ax, pair.raw["label"][0].numpy(), pair.slice, pair.spacing, pair.names)
        values = alignment(batch)
        shifts = np.arange(len(values)) - len(values) // 2
        axes[4].plot(shifts * pair.spacing[0], values, "o-", ms=3, color=OKABE_ITO[0])
        axes[4].set(xlabel="shift of $V'_1$, mm", ylabel="correlation of the views", title="alignment")
        write_caption(
            figure, f"{pair.first}. Outlines: the labels of $P_1$, the same in every panel. Difference: grey is 0. All "
            f"four intensity distortions are on, without the spatial step. {pair.origin}",
        )  # fmt: skip
    return figure


def matrices(stages: Mapping[str, Sequence[Tensor]], origin: str) -> Sketch:
    """C [2c, 2c] of every given level (columns) at every stage of training (rows)."""
    width = len(next(iter(stages.values())))
    with sketch(max(1.45 * width + 0.9, 3.4), 1.45 * len(stages) + 0.7) as figure:
        axes = figure.subplots(len(stages), width, squeeze=False)
        for row, (title, levels) in zip(axes, stages.items(), strict=True):
            for level, (ax, matrix) in enumerate(zip(row, levels, strict=True)):
                image = panels.correlation(ax, matrix.numpy())
                panels.bare(ax)
                if title == next(iter(stages)):
                    where = f"level {level}: " if width > 1 else ""
                    ax.set_title(f"{where}{len(matrix)} channels", fontsize=7)
            row[0].set_ylabel(title)
        figure.colorbar(image, ax=axes, shrink=0.6, pad=0.01)
        write_caption(figure, f"Cross-correlation C of the projected channels of two views, Eq. 5. {origin}")
    return figure


def balance(parts: pd.DataFrame, lam: float, origin: str) -> Sketch:
    """Both parts of Eq. 4 for every level as lambda grows; ``lam`` is marked.

    ``parts`` has a row a level: ``channels``, and ``diagonal`` and ``off-diagonal`` at lambda = 1.
    """
    lams = np.geomspace(1e-4, 1, 30)
    with sketch(1.75 * len(parts), 2.2) as figure:
        axes = figure.subplots(1, len(parts), sharey=True)
        for ax, (level, row) in zip(axes, parts.iterrows(), strict=True):
            ax.plot(lams, np.full_like(lams, row["diagonal"]), color=OKABE_ITO[0], label="diagonal")
            ax.plot(lams, lams * row["off-diagonal"], color=OKABE_ITO[1], label="off-diagonal")
            ax.axvline(lam, color="black", linestyle=":", linewidth=0.8)
            title = f"level {level}, {row['channels']:.0f} ch."
            ax.set(xscale="log", yscale="log", xlabel=r"$\lambda$", title=title)
        axes[0].set_ylabel("part of Eq. 4")
        axes[0].legend()
        write_caption(figure, rf"Dotted: $\lambda$ = {lam:g}. {origin}")
    return figure


def shares(brackets: pd.DataFrame, floors: Sequence[float], origin: str) -> Sketch:
    """Eq. 4 by level (rows) and stage (columns) with each level's floor, and the share of the sum each level has."""
    with sketch(7.6, 2.6) as figure:
        left, right = figure.subplots(1, 2)
        colours = ["0.7", OKABE_ITO[5], OKABE_ITO[0]][: brackets.shape[1]]
        brackets.plot(kind="bar", ax=left, color=colours, width=0.8, rot=0, logy=True, xlabel="level")
        left.set_ylabel("bracket of Eq. 4")
        for level, least in enumerate(floors):
            if least > 0:
                left.plot([level - 0.45, level + 0.45], [least] * 2, color="black", linestyle="--", linewidth=1)
        (brackets / brackets.sum()).T.plot(kind="barh", ax=right, stacked=True, width=0.8, color=list(OKABE_ITO))
        right.invert_yaxis()
        right.set_xlabel("share of the sum over levels")
        right.legend(title="level", ncols=len(floors), loc="lower center", bbox_to_anchor=(0.5, 1.0), handlelength=1)
        note = "Dashed: the floor of a level with more channels than positions (R28). " if max(floors) > 0 else ""
        write_caption(figure, f"{note}{origin}")
    return figure


def gradients(stages: Mapping[str, Mapping[str, float]], origin: str) -> Sketch:
    """Norm of the gradient of each weighted term of Eq. 2 on the encoder, at every stage."""
    with sketch(6.2, 2.3) as figure:
        ax = figure.subplots()
        for k, (name, text) in enumerate(list(TERMS.items())[1:]):  # without their sum
            values = [norms[name] for norms in stages.values()]
            ax.plot(values, range(len(stages)), "osD"[k], ms=7, color=OKABE_ITO[k], label=text)
        ax.set_yticks(range(len(stages)), list(stages))
        ax.set_ylim(len(stages) - 0.5, -0.5)
        ax.set(xscale="log", xlabel="norm of the gradient on the encoder, weighted as in Eq. 2")
        ax.grid(axis="x", color="0.9")
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
        write_caption(figure, f"One sample, all of theta. {origin}")
    return figure
