"""The paper's Fig. 1 and Fig. 2 from a sample of this run; :func:`sample` alone computes, and needs torch."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from mixcl.config.settings import Experiment
from mixcl.figures import ct, panels
from mixcl.figures.qualitative import choose_slice
from mixcl.figures.style import OKABE_ITO, Plot, plain, write_caption
from mixcl.figures.training import TERMS, origin_of
from mixcl.labels import UNKNOWN
from mixcl.run.jobs import FULL, pretraining_job

CANDIDATES = 32  # first pre-training samples, of which the shown one is chosen
VISIBLE = 0.03  # least RMS difference between P_1, V_1 and V'_1, of the window, that a reader sees
OVERVIEW = (
    "Boxes: where the patches were cut, before the spatial step (R11), which may turn them; outside the scan: padding. "
    "All panels: the middle axial slice. RMS: difference to the patch, in fractions of the window."
)
PARTS = (
    "(a), (b): the axial slice of the label level's grid (R12) with most labelled voxels, and the pixels drawn in it. "
    "(c): channels of the label level of the views V1 and V'1. (d): all drawn pixels, those of the background first."
)
CHOSEN = (
    f"Sample {{}} of the pre-training: of the first {CANDIDATES}, and of those in which P1, V1 and V'1 differ by an "
    f"RMS of at least {VISIBLE:g} if there are any, the one whose patches have most labels in common and, of those, "
    "most labelled voxels. Weights after the last step, {}."
)


class Sample(NamedTuple):
    """A pre-training sample and what the pre-trained network makes of it."""

    scans: Sequence[tuple[ct.Array, str, Sequence[int]]]  # of P_1 and P_2: [X, Y, Z] in HU, name, first voxel
    patches: Mapping[str, ct.Array]  # [E, E, E] by their names in the paper, in [0, 1]; the next two likewise
    views: Mapping[str, ct.Array]
    restored: Mapping[str, ct.Array]
    labels: ct.Array  # of P_1 on the label level's grid [e, e, e] (R12)
    names: Mapping[int, str]
    weights: ct.Array  # W(S) of these labels
    pixels: ct.Array  # the drawn ones' flat indices
    correlation: ct.Array  # C of the label level
    relation: ct.Array  # A
    relation_labels: tuple[ct.Array, ct.Array]  # of its rows and columns, sorted
    terms: Mapping[str, float]  # of Eq. 2
    spacing: Sequence[float]
    window: tuple[float, float]
    caption: str


def sample(config: Experiment, out: Path) -> Sample:
    """One of the first `CANDIDATES` samples of the pre-training, as the network has it: that of :func:`choose`.

    Raises `InputError` where the pre-training is not finished, or nothing is prepared.
    """
    import torch

    from mixcl import batches, losses, sampler
    from mixcl.data.store import Store
    from mixcl.model import LABEL_LEVEL, MixCL, level_edges
    from mixcl.objective import Objective
    from mixcl.run import checkpoint, record
    from mixcl.run.device import machine

    run = out / "runs" / pretraining_job(FULL, config.grid.seeds[0])
    weights, card = checkpoint.read_weights(run)[0], record.read_card(run)
    store = Store(config.data.store_dir(out), settings=config.data)
    pairs = batches.PairStream([c for n in config.data.pretrain for c in store.cases(n)], config, CANDIDATES)
    objective = Objective(MixCL(config), config.loss)
    objective.model.load_state_dict(weights)
    with machine(config.run), torch.no_grad():
        number = choose(pairs, config)
        batch = batches.pretraining_batch(batches.collate([pairs[number]]), config, torch.device("cpu"))
        terms, output = objective(batch), objective.model(batch.views)
        level = output.levels[LABEL_LEVEL]
        correlation = losses.cross_correlation(level[:1], level[1:2], center=config.loss.center)
    patches, views, restored = (x[:, 0].numpy() for x in (batch.patches, batch.views, output.restored))
    rows, columns = (labels.sort()[0] for labels in batch.labels[0])
    labels, places = batches.coarse(batch.maps, level_edges(config.model)[LABEL_LEVEL])[0], pairs.places(number)
    return Sample(
        scans=[(case.image(), f"{case.collection}, case {case.id}", corner) for case, corner in places],
        patches={"$P_1$": patches[0], "$P_2$": patches[2]},
        views=dict(zip(("$V_1$", "$V'_1$", "$V_2$"), views, strict=True)),
        restored={"$V_1$": restored[0], "$V_2$": restored[2]},
        labels=labels.numpy(), names=places[0][0].names,
        weights=sampler.weight_map(labels, mu=config.sampler.mu, eps=config.sampler.eps).numpy(),
        pixels=batch.pixels[0][0].numpy(), correlation=correlation.numpy(),
        relation=losses.label_relation(rows, columns, background=config.loss.background).numpy(),
        relation_labels=(rows.numpy(), columns.numpy()),
        terms={name: float(getattr(terms, name)) for name in TERMS},
        spacing=places[0][0].spacing, window=config.data.hu,
        caption=f"{CHOSEN.format(number, card['steps'])} {origin_of(card)}",
    )  # fmt: skip


def choose(pairs: Any, config: Experiment) -> int:
    """Number of the first sample of a :class:`mixcl.batches.PairStream` whose picture says most, by `CHOSEN`."""
    import torch

    from mixcl import batches

    def merits(number: int) -> tuple[bool, bool, int, int]:
        item = pairs[number]
        labels, voxels = common(item["label"])
        batch = batches.pretraining_batch(batches.collate([item]), config, torch.device("cpu"))
        three = (batch.patches[0], batch.views[0], batch.views[1])
        apart = min(rms(a, b) for a, b in itertools.combinations(three, 2))
        return labels > 0, apart >= VISIBLE, labels, voxels

    return max(range(CANDIDATES), key=merits)


def rms(first: Any, second: Any) -> float:
    """Root of the mean squared difference of two patches.

    >>> rms(np.zeros(4), np.full(4, 0.5))
    0.5
    """
    return float(((first - second) ** 2).mean() ** 0.5)


def overview(shown: Sample, config: Experiment) -> Plot:
    """Fig. 1: two patches, their views, what is restored of them, and the three terms with their values."""
    volumes = {**shown.patches, **shown.views, r"$\tilde P_1$ from $V_1$": shown.restored["$V_1$"],
               r"$\tilde P_2$ from $V_2$": shown.restored["$V_2$"]}  # fmt: skip
    total, *terms = (f"{text}: {shown.terms[name]:.4g}" for name, text in TERMS.items())
    weights = f"$\\alpha$ = {config.loss.alpha:g}, $\\beta$ = {config.loss.beta:g}"
    order = ("$P_1$", "$V_1$", "$V'_1$", r"$\tilde P_1$ from $V_1$", "$P_2$", "$V_2$", "", r"$\tilde P_2$ from $V_2$")
    with Plot.grid(10, 5, 1.72, 1.75) as (figure, axes):
        scans, others = (axes[0], axes[5]), (*axes[1:5], *axes[6:])
        for k, (ax, (scan, name, corner)) in enumerate(zip(scans, shown.scans, strict=True), 1):
            _scan(ax, scan, corner, config.model.patch, shown)
            ax.set_title(f"cut for $P_{k}$ from\n{plain(name)}", fontsize=6)
        for ax, title in zip(others, order, strict=True):
            if title:
                patch = shown.patches["$P_2$" if "2" in title else "$P_1$"]
                off = "" if title in shown.patches else f"\nRMS {rms(volumes[title], patch):.3f}"
                panels.patch(ax, volumes[title], config.model.patch // 2, shown.spacing, title=title + off, bar=False)
            else:
                ax.set_axis_off()
                ax.text(0.0, 0.5, "\n".join([*terms, weights, total]), va="center", fontsize=7, linespacing=1.6)
        return write_caption(figure, f"{OVERVIEW} {shown.caption}")


def parts(shown: Sample) -> Plot:
    """Fig. 2: (a) segmentation map, (b) W(S) with the drawn pixels, (c) correlation C, (d) label relation A."""
    index = choose_slice(shown.labels)
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
        return write_caption(figure, f"{PARTS} {shown.caption}")


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


def common(labels: Any) -> tuple[int, int]:
    """Of two label maps: how many labels both have, and how many labelled voxels the one with fewer has.

    >>> common(np.array([[0, 1, 2, 2], [1, 1, 0, 0]]))
    (1, 2)
    """
    first, second = (np.where(np.asarray(part) == UNKNOWN, 0, part) for part in labels)
    shared = set(np.unique(first).tolist()) & set(np.unique(second).tolist()) - {0}
    return len(shared), int(min(np.count_nonzero(first), np.count_nonzero(second)))
