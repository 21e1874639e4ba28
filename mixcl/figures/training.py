"""What a training left in its metrics: terms, levels, gradients, and what its features are like."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from mixcl.figures.style import OKABE_ITO, Plot, write_caption
from mixcl.results.wording import PHANTOM, arm_title, short

TERMS = {
    "total": "total, Eq. 2",
    "identity": "identity, Eq. 4",
    "label": "label, Eq. 6",
    "recon": "reconstruction, Eq. 3",
}
MEASURES = {
    "alignment": "alignment (less is closer)",
    "uniformity": "uniformity (less is more even)",
    "probe_dice": "linear probe, Dice",
    "agreement": "organs agree across collections",
}


def losses(records: Sequence[Mapping[str, Any]], card: Mapping[str, Any] | None = None) -> Plot:
    """What metrics.jsonl holds: terms of Eq. 2, levels and their shares, gradient norms, learning rate.

    ``records`` are as :func:`mixcl.run.checkpoint.read_metrics` reads them, of pre-training or of fine-tuning; ``card``
    is run.json, for the caption and for the floors of the levels (dashed, R28).
    """
    card = card or {}
    known: list[tuple[Any, str]] = [*((_value, name) for name in TERMS), (_lines, "levels"), (_shares, "levels")]
    known += [(_lines, "gradients"), (_value, "lr")]
    panels = [(draw, name) for draw, name in known if any(name in record for record in records)]
    with Plot.grid(len(panels), 4, 2.3, 1.8) as (figure, axes):
        for ax, (draw, name) in zip(axes, panels, strict=True):
            given = [record for record in records if name in record]
            values = pd.DataFrame([record[name] for record in given], index=[record["step"] for record in given])
            draw(ax, values.rename(columns=str), name, card)
            _steps(ax)
        names = dict.fromkeys(name for _, name in panels)
        return write_caption(figure, origin_of(card), f"Curves by step: {', '.join(names)}.")


def origin_of(card: Mapping[str, Any]) -> str:
    """Profile, job, seed, commit and data of a run.json, in a line; empty without one."""
    if not card:
        return ""
    text = (
        f"Profile {card.get('profile')}, job {card.get('job')}, seed {card.get('seed')}, "
        f"commit {short(str(card.get('commit')))}, data {str(card.get('data'))[:12]}."
    )
    return f"{text} {PHANTOM}" if card.get("config", {}).get("data", {}).get("source") == "phantom" else text


def _steps(ax: Axes) -> None:
    ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    ax.set(xlabel="step", ylabel="")


def _value(ax: Axes, values: pd.DataFrame, name: str, card: Mapping[str, Any]) -> None:
    title = "Dice + cross-entropy (R17)" if name == "total" and "task" in card else TERMS.get(name, "learning rate")
    least, most = float(values.min().min()), float(values.max().max())
    ax.plot(values, color=OKABE_ITO[0])
    ax.set_title(title if least or most else f"{title}: not in this training")
    if least > 0 and most > 20 * least:
        ax.set_yscale("log")
    else:
        ax.set_ylim(bottom=min(0.0, least))
        ax.ticklabel_format(axis="y", scilimits=(-3, 5))


def _lines(ax: Axes, values: pd.DataFrame, name: str, card: Mapping[str, Any]) -> None:
    """The identity loss by level, or gradient norms; what is not above 0 has no place on a logarithmic axis."""
    floors = [(k, floor) for k, floor in enumerate(card.get("floors", ())) if floor > 0 and name == "levels"]
    for number, floor in floors:
        ax.axhline(floor, color=OKABE_ITO[number], linestyle="--", linewidth=0.8)
    style = {} if name == "levels" else {"marker": "o", "markersize": 3, "markeredgewidth": 0}
    colours = list(OKABE_ITO[: values.shape[1]])
    seaborn.lineplot(values.where(values > 0), palette=colours, dashes=False, errorbar=None, ax=ax, **style)
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    ax.set_ylim(low, high * (high / low) ** 0.3)  # room for the legend
    ax.legend(loc="upper center", ncols=len(colours), handlelength=0.8, columnspacing=0.8, handletextpad=0.3)
    by_level = "identity by level" + (", dashed: floor" if floors else "")
    ax.set_title(by_level if name == "levels" else "gradient norm on encoder (R26)")


def _shares(ax: Axes, values: pd.DataFrame, name: str, card: Mapping[str, Any]) -> None:
    shares = values.div(values.sum(axis=1), axis=0).fillna(0)
    ax.stackplot(shares.index, shares.T, colors=OKABE_ITO[: shares.shape[1]], alpha=0.85)
    ax.set_ylim(0, 1)
    ax.set_title("share of each level (R6)")


def diagnostics(runs: Mapping[str, Sequence[Mapping[str, Any]]], origin: str = "") -> Plot:
    """Effective rank, constant share, pairs, linear probe and agreement of pre-trainings; of several, mean over levels.

    ``runs`` has the records of metrics.jsonl by name of the arm, ``origin`` says in the caption where they come from.
    """
    probes = [(arm, record["probe"]) for arm, records in runs.items() for record in records if "probe" in record]
    values = _measured(probes, by_level=len(runs) == 1)
    lines = list(values["line"].unique())
    palette = {line: OKABE_ITO[k % len(OKABE_ITO)] for k, line in enumerate(lines)}
    dashes = {line: (4, 2) if k >= len(OKABE_ITO) else "" for k, line in enumerate(lines)}
    with Plot.grid(values["measure"].nunique(), 3, 2.5, 2.0) as (figure, axes):
        for ax, (measure, part) in zip(axes, values.groupby("measure", sort=False), strict=False):
            seaborn.lineplot(
                part, x="step", y="value", hue="line", style="line", palette=palette, dashes=dashes, estimator=None,
                marker=".", markersize=5, markeredgewidth=0, linewidth=1, legend=False, ax=ax,
            )  # fmt: skip
            ax.set_title(str(measure))
            _steps(ax)
        handles = [
            Line2D([], [], color=palette[line], ls="--" if dashes[line] else "-", label=arm_title(line))
            for line in lines
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=6)
        chance = [probe["chance"] for _, probe in probes if "chance" in probe]
        by_chance = f" Agreement by chance: {np.mean(chance):.2f}." if chance else ""
        what = "The same patches of the pre-training collections every time; nothing is trained on them."
        return write_caption(figure, f"{what}{by_chance} {origin}")


def _measured(probes: Sequence[tuple[str, Mapping[str, Any]]], by_level: bool) -> pd.DataFrame:
    """Step, measure and value of every line: of each level, or else of each arm with the mean over its levels."""
    rows: list[tuple[int, str, str, float]] = []
    for arm, probe in probes:
        ranks = [rank / ceiling for rank, ceiling in zip(probe["rank"], probe["ceiling"], strict=True)]
        levels = {"effective rank over its ceiling": ranks, "share of energy in the mean": probe["mean_share"]}
        for measure, values in levels.items():
            lines = {f"level {k}": value for k, value in enumerate(values)} if by_level else {arm: np.mean(values)}
            rows += [(probe["step"], measure, line, value) for line, value in lines.items()]
        rows += [(probe["step"], measure, arm, probe[key]) for key, measure in MEASURES.items() if key in probe]
    return pd.DataFrame(rows, columns=["step", "measure", "line", "value"])
