"""Notebook 01: two views, the cross-correlation of each level, and the weight of each part of Eq. 4."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mixcl import moments
from mixcl.batches import Batch
from mixcl.config.settings import Experiment
from mixcl.figures import panels
from mixcl.figures.choice import choose_slice
from mixcl.figures.style import OKABE_ITO, STYLE, Sketch, write_caption
from mixcl.lessons.scene import Pair
from mixcl.model import MixCL
from mixcl.objective import Objective, floors, gradient_norms

TERMS = {"identity": "identity, Eq. 4", "label": "label, Eq. 6", "recon": "reconstruction, Eq. 3"}


class Seen(NamedTuple):
    """What a network makes of V_1 and V'_1, a level an entry: C [C, C] (Eq. 5), the same centred (R4), and the share
    of the energy sum_M z^2 that sits in the channels' means; ``floor``: the least that Eq. 4 can be there (R28)."""

    matrices: Sequence[NDArray[np.float32]]
    centred: Sequence[NDArray[np.float32]]
    in_mean: Sequence[float]
    floor: Sequence[float]


def see(model: MixCL, config: Experiment, batch: Batch) -> Seen:
    """Eq. 5 at every level of the first sample's two views."""
    with torch.no_grad():
        levels = model(batch.views[:2]).levels
    pairs = [(z[:1], z[1:]) for z in levels]
    sums = [moments.moments(a, b) for a, b in pairs]
    return Seen(
        [moments.correlation_from_moments(m).numpy() for m in sums],
        [moments.correlation_from_moments(m, center=True).numpy() for m in sums],
        [float((m.sum_a.square() / m.positions).sum() / m.square_a.sum()) for m in sums],
        floors(model, config.loss, 1),
    )


def parts(seen: Seen, lam: float, center: bool = False) -> pd.DataFrame:
    """Eq. 4 a level: channels, sum_i (1 - C_ii)^2, lambda times the sum of the other squares, and the bracket."""
    rows = []
    for matrix in seen.centred if center else seen.matrices:
        diagonal = float(np.square(1 - matrix.diagonal()).sum())
        other = lam * float(np.square(matrix).sum() - np.square(matrix.diagonal()).sum())
        rows.append((len(matrix), diagonal, other, diagonal + other))
    table = pd.DataFrame(rows, columns=["channels", "diagonal", "off-diagonal", "Eq. 4"])
    return table.rename_axis("level")


def pulls(model: MixCL, config: Experiment, batch: Batch) -> dict[str, float]:
    """Norm of the gradient of each weighted term of Eq. 2 on the encoder (R26)."""
    objective = Objective(model, config.loss)
    return gradient_norms(objective, objective(batch))


def alignment(batch: Batch, gradient_coverage: int = 6) -> NDArray[np.float64]:
    """Correlation of V_1 with V'_1 moved by -gradient_coverage..gradient_coverage voxels along the patient's x axis, [2 gradient_coverage + 1]."""
    first, second = (view[0].numpy() for view in batch.views[:2])
    inner = slice(gradient_coverage, -gradient_coverage)
    moved = [np.roll(second, k, axis=0)[inner].ravel() for k in range(-gradient_coverage, gradient_coverage + 1)]
    return np.array([np.corrcoef(first[inner].ravel(), m)[0, 1] for m in moved])


def views(pair: Pair, batch: Batch) -> Figure:
    """P_1, its two views with the same outline of the labels, their difference, and how they are aligned."""
    label = pair.raw["label"][0].numpy()
    index = choose_slice(label)
    patch, first, second = (x[0].numpy() for x in (batch.patches[0], batch.views[0], batch.views[1]))
    shown = {"$P_1$": patch, "view $V_1$": first, "view $V'_1$": second, "$V_1 - V'_1$": (first - second) / 2 + 0.5}
    with matplotlib.rc_context(STYLE):
        figure = Sketch(figsize=(9.0, 2.3), layout="constrained")
        axes = figure.subplots(1, 5, width_ratios=[1, 1, 1, 1, 1.15])
        for ax, (title, image) in zip(axes, shown.items(), strict=False):
            panels.patch(ax, image, index, pair.spacing, bar=title == "$P_1$")
            panels.outline(ax, label, index, pair.spacing, pair.names)
            ax.set_title(title)
        values = alignment(batch)
        gradient_coverage = len(values) // 2
        axes[4].plot(
            np.arange(-gradient_coverage, gradient_coverage + 1) * pair.spacing[0],
            values,
            "o-",
            ms=3,
            color=OKABE_ITO[0],
        )
        axes[4].set(xlabel="shift of $V'_1$, mm", ylabel="correlation of the views", title="alignment")
        case = pair.places[0][0]
        write_caption(
            figure, f"{case.collection}, case {case.id}. Outlines: the labels of $P_1$, the same in every panel. "
            f"Difference: grey is 0. All four intensity distortions are on, without the spatial step. {pair.told}",
        )  # fmt: skip
    return figure


def matrices(stages: Mapping[str, Seen], told: str, center: bool = False) -> Figure:
    """C of every level (columns) at every stage of training (rows)."""
    levels = range(len(next(iter(stages.values())).matrices))
    with matplotlib.rc_context(STYLE):
        figure = Sketch(figsize=(1.45 * len(levels) + 0.9, 1.45 * len(stages) + 0.7), layout="constrained")
        axes = figure.subplots(len(stages), len(levels), squeeze=False)
        for number, (title, seen) in enumerate(stages.items()):
            for level in levels:
                ax, matrix = axes[number, level], (seen.centred if center else seen.matrices)[level]
                image = panels.correlation(ax, matrix)
                panels.bare(ax)
                if number == 0:
                    ax.set_title(f"level {level}: {len(matrix)} channels", fontsize=7)
            axes[number, 0].set_ylabel(title)
        figure.colorbar(image, ax=axes, shrink=0.6, pad=0.01)
        how = "centred (R4)" if center else "as printed, uncentred"
        write_caption(figure, f"Cross-correlation C of the projected channels of two views, Eq. 5, {how}. {told}")
    return figure


