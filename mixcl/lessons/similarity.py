"""Figures of notebook 02: similarities of the drawn pixels before and after training, and what Eq. 6 makes of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from mixcl.figures import ct, panels
from mixcl.figures.style import OKABE_ITO, STYLE, Sketch, write_caption
from mixcl.lessons.pixels import Drawn, Points, principal

MARKERS = "os^Dv<>Pp*"


def similarities(stages: Mapping[str, Drawn], told: str) -> Figure:
    """Histograms of cos(z_i, z_j) of positive and of negative pairs, a panel a stage of training."""
    with matplotlib.rc_context(STYLE):
        figure = Sketch(figsize=(3.5 * len(stages), 2.4), layout="constrained")
        axes = figure.subplots(1, len(stages), sharex=True, sharey=True, squeeze=False)[0]
        for ax, (title, drawn) in zip(axes, stages.items(), strict=True):
            cosines, matrix = drawn.cosines().numpy(), drawn.relation().numpy()
            for value, name in ((1, "positive pairs"), (0, "negative pairs")):
                kept = cosines[matrix == value]
                colour = panels.RELATION_COLOURS[value]
                ax.hist(kept, bins=np.linspace(-1, 1, 61), density=True, color=colour, alpha=0.6, label=name)
                ax.axvline(kept.mean(), color=colour, linestyle="--", linewidth=1)
            ax.set_title(f"{title}: Eq. 6 = {drawn.loss():.2f}")
            ax.set_xlabel("cosine similarity")
        axes[0].set_ylabel("density")
        axes[0].legend(loc="upper left")
        write_caption(figure, f"All pairs of drawn pixels of one sample; dashed: means. {told}")
    return figure


def temperature(stages: Mapping[str, Drawn], tau: float, told: str) -> Figure:
    """Against tau: Eq. 6, and how much of the sum over negatives the most similar 1 % hold; ``tau`` is marked."""
    taus = np.geomspace(0.01, 2, 40)
    with matplotlib.rc_context(STYLE):
        figure = Sketch(figsize=(7.0, 2.5), layout="constrained")
        left, right = figure.subplots(1, 2)
        for (title, drawn), colour in zip(stages.items(), ("0.5", OKABE_ITO[0]), strict=False):
            negatives = drawn.cosines().numpy()[drawn.relation().numpy() == 0]
            left.plot(taus, [drawn.loss(temperature=t) for t in taus], color=colour, label=title)
            left.plot(tau, drawn.loss(temperature=tau), "o", color=colour)
            right.plot(taus, [hardest(negatives, t) for t in taus], color=colour, label=title)
            right.plot(tau, hardest(negatives, tau), "o", color=colour)
        for ax, text in ((left, "Eq. 6"), (right, "sum held by the hardest 1 %")):
            ax.set_xscale("log")
            ax.axvline(tau, color="black", linestyle=":", linewidth=0.8)
            ax.set_xlabel(r"temperature $\tau$")
            ax.set_ylabel(text)
            ax.set_ylim(0, 1.08 * ax.get_ylim()[1])
        left.legend()
        write_caption(figure, rf"Dotted: $\tau$ = {tau:g}; the paper has 0.1. {told}")
    return figure


def hardest(cosines: NDArray[Any], tau: float, share: float = 0.01) -> float:
    """How much of sum exp(cos / tau) the most similar ``share`` of [n] cosines hold, in [0, 1].

    >>> round(hardest(np.array([1.0, 0, 0, 0]), 1e6, 0.25), 3), round(hardest(np.array([1.0, 0, 0, 0]), 0.01, 0.25), 3)
    (0.25, 1.0)
    """
    scores = np.sort(np.exp((cosines - cosines.max()).astype(np.float64) / tau))[::-1]
    return float(scores[: max(int(share * len(scores)), 1)].sum() / scores.sum())


def reductions(rows: Mapping[str, pd.DataFrame], stages: Mapping[str, Drawn], told: str) -> Figure:
    """What each pixel of P_1 would pay by itself, by organ, and the one logarithm of Eq. 6 as a line.

    Parameters
    ----------
    rows
        By stage, as :func:`mixcl.lessons.pixels.row_losses`.
    """
    organs = list(dict.fromkeys(organ for table in rows.values() for organ in table["organ"]))
    with matplotlib.rc_context(STYLE):
        figure = Sketch(figsize=(3.5 * len(rows), 2.4 if len(organs) <= 4 else 3.6), layout="constrained")
        axes = figure.subplots(1, len(rows), sharey=True, squeeze=False)[0]
        for ax, (title, table) in zip(axes, rows.items(), strict=True):
            for k, organ in enumerate(organs):
                values = table.loc[table["organ"] == organ, "loss"].to_numpy()
                spread = np.random.default_rng(0).uniform(-0.25, 0.25, len(values))
                colour = ct.organ_colour(organ)
                ax.plot(k + spread, values, "o", ms=3, color=colour, mec="black", mew=0.2)
                ax.plot([k - 0.35, k + 0.35], [values.mean()] * 2, color="black", linewidth=1.5)
            ax.axhline(stages[title].loss(), color=OKABE_ITO[0], linestyle="--")
            ax.set_xticks(range(len(organs)), organs, rotation=90 if len(organs) > 4 else 0)
            ax.set_xlim(-0.6, len(organs) - 0.4)
            ax.set_title(title)
        axes[0].set_ylabel("-log share of the positives")
        axes[0].set_ylim(bottom=0)
        write_caption(
            figure, f"Points: pixels of $P_1$, bars: their mean. Dashed: Eq. 6, one logarithm over all of them. {told}"
        )
    return figure


def embedding(stages: Mapping[str, Points], told: str) -> Figure:
    """The first two principal components of pixels of all collections: colour is the organ, sign the collection."""
    with matplotlib.rc_context(STYLE):
        figure = Sketch(figsize=(3.3 * len(stages) + 1.6, 3.2), layout="constrained")
        axes = figure.subplots(1, len(stages), squeeze=False)[0]
        for ax, (title, points) in zip(axes, stages.items(), strict=True):
            places, share = principal(points.embeddings)
            signs = dict(zip(dict.fromkeys(points.collections.tolist()), MARKERS, strict=False))
            organs = list(dict.fromkeys(points.organs.tolist()))
            for organ in organs:
                for name, sign in signs.items():
                    kept = (points.organs == organ) & (points.collections == name)
                    ax.plot(*places[kept].T, sign, ms=4, color=ct.organ_colour(organ), mec="black", mew=0.25)
            ax.set_title(title)
            ax.set_xlabel(f"component 1 ({share[0]:.0%} of the variance)")
            ax.set_ylabel(f"component 2 ({share[1]:.0%})")
            ax.set_xticks([])
            ax.set_yticks([])
        handles = [
            Line2D([], [], linestyle="none", marker=sign, color="white", mec="black", label=name)
            for name, sign in signs.items()
        ]
        figure.legend(handles=[*panels.organ_handles(organs), *handles], loc="outside right center", handlelength=1.2)
        write_caption(figure, f"Each stage has components of its own. Embeddings at length 1. {told}")
    return figure
