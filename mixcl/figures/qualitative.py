"""The qualitative figure: CT, label and predictions side by side, as the paper's Fig. 3."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from mixcl.config.settings import Experiment
from mixcl.figures import ct
from mixcl.figures.choice import Picture as Picture
from mixcl.figures.choice import choose_slice
from mixcl.figures.choice import qualitative as choose_qualitative
from mixcl.figures.ct import ORGAN_COLOURS as ORGAN_COLOURS
from mixcl.figures.ct import organ_colour as organ_colour
from mixcl.figures.style import STYLE, Plot
from mixcl.figures.style import save as save
from mixcl.figures.tables import ARM_COLOURS as ARM_COLOURS
from mixcl.figures.tables import ARM_TITLES as ARM_TITLES
from mixcl.figures.tables import ablation_plot as ablation_plot
from mixcl.figures.tables import dumbbells as dumbbells
from mixcl.figures.tables import effects_plot as effects_plot
from mixcl.figures.tables import table1_plot as table1_plot
from mixcl.figures.training import instruments as instruments

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def overlay(pictures: Picture | Sequence[Picture], *, caption: str = "", window: ct.Window = ct.WINDOW) -> Figure:
    """Rows: cases.  Columns: CT, label, and the prediction of each arm, as in the paper's Fig. 3.

    Axial slices in a window of HU, the patient's right on the left, voxels in their true proportions, a scale
    bar in mm, and organs in their own colours (`ORGAN_COLOURS`).

    Parameters
    ----------
    pictures
        One or more :class:`mixcl.figures.choice.Picture`; ``z`` None shows what ``choose_slice`` gives.
    caption
        What to say below: what is shown, and of which profile, seed, commit and data.
    window
        Lower and upper end of the grey scale, HU.
    """
    rows = [pictures] if isinstance(pictures, Picture) else list(pictures)
    arms = list(dict.fromkeys(arm for row in rows for arm in row.predictions))
    names = _organs(rows)
    # Inches: panels of one width under each other, then the legend, then the caption.
    columns = 2 + len(arms)
    width, left, head, gap = (1.9 if columns < 5 else 1.45), 0.45, 0.25, 0.05
    strips = [(row, zoomed) for row in rows for zoomed in ((False, True) if row.box else (False,))]
    heights = [width * _shape(row, zoomed) for row, zoomed in strips]
    wide = left + columns * (width + gap)
    below, per_line = textwrap.wrap(caption, int(wide * 21)), max(int(wide / 1.5), 1)
    foot = 0.15 + 0.13 * len(below) + 0.16 * math.ceil(len(names) / per_line)
    tall = head + sum(heights) + gap * len(strips) + foot
    with matplotlib.rc_context(STYLE):
        figure = Plot(figsize=(wide, tall))
        top = tall - head
        for (row, zoomed), height in zip(strips, heights, strict=True):
            for column in range(columns):
                x, y = left + column * (width + gap), top - height
                ax = figure.add_axes((x / wide, y / tall, width / wide, height / tall))
                _panel(ax, row, column, arms, window, first=row is rows[0] and not zoomed, zoomed=zoomed)
            top -= height + gap
        if names:
            figure.legend(
                handles=[Patch(fc=organ_colour(name), ec="black", lw=0.3, label=name) for name in names],
                loc="upper center", bbox_to_anchor=(0.5, top / tall), ncols=per_line, borderaxespad=0.2,
                columnspacing=1.0, handlelength=1.2, labelspacing=0.3,
            )  # fmt: skip
        figure.text(0.05 / wide, 0.05 / tall, "\n".join(below), fontsize=6, va="bottom", linespacing=1.3)
    return figure


def qualitative(config: Experiment, out: Path) -> Figure:
    """The qualitative figure of a folder of results; what it shows is chosen by `mixcl.figures.choice`."""
    pictures, caption = choose_qualitative(config, out)
    return overlay(pictures, caption=caption, window=config.data.hu)


def _organs(rows: Sequence[Picture]) -> list[str]:
    """Names of the organs to be seen in any panel, in the order of the rows' label values."""
    seen: dict[str, None] = {}
    for row in rows:
        maps = [row.label, *row.predictions.values()]
        values = set(np.unique(np.stack([m[..., _z(row)] for m in maps])).tolist())
        seen |= dict.fromkeys(name for value, name in sorted(row.names.items()) if value in values)
    return list(seen)


def _z(row: Picture) -> int:
    return choose_slice(row.label, row.predictions.values()) if row.z is None else row.z


def _extent(row: Picture) -> tuple[float, float, float, float]:
    return ct.extent(row.image.shape, row.spacing)


def _shape(row: Picture, zoomed: bool) -> float:
    """Height of a panel over its width."""
    if zoomed:
        return float(row.spacing[1]) / float(row.spacing[0])
    _, across, _, height = _extent(row)
    return height / across


def _panel(
    ax: Axes, row: Picture, column: int, arms: Sequence[str], window: ct.Window, first: bool, zoomed: bool = False
) -> None:
    """One panel of the qualitative figure, or its box enlarged."""
    z = _z(row)
    titles = ["CT", "label", *(ARM_TITLES.get(arm, arm) for arm in arms)]
    if first:
        ax.set_title(titles[column], pad=3)
    if column >= 2 and arms[column - 2] not in row.predictions:
        ax.set_axis_off()
        return
    ct.show_ct(ax, row.image, z, row.spacing, window)
    if column > 0:
        shown = row.label if column == 1 else row.predictions[arms[column - 2]]
        ct.show_labels(ax, shown, z, row.spacing, row.names)
    elif not zoomed:
        ct.scale_bar(ax, row.image.shape, row.spacing)
        ax.set_ylabel(row.title, fontsize=6)
    else:
        ax.set_ylabel("the box, enlarged", fontsize=6)
    if row.box is not None:
        left, low, wide, tall = ct.box_mm(row.box, row.image.shape, row.spacing)
        if zoomed:
            ax.set_xlim(left, left + wide)
            ax.set_ylim(low, low + tall)
        else:
            ax.add_patch(Rectangle((left, low), wide, tall, fill=False, edgecolor="white", linewidth=0.9))
