"""The qualitative figure: CT, label and predictions side by side, as the paper's Fig. 3."""

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes

from mixcl.config.settings import Experiment
from mixcl.figures import choice, ct
from mixcl.figures.choice import Picture, choose_slice
from mixcl.figures.panels import organ_handles
from mixcl.figures.style import STYLE, Plot, plain
from mixcl.results.wording import arm_title


def overlay(pictures: Picture | Sequence[Picture], *, caption: str = "", window: ct.Window = ct.WINDOW) -> Plot:
    """Rows: cases.  Columns: CT, label, and the prediction of each arm, as in the paper's Fig. 3.

    Axial slices in true proportions, the patient's right on the left, organs in their own colours
    (`ct.ORGAN_COLOURS`); ``caption`` stands below, ``window`` is the lower and upper end of the grey scale in HU.
    """
    rows = []
    for row in [pictures] if isinstance(pictures, Picture) else pictures:
        z = choose_slice(row.label, row.predictions.values()) if row.z is None else row.z
        rows.append(row._replace(z=z))
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
            for column, title in enumerate(titles):
                x, y = left + column * (width + gap), top - height
                ax = figure.add_axes((x / wide, y / tall, width / wide, height / tall))
                _panel(ax, row, title, window)
                if number == 0:
                    ax.set_title(arm_title(title), pad=3)
            top -= height + gap
        if names:
            figure.legend(
                handles=organ_handles(names), loc="upper center", bbox_to_anchor=(0.5, top / tall), ncols=per_line,
                borderaxespad=0.2, columnspacing=1.0, handlelength=1.2, labelspacing=0.3,
            )  # fmt: skip
        figure.text(0.05 / wide, 0.05 / tall, plain("\n".join(below)), fontsize=6, va="bottom", linespacing=1.3)
    return figure


def qualitative(config: Experiment, out: Path) -> Plot:
    """The qualitative figure of a folder of results; what it shows is chosen by `mixcl.figures.choice`."""
    pictures, caption = choice.qualitative(config, out)
    return overlay(pictures, caption=caption, window=config.data.hu)


def _panel(ax: Axes, row: Picture, title: str, window: ct.Window) -> None:
    """One panel of the qualitative figure; an arm without a prediction leaves it empty."""
    shown = {"label": row.label, **row.predictions}
    if title != "CT" and title not in shown:
        ax.set_axis_off()
        return
    assert row.z is not None
    ct.show_ct(ax, row.image, row.z, row.spacing, window, interpolation="bicubic")
    if title in shown:
        ct.show_smooth_labels(ax, shown[title], row.z, row.spacing, row.names)
    else:
        ax.set_ylabel(plain(row.title), fontsize=6)
        ct.scale_bar(ax, row.image.shape, row.spacing)
    if title in row.dice:
        style: Any = {"transform": ax.transAxes, "color": "white", "fontsize": 7, "ha": "right"}
        ax.text(0.98, 0.02, f"Dice {row.dice[title]:.2f}", **style)
