"""Statistical plots: Dice against the share of labels, the organs, the ablation.  They draw what results computed."""

from __future__ import annotations

import math
import textwrap
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from mixcl.figures.style import OKABE_ITO, Plot, plain, write_caption
from mixcl.results.inference import LEVEL
from mixcl.results.paper import ARMS, TABLE1, TABLE2
from mixcl.results.statistics import CELL, REFERENCE
from mixcl.results.wording import arm_title, few, in_words, title
from mixcl.results.write import Table
from mixcl.run.jobs import FULL

if TYPE_CHECKING:
    from mixcl.results.effects import Effect

ARM_COLOURS = defaultdict(lambda: "#333333", {REFERENCE: "#777777", FULL: OKABE_ITO[0]})
DICE = "Dice after fine-tuning, the mean over test cases of each case's mean over its organs"
DIAMOND: Any = {"marker": "D", "markersize": 4, "markeredgewidth": 1, "markerfacecolor": "none", "linestyle": "none"}
PAIR = (REFERENCE, FULL)


def table1_plot(table: Table) -> Plot:
    """Dice against the share of labels, by arm; the paper's values too unless the results are of phantoms."""
    tasks = list(dict.fromkeys(table.folds["task"]))
    with Plot.grid(len(tasks), 2, 3.5, 2.9, sharey=True) as (figure, axes):
        for ax, task in zip(axes, tasks, strict=False):
            _dice_against_share(ax, table, task)
        axes[0].set_ylabel("Dice")
        handles = [_dot(arm, arm_title(arm)) for arm in dict.fromkeys(table.folds["arm"])]
        if not table.phantom:
            handles += [_dot(arm, f"{arm_title(arm)}, the paper's", **DIAMOND) for arm in ARMS]
        figure.legend(handles=handles, loc="outside upper center", ncols=4)
        how = "Points: folds; dashes: means over folds; bars: 95 % interval of the mean over trainings."
        return write_caption(figure, f"{DICE}. {how} {table.origin}")


def dumbbells(organs: pd.DataFrame, origin: str = "") -> Plot:
    """Dice by organ from scratch and with MixCL; a panel a task, at the largest share at which both were run.

    ``organs`` is what ``results.organ_metrics`` gives, ``origin`` where it comes from (``Table.origin``).
    """
    shown = organs[organs["arm"].isin(PAIR)]
    tasks = list(dict.fromkeys(shown["task"]))
    parts = [_largest_share(shown[shown["task"] == task]) for task in tasks]
    most = max((part["label"].nunique() for part in parts), default=1)
    with Plot.grid(len(tasks), 2, 3.9, 1.2 + 0.19 * most) as (figure, axes):
        for ax, part in zip(axes, parts, strict=False):
            _organ_rows(ax, part, most)
        figure.legend(handles=[_dot(arm, arm_title(arm)) for arm in PAIR], loc="outside upper center", ncols=2)
        what = (
            "Dice of each organ at the largest share, the mean over test cases and seeds that have it; missed organs "
            "count as 0. All shares together:"
        )
        return write_caption(figure, f"{what} {origin}")


def ablation_plot(table: Table) -> Plot:
    """Arms as rows: mean difference in Dice to training from scratch, with its 95 % interval."""
    columns = list(dict.fromkeys((task, percent) for task, percent, _ in table.planned))
    arms = [arm for arm in dict.fromkeys(arm for *_, arm in table.planned) if arm != REFERENCE]
    with Plot.grid(len(columns), 2, 3.3, 1.1 + 0.3 * max(len(arms), 1), sharey=True) as (figure, axes):
        for ax, (task, percent) in zip(axes, columns, strict=False):
            compared = table.comparisons.query("metric == 'dice' and n > 0 and task == @task and percent == @percent")
            differences(ax, compared.assign(row=compared["arm"]), arms)
            style: Any = {"ha": "center", "va": "center", "fontsize": 6, "backgroundcolor": "white"}
            for arm in set(arms) - set(compared["arm"]):
                ax.text(0.5, arms.index(arm), "no pairs", transform=ax.get_yaxis_transform(), **style)
            ax.set(title=_title(task, percent), xlabel=f"difference in Dice to {in_words(REFERENCE)}")
            ax.locator_params(axis="x", nbins=5)
        axes[0].set_yticks(range(len(arms)), [_terms(arm, table) for arm in arms])
        axes[0].set_ylim(max(len(arms), 1) - 0.5, -0.5)
        how = "Dots: mean difference over pairs of trainings; bars: its 95 % interval, see the table."
        terms = "Id, Label, Recon: terms of the pre-training (identity and label consistency, reconstruction)."
        return write_caption(figure, f"{DICE}. {how} {terms} {table.origin}")


