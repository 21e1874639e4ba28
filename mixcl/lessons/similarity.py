"""Figures of notebook 02: how alike the drawn pixels are before and after training, and what Eq. 6 makes of them."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from mixcl.config.settings import Experiment
from mixcl.data.store import Store
from mixcl.figures import ct, panels
from mixcl.figures.style import OKABE_ITO, Sketch, plain, write_caption
from mixcl.lessons import scene
from mixcl.lessons.scene import sketch
from mixcl.model import LABEL_LEVEL, MixCL


def similarities(cosines: Mapping[str, Tensor], relation: Tensor, losses: Mapping[str, float], origin: str) -> Sketch:
    """Histograms of cos(z_i, z_j) [n, m] of positive and of negative pairs, a panel a stage of training."""
    with sketch(3.5 * len(cosines), 2.4) as figure:
        axes = figure.subplots(1, len(cosines), sharex=True, sharey=True, squeeze=False)[0]
        for ax, (title, values) in zip(axes, cosines.items(), strict=True):
            for value, name in ((1, "positive pairs"), (0, "negative pairs")):
                kept, colour = values[relation == value].numpy(), panels.RELATION_COLOURS[value]
                ax.hist(kept, bins=np.linspace(-1, 1, 61), density=True, color=colour, alpha=0.6, label=name)
                ax.axvline(kept.mean(), color=colour, linestyle="--", linewidth=1)
            ax.set(title=f"{title}: Eq. 6 = {losses[title]:.2f}", xlabel="cosine similarity")
        axes[0].set_ylabel("density")
        axes[0].legend(loc="upper left")
        write_caption(figure, f"All pairs of drawn pixels of one sample; dashed: means. {origin}")
    return figure


def temperature(values: pd.DataFrame, held: pd.DataFrame, tau: float, origin: str) -> Sketch:
    """Against tau (rows) for every stage (columns): Eq. 6, and how much the hardest negatives hold; tau is marked."""
    with sketch(7.0, 2.5) as figure:
        shown = ((values, "Eq. 6"), (held, "sum held by the hardest 1 %"))
        for ax, (table, text) in zip(figure.subplots(1, 2), shown, strict=True):
            table.plot(ax=ax, logx=True, color=["0.5", OKABE_ITO[0]], legend=table is values)
            ax.plot([tau] * table.shape[1], [np.interp(tau, table.index, table[name]) for name in table], "ok", ms=4)
            ax.axvline(tau, color="black", linestyle=":", linewidth=0.8)
            ax.set(xlabel=r"temperature $\tau$", ylabel=text, ylim=(0, 1.08 * table.max().max()))
        write_caption(figure, rf"Dotted: $\tau$ = {tau:g}; the paper has 0.1. {origin}")
    return figure


def reductions(rows: pd.DataFrame, whole: Mapping[str, float], origin: str) -> Sketch:
    """Eq. 6 of each pixel of P_1 by itself, by organ, and the one logarithm of all of them as a line.

    ``rows`` has a column ``organ`` and one a stage; ``whole`` is Eq. 6 of all pixels by stage.
    """
    organs = list(dict.fromkeys(rows["organ"]))
    places = rows["organ"].map(organs.index) + np.random.default_rng(0).uniform(-0.25, 0.25, len(rows))
    colours, wide = [ct.organ_colour(organ) for organ in rows["organ"]], len(organs) > 4
    with sketch(3.5 * len(whole), 3.6 if wide else 2.4) as figure:
        axes = figure.subplots(1, len(whole), sharey=True, squeeze=False)[0]
        for ax, (title, loss) in zip(axes, whole.items(), strict=True):
            ax.scatter(places, rows[title], s=12, c=colours, edgecolor="black", linewidth=0.2)
            means = rows.groupby("organ", sort=False)[title].mean()
            ax.hlines(means, np.arange(len(means)) - 0.35, np.arange(len(means)) + 0.35, color="black")
            ax.axhline(loss, color=OKABE_ITO[0], linestyle="--")
            ax.set_xticks(range(len(organs)), list(map(plain, organs)), rotation=90 if wide else 0)
            ax.set_title(title)
        axes[0].set(ylabel="Eq. 6 of one pixel", ylim=(0, None))
        write_caption(figure, f"Points: pixels of $P_1$, bars: their mean. Dashed: Eq. 6, one logarithm. {origin}")
    return figure


def pooled(
    model: MixCL, config: Experiment, store: Store, each: int = 2, budget: int = 60
) -> tuple[NDArray[np.float64], pd.DataFrame]:
    """Labelled pixels of V_1 of ``each`` samples a pre-training collection, at most ``budget`` an organ and sample.

    Their embeddings at length 1, [n, 2c], and a row each with ``organ`` and ``collection``.
    """
    embeddings, rows = [], []
    for name in config.data.pretrain:
        stream, names = scene.pair_stream(config, store, (name,)), store.cases(name)[0].names
        batch = scene.batch(config, *(stream[k] for k in range(each)), spatial_prob=0.0)
        with torch.no_grad():
            level = model(batch.views[:each]).levels[LABEL_LEVEL].flatten(2).double()  # [each, 2c, e^3]
        for z, (pixels, _), (labels, _) in zip(level, batch.pixels, batch.labels, strict=True):
            for value in sorted(set(labels.tolist()) & set(names)):
                part = F.normalize(z[:, pixels[labels == value][:budget]].T, dim=1)
                embeddings.append(part.numpy())
                rows += [(names[value], name)] * len(part)
    return np.concatenate(embeddings), pd.DataFrame(rows, columns=["organ", "collection"])


def embedding(stages: Mapping[str, tuple[NDArray[np.float64], pd.DataFrame]], origin: str) -> Sketch:
    """The first two principal components of what :func:`pooled` gives: colour is the organ, sign the collection."""
    with sketch(3.3 * len(stages) + 1.6, 3.2) as figure:
        axes = figure.subplots(1, len(stages), squeeze=False)[0]
        for ax, (title, (embeddings, table)) in zip(axes, stages.items(), strict=True):
            left, scales, _ = np.linalg.svd(embeddings - embeddings.mean(0), full_matrices=False)
            share = scales[:2] ** 2 / (scales**2).sum()
            table = table.assign(x=left[:, 0] * scales[0], y=left[:, 1] * scales[1])
            colours = {organ: ct.organ_colour(organ) for organ in table["organ"]}
            sns.scatterplot(
                table, x="x", y="y", hue="organ", style="collection", palette=colours, ax=ax, s=18,
                edgecolor="black", linewidth=0.25, legend=ax is axes[-1],
            )  # fmt: skip
            panels.bare(ax)
            x, y = f"component 1 ({share[0]:.0%} of the variance)", f"component 2 ({share[1]:.0%})"
            ax.set(title=title, xlabel=x, ylabel=y)
        sns.move_legend(axes[-1], "center left", bbox_to_anchor=(1.02, 0.5))
        write_caption(figure, f"Each stage has components of its own. Embeddings at length 1. {origin}")
    return figure