def centring(seen: Seen, level: int, told: str) -> Figure:
    """C of one level uncentred and centred, and the energy in the channels' means for every level."""
    with matplotlib.rc_context(STYLE):
        figure = Sketch(figsize=(7.6, 2.5), layout="constrained")
        axes = figure.subplots(1, 3)
        for ax, matrix, title in ((axes[0], seen.matrices, "uncentred"), (axes[1], seen.centred, "centred")):
            image = panels.correlation(ax, matrix[level])
            panels.bare(ax)
            off = matrix[level][~np.eye(len(matrix[level]), dtype=bool)]
            ax.set_title(f"{title}: mean |off-diagonal| {np.abs(off).mean():.2f}")
        figure.colorbar(image, ax=axes[:2], shrink=0.7)
        axes[2].bar(range(len(seen.in_mean)), seen.in_mean, color=OKABE_ITO[0])
        axes[2].set(xlabel="level", ylabel="share of energy in the mean", ylim=(0, 1))
        axes[2].set_xticks(range(len(seen.in_mean)))
        write_caption(figure, f"Left, middle: level {level}, the same embeddings. {told}")
    return figure


def balance(seen: Seen, lam: float, told: str) -> Figure:
    """Both parts of Eq. 4 for every level as lambda grows; ``lam`` is marked."""
    lams = np.geomspace(1e-4, 1, 30)
    with matplotlib.rc_context(STYLE):
        figure = Sketch(figsize=(1.75 * len(seen.matrices), 2.2), layout="constrained")
        axes = figure.subplots(1, len(seen.matrices), sharey=True)
        one = parts(seen, 1.0)
        for level, ax in enumerate(axes):
            ax.plot(lams, np.full_like(lams, one["diagonal"][level]), color=OKABE_ITO[0], label="diagonal")
            ax.plot(lams, lams * one["off-diagonal"][level], color=OKABE_ITO[1], label="off-diagonal")
            ax.axvline(lam, color="black", linestyle=":", linewidth=0.8)
            ax.set(
                xscale="log", yscale="log", xlabel=r"$\lambda$", title=f"level {level}, {one['channels'][level]} ch."
            )
        axes[0].set_ylabel("part of Eq. 4")
        axes[0].legend()
        write_caption(figure, rf"Dotted: $\lambda$ = {lam:g}. {told}")
    return figure


def shares(stages: Mapping[str, Seen], lam: float, told: str) -> Figure:
    """Eq. 4 by level at every stage with the floors, and what share of the sum each level has."""
    brackets = {title: parts(seen, lam)["Eq. 4"].to_numpy() for title, seen in stages.items()}
    floor = next(iter(stages.values())).floor
    with matplotlib.rc_context(STYLE):
        figure = Sketch(figsize=(7.6, 2.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        width = 0.8 / len(stages)
        for k, (title, values) in enumerate(brackets.items()):
            places = np.arange(len(values)) + (k - (len(stages) - 1) / 2) * width
            left.bar(places, values, width, color=("0.7", OKABE_ITO[5], OKABE_ITO[0])[k % 3], label=title)
        for level, least in enumerate(floor):
            if least > 0:
                left.plot([level - 0.45, level + 0.45], [least] * 2, color="black", linestyle="--", linewidth=1)
        left.set(xlabel="level", ylabel="bracket of Eq. 4", yscale="log")
        left.legend()
        bottom = np.zeros(len(brackets))
        for level in range(len(floor)):
            part = np.array([values[level] / values.sum() for values in brackets.values()])
            right.barh(range(len(brackets)), part, left=bottom, color=OKABE_ITO[level], label=str(level))
            bottom += part
        right.set_yticks(range(len(brackets)), list(brackets))
        right.invert_yaxis()
        right.set_xlabel("share of the sum over levels")
        right.legend(title="level", ncols=len(floor), loc="lower center", bbox_to_anchor=(0.5, 1.0), handlelength=1)
        said = "Dashed: the floor of a level with more channels than positions (R28). " if max(floor) > 0 else ""
        write_caption(figure, f"{said}{told}")
    return figure


def gradients(stages: Mapping[str, Mapping[str, float]], told: str) -> Figure:
    """How strongly each weighted term of Eq. 2 pulls at the encoder, at every stage."""
    with matplotlib.rc_context(STYLE):
        figure = Sketch(figsize=(6.2, 2.3), layout="constrained")
        ax: Any = figure.subplots()
        for k, (name, text) in enumerate(TERMS.items()):
            values = [norms[name] for norms in stages.values()]
            ax.plot(values, range(len(stages)), "osD"[k], ms=7, color=OKABE_ITO[k], label=text)
        ax.set_yticks(range(len(stages)), list(stages))
        ax.set_ylim(len(stages) - 0.5, -0.5)
        ax.set(xscale="log", xlabel="norm of the gradient on the encoder, weighted as in Eq. 2")
        ax.grid(axis="x", color="0.9")
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
        write_caption(figure, f"One sample, all of theta. {told}")
    return figure
