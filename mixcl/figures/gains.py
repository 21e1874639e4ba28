"""The map of the gain: over fine-tuning steps and rates, beside what training from scratch reaches there."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes

from mixcl.figures.style import OKABE_ITO, Plot, write_caption
from mixcl.figures.tables import ARM_COLOURS, differences
from mixcl.results.gains import MOST, THIRD
from mixcl.results.statistics import REFERENCE
from mixcl.results.wording import arm_title, extent, few, title
from mixcl.run.jobs import FULL

WIDE = 0.2  # of Dice, from which an interval is shown in whole points, because a cell is narrow


def gain_heatmap(table: pd.DataFrame, best: pd.DataFrame, start: str = FULL) -> Plot:
    """One task and share: the gain of an arm at every point, how much sooner it is as good, and rates tuned apart.

    ``table`` is what `mixcl.results.gains.gain_map` gives, ``best`` what ``tuned`` gives; of both the rows of ``start``
    are drawn.  Contours are where training from scratch has `THIRD` and `MOST` of its highest Dice, the paper's points.
    """
    rows, best = table[table["start"] == start], best[best["start"] == start]
    task, percent = rows[["task", "percent"]].iloc[0]
    rows, best = (part[(part["task"] == task) & (part["percent"] == percent)] for part in (rows, best))
    most = rows["scratch"].max()  # of the map's points; a longer training may have more
    with Plot.grid(3, 3, 3.6, 3.0) as (figure, (gain, alike, curves)):
        _cells(gain, rows, 100 * rows["difference"], [_with_interval(row) for row in rows.to_dict("records")])
        field = rows.pivot(index="rate", columns="steps", values="scratch")
        if min(field.shape) > 1:
            middles = [np.arange(count) + 0.5 for count in field.shape[::-1]]
            style: Any = {"colors": [OKABE_ITO[6]], "linewidths": 1.0, "alpha": 0.35}
            for share, line in ((THIRD, "dashed"), (MOST, "solid")):
                gain.contour(*middles, field, [share * most], linestyles=line, **style)
        gain.set_title(f"gain of {arm_title(start)} in points of Dice, 95 % interval")
        sooner = (rows["alike"] / rows["steps"]).replace(math.inf, math.nan).map(math.log2, na_action="ignore")
        _cells(alike, rows, sooner, [_steps(row) for row in rows.to_dict("records")])
        alike.set_title("training from scratch is as good after so many steps")
        for arm, dice, rate in ((REFERENCE, "scratch", "rate_scratch"), (start, "dice", "rate")):
            curves.plot(best["steps"], best[dice], "o-", color=ARM_COLOURS[arm], label=arm_title(arm), markersize=4)
            for row in best.to_dict("records"):
                above = 1 if (arm == start) == (row["dice"] >= row["scratch"]) else -1
                curves.annotate(f"{row[rate]:g}", (row["steps"], row[dice]), (0, 6 * above), fontsize=6, ha="center",
                                va="bottom" if above > 0 else "top", textcoords="offset points")  # fmt: skip
        curves.set(
            xscale="log", xlabel="fine-tuning steps", ylabel="Dice", title="each arm at the best for it of these rates"
        )
        curves.set_xticks(best["steps"], best["steps"].map(str))
        curves.minorticks_off()
        curves.margins(y=0.12)  # for the rates beside the first and the last point
        curves.legend(loc="lower right")
        return write_caption(
            figure,
            f"{title(task)} with {percent:g} % of the labels, {extent(rows['n'])} pairs of fold and seed a "
            f"cell{few(rows)}; in brackets the Dice from scratch. Lines: training from scratch has a third (dashed) "
            f"and three quarters (solid) of its highest mean Dice, {most:.3f}, about where the paper's 15 and 50 % of "
            "BTCV lie. Bold: an interval without 0, not adjusted for the number of cells. Rates on the right were "
            "chosen on the trainings shown; where the highest or the lowest was chosen, the best may lie beyond. "
            f"{table.attrs.get('origin', '')}",
        )


def gain_arms(table: pd.DataFrame) -> Plot:
    """Every arm's gain over scratch with its 95 % interval, a panel a length and rate, of one task and share."""
    arms = list(dict.fromkeys(table["start"]))
    panels = list(table.groupby(["steps", "rate"]))
    with Plot.grid(len(panels), 3, 2.6, 0.8 + 0.22 * len(arms), sharex=True, sharey=True) as (figure, axes):
        for ax, ((steps, rate), rows) in zip(axes, panels, strict=False):
            in_points = rows.assign(arm=rows["start"], row=rows["start"], **(100 * rows[["low", "difference", "high"]]))
            differences(ax, in_points, arms, _is_clear(rows))
            ax.set_title(f"{steps} steps at {rate:g}, scratch {rows['scratch'].mean():.3f}")
            ax.set_xlabel("gain in points of Dice")
        axes[0].set_yticks(range(len(arms)), [arm_title(arm) for arm in arms])
        axes[0].set_ylim(len(arms) - 0.4, -0.6)
        task, percent = table[["task", "percent"]].iloc[0]
        return write_caption(
            figure,
            f"{title(task)} with {percent:g} % of the labels: what networks start from, against training from scratch "
            f"of the same length and rate, {extent(table['n'])} pairs of fold and seed{few(table)}. Filled: a 95 % "
            f"interval without 0, not adjusted for the number of arms. {table.attrs.get('origin', '')}",
        )


def _cells(ax: Axes, rows: pd.DataFrame, values: pd.Series, texts: Sequence[str]) -> None:
    """A heat map of values by steps and rate, blue above 0, orange below; each cell's text in it."""
    most = max(values.abs().fillna(0).max(), 1e-9)
    cells = rows.assign(value=values.fillna(0), text=texts).pivot(index="rate", columns="steps")
    seaborn.heatmap(
        cells["value"], annot=cells["text"], fmt="", annot_kws={"fontsize": 6.5, "color": "0.15"}, cmap="PuOr",
        vmin=-1.6 * most, vmax=1.6 * most, cbar=False, ax=ax,
    )  # fmt: skip
    for text, clear in zip(ax.texts, _is_clear(rows.sort_values(["rate", "steps"])), strict=True):
        text.set_fontweight("bold" if clear else "normal")
    ax.invert_yaxis()
    ax.tick_params(rotation=0)
    ax.set(xlabel="fine-tuning steps", ylabel="learning rate")


def _is_clear(rows: pd.DataFrame) -> pd.Series:
    """Where the interval is without 0."""
    return (rows["low"] > 0) | (rows["high"] < 0)


def _with_interval(row: Mapping[Any, Any]) -> str:
    digits = 1 if row["high"] - row["low"] < WIDE else 0
    ends = f"{100 * row['low']:+.{digits}f} to {100 * row['high']:+.{digits}f}" if math.isfinite(row["low"]) else "-"
    return f"{100 * row['difference']:+.1f}\n{ends}\n({row['scratch']:.2f})"


def _steps(row: Mapping[Any, Any]) -> str:
    if math.isfinite(row["alike"]):
        return f"{row['alike']:.0f}\n(x {row['alike'] / row['steps']:.1f})"
    return "before the\nfirst point" if math.isnan(row["alike"]) else "beyond the\nlast point"
