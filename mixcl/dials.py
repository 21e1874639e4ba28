"""What mixcl.instruments saw during a pre-training, drawn over its steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mixcl.canvas import OKABE_ITO, STYLE, Plot, write_caption

Series = dict[str, list[tuple[int, float]]]


def instruments(runs: Mapping[str, Sequence[Mapping[str, Any]]], origin: str = "") -> Figure:
    """Effective rank, constant share, pairs, linear probe and agreement of one or several pre-trainings.

    Parameters
    ----------
    runs
        Records of metrics.jsonl by name of the arm.  Levels are averaged when there are several runs.
    origin
        Where they come from, for the caption.
    """
    looks = {
        arm: [(record["probe"]["step"], record["probe"]) for record in records if "probe" in record]
        for arm, records in runs.items()
    }
    panels: list[tuple[str, Series]] = [
        ("effective rank over its ceiling", _levels(looks, lambda one: _ratio(one["rank"], one["ceiling"]))),
        ("share of energy in the mean", _levels(looks, lambda one: one["mean_share"])),
        ("alignment (less is closer)", _values(looks, "alignment")),
        ("uniformity (less is more even)", _values(looks, "uniformity")),
        ("linear probe, Dice", _values(looks, "probe_dice")),
        ("organs agree across collections", _values(looks, "agreement")),
    ]
    panels = [(name, series) for name, series in panels if any(series.values())]
    with matplotlib.rc_context(STYLE):
        figure = Plot(figsize=(7.6, 2.0 * max(1, -(-len(panels) // 3)) + 0.5), layout="constrained")
        axes = figure.subplots(max(1, -(-len(panels) // 3)), 3, squeeze=False).ravel()
        for ax, (name, series) in zip(axes, panels, strict=False):
            for number, (label, points) in enumerate(series.items()):
                steps, values = zip(*points, strict=True) if points else ((), ())
                colour, style = OKABE_ITO[number % len(OKABE_ITO)], "-" if number < len(OKABE_ITO) else "--"
                ax.plot(steps, values, style, color=colour, marker=".", markersize=4, linewidth=1, label=label)
            ax.set_title(name)
            ax.set_xlabel("step")
            ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        for ax in axes[len(panels) :]:
            ax.set_axis_off()
        handles, labels = axes[0].get_legend_handles_labels()
        if handles:
            figure.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 6))
        chance = [one["chance"] for records in looks.values() for _, one in records if "chance" in one]
        told = f" Agreement by chance: {sum(chance) / len(chance):.2f}." if chance else ""
        what = "The same patches of the pre-training collections at every look; nothing is trained on them."
        write_caption(figure, f"{what}{told} {origin}")
    return figure


def _ratio(rank: Sequence[float], ceiling: Sequence[int]) -> list[float]:
    return [a / b for a, b in zip(rank, ceiling, strict=True)]


def _levels(looks: Mapping[str, Sequence[tuple[int, Mapping[str, Any]]]], of: Any) -> Series:
    """A line a level for one run, a line a run (mean over levels) for several."""
    if len(looks) == 1:
        (records,) = looks.values()
        by_step = [(step, of(one)) for step, one in records]
        levels = range(len(by_step[0][1]) if by_step else 0)
        return {f"level {level}": [(step, values[level]) for step, values in by_step] for level in levels}
    return {arm: [(step, sum(of(one)) / len(of(one))) for step, one in records] for arm, records in looks.items()}


def _values(looks: Mapping[str, Sequence[tuple[int, Mapping[str, Any]]]], key: str) -> Series:
    return {arm: [(step, one[key]) for step, one in records if key in one] for arm, records in looks.items()}