def effects_plot(effects: Sequence[Effect], origin: str = "") -> Plot:
    """Every arm's difference to another with its 95 % interval over pairs; a panel a task and what is compared with.

    What a single arm of a task is compared with, but for training from scratch, has no panel of its own: these rows
    share one and name both arms.
    ``effects`` are rows of ``mixcl.results.effects.effects``, ``origin`` says in the caption where they come from.
    """
    counts = Counter((row.task, row.against) for row in effects)
    alone = {pair for pair, count in counts.items() if count == 1 and pair[1] != REFERENCE}
    panels: dict[str, list[Effect]] = {}
    for row in effects:
        what = "one change alone" if (row.task, row.against) in alone else f"against {in_words(row.against)}"
        panels.setdefault(f"{title(row.task)}: {what}", []).append(row)
    heights = [len(part) + 0.5 for part in panels.values()] or [1]
    tall = 0.4 + (0.4 + 0.17 * len(effects)) / len(heights)
    with Plot.grid(len(panels), 1, 6.4, tall, sharex=True, height_ratios=heights) as (figure, axes):
        for ax, (name, part) in zip(axes, panels.items(), strict=False):
            versus = [f" vs {arm_title(row.against)}" if (row.task, row.against) in alone else "" for row in part]
            order = [f"{arm_title(row.arm)}{vs}, {row.percent:g} %" for row, vs in zip(part, versus, strict=True)]
            rows = pd.DataFrame(part).assign(row=order)
            differences(ax, rows, order, rows["p_holm"] < LEVEL)
            ax.set_ylim(len(part) - 0.25, -0.75)
            ax.set_title(name)
        axes[-1].set_xlabel("difference in Dice")
        how = f"{_filled(effects)} Bars: 95 % interval over pairs{few(pd.DataFrame(effects))}."
        return write_caption(figure, f"Arms compared by fold and seed. {how} {origin}")


def _filled(effects: Sequence[Effect]) -> str:
    """What a filled dot means, where there is one, or why there is none."""
    if all(math.isnan(row.p_holm) for row in effects):
        return "No dot is filled: none of the comparisons has a p, see the table."
    if not any(row.p_holm < LEVEL for row in effects):
        return f"No dot is filled: none has p < {LEVEL:g} after Holm's adjustment over all rows."
    return f"Filled: p < {LEVEL:g} after Holm's adjustment over all rows."


def _dot(arm: str, label: str, **style: Any) -> Line2D:
    """An entry of a legend."""
    style = {"linestyle": "none", "marker": "o", "markersize": 5, **style}
    return Line2D([], [], color=ARM_COLOURS[arm], label=label, **style)


