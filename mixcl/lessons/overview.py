"""Notebook 00: the framework of Fig. 1 with the sizes of the real network, and what each collection labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
from numpy.typing import NDArray
from torch import nn

from mixcl.batches import Batch
from mixcl.config.settings import Experiment, ModelConfig
from mixcl.data.registry import collections
from mixcl.data.store import Store
from mixcl.figures import ct, panels
from mixcl.figures.choice import choose_slice
from mixcl.figures.style import OKABE_ITO, STYLE, Sketch, write_caption
from mixcl.lessons.scene import Pair, told
from mixcl.model import DECODER, ENCODER, LABEL_LEVEL, MixCL, level_channels, level_edges

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDE, TALL = 9.4, 4.7  # of the framework, inches
COLOURS = {"encoder": "#d7e8f5", "projector": "#fbe3cf", "decoder": "#d5efe4", "loss": "#f6e3ee"}


def weights(module: nn.Module) -> int:
    """Number of weights of a module, trained or not."""
    return sum(parameter.numel() for parameter in module.parameters())


def sizes(config: ModelConfig) -> pd.DataFrame:
    """The levels of a network with these settings: channels and edge of Z, channels after the projector, its weights.

    The network is laid out, not made: no memory is taken, whatever its size.
    """
    with torch.device("meta"):
        model = MixCL(config)
    rows = [
        (f"Z^{level}", channels, edge, edge**3, width, weights(projector))
        for level, (channels, edge, width, projector) in enumerate(
            zip(level_channels(config), level_edges(config), model.widths(), model.projectors, strict=True)
        )
    ]
    columns = ["level", "channels", "edge", "positions", "projected channels", "weights of the projector"]
    return pd.DataFrame(rows, columns=columns).set_index("level")


def parts(config: ModelConfig) -> pd.Series[int]:
    """Weights of the encoder theta, the projectors sigma and the reconstructor phi (with its output layer)."""
    with torch.device("meta"):
        model = MixCL(config)
    children = dict(model.backbone.named_children())
    return pd.Series(
        {
            "encoder theta": sum(weights(children[name]) for name in ENCODER),
            "projectors sigma": weights(model.projectors),
            "reconstructor phi": sum(weights(children[name]) for name in (*DECODER, "out")),
        },
        name="weights",
    )


def matrix(config: Experiment, store: Store) -> pd.DataFrame:
    """Scans in which an organ (row) is labelled, by collection (column); 0 where the organ is background."""
    names = dict.fromkeys((*config.data.pretrain, *config.data.finetune))
    counts = {
        name: pd.Series({organ: sum(v in case.foreground() for case in store.cases(name))
                         for v, organ in sorted(store.cases(name)[0].names.items())})
        for name in names
    }  # fmt: skip
    table = pd.DataFrame(counts).fillna(0).astype(int)
    return table.loc[list(dict.fromkeys(organ for column in counts.values() for organ in column.index))]


def gaps(config: Experiment, table: pd.DataFrame, stamp: str) -> Figure:
    """The matrix of collections and organs: coloured where labelled, with the number of scans; else grey."""
    rows, columns = table.shape
    with matplotlib.rc_context(STYLE):
        figure = Sketch(figsize=(2.2 + 0.75 * columns, 0.9 + 0.21 * rows), layout="constrained")
        ax = figure.subplots()
        for row, organ in enumerate(table.index):
            for column, name in enumerate(table.columns):
                count = int(table.loc[organ, name])
                fill: Any = ct.organ_colour(organ) if count else "0.95"
                ax.add_patch(Rectangle((column, row), 1, 1, fc=fill, ec="white", lw=1.5))
                if count:
                    ax.text(
                        column + 0.5, row + 0.52, str(count), ha="center", va="center", fontsize=7, color=_legible(fill)
                    )
        ax.axvline(len(config.data.pretrain), color="black", linewidth=1)
        ax.set(xlim=(0, columns), ylim=(rows, 0))
        ax.set_xticks(np.arange(columns) + 0.5, [name.replace("_", "\n") for name in table.columns])
        ax.set_yticks(np.arange(rows) + 0.5, table.index)
        ax.xaxis.tick_top()
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        write_caption(
            figure, "Numbers: scans in which the organ is labelled. Grey: not labelled, hence background wherever it "
            f"is in a scan. Left of the line: pre-training; right: fine-tuning. {stamp}",
        )  # fmt: skip
    return figure


def samples(config: Experiment, store: Store, height: float | None = None) -> Figure:
    """The first scan of every collection with what is labelled in it.

    ``height`` says which axial slice, 0 at the feet and 1 at the head; None is the one with most labelled voxels.
    """
    names = list(dict.fromkeys((*config.data.pretrain, *config.data.finetune)))
    known = collections(config.data)
    with matplotlib.rc_context(STYLE):
        columns = min(len(names), 4)
        lines = -(-len(names) // columns)
        figure = Sketch(figsize=(max(2.2 * columns, 4.4), 1.75 * lines + 0.5), layout="constrained")
        axes = figure.subplots(lines, columns, squeeze=False).ravel()
        for ax in axes[len(names) :]:
            ax.set_axis_off()
        for ax, name in zip(axes, names, strict=False):
            case = store.cases(name)[0]
            label = np.asarray(case.label())
            index = choose_slice(label) if height is None else round(height * (label.shape[2] - 1))
            ct.show_ct(ax, case.image(), index, case.spacing, config.data.hu)
            ct.show_labels(ax, label, index, case.spacing, case.names)
            ct.scale_bar(ax, case.shape, case.spacing)
            ax.set_title(known[name].title or name)
        which = (
            "axial slice with most labelled voxels" if height is None else f"axial slice at {height:.2f} of its height"
        )
        write_caption(figure, f"First case of each collection, {which}. {told(config, store)}")
    return figure


def framework(model: MixCL, pair: Pair, batch: Batch) -> Figure:
    """Fig. 1: from two patches over three views to the three terms; shapes and numbers of weights are the network's.

    Patches, views and restored patches are middle axial slices; the network may be untrained.
    """
    with torch.no_grad():
        restored = model(batch.views).restored
    with matplotlib.rc_context(STYLE):
        figure = Sketch(figsize=(WIDE, TALL))
        ax = figure.add_axes((0, 0, 1, 1))
        ax.set(xlim=(0, WIDE), ylim=(0, TALL))
        ax.set_axis_off()
        _inputs(figure, ax, batch)
        _network(ax, model)
        _losses(figure, ax, restored[0], len(model.widths()))
        caption = f"Middle axial slices. Every number is read from the network in use, which is untrained. {pair.told}"
        ax.text(0.08, 0.05, caption, fontsize=6)
    return figure


def _inputs(figure: Figure, ax: Axes, batch: Batch) -> None:
    """Patches, the random augmentations T, and views."""
    for image, x, y, text in (
        (batch.patches[0], 0.15, 2.85, "$P_1$"), (batch.patches[2], 0.15, 0.55, "$P_2$"),
        (batch.views[0], 1.6, 3.4, "$V_1$"), (batch.views[1], 1.6, 2.15, "$V'_1$"),
        (batch.views[2], 1.6, 0.55, "$V_2$"),
    ):  # fmt: skip
        _picture(figure, ax, image[0].numpy(), x, y, text)
    for start, end in (((1.1, 3.4), (1.57, 3.8)), ((1.1, 3.2), (1.57, 2.7)), ((1.1, 1.0), (1.57, 1.0))):
        _arrow(ax, start, end)
    ax.text(1.33, 3.72, r"$\mathcal{T}$", ha="center")
    ax.text(1.33, 1.08, r"$\mathcal{T}$", ha="center")
    for y in (3.8, 2.6, 1.0):
        _arrow(ax, (2.54, y), (2.9, 0.5 * y + 1.3))


def _network(ax: Axes, model: MixCL) -> None:
    """Encoder with its levels, projectors, reconstructor."""
    total = parts(model.config)
    _box(ax, 2.92, 1.5, 1.95, 2.95, "encoder", "")
    ax.text(3.9, 4.5, rf"encoder $\theta$: {total['encoder theta']:,} weights", ha="center", fontsize=7)
    _box(ax, 2.92, 0.55, 1.95, 0.6, "decoder", f"reconstructor $\\phi$\n{total['reconstructor phi']:,} weights")
    _arrow(ax, (3.9, 1.48), (3.9, 1.17))
    ax.text(5.95, 4.5, rf"projectors $\sigma$: {total['projectors sigma']:,} weights", ha="center", fontsize=7)
    table = sizes(model.config)
    for level, row in enumerate(table.itertuples()):
        y = 3.9 - 0.56 * level
        where = f"encoder{level + 1}" if model.config.levels == "skip" and level < 4 else "ViT"
        _box(ax, 3.0, y, 1.79, 0.44, "encoder", f"{where}\n{row.channels} channels, {row.edge}$^3$", edge="0.5")
        _box(ax, 5.2, y, 1.5, 0.44, "projector", f"$\\sigma^{level}$: {row[4]} channels\n{row[5]:,} weights")
        _arrow(ax, (4.8, y + 0.22), (5.18, y + 0.22))


def _losses(figure: Figure, ax: Axes, restored: torch.Tensor, levels: int) -> None:
    """The three terms and what they read."""
    lowest = 3.9 - 0.56 * (levels - 1)
    _box(ax, 7.25, 2.55, 2.0, 1.0, "loss", "identity consistency\n$Z_1$ against $Z'_1$, every level\nEq. 4 and 5")
    for level in range(levels):
        _arrow(ax, (6.72, 3.9 - 0.56 * level + 0.22), (7.22, 3.3 - 0.14 * level))
    y = 3.9 - 0.56 * LABEL_LEVEL
    _box(
        ax,
        7.25,
        3.75,
        2.0,
        0.72,
        "loss",
        f"label consistency\n$Z_1^{LABEL_LEVEL}$ against $Z_2^{LABEL_LEVEL}$, with labels\nEq. 6 and 7",
    )
    _arrow(ax, (6.72, y + 0.3), (7.22, 4.05))
    _picture(figure, ax, restored[0].numpy(), 5.45, 0.5, r"$\tilde P_1$")
    _arrow(ax, (4.9, 0.85), (5.42, 0.9))
    _box(ax, 7.25, 0.6, 2.0, 0.72, "loss", "reconstruction consistency\n$\\tilde P$ against $P$\nEq. 3")
    _arrow(ax, (6.4, 0.95), (7.22, 0.95))
    ax.text(
        8.25,
        lowest + 0.1,
        r"$\mathcal{L} = \mathcal{L}_{id} + \alpha\,\mathcal{L}_{label} + \beta\,\mathcal{L}_{recon}$",
        ha="center",
        fontsize=9,
    )


def _picture(figure: Figure, ax: Axes, volume: NDArray[Any], x: float, y: float, text: str) -> None:
    inner = figure.add_axes((x / WIDE, y / TALL, 0.92 / WIDE, 0.92 / TALL))
    inner.imshow(ct.axial(volume, volume.shape[2] // 2), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    panels.bare(inner)
    ax.text(x + 0.46, y + 0.96, text, ha="center", va="bottom")


def _box(ax: Axes, x: float, y: float, wide: float, tall: float, kind: str, text: str, edge: str = "black") -> None:
    style = "round,pad=0,rounding_size=0.06"
    ax.add_patch(FancyBboxPatch((x, y), wide, tall, boxstyle=style, fc=COLOURS[kind], ec=edge, lw=0.8))
    ax.text(x + wide / 2, y + tall / 2, text, ha="center", va="center", fontsize=7, linespacing=1.25)


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    ax.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=7, lw=0.8, color=OKABE_ITO[6]))


def _legible(fill: Any) -> str:
    """Black or white, whichever is easier to read on a colour."""
    red, green, blue = matplotlib.colors.to_rgb(fill)
    return "white" if 0.3 * red + 0.59 * green + 0.11 * blue < 0.5 else "black"
