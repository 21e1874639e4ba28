"""Every plot, as a function from data to a matplotlib Figure; nothing is computed here that results should.

Figures are built without pyplot, so that they need no display and leave no state behind; a notebook shows one
that ends a cell.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

from mixcl import ctview
from mixcl.canvas import OKABE_ITO, STYLE, Plot, write_caption
from mixcl.canvas import save as save
from mixcl.config import Experiment
from mixcl.ctview import ORGAN_COLOURS as ORGAN_COLOURS
from mixcl.ctview import organ_colour as organ_colour
from mixcl.dials import instruments as instruments
from mixcl.pictures import Picture as Picture
from mixcl.pictures import choose_slice
from mixcl.pictures import qualitative as choose_qualitative
from mixcl.plots import ARM_COLOURS as ARM_COLOURS
from mixcl.plots import ARM_TITLES as ARM_TITLES
from mixcl.plots import ablation_plot as ablation_plot
from mixcl.plots import dumbbells as dumbbells
from mixcl.plots import effects_plot as effects_plot
from mixcl.plots import table1_plot as table1_plot
from mixcl.tables import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TERMS = {
    "total": "total, Eq. 2",
    "identity": "identity, Eq. 4",
    "label": "label, Eq. 6",
    "recon": "reconstruction, Eq. 3",
}


def overlay(
    pictures: Picture | Sequence[Picture], *, caption: str = "", window: ctview.Window = ctview.WINDOW
) -> Figure:
    """Rows: cases.  Columns: CT, label, and the prediction of each arm, as in the paper's Fig. 3.

    Axial slices in a window of HU, the patient's right on the left, voxels in their true proportions, a scale
    bar in mm, and organs in their own colours (`ORGAN_COLOURS`).

    Parameters
    ----------
    pictures
        One or more :class:`mixcl.pictures.Picture`; ``z`` None shows what ``choose_slice`` gives.
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
    """The qualitative figure of a folder of results; what it shows is chosen by `mixcl.pictures`."""
    pictures, caption = choose_qualitative(config, out)
    return overlay(pictures, caption=caption, window=config.data.hu)


def losses(records: Sequence[Mapping[str, Any]], card: Mapping[str, Any] | None = None) -> Figure:
    """What metrics.jsonl tells: terms of Eq. 2, levels and their shares, gradient norms, learning rate.

    Parameters
    ----------
    records
        As :func:`mixcl.checkpoint.read_metrics` reads them, of pre-training or of fine-tuning.
    card
        run.json; for the caption, and for the floors of the levels (dashed, R28).
    """
    card = card or {}
    with matplotlib.rc_context(STYLE):
        panels: list[Any] = [(_term, name) for name in TERMS if any(name in record for record in records)]
        if any("levels" in record for record in records):
            panels += [(_levels, "levels"), (_shares, "levels")]
        if any("gradients" in record for record in records):
            panels.append((_gradients, "gradients"))
        panels.append((_rate, "lr"))
        columns = min(len(panels), 4)
        lines = math.ceil(len(panels) / columns)
        figure = Plot(figsize=(2.3 * columns, 1.8 * lines + 0.5), layout="constrained")
        axes = figure.subplots(lines, columns, squeeze=False).ravel()
        for ax, (draw, name) in zip(axes, panels, strict=False):
            kept = [record for record in records if name in record]
            draw(ax, [record["step"] for record in kept], [record[name] for record in kept], name, card)
            ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            ax.set_xlabel("step")
        for ax in axes[len(panels) :]:
            ax.set_axis_off()
        write_caption(figure, told(card))
    return figure


def told(card: Mapping[str, Any]) -> str:
    """Profile, job, seed, commit and data of a run.json, in a line; empty without one."""
    if not card:
        return ""
    source = card.get("config", {}).get("data", {}).get("source")
    parts = [
        f"Profile {card.get('profile')}, job {card.get('job')}, seed {card.get('seed')}, ",
        f"commit {short(str(card.get('commit')))}, data {str(card.get('data'))[:12]}.",
        " Phantoms, not patients." if source == "phantom" else "",
    ]
    return "".join(parts)


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
    return ctview.extent(row.image.shape, row.spacing)


