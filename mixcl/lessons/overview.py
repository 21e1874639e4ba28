"""Notebook 00: the sizes of the real network, and what each collection labels."""

import numpy as np
import pandas as pd
import seaborn
import torch
from matplotlib.colors import ListedColormap
from torch import nn

from mixcl.config.settings import Experiment, ModelConfig
from mixcl.data.registry import collections
from mixcl.data.store import Store
from mixcl.figures import ct
from mixcl.figures.style import SMALL, Sketch, write_caption
from mixcl.model import DECODER, ENCODER, MixCL, level_channels, level_edges


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
