"""Figures of notebook 02: how alike the drawn pixels are before and after training, and what Eq. 6 makes of them."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn
import torch
from matplotlib.patches import Circle
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from mixcl.config.settings import Experiment
from mixcl.data.store import Store
from mixcl.figures import ct, panels
from mixcl.figures.style import OKABE_ITO, Sketch, plain, write_caption
from mixcl.lessons import scene
from mixcl.model import LABEL_LEVEL, MixCL


def toy(points: Mapping[str, Sequence[Tensor]], labels: Tensor) -> Sketch:
    """Free points [n, 2] at length 1: a row a way to average, a column a seed; the mean cosine of positive pairs."""
    columns = max(map(len, points.values()))
    same = (labels[:, None] == labels) & ~torch.eye(len(labels), dtype=torch.bool)
    means: dict[str, list[float]] = {}
    wide, tall = 2.1 * columns + 0.6, 2.3 * len(points) + 0.6
    with Sketch.sized(wide, tall, len(points), columns, squeeze=False) as (figure, axes):
        for (name, seeds), row in zip(points.items(), axes, strict=True):
            for ax, z in zip(row, seeds, strict=True):
                unit = F.normalize(z)
                means.setdefault(name, []).append(float((unit @ unit.T)[same].mean()))
                ax.add_patch(Circle((0, 0), 1, fill=False, color="0.8"))
                for k, value in enumerate(labels.unique()):
                    x, y = unit[labels == value].T.numpy()
                    ax.plot(x, y, "os^"[k % 3], ms=7, alpha=0.6, mec="black", mew=0.4, color=OKABE_ITO[k % 6])
                ax.set(xlim=(-1.2, 1.2), ylim=(-1.2, 1.2), aspect="equal", title=f"{means[name][-1]:.2f}")
                ax.set(xticks=[], yticks=[])
                ax.spines[:].set_visible(False)
            row[0].set_ylabel(name)
        each = [f"{name}: mean cosine of positive pairs {min(m):.2f} to {max(m):.2f}." for name, m in means.items()]
        text = "Colour and form: the label. Columns: seeds. Numbers: mean cosine of positive pairs."
        return write_caption(figure, text, f"Points on circles. {' '.join(each)}")


def similarities(cosines: Mapping[str, Tensor], relation: Tensor, losses: Mapping[str, float]) -> Sketch:
    """Histograms of cos(z_i, z_j) [n, m] of positive and of negative pairs, a panel a stage of training."""
    sentences = []
    with Sketch.grid(len(cosines), len(cosines), 3.7, 3.2, sharex=True, sharey=True) as (figure, axes):
        for ax, (title, values) in zip(axes, cosines.items(), strict=True):
            means = []
            for value, name in ((1, "positive pairs"), (0, "negative pairs")):
                kept, colour = values[relation == value].numpy(), panels.RELATION_COLOURS[value]
                ax.hist(kept, bins=np.linspace(-1, 1, 61).tolist(), density=True, color=colour, alpha=0.6, label=name)
                ax.axvline(kept.mean(), color=colour, linestyle="--")
                means.append(f"{kept.mean():.2f}")
            both = f"means {' and '.join(means)}"
            ax.set(title=f"{title}: Eq. 6 = {losses[title]:.2f}\n{both}", xlabel="cosine", xticks=(-1, 0, 1))
            sentences.append(f"{title}: {both}.")
        axes[0].set_ylabel("density")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
        alt = f"Histograms of the cosines of positive and negative pairs. {' '.join(sentences)}"
        return write_caption(figure, "All pairs of drawn pixels of one sample; dashed: means.", alt)


def temperature(values: pd.DataFrame, held: pd.DataFrame, tau: float) -> Sketch:
    """Against tau (rows) for every stage (columns): Eq. 6, and how much the hardest negatives hold; tau is marked."""
    with Sketch.sized(10.0, 3.3, 1, 2) as (figure, axes):
        colours = ["0.6", OKABE_ITO[5], OKABE_ITO[0]]
        for ax, table, text in zip(axes, (values, held), ("Eq. 6", "held by the hardest 1 %"), strict=True):
            table.plot(ax=ax, logx=True, color=colours[: table.shape[1]], legend=table is values)
            ax.axvline(tau, color="black", linestyle=":", linewidth=1)
            ax.set(xlabel=r"temperature $\tau$", ylabel=text, ylim=(0, 1.08 * table.max().max()))
        alt = "Curves over tau: the smaller it is, the more of the sum the most similar negatives hold."
        return write_caption(figure, rf"Dotted: $\tau$ = {tau:g}, as in the paper.", alt)


def attention(cosines: Tensor, relation: Tensor, tau: float) -> Sketch:
    """Which pairs the sums of Eq. 6 are made of at one tau: the cosines [n, m] of pairs as they are, and by weight."""
    bins = np.linspace(-1, 1, 61).tolist()
    with Sketch.sized(10.0, 3.4, 1, 2, sharey=True) as (figure, axes):
        for ax, value, name in ((axes[0], 1, "positive pairs"), (axes[1], 0, "negative pairs")):
            kept = cosines[relation == value].double()
            share = F.softmax(kept / tau, 0).numpy()
            ax.hist(kept.numpy(), bins, weights=np.full(len(kept), 1 / len(kept)), color="0.75", label="pairs")
            style = {"histtype": "step", "linewidth": 2, "color": panels.RELATION_COLOURS[value]}
            ax.hist(kept.numpy(), bins, weights=share, label="their share of the sum", **style)
            ax.set(xlabel="cosine", xticks=(-1, -0.5, 0, 0.5, 1), title=rf"{name}, $\tau$ = {tau:g}", ylim=(0, 1))
            ax.legend(loc="upper left")
        alt = f"The hills of pairs, and at their right ends the few pairs that the sums hold at tau = {tau:g}."
        return write_caption(figure, "", alt)


def reductions(rows: pd.DataFrame, whole: Mapping[str, float]) -> Sketch:
    """Eq. 6 of each pixel of P_1 by itself, by organ, and the one logarithm of all of them as a line.

    ``rows`` has a column ``organ`` and one a stage; ``whole`` is Eq. 6 of all pixels by stage.
    """
    organs = list(dict.fromkeys(rows["organ"]))
    places = rows["organ"].map(organs.index) + np.random.default_rng(0).uniform(-0.25, 0.25, len(rows))
    colours, wide = [ct.organ_colour(organ) for organ in rows["organ"]], len(organs) > 4
    with Sketch.grid(len(whole), len(whole), 3.7, 4.2 if wide else 3.1, sharey=True) as (figure, axes):
        for ax, (title, loss) in zip(axes, whole.items(), strict=True):
            ax.scatter(places, rows[title], s=22, c=colours, edgecolor="black", linewidth=0.2)
            means = rows.groupby("organ", sort=False)[title].mean()
            ax.hlines(means, np.arange(len(means)) - 0.35, np.arange(len(means)) + 0.35, color="black")
            ax.axhline(loss, color=OKABE_ITO[0], linestyle="--")
            ax.set_xticks(range(len(organs)), list(map(plain, organs)), rotation=90 if wide else 0)
            ax.set_title(title)
        axes[0].set(ylabel="Eq. 6 of one pixel", ylim=(0, None))
        text = "Points: pixels of $P_1$, bars: their mean. Dashed: Eq. 6 of all, one logarithm."
        below = ", ".join(f"{(rows[title] < loss).mean():.0%} ({title})" for title, loss in whole.items())
        alt = f"Eq. 6 of single pixels by organ; below the dashed line of all of them lie {below}."
        return write_caption(figure, text, alt)


def pooled(
    model: MixCL, config: Experiment, store: Store, each: int = 2, budget: int = 12
) -> tuple[NDArray[np.float64], pd.DataFrame]:
    """Labelled pixels of V_1 of ``each`` samples a pre-training collection, at most ``budget`` an organ and sample.

    Their embeddings at length 1, [n, 2c], and a row each with ``organ`` and ``collection``.
    """
    embeddings, rows = [], []
    for name in config.data.pretrain:
        pairs, names = scene.pair_dataset(config, store, (name,)), store.cases(name)[0].names
        batch = scene.batch(config, *(pairs[k] for k in range(each)), spatial_prob=0.0)
        with torch.no_grad():
            level = model(batch.views[:each]).levels[LABEL_LEVEL].flatten(2).double()  # [each, 2c, e^3]
        for z, (pixels, _), (labels, _) in zip(level, batch.pixels, batch.labels, strict=True):
            for value in sorted(set(labels.tolist()) & set(names)):
                part = F.normalize(z[:, pixels[labels == value][:budget]].T, dim=1)
                embeddings.append(part.numpy())
                rows += [(names[value], name)] * len(part)
    return np.concatenate(embeddings), pd.DataFrame(rows, columns=["organ", "collection"])


def embedding(stages: Mapping[str, tuple[NDArray[np.float64], pd.DataFrame]]) -> Sketch:
    """The first two principal components of what :func:`pooled` gives: colour is the organ, sign the collection."""
    with Sketch.sized(3.2 * len(stages) + 2.0, 3.9, 1, len(stages), squeeze=False) as (figure, (axes,)):
        for ax, (title, (embeddings, table)) in zip(axes, stages.items(), strict=True):
            left, scales, _ = np.linalg.svd(embeddings - embeddings.mean(0), full_matrices=False)
            share = scales[:2] ** 2 / (scales**2).sum()
            table = table.assign(x=left[:, 0] * scales[0], y=left[:, 1] * scales[1])
            colours = {organ: ct.organ_colour(organ) for organ in table["organ"]}
            seaborn.scatterplot(
                table, x="x", y="y", hue="organ", style="collection", palette=colours, ax=ax, s=30,
                edgecolor="black", linewidth=0.25, legend=ax is axes[-1],
            )  # fmt: skip
            x, y = f"component 1 ({share[0]:.0%})", f"component 2 ({share[1]:.0%})"
            ax.set(title=title, xlabel=x, ylabel=y, xticks=[], yticks=[])
        seaborn.move_legend(axes[-1], "center left", bbox_to_anchor=(1.02, 0.5))
        text = "Each stage has components of its own, with their share of the variance. Length 1."
        alt = "Clouds of pixels, coloured by organ, with a sign for their collection, a panel a stage."
        return write_caption(figure, text, alt)
