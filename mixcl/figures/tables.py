"""Statistical plots: Dice against the share of labels, the organs, the ablation.  They draw what results computed."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mixcl.figures.style import OKABE_ITO, STYLE, Plot, write_caption
from mixcl.results import statistics
from mixcl.results.paper import ARMS, TABLE1, TABLE2
from mixcl.results.statistics import REFERENCE
from mixcl.results.wording import NAMES, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mixcl.results.effects import Effect
    from mixcl.results.table import Table


ARM_COLOURS = {"scratch": "#777777", "mixcl": OKABE_ITO[0]}
ARM_TITLES = {"scratch": "from scratch (T.F.S.)", "mixcl": "MixCL (Ours)"}
DICE = "Dice after fine-tuning, the mean over test cases of each case's mean over its organs"
PAIR = (REFERENCE, "mixcl")
_GROUPS = {
    REFERENCE: "against training from scratch",
    "random-frozen": "frozen, against random weights",
    "mixcl": "against MixCL",
    "frozen": "frozen, against MixCL",
}
_OTHERS = "one change alone"


def table1_plot(table: Table) -> Figure:
    """Dice against the share of labels, by arm: points are folds and seeds, bars the 95 % interval over cases.

    A dash is the mean over folds; a line joins these.  The paper's values are drawn too (open diamonds) unless the
    results are of phantoms.
    """
    with matplotlib.rc_context(STYLE):
        tasks = list(dict.fromkeys(table.folds["task"]))
        figure, axes = _panels(tasks, 3.2, 3.2)
        for ax, task in zip(axes, tasks, strict=False):
            _dice_against_share(ax, table, task)
        axes[0].set_ylabel("Dice")
        handles, labels = axes[0].get_legend_handles_labels()
        if handles:
            figure.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 2 * len(tasks)))
        how = "Points: folds; dashes: means over folds; bars: 95 % bootstrap interval of the mean over cases."
        write_caption(figure, f"{DICE}. {how} {table.origin}")
    return figure


def dumbbells(
    organs: pd.DataFrame, origin: str = "", *, metric: str = "dice", percents: Mapping[str, float] | None = None
) -> Figure:
    """Organs as rows: a dot from scratch and one with MixCL, joined; a panel a task.

    Parameters
    ----------
    organs
        What ``results.organs`` gives.
    origin
        Where it comes from, for the caption (``Table.origin``).
    metric
        ``dice``, ``hd95_mm`` or ``surface_dice``.
    percents
        Share of the labels by task; where it is not told, the largest share at which both arms were run.
    """
    shown = organs[organs["arm"].isin(PAIR)]
    with matplotlib.rc_context(STYLE):
        tasks = list(dict.fromkeys(shown["task"]))
        chosen = {task: _share(shown[shown["task"] == task], (percents or {}).get(task)) for task in tasks}
        parts = [shown[(shown["task"] == t) & (shown["percent"] == p)] for t, p in chosen.items()]
        most = max((part["label"].nunique() for part in parts), default=1)
        figure, axes = _panels(tasks, 3.6, 1.5 + 0.19 * most, share_y=False)
        for ax, part in zip(axes, parts, strict=False):
            _organ_rows(ax, part, metric, most)
            ax.set_xlim(*((-0.03, 1.03) if metric != "hd95_mm" else (0, ax.get_xlim()[1])))
        dots = [Line2D([], [], ls="", marker="o", color=ARM_COLOURS[arm], label=ARM_TITLES[arm]) for arm in PAIR]
        figure.legend(handles=dots, loc="outside upper center", ncols=2)
        what = f"{NAMES[metric]} of each organ, the mean over test cases and seeds that have it"
        missed = ", without those in which it was missed." if metric == "hd95_mm" else "; missed organs count as 0."
        write_caption(figure, f"{what}{missed} {origin}")
    return figure


def ablation_plot(table: Table) -> Figure:
    """Arms as rows: mean difference in Dice to training from scratch, with its 95 % interval over cases."""
    with matplotlib.rc_context(STYLE):
        columns = list(dict.fromkeys((task, percent) for task, percent, _ in table.planned))
        arms = [arm for arm in dict.fromkeys(arm for *_, arm in table.planned) if arm != REFERENCE]
        figure, axes = _panels(columns, 3.0, 1.4 + 0.3 * max(len(arms), 1))
        for ax, (task, percent) in zip(axes, columns, strict=False):
            for row, arm in enumerate(arms):
                _difference(ax, table, (task, percent, arm), row)
            ax.axvline(0, color="black", linewidth=0.8)
            ax.set_title(_title(task, percent))
            ax.set_xlabel("difference in Dice to scratch")
            ax.margins(x=0.1)
            ax.locator_params(axis="x", nbins=5)
        axes[0].set_yticks(range(len(arms)), [_terms(arm, table) for arm in arms])
        axes[0].set_ylim(max(len(arms), 1) - 0.5, -0.5)
        how = "Dots: mean difference over test cases; bars: its 95 % bootstrap interval, of cases, not of trainings."
        terms = "Id, Label, Recon: terms of the pre-training (identity and label consistency, reconstruction)."
        write_caption(figure, f"{DICE}. {how} {terms} {table.origin}")
    return figure


def _panels(names: Sequence[object], width: float, height: float, share_y: bool = True) -> tuple[Figure, list[Axes]]:
    """A figure with one panel a name, at least one, and room for the caption below."""
    count = max(len(names), 1)
    figure = Plot(figsize=(width * count + 0.6, height + 0.4 / count), layout="constrained")
    axes = list(figure.subplots(1, count, squeeze=False, sharey=share_y)[0])
    if not names:
        axes[0].set_title("no run of it yet")
    return figure, axes


def _title(task: str, percent: float) -> str:
    return "\n".join(textwrap.wrap(f"{title(task)}, {percent:g} % of the labels", 40))


def _dice_against_share(ax: Axes, table: Table, task: str) -> None:
    folds, cells = table.folds[table.folds["task"] == task], table.cells[table.cells["task"] == task]
    bars = table.intervals[table.intervals["task"] == task]
    arms = list(dict.fromkeys(folds["arm"]))
    shares = sorted(set(folds["percent"]))
    # Side by side, so that nothing hides another; x is logarithmic, and a step is 1.2 % of its width.
    step = (max(shares) / min(shares) * 2.25) ** 0.012
    others = iter(OKABE_ITO[1:])
    for number, arm in enumerate(arms):
        colour, label = ARM_COLOURS.get(arm) or next(others), ARM_TITLES.get(arm, arm)
        beside = step ** (3.8 * (number - (len(arms) - 1) / 2))
        points, means, ends = (part[part["arm"] == arm] for part in (folds, cells, bars))
        x = points["percent"] * beside / step**1.3
        ax.plot(x, points["dice"], "o", color=colour, alpha=0.5, markersize=3.5, mew=0)
        ax.vlines(ends["percent"] * beside, ends["low"], ends["high"], color=colour, linewidth=1.2)
        x = means["percent"] * beside
        ax.plot(x, means["mean"], "-", color=colour, linewidth=0.7, alpha=0.7)
        ax.plot(x, means["mean"], "_", color=colour, label=label, markersize=6, mew=1.8)
        paper = {p: getattr(row, arm) for (t, p), row in TABLE1.items() if t == task and arm in ARMS}
        if paper and not table.phantom:
            x, y = [p * beside * step for p in paper], list(paper.values())
            ax.plot(x, y, "D", mfc="none", color=colour, markersize=5, label=f"{label}, paper")
    ax.set_xscale("log")
    ax.set_xticks(shares, [f"{share:g}" for share in shares])
    ax.minorticks_off()
    ax.set_xlim(min(shares) / 1.5, max(shares) * 1.5)
    ax.set_ylim(0, 1.02)
    ax.set_xlabel("labelled share of the training part, %")
    ax.set_title(title(task))


def effects_plot(effects: Sequence[Effect], origin: str = "") -> Figure:
    """Every arm's difference to another with its 95 % interval over pairs; a panel a task and what is compared with.

    Parameters
    ----------
    effects
        Rows of ``mixcl.results.effects.effects``.
    origin
        Where it comes from, for the caption.
    """
    panels: dict[str, list[Effect]] = {}
    for row in effects:
        panels.setdefault(f"{title(row.task)}: {_GROUPS.get(row.against, _OTHERS)}", []).append(row)
    rows, count = len(effects), max(len(panels), 1)
    with matplotlib.rc_context(STYLE):
        figure = Plot(figsize=(6.4, 0.9 + 0.4 * count + 0.17 * rows), layout="constrained")
        heights = [len(part) + 0.5 for part in panels.values()] or [1]
        axes = figure.subplots(count, 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
        for ax, (name, part) in zip(axes, panels.items(), strict=False):
            for place, row in enumerate(part):
                colour = ARM_COLOURS.get(row.arm, "#333333")
                ax.hlines(place, row.low, row.high, color=colour, linewidth=1.8)
                ax.plot(row.difference, place, "o", color=colour, ms=4.5, mfc=colour if row.p_holm < 0.05 else "white")
            ax.axvline(0, color="#777777", linewidth=0.8)
            ax.set_yticks(range(len(part)), [_versus(row) for row in part])
            ax.set_ylim(len(part) - 0.25, -0.75)
            ax.set_title(name)
        axes[-1].set_xlabel("difference in Dice")
        how = "Filled: p < 0.05 after Holm's adjustment over all rows. Bars: 95 % bootstrap interval over pairs."
        write_caption(figure, f"Arms compared by fold and seed. {how} {origin}")
    return figure


def _versus(row: Effect) -> str:
    """An arm's name and share; what it is compared with where the panel does not say."""
    other = "" if row.against in _GROUPS else f" vs {row.against}"
    return f"{row.arm}{other}, {row.percent:g} %"


