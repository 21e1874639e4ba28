"""Notebook 00: the framework of Fig. 1 with the sizes of the real network, and what each collection labels."""

from typing import Any

import numpy as np
import pandas as pd
import seaborn
import torch
from matplotlib.colors import ListedColormap
from matplotlib.patches import FancyBboxPatch
from torch import nn

from mixcl.batches import Batch
from mixcl.config.settings import Experiment, ModelConfig
from mixcl.data.registry import collections
from mixcl.data.store import Store
from mixcl.figures import ct
from mixcl.figures.style import OKABE_ITO, SMALL, Sketch, write_caption
from mixcl.lessons.scene import Pair
from mixcl.model import DECODER, ENCODER, LABEL_LEVEL, MixCL, level_channels, level_edges

WIDE, TALL, SCALE = 9.4, 4.7, 1.25  # of the framework; inches of one of its units
COLOURS = {"encoder": "#d7e8f5", "projector": "#fbe3cf", "decoder": "#d5efe4", "loss": "#f6e3ee"}


def weights(*modules: nn.Module) -> int:
    """Number of weights of modules, trained or not."""
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def sizes(config: ModelConfig) -> pd.DataFrame:
    """The levels of a network: channels and edge of Z, positions, channels after the projector, and its weights."""
    with torch.device("meta"):  # laid out, not made: no memory is taken, whatever its size
        model = MixCL(config)
    table = pd.DataFrame({"channels": level_channels(config), "edge": level_edges(config)})
    table = table.assign(positions=table["edge"] ** 3).assign(**{"projected channels": model.widths()})
    table["weights of the projector"] = [weights(projector) for projector in model.projectors]
    return table.set_axis([f"Z^{level}" for level in table.index]).rename_axis("level")


def parts(config: ModelConfig) -> dict[str, int]:
    """Weights of the encoder theta, the projectors sigma and the reconstructor phi (with its output layer)."""
    with torch.device("meta"):
        model = MixCL(config)
    children = dict(model.backbone.named_children())
    return {
        "encoder theta": weights(*(children[name] for name in ENCODER)),
        "projectors sigma": weights(model.projectors),
        "reconstructor phi": weights(*(children[name] for name in (*DECODER, "out"))),
    }


def matrix(config: Experiment, store: Store) -> pd.DataFrame:
    """Scans in which an organ (row) is labelled, by collection (column); 0 where the organ is background."""
    columns = {}
    for name in collections(config.data):
        cases = store.cases(name)
        organs = sorted(cases[0].names.items())
        columns[name] = {organ: sum(value in case.foreground() for case in cases) for value, organ in organs}
    rows = dict.fromkeys(organ for column in columns.values() for organ in column)
    return pd.DataFrame(columns, index=list(rows)).fillna(0).astype(int)


def gaps(config: Experiment, table: pd.DataFrame) -> Sketch:
    """The matrix of collections and organs: coloured where labelled, with the number of scans; else grey."""
    rows, columns = table.shape
    colours = ListedColormap([ct.organ_colour(organ) for organ in table.index])
    empty = (table == 0).to_numpy()
    with Sketch.sized(2.6 + 0.95 * columns, 1.1 + 0.27 * rows) as (figure, ax):
        ax.set_facecolor("0.95")
        seaborn.heatmap(
            np.tile(np.arange(rows)[:, None], columns), mask=empty, annot=table.to_numpy(), fmt="d",
            annot_kws={"fontsize": SMALL}, cmap=colours, vmin=-0.5, vmax=rows - 0.5, cbar=False, ax=ax,
            xticklabels=[name.replace("_", "\n") for name in table.columns], yticklabels=list(table.index),
        )  # fmt: skip
        ax.axvline(len(config.data.pretrain), color="black", linewidth=1.5)
        ax.tick_params(length=0, top=False, labeltop=True, labelbottom=False, rotation=0)
        return write_caption(
            figure, "Numbers: scans in which the organ is labelled. Grey: not labelled, hence background wherever it "
            "is in a scan. Left of the line: pre-training; right: fine-tuning.",
            f"A matrix of {rows} organs and {columns} collections, of which {empty.mean():.0%} is grey: each "
            "collection labels a few organs, and hardly two the same.",
        )  # fmt: skip


def samples(config: Experiment, store: Store, height: float | None = None) -> Sketch:
    """The labels of every collection's first scan, at a height from 0, feet, to 1, or where most voxels have one."""
    known = collections(config.data)
    with Sketch.grid(len(known), 4, max(2.5, 5.0 / len(known)), 2.3) as (figure, axes):
        for ax, (name, collection) in zip(axes, known.items(), strict=False):
            case = store.cases(name)[0]
            label = np.asarray(case.label())
            index = ct.choose_slice(label) if height is None else round(height * (label.shape[2] - 1))
            ct.show_ct(ax, case.image(), index, case.spacing, config.data.hu)
            present = ct.show_labels(ax, label, index, case.spacing, case.names)
            ct.scale_bar(ax, case.shape, case.spacing)
            few = ", ".join(present) if len(present) < 3 else f"{len(present)} organs"
            ax.set_title(f"{collection.title or name}:\n{few or 'nothing here'}")
        which = "with most labelled voxels" if height is None else f"at {height:.2f} of its height"
        titles = "; ".join(" ".join(ax.get_title().split()) for ax in axes)
        alt = f"Axial slices of the trunk, a scan a collection: {titles}"
        return write_caption(figure, f"First case of each collection, axial slice {which}.", alt)