def _shape(row: Picture, zoomed: bool) -> float:
    """Height of a panel over its width."""
    if zoomed:
        return float(row.spacing[1]) / float(row.spacing[0])
    _, across, _, height = _extent(row)
    return height / across


def _panel(
    ax: Axes, row: Picture, column: int, arms: Sequence[str], window: ctview.Window, first: bool, zoomed: bool = False
) -> None:
    """One panel of the qualitative figure, or its box enlarged."""
    z = _z(row)
    titles = ["CT", "label", *(ARM_TITLES.get(arm, arm) for arm in arms)]
    if first:
        ax.set_title(titles[column], pad=3)
    if column >= 2 and arms[column - 2] not in row.predictions:
        ax.set_axis_off()
        return
    ctview.show_ct(ax, row.image, z, row.spacing, window)
    if column > 0:
        shown = row.label if column == 1 else row.predictions[arms[column - 2]]
        ctview.show_labels(ax, shown, z, row.spacing, row.names)
    elif not zoomed:
        ctview.scale_bar(ax, row.image.shape, row.spacing)
        ax.set_ylabel(row.title, fontsize=6)
    else:
        ax.set_ylabel("the box, enlarged", fontsize=6)
    if row.box is not None:
        left, low, wide, tall = ctview.box_mm(row.box, row.image.shape, row.spacing)
        if zoomed:
            ax.set_xlim(left, left + wide)
            ax.set_ylim(low, low + tall)
        else:
            ax.add_patch(Rectangle((left, low), wide, tall, fill=False, edgecolor="white", linewidth=0.9))


def _term(ax: Axes, steps: list[int], values: list[float], name: str, card: Mapping[str, Any]) -> None:
    ax.plot(steps, values, color=OKABE_ITO[0])
    ax.set_title(TERMS[name] if "task" not in card else "Dice + cross-entropy (R17)")
    if min(values) > 0 and max(values) > 20 * min(values):
        ax.set_yscale("log")
    else:
        ax.set_ylim(bottom=min(0.0, *values))


def _levels(ax: Axes, steps: list[int], values: list[list[float]], _: str, card: Mapping[str, Any]) -> None:
    levels, floors = np.array(values).T, card.get("floors", ())
    for number, level in enumerate(levels):
        ax.plot(steps, np.where(level > 0, level, np.nan), color=OKABE_ITO[number], label=str(number))
        if number < len(floors) and floors[number] > 0:
            ax.axhline(floors[number], color=OKABE_ITO[number], linestyle="--", linewidth=0.8)
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    ax.set_ylim(low, high * (high / low) ** 0.3)  # room for the legend
    ax.legend(loc="upper center", ncols=len(levels), handlelength=0.8, columnspacing=0.8, handletextpad=0.3)
    ax.set_title("identity by level" + (", dashed: floor" if any(f > 0 for f in floors) else ""))


def _shares(ax: Axes, steps: list[int], values: list[list[float]], _: str, card: Mapping[str, Any]) -> None:
    levels = np.array(values).T
    sums = levels.sum(0)
    shares = np.divide(levels, sums, out=np.zeros_like(levels), where=sums > 0)
    ax.stackplot(steps, shares, colors=OKABE_ITO[: len(levels)], alpha=0.85)
    ax.set_ylim(0, 1)
    ax.set_title("share of each level (R6)")


def _gradients(ax: Axes, steps: list[int], values: list[dict[str, float]], _: str, card: Mapping[str, Any]) -> None:
    for number, name in enumerate(values[0]):
        norms = [one[name] if one[name] > 0 else math.nan for one in values]
        ax.plot(steps, norms, marker="o", markersize=3, color=OKABE_ITO[number], label=name)
    ax.set_yscale("log")
    ax.set_title("gradient norm on encoder (R26)")
    ax.legend()


def _rate(ax: Axes, steps: list[int], values: list[float], _: str, card: Mapping[str, Any]) -> None:
    ax.plot(steps, values, color=OKABE_ITO[6])
    ax.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    ax.set_ylim(bottom=0)
    ax.set_title("learning rate")