def _intervals(rows: pd.DataFrame, value: str, **style: Any) -> None:
    """A point a row, with the interval from ``low`` to ``high`` that results computed, in place of seaborn's own."""
    ends = pd.concat([rows.assign(**{value: rows[name]}) for name in ("low", value, "high")])
    seaborn.pointplot(
        ends, estimator=lambda three: three.iloc[len(three) // 2], legend=False,
        errorbar=lambda three: (three.iloc[0], three.iloc[-1]), **style,
    )  # fmt: skip


def differences(ax: Axes, rows: pd.DataFrame, order: Sequence[str], filled: pd.Series | None = None) -> None:
    """Rows of an ``arm``'s ``difference`` with its interval; ``row`` is the place in ``order``.  All are ``filled``
    unless it says which."""
    for full, part in rows.groupby(filled) if filled is not None else [(True, rows)]:
        _intervals(
            part, "difference", x="difference", y="row", order=order, hue="arm", linestyle="none", markersize=4.5,
            palette={arm: ARM_COLOURS[arm] for arm in part["arm"]}, markeredgewidth=1.0,
            err_kws={"linewidth": 1.8, "zorder": 1.9}, ax=ax, **({} if full else {"markerfacecolor": "white"}),
        )  # fmt: skip
    ax.axvline(0, color="#777777", linewidth=0.8, zorder=1)
    ax.set_ylabel("")


def _title(task: str, percent: float) -> str:
    return "\n".join(textwrap.wrap(f"{title(task)}, {percent:g} % of the labels", 40))


def _dice_against_share(ax: Axes, table: Table, task: str) -> None:
    """One panel of :func:`table1_plot`: of each arm its folds, their mean and the paper's value, side by side."""
    folds, cells = (frame[frame["task"] == task] for frame in (table.folds, table.cells))
    means = cells.rename(columns={"mean": "dice"}).merge(table.intervals[[*CELL, "low", "high"]], on=CELL, how="left")
    kinds = ("folds", "mean") if table.phantom else ("folds", "mean", "paper")
    lanes = [f"{arm} {kind}" for arm in dict.fromkeys(folds["arm"]) for kind in kinds]
    style: Any = {
        "x": "share", "y": "dice", "order": [f"{percent:g}" for percent in sorted(set(folds["percent"]))],
        "hue": "lane", "hue_order": lanes, "palette": [ARM_COLOURS[lane.split()[0]] for lane in lanes], "ax": ax,
    }  # fmt: skip
    dodge = 0.8 - 0.8 / len(lanes)  # as stripplot has it
    seaborn.stripplot(_in_lanes(folds, "folds"), **style, dodge=True, jitter=False, legend=False, size=3.5, alpha=0.5)
    dash = {"marker": "_", "markersize": 6, "markeredgewidth": 1.8, "linewidth": 0.7, "err_kws": {"linewidth": 1.2}}
    _intervals(_in_lanes(means, "mean"), "dice", **style, dodge=dodge, **dash)
    if not table.phantom:
        rows = [(p, arm, getattr(row, arm)) for (t, p), row in TABLE1.items() if t == task for arm in ARMS]
        paper = _in_lanes(pd.DataFrame(rows, columns=["percent", "arm", "dice"]), "paper")
        seaborn.pointplot(paper, **style, dodge=dodge, errorbar=None, legend=False, **DIAMOND)
    ax.set_ylim(0, 1.02)
    ax.set(xlabel="labelled share of the training part, %", ylabel="", title=title(task))


def _in_lanes(rows: pd.DataFrame, kind: str) -> pd.DataFrame:
    """The rows with the share of their column and the lane of their arm."""
    return rows.assign(share=[f"{percent:g}" for percent in rows["percent"]], lane=rows["arm"] + f" {kind}")


def _largest_share(part: pd.DataFrame) -> pd.DataFrame:
    """The rows of the largest share at which both arms were run, or of the largest."""
    both = part[part.groupby("percent")["arm"].transform("nunique") == len(PAIR)]
    return part[part["percent"] == (part if both.empty else both)["percent"].max()]


def _organ_rows(ax: Axes, part: pd.DataFrame, most: int) -> None:
    """One panel of dumbbells; rows have the same height whether a task has 1 organ or 13."""
    names = part.sort_values("label", kind="stable").drop_duplicates("label")["organ"]
    style: Any = {"x": "dice", "y": "organ", "order": list(names), "linestyle": "none", "ax": ax}
    seaborn.pointplot(part, errorbar=("pi", 100), marker="", color="#bbbbbb", err_kws={"linewidth": 2}, **style)
    for arm, size in zip(PAIR, (6.5, 5), strict=True):  # equal values show as a ring
        ours = part[part["arm"] == arm]
        seaborn.pointplot(ours, errorbar=None, color=ARM_COLOURS[arm], markersize=size, **style)
    ax.set_yticks(range(len(names)), [plain("\n".join(textwrap.wrap(name, 26))) for name in names])
    middle = (len(names) - 1) / 2
    ax.set_ylim(middle + most / 2, middle - most / 2)
    ax.grid(axis="y", color="#eeeeee", linewidth=0.6)
    title = _title(part["task"].iloc[0], part["percent"].iloc[0])
    ax.set(xlabel="Dice", ylabel="", xlim=(-0.03, 1.03), title=title)


def _terms(arm: str, table: Table) -> str:
    """An arm with the terms of its pre-training, as far as its runs agree on them."""
    marks = table.marks.get(arm, ())
    terms = [name for name, mark in zip(TABLE2, marks, strict=False) if mark]
    name = arm_title(arm)
    return f"{name}\n{' + '.join(terms)}" if terms and "differs" not in marks else name
