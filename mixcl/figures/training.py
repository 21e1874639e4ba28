"""What a training left in its metrics: terms, levels, gradients, and what its features are like."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mixcl.figures.ct import ORGAN_COLOURS as ORGAN_COLOURS
from mixcl.figures.ct import organ_colour as organ_colour
from mixcl.figures.style import OKABE_ITO, STYLE, Plot, write_caption
from mixcl.figures.style import save as save
from mixcl.results.wording import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes


TERMS = {
    "total": "total, Eq. 2",
    "identity": "identity, Eq. 4",
    "label": "label, Eq. 6",
    "recon": "reconstruction, Eq. 3",
}


def losses(records: Sequence[Mapping[str, Any]], card: Mapping[str, Any] | None = None) -> Figure:
    """What metrics.jsonl tells: terms of Eq. 2, levels and their shares, gradient norms, learning rate.

    Parameters
    ----------
    records
        As :func:`mixcl.run.checkpoint.read_metrics` reads them, of pre-training or of fine-tuning.
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
        ("effective rank over its ceiling", _by_level(looks, lambda one: _ratio(one["rank"], one["ceiling"]))),
        ("share of energy in the mean", _by_level(looks, lambda one: one["mean_share"])),
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


def _by_level(looks: Mapping[str, Sequence[tuple[int, Mapping[str, Any]]]], of: Any) -> Series:
    """A line a level for one run, a line a run (mean over levels) for several."""
    if len(looks) == 1:
        (records,) = looks.values()
        by_step = [(step, of(one)) for step, one in records]
        levels = range(len(by_step[0][1]) if by_step else 0)
        return {f"level {level}": [(step, values[level]) for step, values in by_step] for level in levels}
    return {arm: [(step, sum(of(one)) / len(of(one))) for step, one in records] for arm, records in looks.items()}


def _values(looks: Mapping[str, Sequence[tuple[int, Mapping[str, Any]]]], key: str) -> Series:
    return {arm: [(step, one[key]) for step, one in records if key in one] for arm, records in looks.items()}
