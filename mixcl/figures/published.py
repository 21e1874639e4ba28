"""The evidence on steps or epochs (R15): public trainings from scratch, and the paper's column on them."""

import itertools
from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from mixcl.figures.style import OKABE_ITO, Plot, write_caption
from mixcl.figures.tables import ARM_COLOURS
from mixcl.results.public import READ_WITHIN, REPOSITORY, Curve
from mixcl.results.statistics import REFERENCE
from mixcl.results.wording import arm_title
from mixcl.run.jobs import FULL

COLOURS = dict(zip("ABCL", (OKABE_ITO[4], OKABE_ITO[2], OKABE_ITO[5], OKABE_ITO[3]), strict=True))
READINGS = {"by_epochs": "as epochs", "by_steps": "as steps"}
MARKERS = {REFERENCE: "o", FULL: "D"}
CAPTION = (
    "UNETR from scratch on 24 scans of BTCV at a constant rate of 1e-4, tested on 6 scans: single runs, read off "
    f"pictures, to {READ_WITHIN:g}, in {REPOSITORY} ({{sources}}). Derived: steps of L, 720 from point to point, and "
    "organs alone of A to C, the background's share taken out. "
    "Paper: Table 1 of arXiv 2203.02114, 15, 50 and 100 % of the labels; it does not say whether its Dice counts "
    'the background. Its "2000 iterations" are 4,000, 12,000 and 24,000 steps as epochs, 2,000 each as steps.'
)


def published_curves(curves: Sequence[Curve], paper: pd.DataFrame) -> Plot:
    """Dice against steps: on the left with the background as a class, on the right of the organs alone.

    The paper is in both panels, filled where 2000 epochs lie, open at 2000 steps; all are of `mixcl.results.public`.
    """
    with Plot.grid(2, 2, 3.9, 3.1, sharey=True) as (figure, (whole, organs)):
        for curve in curves:
            if curve.background:
                whole.plot(curve.dice, color=COLOURS[curve.name])
            organs.plot(curve.organs, color=COLOURS[curve.name], linestyle="--" if curve.background else "-")
        halo = [withStroke(linewidth=2, foreground="white")]
        text: Any = {"textcoords": "offset points", "fontsize": 7, "path_effects": halo}
        for ax in (whole, organs):
            for row in paper.itertuples():
                for arm, reading in itertools.product(MARKERS, READINGS):
                    ax.plot(getattr(row, reading), getattr(row, arm), **_marker(arm, reading), zorder=3)
                share = f"{row.percent:g} %"
                ax.annotate(share, (row.by_epochs, row.scratch), (5, -3), va="top", **text)
                ax.annotate(share, (row.by_steps, row.mixcl), (0, 6), ha="center", color="#777777", **text)
            ax.set(xlim=(0, 27500), ylim=(0, 0.85), xlabel="optimiser steps")
        whole.set(title="background counted as a class, as printed", ylabel="Dice on BTCV")
        organs.set_title("organs alone: L as printed, A to C derived")
        styles: dict[str, dict[str, Any]]
        styles = {f"public {c.name}, {c.crops} crops a step": {"color": COLOURS[c.name]} for c in curves}
        for arm, reading in itertools.product(MARKERS, READINGS):
            styles[f"paper, {arm_title(arm)}, {READINGS[reading]}"] = _marker(arm, reading)
        handles = [Line2D([], [], label=label, **style) for label, style in styles.items()]
        figure.legend(handles=handles, loc="outside upper center", ncols=4)
        sources = "; ".join(f"{curve.name}: {curve.source}" for curve in curves)
        return write_caption(figure, CAPTION.format(sources=sources))


def _marker(arm: str, reading: str) -> dict[str, Any]:
    colour = ARM_COLOURS[arm]
    return {
        "marker": MARKERS[arm], "linestyle": "none", "markersize": 5, "markeredgecolor": colour,
        "markerfacecolor": colour if reading == "by_epochs" else "white",
    }  # fmt: skip
