"""Draw the README's first picture, framework.png and .pdf: the parts of MixCL, from the walk-through's own network.

    python figures/framework.py

What is shown is what notebook 00 shows: the first sample with most labels in common, and what the shipped weights make
of it (mixcl/lessons/weights); `reproduce/walkthrough.sh --train` calls this.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from matplotlib.patches import FancyBboxPatch

from mixcl import figures
from mixcl.batches import Batch
from mixcl.config import load_profile
from mixcl.figures import ct, panels
from mixcl.figures.style import OKABE_ITO, SMALL, Sketch
from mixcl.lessons import networks, overview, scene
from mixcl.lessons.scene import Pair
from mixcl.model import LABEL_LEVEL, MixCL

HERE = Path(__file__).resolve().parent
WIDE, TALL, SCALE = 9.4, 4.7, 1.25  # inches of one unit
COLOURS = {"encoder": "#d7e8f5", "projector": "#fbe3cf", "decoder": "#d5efe4", "loss": "#f6e3ee"}


def framework(model: MixCL, pair: Pair, batch: Batch) -> Sketch:
    """Fig. 1: from two patches over three views to the three terms; shapes and numbers of weights are the network's.

    ``batch`` is without the spatial step, so that the pair's labels lie on its patches.
    """
    with torch.no_grad():
        restored = model(batch.views).restored[0]
    labels = pair.raw["label"].numpy()
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
            laid_over = labels[which] if text.startswith("patch") else None
            panels.patch(inner, image[0].numpy(), height, (1.0, 1.0), laid_over, pair.names, bar=False)
            inner.set_title(text, pad=2, fontsize=SMALL)
        diagram(ax, model)
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


def diagram(ax: Any, model: MixCL) -> None:
    """Random augmentations T, the encoder with its levels, projectors, reconstructor; the three terms, and Eq. 2."""
    for y, view in ((3.4, 3.8), (3.2, 2.7), (1.0, 1.0)):
        arrow(ax, 1.1, y, 1.57, view)
    for y in (3.8, 2.6, 1.0):
        arrow(ax, 2.54, y, 2.9, 0.5 * y + 1.3)
    total = overview.parts(model.config)
    for x, y, text in (
        (1.33, 3.72, r"$\mathcal{T}$"), (1.33, 1.08, r"$\mathcal{T}$"),
        (3.9, 4.5, rf"encoder $\theta$: {total['encoder theta']:,} weights"),
        (5.95, 4.5, rf"projectors $\sigma$: {total['projectors sigma']:,} weights"),
    ):  # fmt: skip
        ax.text(x, y, text, ha="center", fontsize=SMALL)
    box(ax, 2.92, 1.5, 1.95, 2.95, "encoder", "")
    box(ax, 2.92, 0.55, 1.95, 0.6, "decoder", f"reconstructor $\\phi$\n{total['reconstructor phi']:,} weights")
    arrow(ax, 3.9, 1.48, 3.9, 1.17)
    for level, row in enumerate(overview.sizes(model.config).itertuples()):
        y = 3.9 - 0.56 * level
        name = f"encoder{level + 1}" if model.config.levels == "skip" and level < 4 else "ViT"
        box(ax, 3.0, y, 1.79, 0.44, "encoder", f"{name}\n{row.channels} channels, {row.edge}$^3$")
        box(ax, 5.2, y, 1.5, 0.44, "projector", f"$\\sigma^{level}$: {row[4]} channels\n{row[5]:,} weights")
        arrow(ax, 4.8, y + 0.22, 5.18, y + 0.22)
        arrow(ax, 6.72, y + 0.22, 7.22, 3.3 - 0.14 * level)
    label = f"label consistency, Eq. 6, 7\n$Z_1^{LABEL_LEVEL}$ against $Z_2^{LABEL_LEVEL}$, by label"
    box(ax, 7.25, 3.75, 2.0, 0.72, "loss", label)
    box(ax, 7.25, 2.55, 2.0, 1.0, "loss", "identity consistency, Eq. 4, 5\n$Z_1$ against $Z'_1$, every level")
    box(ax, 7.25, 0.6, 2.0, 0.72, "loss", "reconstruction, Eq. 3\n$\\tilde P$ against $P$")
    arrow(ax, 6.72, 4.2 - 0.56 * LABEL_LEVEL, 7.22, 4.05)
    arrow(ax, 4.9, 0.85, 5.42, 0.9)
    arrow(ax, 6.4, 0.95, 7.22, 0.95)
    eq_2 = r"$\mathcal{L} = \mathcal{L}_{id} + \alpha\,\mathcal{L}_{label} + \beta\,\mathcal{L}_{recon}$"
    ax.text(8.25, 4.0 - 0.56 * level, eq_2, ha="center", fontsize=12)


def box(ax: Any, x: float, y: float, wide: float, tall: float, kind: str, text: str) -> None:
    style = "round,pad=0,rounding_size=0.06"
    ax.add_patch(FancyBboxPatch((x, y), wide, tall, boxstyle=style, fc=COLOURS[kind], ec="black", lw=0.8))
    ax.text(x + wide / 2, y + tall / 2, text, ha="center", va="center", fontsize=SMALL, linespacing=1.25)


def arrow(ax: Any, x: float, y: float, to_x: float, to_y: float) -> None:
    style = {"arrowstyle": "-|>", "mutation_scale": 10, "lw": 1.0, "color": OKABE_ITO[6], "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", (to_x, to_y), (x, y), arrowprops=style)


def draw(out: Path) -> Sketch:
    """The framework, of phantoms that are prepared in ``out``."""
    config = load_profile("walkthrough")
    pair = scene.choose(config, scene.ready(config, out))
    *_, model = networks.stages(config, out).values()
    return framework(model, pair, scene.batch(config, pair.raw, spatial_prob=0.0, intensity_prob=1.0))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        figures.save(draw(Path(folder)), HERE / "framework")