def framework(model: MixCL, pair: Pair, batch: Batch) -> Sketch:
    """Fig. 1: from two patches over three views to the three terms; shapes and numbers of weights are the network's.

    ``batch`` is without the spatial step, so that the pair's labels lie on its patches.
    """
    with torch.no_grad():
        restored = model(batch.views).restored[0]
    labels = pair.raw["label"].numpy()
    spacing = (1.0, 1.0, 1.0)
    with Sketch.sized(WIDE * SCALE, TALL * SCALE) as (figure, ax):
        figure.set_layout_engine("none")
        ax.set(xlim=(0, WIDE), ylim=(0, TALL), position=(0, 0, 1, 1))
        ax.set_axis_off()
        for which, image, x, y, text in (
            (0, batch.patches[0], 0.12, 2.85, "patch $P_1$"), (1, batch.patches[2], 0.12, 0.5, "patch $P_2$"),
            (0, batch.views[0], 1.6, 3.35, "view $V_1$"), (0, batch.views[1], 1.6, 2.1, "view $V'_1$"),
            (1, batch.views[2], 1.6, 0.5, "view $V_2$"), (0, restored, 5.45, 0.45, r"restored $\tilde P_1$"),
        ):  # fmt: skip
            inner, height = ax.inset_axes((x, y, 0.95, 0.95), transform=ax.transData), ct.choose_slice(labels[which])
            ct.show_ct(inner, image[0].numpy(), height, spacing, (0.0, 1.0))
            if x < 1:
                ct.show_labels(inner, labels[which], height, spacing, pair.names, 0.35)
            inner.set_title(text, pad=2, fontsize=SMALL)
        _diagram(ax, model)
        figure.caption = (
            "Two patches with the labels of their collection, their distorted views, one encoder for all, and three "
            "questions to its features. The numbers are those of the walk-through's network. Phantoms, not patients."
        )
        figure.alt = (
            "The framework: patches P1 and P2 become views V1, V1' and V2, which pass an encoder of "
            f"{len(model.widths())} levels. A projector a level leads to the identity term, one level to the label "
            "term, and a reconstructor to the restored patch and the reconstruction term."
        )
    return figure


def _diagram(ax: Any, model: MixCL) -> None:
    """Random augmentations T, the encoder with its levels, projectors, reconstructor; the three terms, and Eq. 2."""
    for y, view in ((3.4, 3.8), (3.2, 2.7), (1.0, 1.0)):
        _arrow(ax, 1.1, y, 1.57, view)
    for y in (3.8, 2.6, 1.0):
        _arrow(ax, 2.54, y, 2.9, 0.5 * y + 1.3)
    total = parts(model.config)
    for x, y, text in (
        (1.33, 3.72, r"$\mathcal{T}$"), (1.33, 1.08, r"$\mathcal{T}$"),
        (3.9, 4.5, rf"encoder $\theta$: {total['encoder theta']:,} weights"),
        (5.95, 4.5, rf"projectors $\sigma$: {total['projectors sigma']:,} weights"),
    ):  # fmt: skip
        ax.text(x, y, text, ha="center", fontsize=SMALL)
    _box(ax, 2.92, 1.5, 1.95, 2.95, "encoder", "")
    _box(ax, 2.92, 0.55, 1.95, 0.6, "decoder", f"reconstructor $\\phi$\n{total['reconstructor phi']:,} weights")
    _arrow(ax, 3.9, 1.48, 3.9, 1.17)
    for level, row in enumerate(sizes(model.config).itertuples()):
        y = 3.9 - 0.56 * level
        name = f"encoder{level + 1}" if model.config.levels == "skip" and level < 4 else "ViT"
        _box(ax, 3.0, y, 1.79, 0.44, "encoder", f"{name}\n{row.channels} channels, {row.edge}$^3$")
        _box(ax, 5.2, y, 1.5, 0.44, "projector", f"$\\sigma^{level}$: {row[4]} channels\n{row[5]:,} weights")
        _arrow(ax, 4.8, y + 0.22, 5.18, y + 0.22)
        _arrow(ax, 6.72, y + 0.22, 7.22, 3.3 - 0.14 * level)
    label = f"label consistency, Eq. 6, 7\n$Z_1^{LABEL_LEVEL}$ against $Z_2^{LABEL_LEVEL}$, by label"
    _box(ax, 7.25, 3.75, 2.0, 0.72, "loss", label)
    _box(ax, 7.25, 2.55, 2.0, 1.0, "loss", "identity consistency, Eq. 4, 5\n$Z_1$ against $Z'_1$, every level")
    _box(ax, 7.25, 0.6, 2.0, 0.72, "loss", "reconstruction, Eq. 3\n$\\tilde P$ against $P$")
    _arrow(ax, 6.72, 4.2 - 0.56 * LABEL_LEVEL, 7.22, 4.05)
    _arrow(ax, 4.9, 0.85, 5.42, 0.9)
    _arrow(ax, 6.4, 0.95, 7.22, 0.95)
    eq_2 = r"$\mathcal{L} = \mathcal{L}_{id} + \alpha\,\mathcal{L}_{label} + \beta\,\mathcal{L}_{recon}$"
    ax.text(8.25, 4.0 - 0.56 * level, eq_2, ha="center", fontsize=12)


def _box(ax: Any, x: float, y: float, wide: float, tall: float, kind: str, text: str) -> None:
    style = "round,pad=0,rounding_size=0.06"
    ax.add_patch(FancyBboxPatch((x, y), wide, tall, boxstyle=style, fc=COLOURS[kind], ec="black", lw=0.8))
    ax.text(x + wide / 2, y + tall / 2, text, ha="center", va="center", fontsize=SMALL, linespacing=1.25)


def _arrow(ax: Any, x: float, y: float, to_x: float, to_y: float) -> None:
    style = {"arrowstyle": "-|>", "mutation_scale": 10, "lw": 1.0, "color": OKABE_ITO[6], "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", (to_x, to_y), (x, y), arrowprops=style)
