"""The evidence on steps or epochs (R15): public trainings from scratch, and the paper's column on them."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from mixcl.figures.style import OKABE_ITO, STYLE, Plot, grid, write_caption
from mixcl.figures.tables import ARM_COLOURS
from mixcl.results.public import READ_WITHIN, REPOSITORY, Curve
from mixcl.results.statistics import REFERENCE
from mixcl.results.wording import arm_title
from mixcl.run.jobs import FULL

COLOURS = dict(zip("ABCL", (OKABE_ITO[4], OKABE_ITO[2], OKABE_ITO[5], OKABE_ITO[3]), strict=True))
READINGS = {"by_epochs": "as epochs", "by_steps": "as steps"}
MARKERS = {REFERENCE: "o", FULL: "D"}


def published_curves(curves: Sequence[Curve], paper: pd.DataFrame) -> Plot:
    """Dice against steps: on the left with the background as a class, on the right of the organs alone.

    The paper, which does not say what its Dice counts, is in both panels: filled where 2000 epochs lie, open at 2000
    steps.  ``curves`` and ``paper`` are what ``mixcl.results.public`` gives.
    """
    with matplotlib.rc_context(STYLE):
        figure, (whole, organs) = grid(2, 2, 3.9, 3.1, sharey=True)
        for curve in curves:
            if curve.background:
                whole.plot(curve.dice, color=COLOURS[curve.name])
            organs.plot(curve.organs, color=COLOURS[curve.name], linestyle="--" if curve.background else "-")
        for ax in (whole, organs):
            _paper(ax, paper)
            ax.set(xlim=(0, 27500), ylim=(0, 0.85), xlabel="optimiser steps")
        whole.set(title="background counted as a class, as printed", ylabel="Dice on BTCV")
        organs.set_title("organs alone: L as printed, A to C derived")
        handles = [_line(f"public {c.name}, {c.crops} crops a step", color=COLOURS[c.name]) for c in curves]
        handles += [
            _line(f"paper, {arm_title(arm)}, {text}", **_marker(arm, reading))
            for arm in MARKERS for reading, text in READINGS.items()
        ]  # fmt: skip
        figure.legend(handles=handles, loc="outside upper center", ncols=4)
        write_caption(figure, _caption(curves))
    return figure


def _paper(ax: Axes, paper: pd.DataFrame) -> None:
    """The paper's two arms at the steps of both readings, the share of the labels beside each point."""
    for row in paper.itertuples():
        for arm in MARKERS:
            for reading in READINGS:
                ax.plot(getattr(row, reading), getattr(row, arm), **_marker(arm, reading), zorder=3)
        style: Any = {
            "textcoords": "offset points",
            "fontsize": 7,
            "path_effects": [withStroke(linewidth=2, foreground="white")],
        }
        ax.annotate(f"{row.percent:g} %", (row.by_epochs, row.scratch), (5, -3), va="top", **style)
        ax.annotate(f"{row.percent:g} %", (row.by_steps, row.mixcl), (0, 6), ha="center", color="#777777", **style)


def _marker(arm: str, reading: str) -> dict[str, Any]:
    colour = ARM_COLOURS[arm]
    return {
        "marker": MARKERS[arm], "linestyle": "none", "markersize": 5, "markeredgecolor": colour,
        "markerfacecolor": colour if reading == "by_epochs" else "white",
    }  # fmt: skip


def _line(label: str, **style: Any) -> Line2D:
    return Line2D([], [], label=label, **style)


def _caption(curves: Sequence[Curve]) -> str:
    sources = "; ".join(f"{curve.name}: {curve.source}" for curve in curves)
    return (
        "UNETR from scratch on 24 scans of BTCV at a constant rate of 1e-4, tested on 6 scans: single runs, read off "
        f"pictures, to {READ_WITHIN:g}, in {REPOSITORY} ({sources}). Derived: steps of L, 720 from point to point, and "
        "organs alone of A to C, the background's share taken out. "
        "Paper: Table 1 of arXiv 2203.02114, 15, 50 and 100 % of the labels; it does not say whether its Dice counts "
        'the background. Its "2000 iterations" are 4,000, 12,000 and 24,000 steps as epochs, 2,000 each as steps.'
    )