def _share(part: pd.DataFrame, told: float | None) -> float:
    """The share that is told, or the largest at which both arms were run, or the largest."""
    if told is not None:
        return told
    both = [percent for percent, rows in part.groupby("percent") if rows["arm"].nunique() == len(PAIR)]
    return float(max(both or part["percent"]))


def _organ_rows(ax: Axes, part: pd.DataFrame, metric: str, most: int) -> None:
    """One panel of dumbbells; rows have the same height whether a task has 1 organ or 13."""
    names = part.sort_values("label", kind="stable").drop_duplicates("label").set_index("label")["organ"]
    rows = {label: row for row, label in enumerate(names.index)}
    values = part.pivot(index="label", columns="arm", values=metric)
    if all(arm in values for arm in PAIR):
        ends = values.dropna()
        ax.hlines([rows[label] for label in ends.index], ends[PAIR[0]], ends[PAIR[1]], color="#bbbbbb", linewidth=2)
    for arm in (arm for arm in PAIR if arm in values):
        size = 6.5 if arm == REFERENCE else 5  # equal values show as a ring
        ax.plot(values[arm], [rows[label] for label in values.index], "o", color=ARM_COLOURS[arm], markersize=size)
    ax.set_yticks(list(rows.values()), ["\n".join(textwrap.wrap(name, 26)) for name in names])
    middle = (len(rows) - 1) / 2
    ax.set_ylim(middle + most / 2, middle - most / 2)
    ax.grid(axis="y", color="#eeeeee", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.set_xlabel(NAMES[metric])
    ax.set_title(_title(str(part["task"].iloc[0]), float(part["percent"].iloc[0])))


def _difference(ax: Axes, table: Table, cell: statistics.Cell, row: int) -> None:
    found = statistics.of(table.comparisons, cell)
    found = found[(found["metric"] == "dice") & (found["n"] > 0)]
    colour = ARM_COLOURS.get(cell[2], OKABE_ITO[1])
    if found.empty:
        ax.text(
            0.5, row, "no pairs", transform=ax.get_yaxis_transform(), ha="center", va="center", fontsize=6,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
        )  # fmt: skip
        return
    one = found.iloc[0]
    ax.hlines(row, one["low"], one["high"], color=colour, linewidth=1.8)
    ax.plot(one["difference"], row, "o", color=colour, markersize=5)


def _terms(arm: str, table: Table) -> str:
    """An arm with the terms of its pre-training, as far as its runs tell them."""
    given = table.marks.get(arm, ())
    terms = [name for name, mark in zip(TABLE2, given, strict=False) if mark]
    name = {"mixcl": "MixCL (Ours)"}.get(arm, arm)
    return f"{name}\n{' + '.join(terms)}" if terms and "differs" not in given else name
