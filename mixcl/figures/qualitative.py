"""The qualitative figure: CT, label and predictions side by side, as the paper's Fig. 3.

Its cases and slices are chosen by rule, not by hand.
"""

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from mixcl.config.settings import Experiment
from mixcl.data.store import Case, Store
from mixcl.figures import ct
from mixcl.figures.ct import Array
from mixcl.figures.panels import organ_handles
from mixcl.figures.style import STYLE, Plot, plain
from mixcl.results.notes import origin
from mixcl.results.runs import read_runs
from mixcl.results.wording import arm_title, title
from mixcl.run.jobs import FULL, SCRATCH
from mixcl.run.record import read_prediction

RULE = (
    "Of the test cases on which the best arm ({best}, by its mean Dice) reaches its median Dice, and of their axial "
    "slices with at least half as many organs as any slice has, the one is shown on which {first} and {last} differ "
    "in most voxels. In the corner of each prediction: the mean Dice of that case. The scan is drawn between its "
    "voxels, outlines half-way between them"
)
RULE_ONE_ARM = "Of all axial slices of the test cases, the one with most labelled voxels is shown"


class Picture(NamedTuple):
    """A scan, its label map and what was predicted, all on one RAS+ grid [X, Y, Z]."""

    image: Array  # HU
    label: Array
    spacing: Sequence[float]  # mm
    names: Mapping[int, str]
    predictions: Mapping[str, Array] = {}  # by arm
    title: str = ""
    z: int = 0  # the axial slice to show
    dice: Mapping[str, float] = {}  # an arm's mean Dice on the scan


def chosen(config: Experiment, out: Path) -> tuple[list[Picture], str]:
    """One picture for each task of the ablation that is evaluated, as Fig. 3, and what to say below them.

    Arms are those of Table 2 in its order; a task of which nothing is evaluated there shows its largest share.

    Raises `InputError` where nothing is evaluated, or what an evaluation left is missing or damaged.
    """
    runs, store = read_runs(out, config), Store(config.data.store_dir(out), settings=config.data)
    order = [SCRATCH, *config.grid.variants, FULL]
    pictures, best, used = [], [], []
    for task in dict.fromkeys(runs.cases["task"]):
        rows = _chosen_runs(runs.cases[runs.cases["task"] == task], config.grid.ablation.get(task))
        arm = str(rows.groupby("arm")["dice"].mean().idxmax())
        name = f"{title(task)}, {rows['percent'].iloc[0]:g} %"
        scans = _pictures(rows, arm, {case.id: case for case in store.cases(task)}, out / "runs", name)
        pictures.append(_most_different(scans, _ordered(rows, order)))
        best.append(f"{arm_title(arm)} on {title(task)}")
        used.append(rows)
    rows = pd.concat(used)
    arms = _ordered(rows, order)
    first, last = arm_title(arms[0]), arm_title(arms[-1])
    rule = RULE.format(best=", ".join(best), first=first, last=last) if len(arms) > 1 else RULE_ONE_ARM
    return pictures, f"{rule}. {origin(runs, rows)}"


def qualitative(config: Experiment, out: Path) -> Plot:
    """The qualitative figure of a folder of results, of what :func:`chosen` gives."""
    pictures, caption = chosen(config, out)
    return overlay(pictures, caption=caption, window=config.data.hu)


def overlay(rows: Sequence[Picture], *, caption: str = "", window: ct.Window = ct.WINDOW) -> Plot:
    """Rows: cases.  Columns: CT, label, and the prediction of each arm, as in the paper's Fig. 3.

    Axial slices in true proportions, the patient's right on the left, organs in their own colours
    (`ct.ORGAN_COLOURS`); ``caption`` stands below, ``window`` is the lower and upper end of the grey scale in HU.
    """
    titles = ["CT", "label", *dict.fromkeys(arm for row in rows for arm in row.predictions)]
    maps = [(np.stack([m[..., row.z] for m in (row.label, *row.predictions.values())]), row.names) for row in rows]
    names = list(dict.fromkeys(name for part, organs in maps for name in ct.organs_in(part, organs).values()))
    # Inches: panels of one width under each other, then the legend, then the caption.
    width, left, head, gap = (2.4 if len(titles) < 6 else 1.9), 0.45, 0.25, 0.05
    heights = [width * row.image.shape[1] * row.spacing[1] / (row.image.shape[0] * row.spacing[0]) for row in rows]
    wide = left + len(titles) * (width + gap)
    below, per_line = textwrap.wrap(caption, int(wide * 21)), max(int(wide / 1.5), 1)
    tall = head + sum(heights) + gap * len(rows) + 0.15 + 0.13 * len(below) + 0.16 * math.ceil(len(names) / per_line)
    top = tall - head
    with matplotlib.rc_context(STYLE):
        figure = Plot(figsize=(wide, tall))
        figure.caption = caption
        for number, (row, height) in enumerate(zip(rows, heights, strict=True)):
            for column, what in enumerate(titles):
                x, y = left + column * (width + gap), top - height
                ax = figure.add_axes((x / wide, y / tall, width / wide, height / tall))
                _panel(ax, row, what, window)
                if number == 0:
                    ax.set_title(arm_title(what), pad=3)
            top -= height + gap
        if names:
            figure.legend(
                handles=organ_handles(names), loc="upper center", bbox_to_anchor=(0.5, top / tall), ncols=per_line,
                borderaxespad=0.2, columnspacing=1.0, handlelength=1.2, labelspacing=0.3,
            )  # fmt: skip
        figure.text(0.05 / wide, 0.05 / tall, plain("\n".join(below)), fontsize=6, va="bottom", linespacing=1.3)
    return figure


