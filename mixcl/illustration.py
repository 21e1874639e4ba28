"""One sample of the pre-training as its network has it: what the paper's Fig. 1 and Fig. 2 show, of this run."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from mixcl import batches, losses, sampler
from mixcl.config.settings import Experiment
from mixcl.data.store import Store
from mixcl.labels import UNKNOWN
from mixcl.model import LABEL_LEVEL, MixCL, level_edges
from mixcl.objective import Objective
from mixcl.run import checkpoint, record
from mixcl.run.device import machine
from mixcl.run.jobs import FULL, pretraining_job

CANDIDATES = 32  # first pre-training samples, of which the shown one is chosen
VISIBLE = 0.03  # least RMS difference between P_1, V_1 and V'_1, of the window, that a reader sees
CHOSEN = (
    f"Sample {{}} of the pre-training: of the first {CANDIDATES}, and of those in which P1, V1 and V'1 differ by an "
    f"RMS of at least {VISIBLE:g} if there are any, the one whose patches have most labels in common and, of those, "
    "most labelled voxels. Weights after the last step, {}."
)
Array = NDArray[Any]


class Sample(NamedTuple):
    """A pre-training sample and what the pre-trained network makes of it."""

    scans: Sequence[tuple[Array, str, Sequence[int]]]  # of P_1 and P_2: [X, Y, Z] in HU, name, first voxel
    patches: Mapping[str, Array]  # [E, E, E] by their names in the paper, in [0, 1]; the next two likewise
    views: Mapping[str, Array]
    restored: Mapping[str, Array]
    view_rms: Mapping[str, float]  # how far a view is from its patch, and what is restored of it
    restored_rms: Mapping[str, float]
    labels: Array  # of P_1 on the label level's grid [e, e, e] (R12)
    names: Mapping[int, str]
    weights: Array  # W(S) of these labels
    pixels: Array  # the drawn ones' flat indices
    correlation: Array  # C of the label level
    relation: Array  # A
    relation_labels: tuple[Array, Array]  # of its rows and columns, sorted
    terms: Mapping[str, float]  # of Eq. 2
    spacing: Sequence[float]
    window: tuple[float, float]
    chosen: str  # how, in words
    card: Mapping[str, Any]  # run.json of the pre-training


def sample(config: Experiment, out: Path) -> Sample:
    """One of the first `CANDIDATES` samples of the pre-training, as the network has it: that of :func:`choose`.

    Raises `InputError` where the pre-training is not finished, or nothing is prepared.
    """
    run = out / "runs" / pretraining_job(FULL, config.grid.seeds[0])
    weights, card = checkpoint.read_weights(run)[0], record.read_card(run)
    store = Store(config.data.store_dir(out), settings=config.data)
    pairs = batches.PairDataset([c for n in config.data.pretrain for c in store.cases(n)], config, CANDIDATES)
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
    names = ("$V_1$", "$V'_1$", "$V_2$")
    near, back = ([rms(a, b) for a, b in zip(patches, images, strict=True)] for images in (views, restored))
    return Sample(
        scans=[(case.image(), f"{case.collection}, case {case.id}", corner) for case, corner in places],
        patches={"$P_1$": patches[0], "$P_2$": patches[2]},
        views=dict(zip(names, views, strict=True)), view_rms=dict(zip(names, near, strict=True)),
        restored={"$V_1$": restored[0], "$V_2$": restored[2]}, restored_rms=dict(zip(names, back, strict=True)),
        labels=labels.numpy(), names=places[0][0].names,
        weights=sampler.weight_map(labels, mu=config.sampler.mu, eps=config.sampler.eps).numpy(),
        pixels=batch.pixels[0][0].numpy(), correlation=correlation.numpy(),
        relation=losses.label_relation(rows, columns, background=config.loss.background).numpy(),
        relation_labels=(rows.numpy(), columns.numpy()),
        terms={name: float(getattr(terms, name)) for name in ("total", "identity", "label", "recon")},
        spacing=places[0][0].spacing, window=config.data.hu,
        chosen=CHOSEN.format(number, card["steps"]), card=card,
    )  # fmt: skip


def choose(pairs: Any, config: Experiment) -> int:
    """Number of the first sample of a :class:`mixcl.batches.PairDataset` whose picture says most, by `CHOSEN`."""

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


def common(labels: Any) -> tuple[int, int]:
    """Of two label maps: how many labels both have, and how many labelled voxels the one with fewer has.

    >>> common(np.array([[0, 1, 2, 2], [1, 1, 0, 0]]))
    (1, 2)
    """
    first, second = (np.where(np.asarray(part) == UNKNOWN, 0, part) for part in labels)
    shared = set(np.unique(first).tolist()) & set(np.unique(second).tolist()) - {0}
    return len(shared), int(min(np.count_nonzero(first), np.count_nonzero(second)))
