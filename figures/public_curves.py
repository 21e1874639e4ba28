"""Steps or epochs (R15)?  Public trainings of UNETR from scratch on BTCV, and the paper's column on their curves.

    python figures/public_curves.py              # draws public_curves.png and .pdf of public_curves.csv
    git clone https://github.com/Project-MONAI/tutorials
    python figures/public_curves.py tutorials    # reads public_curves.csv off the tutorials' pictures first

Of their course MONAI's tutorials have plots alone.  A picture is the output of a notebook at a commit.  Its right panel
is found by its frame and calibrated on its ticks, whose values stand below.  The line is fitted as straight pieces
between the evaluations: each column of pixels gives its mean height.

public_curves.csv has a row an evaluation of any of the trainings and a column a training, Dice of the 6 scans that its
24 are not.  public_points.csv has the paper's BTCV column: percent, scans of a fold, Dice from scratch and with MixCL,
steps by both readings.
"""

from __future__ import annotations

import base64
import io
import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.image import imread
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from mixcl import figures
from mixcl.config.settings import FinetuneConfig
from mixcl.data.registry import COLLECTIONS
from mixcl.data.splits import folds, fraction
from mixcl.figures.style import OKABE_ITO, Plot, write_caption
from mixcl.figures.tables import ARM_COLOURS
from mixcl.files import write_text
from mixcl.results.paper import TABLE1
from mixcl.results.statistics import REFERENCE
from mixcl.results.wording import arm_title
from mixcl.run.jobs import FULL
from mixcl.spreadsheet import read_csv, to_csv

HERE = Path(__file__).resolve().parent
REPOSITORY = "Project-MONAI/tutorials"
NOTEBOOKS = "3d_segmentation/unetr_btcv_segmentation_3d"
PLAIN = {"notebook": f"{NOTEBOOKS}.ipynb", "background": True, "first": 500, "every": 500}
LIGHTNING = {"notebook": f"{NOTEBOOKS}_lightning.ipynb", "background": False, "first": 0, "every": 720}
RUNS: dict[str, dict[str, Any]] = {
    "A": {**PLAIN, "commit": "51a3e3b0220196665371405ba2914de83fd8e295", "crops": 8, "best": 0.8064},
    "B": {**PLAIN, "commit": "fb8bb797d3a5d5213fb79166254c2d7b1aa902d0", "crops": 4, "best": 0.7891},
    "C": {**PLAIN, "commit": "6382e8ae10c80f0d7301caaf674b41d5ff6d79b4", "crops": 4, "best": 0.8027},
    "L": {**LIGHTNING, "commit": "0b83d86a465572493d631aa494c615d2d5caa8db", "crops": 4, "best": None},
}
"""Trainings on 24 scans at a constant rate of 1e-4.

``crops``: patches of 96^3 a step.  ``background``: Dice is the mean of 14 classes, the background one of them, not of
13 organs.  ``first``, ``every``: steps of the evaluations.  ``best``: the highest Dice as the notebook prints it, which
tells how well the picture was read.
"""
TICKS = {  # of the right panel: first and distance of ticks across, of ticks up, and of the drawn values
    PLAIN["notebook"]: ((0, 5000), (0.1, 0.1), (500, 500)),
    LIGHTNING["notebook"]: ((0, 2000), (0.0, 0.1), (250, 250)),
}
READ_WITHIN = 0.005
"""How far a value may be off that was read off a picture; on a plot drawn by matplotlib it is less."""
ALL_BACKGROUND = 14 * 0.07059755
"""Dice of the background where a network predicts nothing else: a collapsed training of 14 classes logs a fourteenth of
it (3d_segmentation/swin_unetr_btcv_segmentation_3d.ipynb @ 5967dc34).  A network that has learned is nearer to 1."""

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


def main(clone: str | None = None) -> None:
    """Read every run of a clone of the tutorials, where there is one; write the tables and the figure."""
    if clone:
        read = {name: read_run(clone, name) for name in RUNS}
        write_text(HERE / "public_curves.csv", to_csv(pd.DataFrame(read).rename_axis("steps").reset_index()))
    write_text(HERE / "public_points.csv", to_csv(paper_points()))
    figures.save(drawn(curves(), paper_points()), HERE / "public_curves")


def read_run(clone: str, name: str) -> pd.Series:
    """Dice by steps of a run, read off its picture."""
    run = RUNS[name]
    dice = line(picture(clone, run["commit"], run["notebook"]), *TICKS[run["notebook"]])
    print(f"{name}: {len(dice)} values, the highest {dice.max():.4f}, printed {run['best']}")
    return pd.Series(dice.round(3), run["first"] + run["every"] * np.arange(len(dice)))


def picture(clone: str, commit: str, notebook: str) -> NDArray[np.float64]:
    """The notebook's plot of the training as it is at a commit, as `pixels` are."""
    text = subprocess.run(
        ["git", "-C", clone, "show", f"{commit}:{notebook}"], check=True, capture_output=True, text=True
    ).stdout
    plots = [
        output["data"]["image/png"]
        for cell in json.loads(text)["cells"] if 'plt.figure("train"' in "".join(cell["source"])
        for output in cell["outputs"] if "image/png" in output.get("data", {})
    ]  # fmt: skip
    (plot,) = plots
    return pixels(base64.b64decode("".join(plot)))