def _panel(ax: Axes, row: Picture, what: str, window: ct.Window) -> None:
    """One panel of the qualitative figure; an arm without a prediction leaves it empty."""
    shown = {"label": row.label, **row.predictions}
    if what != "CT" and what not in shown:
        ax.set_axis_off()
        return
    ct.show_ct(ax, row.image, row.z, row.spacing, window, interpolation="bicubic")
    if what in shown:
        ct.show_smooth_labels(ax, shown[what], row.z, row.spacing, row.names)
    else:
        ax.set_ylabel(plain(row.title), fontsize=6)
        ct.scale_bar(ax, row.image.shape, row.spacing)
    if what in row.dice:
        style: Any = {"transform": ax.transAxes, "color": "white", "fontsize": 7, "ha": "right"}
        ax.text(0.98, 0.02, f"Dice {row.dice[what]:.2f}", **style)


def _ordered(rows: pd.DataFrame, order: Sequence[str]) -> list[str]:
    """The arms of rows as they are ordered, any others after them by name."""
    return sorted(set(rows["arm"]), key=lambda arm: (order.index(arm) if arm in order else len(order), arm))


def _chosen_runs(rows: pd.DataFrame, percent: float | None) -> pd.DataFrame:
    """A task's rows of one share, the ablation's or that with most arms, then the largest; and of the lowest seed."""
    arms = rows.groupby("percent")["arm"].nunique()
    rows = rows[rows["percent"] == (percent if percent in arms.index else max(arms.index, key=lambda p: (arms[p], p)))]
    return rows[rows["seed"] == rows["seed"].min()]


def _pictures(rows: pd.DataFrame, best: str, cases: Mapping[str, Case], runs: Path, name: str) -> list[Picture]:
    """The scans on which the best arm reaches its median Dice, with what every arm predicted on them."""
    dice = rows[rows["arm"] == best].groupby(["fold", "case"])["dice"].mean()
    pictures = []
    for fold, case in dice[dice >= dice.median()].index:
        part, scan = rows[(rows["fold"] == fold) & (rows["case"] == case)], cases[case]
        jobs = dict(zip(part["arm"], part["job"], strict=True))
        predictions = {arm: read_prediction(runs / job, case) for arm, job in jobs.items()}
        means = part.groupby("arm")["dice"].mean().to_dict()
        where = f"{name}, fold {fold}\ncase {case}"
        pictures.append(Picture(scan.image(), scan.label(), scan.spacing, scan.names, predictions, where, dice=means))
    return pictures


def _most_different(pictures: Sequence[Picture], arms: Sequence[str]) -> Picture:
    """The picture and slice that `RULE` names, its predictions in the order of ``arms``."""
    organs = [np.sum([(p.label == value).any((0, 1)) for value in p.names], axis=0) for p in pictures]
    fewest = max(1, max(int(count.max()) for count in organs) / 2)
    ranks = []
    for picture, count in zip(pictures, organs, strict=True):
        ends = [picture.predictions[arm] for arm in {arms[0], arms[-1]} if arm in picture.predictions]
        shown = ends[0] != ends[1] if len(ends) == 2 else ct.labelled(picture.label)
        voxels = shown.sum((0, 1)) * (count >= fewest)
        ranks.append((len(ends) == 2, voxels.max(), int(voxels.argmax())))  # what one arm alone has comes last
    best = max(range(len(ranks)), key=lambda number: ranks[number][:2])  # the first of equals
    picture, z = pictures[best], ranks[best][2]
    ordered = {arm: picture.predictions[arm] for arm in arms if arm in picture.predictions}
    return picture._replace(z=z, title=f"{picture.title}, slice {z}", predictions=ordered)
