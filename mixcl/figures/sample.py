"""The paper's Fig. 1 and Fig. 2 from a sample of this run: what goes through the objective, and what its parts are.

:func:`sample` computes everything by the package's own functions, :func:`overview` and :func:`parts` only draw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from mixcl.config.settings import Experiment
from mixcl.figures import ct, panels
from mixcl.figures.style import OKABE_ITO, STYLE, Plot, write_caption
from mixcl.results.wording import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes


LOOKED_AT = 32  # samples of the stream that the shown one is chosen from
OVERVIEW = (
    "Boxes: where the patches were cut, before the spatial step (R11), which may turn them; outside the scan: padding. "
    "All panels: the middle axial slice."
)
PARTS = (
    "(a), (b): the axial slice of the label level's grid (R12) with most labelled voxels, and the pixels drawn in it. "
    "(c): channels of the label level of the views V1 and V'1. (d): all drawn pixels, those of the background first."
)


class Sample(NamedTuple):
    """A pre-training sample and what the pre-trained network makes of it.

    ``scans``: for P_1 and P_2 the scan [X, Y, Z] in HU, its name and the first voxel of the patch.  ``patches``,
    ``views``, ``restored``: [E, E, E] by their names in the paper, in [0, 1].  ``labels``: P_1's label map on the label
    level's grid [e, e, e] (R12), ``weights`` W(S) there, ``pixels`` the drawn flat indices.  ``correlation``: C of the
    label level.  ``relation``: A, and ``relation_labels`` of its rows and columns, sorted.  ``terms``: of Eq. 2.
    """

    scans: Sequence[tuple[NDArray[Any], str, Sequence[int]]]
    patches: Mapping[str, NDArray[Any]]
    views: Mapping[str, NDArray[Any]]
    restored: Mapping[str, NDArray[Any]]
    labels: NDArray[Any]
    names: Mapping[int, str]
    weights: NDArray[Any]
    pixels: NDArray[Any]
    correlation: NDArray[Any]
    relation: NDArray[Any]
    relation_labels: tuple[NDArray[Any], NDArray[Any]]
    terms: Mapping[str, float]
    spacing: Sequence[float]
    window: tuple[float, float]
    caption: str


def sample(config: Experiment, out: Path, job: str = "pretrain") -> Sample:
    """One of the stream's first `LOOKED_AT` samples, as the network has it.

    It is the one with most labels common to both patches; of those, with most labelled voxels in the patch that has
    fewer; of those, the first.

    Raises
    ------
    InputError
        The pre-training ``job`` is not finished, or nothing is prepared.
    """
    import torch

    from mixcl import batches, losses, sampler
    from mixcl.data.store import Store
    from mixcl.model import LABEL_LEVEL, MixCL, level_edges
    from mixcl.objective import Objective
    from mixcl.run import checkpoint
    from mixcl.run.device import machine
    from mixcl.run.record import read_card

    run = out / "runs" / job
    weights, card = checkpoint.read_weights(run)[0], read_card(run)
    store = Store(config.data.store_dir(out), settings=config.data)
    pairs = batches.PairStream([c for n in config.data.pretrain for c in store.cases(n)], config, LOOKED_AT)
    number = max(range(LOOKED_AT), key=lambda k: (*common(pairs[k]["label"]), -k))
    objective = Objective(MixCL(config), config.loss)
    objective.model.load_state_dict(weights)
    edge, raw = level_edges(config.model)[LABEL_LEVEL], {k: v[None] for k, v in pairs[number].items()}
    with machine(config.run), torch.no_grad():
        batch = batches.pretraining_batch(raw, config, edge, torch.device("cpu"))
        terms, output = objective(batch), objective.model(batch.views)
        level = output.levels[LABEL_LEVEL]
        correlation = losses.cross_correlation(level[:1], level[1:2], center=config.loss.center)
    rows, columns = (labels.sort()[0] for labels in batch.labels[0])
    grid = _labels(config, raw, edge)
    places = pairs.places(number)
    return Sample(
        scans=[(case.image(), f"{case.collection}, case {case.id}", origin) for case, origin in places],
        patches={"$P_1$": _cube(batch.patches[0]), "$P_2$": _cube(batch.patches[2])},
        views=dict(zip(("$V_1$", "$V'_1$", "$V_2$"), map(_cube, batch.views), strict=True)),
        restored={"$V_1$": _cube(output.restored[0]), "$V_2$": _cube(output.restored[2])},
        labels=grid.numpy(), names=places[0][0].names,
        weights=sampler.weight_map(grid, mu=config.sampler.mu, eps=config.sampler.eps).numpy(),
        pixels=batch.pixels[0][0].numpy(), correlation=correlation.numpy(),
        relation=losses.label_relation(rows, columns, background=config.loss.background).numpy(),
        relation_labels=(rows.numpy(), columns.numpy()),
        terms={name: float(getattr(terms, name)) for name in ("identity", "label", "recon", "total")},
        spacing=places[0][0].spacing, window=config.data.hu, caption=_told(card, number, config),
    )  # fmt: skip


def overview(shown: Sample, config: Experiment) -> Figure:
    """Fig. 1: two patches, their views, what is restored of them, and the three terms with their values.

    Middle axial slices.  The boxes are where the patches were cut, before the spatial step of R11; what of a box lies
    outside its scan is padding.
    """
    edge, middle = config.model.patch, config.model.patch // 2
    with matplotlib.rc_context(STYLE):
        figure = Plot(figsize=(8.6, 4.0), layout="constrained")
        axes = figure.subplots(2, 5)
        for row, ((scan, name, origin), number) in enumerate(zip(shown.scans, "12", strict=True)):
            _scan(axes[row, 0], scan, origin, edge, shown)
            axes[row, 0].set_title(f"cut for $P_{number}$ from\n{name}", fontsize=6)
        rows: list[list[tuple[str, NDArray[Any]] | None]] = [
            [("$P_1$", shown.patches["$P_1$"]), *[(n, shown.views[n]) for n in ("$V_1$", "$V'_1$")],
             (r"$\tilde P_1$ from $V_1$", shown.restored["$V_1$"])],
            [("$P_2$", shown.patches["$P_2$"]), ("$V_2$", shown.views["$V_2$"]), None,
             (r"$\tilde P_2$ from $V_2$", shown.restored["$V_2$"])],
        ]  # fmt: skip
        for row, shown_panels in enumerate(rows):
            for ax, panel in zip(axes[row, 1:], shown_panels, strict=True):
                if panel is None:
                    ax.set_axis_off()
                    ax.text(0.0, 0.5, _terms(shown.terms, config), va="center", fontsize=7, linespacing=1.6)
                else:
                    _show(ax, panel[1][..., middle])
                    ax.set_title(panel[0])
        write_caption(figure, f"{OVERVIEW} {shown.caption}")
    return figure


def parts(shown: Sample) -> Figure:
    """Fig. 2: (a) segmentation map, (b) W(S) with the drawn pixels, (c) correlation C, (d) label relation A.

    (a) and (b) are the axial slice of the label level's grid with most labelled voxels.
    """
    index = int(np.asarray(shown.labels > 0).sum((0, 1)).argmax())
    with matplotlib.rc_context(STYLE):
        figure = Plot(figsize=(8.6, 3.4), layout="constrained")
        axes = figure.subplots(1, 4)
        panels.segmentation(axes[0], shown.labels, shown.names, index)
        panels.weights(figure, axes[1], shown.weights, shown.pixels, index)
        figure.colorbar(panels.correlation(axes[2], shown.correlation), ax=axes[2], shrink=0.6)
        axes[2].set_title("(c) correlation C, Eq. 5")
        _relation(axes[3], shown)
        write_caption(figure, f"{PARTS} {shown.caption}")
    return figure


def _relation(ax: Axes, shown: Sample) -> None:
    panels.relation(ax, shown.relation, shown.relation_labels)
    ax.set_xlabel("pixels of $V_2$, by label")
    ax.set_ylabel("pixels of $V_1$, by label")
    ax.set_title("(d) label relation A")
    ax.legend(
        handles=panels.relation_handles(shown.relation),
        loc="upper center", bbox_to_anchor=(0.5, -0.12), handlelength=1.0,
    )  # fmt: skip


def _scan(ax: Axes, scan: NDArray[Any], origin: Sequence[int], edge: int, shown: Sample) -> None:
    """The scan's slice through the middle of a patch, with the patch's whole place, black outside the scan."""
    index = min(max(int(origin[2]) + edge // 2, 0), scan.shape[2] - 1)
    ct.show_ct(ax, scan, index, shown.spacing, shown.window)
    left, low, wide, tall = ct.box_mm((int(origin[0]), int(origin[1]), edge), scan.shape, shown.spacing)
    ax.add_patch(Rectangle((left, low), wide, tall, fill=False, edgecolor=OKABE_ITO[4], linewidth=1.2))
    _, across, _, height = ct.extent(scan.shape, shown.spacing)
    margin = 0.02 * across  # so that a box along the border is seen
    ax.set_xlim(min(0.0, left) - margin, max(across, left + wide) + margin)
    ax.set_ylim(min(0.0, low) - margin, max(height, low + tall) + margin)
    ax.set_facecolor("black")


def _show(ax: Axes, part: NDArray[Any]) -> None:
    """An axial slice [X, Y] of a patch in [0, 1]."""
    ax.imshow(part[::-1, ::-1].T, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    panels.bare(ax)


def _terms(terms: Mapping[str, float], config: Experiment) -> str:
    loss = config.loss
    return "\n".join(
        [
            f"identity, Eq. 4: {terms['identity']:.4g}",
            f"label, Eq. 6: {terms['label']:.4g}",
            f"reconstruction, Eq. 3: {terms['recon']:.4g}",
            f"$\\alpha$ = {loss.alpha:g}, $\\beta$ = {loss.beta:g}",
            f"total, Eq. 2: {terms['total']:.4g}",
        ]
    )


def _told(card: Mapping[str, Any], number: int, config: Experiment) -> str:
    text = (
        f"Sample {number} of the pre-training's stream: of the first {LOOKED_AT} the one whose patches have most "
        f"labels in common and, of those, most labelled voxels. Weights of {card['job']} after its last step. "
        f"Profile {card['profile']}, seed {card['seed']}, commit {short(str(card['commit']))}, "
        f"data {str(card['data'])[:12]}."
    )
    return text + (" Phantoms, not patients." if config.data.source == "phantom" else "")


def common(labels: Any) -> tuple[int, int]:
    """Of two label maps: how many labels both have, and how many labelled voxels the one with fewer has.

    >>> common(np.array([[0, 1, 2, 2], [1, 1, 0, 0]]))
    (1, 2)
    """
    first, second = (np.asarray(part) for part in labels)
    shared = set(np.unique(first).tolist()) & set(np.unique(second).tolist()) - {0}
    return len(shared), int(min(np.count_nonzero(first), np.count_nonzero(second)))


def _labels(config: Experiment, raw: Mapping[str, Any], edge: int) -> Any:
    """P_1's labels after the spatial step, on the label level's grid [e, e, e], as the objective sees them."""
    from mixcl import augment, batches

    keys = [batches.generator(config.pretrain.seed, int(raw["sample"]), 2)]
    _, label = augment.spatial(raw["image"][:, 0], raw["label"][:, 0], config.views, keys)
    return batches.coarse(label, edge)[0]


def _cube(x: Any) -> NDArray[Any]:
    """[1, E, E, E] or [E, E, E] -> [E, E, E]."""
    values: NDArray[Any] = x.detach().float().cpu().numpy()
    return values.reshape(values.shape[-3:])
