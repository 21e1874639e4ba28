"""The paper's Fig. 1 and Fig. 2 from a sample of this run, which `mixcl.illustration.sample` gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from mixcl.config.settings import Experiment
from mixcl.figures import ct, panels
from mixcl.figures.style import OKABE_ITO, Plot, plain, write_caption
from mixcl.figures.training import TERMS, origin_of

if TYPE_CHECKING:  # it needs torch
    from mixcl.illustration import Sample

OVERVIEW = (
    "Boxes: where the patches were cut, before the spatial step (R11), which may turn them; outside the scan: padding. "
    "All panels: the middle axial slice. RMS: difference to the patch, in fractions of the window."
)
PARTS = (
    "(a), (b): the axial slice of the label level's grid (R12) with most labelled voxels, and the pixels drawn in it. "
    "(c): channels of the label level of the views V1 and V'1. (d): all drawn pixels, those of the background first."
)


def overview(shown: Sample, config: Experiment) -> Plot:
    """Fig. 1: two patches, their views, what is restored of them, and the three terms with their values."""
    restored = {r"$\tilde P_1$ from $V_1$": "$V_1$", r"$\tilde P_2$ from $V_2$": "$V_2$"}
    volumes = {**shown.patches, **shown.views, **{title: shown.restored[view] for title, view in restored.items()}}
    apart = {**shown.view_rms, **{title: shown.restored_rms[view] for title, view in restored.items()}}
    total, *terms = (f"{text}: {shown.terms[name]:.4g}" for name, text in TERMS.items())
    weights = f"$\\alpha$ = {config.loss.alpha:g}, $\\beta$ = {config.loss.beta:g}"
    order = ("$P_1$", "$V_1$", "$V'_1$", r"$\tilde P_1$ from $V_1$", "$P_2$", "$V_2$", "", r"$\tilde P_2$ from $V_2$")
    with Plot.grid(10, 5, 1.72, 1.75) as (figure, axes):
        scans, patches = (axes[0], axes[5]), (*axes[1:5], *axes[6:])
        for k, (ax, (scan, name, corner)) in enumerate(zip(scans, shown.scans, strict=True), 1):
            _scan(ax, scan, corner, config.model.patch, shown)
            ax.set_title(f"cut for $P_{k}$ from\n{plain(name)}", fontsize=6)
        for ax, title in zip(patches, order, strict=True):
            if title:
                off = f"\nRMS {apart[title]:.3f}" if title in apart else ""
                panels.patch(ax, volumes[title], config.model.patch // 2, shown.spacing, title=title + off, bar=False)
            else:
                ax.set_axis_off()
                ax.text(0.0, 0.5, "\n".join([*terms, weights, total]), va="center", fontsize=7, linespacing=1.6)
        return write_caption(figure, f"{OVERVIEW} {shown.chosen} {origin_of(shown.card)}")


def parts(shown: Sample) -> Plot:
    """Fig. 2: (a) segmentation map, (b) W(S) with the drawn pixels, (c) correlation C, (d) label relation A."""
    index = ct.choose_slice(shown.labels)
    with Plot.grid(4, 4, 2.15, 2.9) as (figure, (first, second, third, fourth)):
        present = panels.segmentation(first, shown.labels, shown.names, index)
        first.set_title("(a) segmentation map S")
        below: Any = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.02), "handlelength": 1.0}
        first.legend(handles=panels.organ_handles(present, background=True), ncols=2, columnspacing=0.8, **below)
        image = panels.weights(second, shown.weights, shown.pixels, index)
        figure.colorbar(image, ax=second, shrink=0.6)
        second.set_title("(b) weight map W(S), Eq. 7")
        second.legend(**below)
        figure.colorbar(panels.correlation(third, shown.correlation), ax=third, shrink=0.6)
        third.set(title="(c) correlation C, Eq. 5", xlabel="channels of $V'_1$", ylabel="channels of $V_1$")
        panels.relation(fourth, shown.relation, shown.relation_labels)
        fourth.set(title="(d) label relation A", xlabel="pixels of $V_2$, by label", ylabel="pixels of $V_1$, by label")
        fourth.legend(handles=panels.relation_handles(shown.relation), **below | {"bbox_to_anchor": (0.5, -0.12)})
        return write_caption(figure, f"{PARTS} {shown.chosen} {origin_of(shown.card)}")


def _scan(ax: Axes, scan: ct.Array, corner: Sequence[int], edge: int, shown: Sample) -> None:
    """The scan's slice through the middle of a patch, with the patch's whole place, black outside the scan."""
    x, y, z = (int(k) for k in corner)
    ct.show_ct(ax, scan, min(max(z + edge // 2, 0), scan.shape[2] - 1), shown.spacing, shown.window)
    _, across, _, height = ct.extent(scan.shape, shown.spacing)
    wide, tall = edge * float(shown.spacing[0]), edge * float(shown.spacing[1])
    left, low = (scan.shape[0] - x - edge) * float(shown.spacing[0]), y * float(shown.spacing[1])  # R is on the left
    ax.add_patch(Rectangle((left, low), wide, tall, fill=False, edgecolor=OKABE_ITO[4], linewidth=1.2))
    margin = 0.02 * across  # so that a box along the border is seen
    ax.set_xlim(min(0.0, left) - margin, max(across, left + wide) + margin)
    ax.set_ylim(min(0.0, low) - margin, max(height, low + tall) + margin)
    ax.set_facecolor("black")