def pixels(png: bytes) -> NDArray[np.float64]:
    """A PNG's red, green and blue from 0 to 255, [height, width, 3]."""
    return 255.0 * imread(io.BytesIO(png), format="png")[..., :3]


def line(
    image: NDArray[np.float64], x_ticks: tuple[float, float], y_ticks: tuple[float, float], at: tuple[float, float]
) -> NDArray[np.float64]:
    """Heights of the line in the right panel at x = ``at[0]``, ``at[0] + at[1]``, ... to its end.

    ``x_ticks``, ``y_ticks`` are the value of the first tick and the distance of two; matplotlib's default colours.
    """
    dark = image.max(axis=2) < 128
    left, right = np.flatnonzero(dark.sum(axis=0) > 0.6 * len(dark))[-2:]
    top, bottom = np.flatnonzero(dark[:, left:right].sum(axis=1) > 0.9 * (right - left))[[0, -1]]
    below, beside = np.flatnonzero(dark[bottom + 2]), np.flatnonzero(dark[:, left - 2])[::-1]
    columns, rows = below[(below >= left) & (below <= right)], beside[(beside >= top) & (beside <= bottom)]
    # matplotlib moves a tick to the nearest border of two pixels and draws it right of and below that; the line stays
    x = np.polyfit(columns - 0.5, x_ticks[0] + x_ticks[1] * np.arange(len(columns)), 1)
    y = np.polyfit(rows - 0.5, y_ticks[0] + y_ticks[1] * np.arange(len(rows)), 1)

    ink = np.clip(255 - image[top + 1 : bottom, left + 1 : right, 0], 0, None)  # the line is blue: no red in it
    drawn = np.flatnonzero(ink.sum(axis=0) > 128)
    heights = np.polyval(y, (ink * np.arange(top + 1, bottom)[:, None]).sum(axis=0)[drawn] / ink.sum(axis=0)[drawn])
    end = np.polyval(x, drawn[-1] + left + 1)
    points = at[0] + at[1] * np.arange(round(float(end - at[0]) / at[1]) + 1)
    within = np.polyval(x, drawn[:, None] + left + 1 + np.linspace(-0.45, 0.45, 10))
    weights = np.stack([np.interp(within, points, unit).mean(axis=1) for unit in np.eye(len(points))], axis=1)
    fitted: NDArray[np.float64] = np.linalg.lstsq(weights, heights, rcond=None)[0]
    return fitted


def curves() -> pd.DataFrame:
    """Dice of the public trainings, by steps; NaN where a training was not evaluated."""
    return read_csv(HERE / "public_curves.csv").set_index("steps")


def organs_alone(dice: pd.Series) -> pd.Series:
    """Dice of the organs of a column of `curves`; of the background `ALL_BACKGROUND` is taken out (0.001 too high)."""
    return (14 * dice - ALL_BACKGROUND) / 13 if RUNS[str(dice.name)]["background"] else dice


def paper_points() -> pd.DataFrame:
    """The paper's BTCV column: percent, scans of a fold, Dice from scratch and with MixCL, steps by both readings."""
    scans, _ = folds(map(str, range(COLLECTIONS["btcv"].count or 0)))[0]
    rows = []
    for (task, percent), row in TABLE1.items():
        if task == "btcv":
            share = len(fraction(scans, percent))
            steps = [FinetuneConfig(**{length: 2000}).total_steps(share) for length in ("epochs", "steps")]
            rows.append((percent, share, row.scratch, row.mixcl, *steps))
    return pd.DataFrame(rows, columns=["percent", "scans", "scratch", "mixcl", "by_epochs", "by_steps"])


def drawn(dice: pd.DataFrame, paper: pd.DataFrame) -> Plot:
    """Dice against steps: on the left with the background as a class, on the right of the organs alone.

    The paper is in both panels, filled where 2000 epochs lie, open at 2000 steps.
    """
    with Plot.grid(2, 2, 3.9, 3.1, sharey=True) as (figure, (whole, organs)):
        for name, run in RUNS.items():
            curve = dice[name].dropna()
            if run["background"]:
                whole.plot(curve, color=COLOURS[name])
            organs.plot(organs_alone(curve), color=COLOURS[name], linestyle="--" if run["background"] else "-")
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
        styles = {f"public {name}, {run['crops']} crops a step": {"color": COLOURS[name]} for name, run in RUNS.items()}
        for arm, reading in itertools.product(MARKERS, READINGS):
            styles[f"paper, {arm_title(arm)}, {READINGS[reading]}"] = _marker(arm, reading)
        handles = [Line2D([], [], label=label, **style) for label, style in styles.items()]
        figure.legend(handles=handles, loc="outside upper center", ncols=4)
        sources = "; ".join(f"{name}: {run['notebook']} @ {run['commit'][:8]}" for name, run in RUNS.items())
        return write_caption(figure, CAPTION.format(sources=sources))


def _marker(arm: str, reading: str) -> dict[str, Any]:
    colour = ARM_COLOURS[arm]
    return {
        "marker": MARKERS[arm], "linestyle": "none", "markersize": 5, "markeredgecolor": colour,
        "markerfacecolor": colour if reading == "by_epochs" else "white",
    }  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:2])
