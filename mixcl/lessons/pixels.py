"""The drawn pixels of Eq. 6 as a network sees them, what labels of several collections say of them, and PCA."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from mixcl import losses, sampler
from mixcl.batches import Batch
from mixcl.config.settings import Experiment
from mixcl.data.store import Store
from mixcl.lessons import scene
from mixcl.model import LABEL_LEVEL, MixCL

BACKGROUND = "background"


class Drawn(NamedTuple):
    """Drawn pixels of P_1 and P_2, by ascending label: flat indices [n], labels [n], embeddings [n, C] of each."""

    pixels: tuple[Tensor, Tensor]
    labels: tuple[Tensor, Tensor]
    embeddings: tuple[Tensor, Tensor]

    def cosines(self) -> Tensor:
        """cos(z_i, z_j), [n, m]."""
        return losses.cosine_similarity(*self.embeddings)

    def relation(self, background: Any = "ignore_pairs") -> Tensor:
        """A, int8 [n, m]."""
        return losses.label_relation(*self.labels, background=background)

    def loss(self, **options: Any) -> float:
        """Eq. 6 with options of :func:`mixcl.losses.label_consistency`."""
        return float(losses.label_consistency(*self.embeddings, *self.labels, **options))


class Points(NamedTuple):
    """Pixels of several collections: unit embeddings [n, C], and organ and collection of each."""

    embeddings: NDArray[np.float64]
    organs: NDArray[np.str_]
    collections: NDArray[np.str_]


class Conflict(NamedTuple):
    """A by three sets of labels on the same pixels, and where it says what is not so.

    ``true``: organ of each row and column, as positions in ``names``.  ``matrices``: A by a title.  ``wrong``: bool
    [n, m] for each: A = 1 for two different organs, or A = 0 for one and the same.
    """

    names: Sequence[str]
    true: tuple[NDArray[np.int64], NDArray[np.int64]]
    matrices: Mapping[str, NDArray[np.int8]]
    wrong: Mapping[str, NDArray[np.bool_]]


def embed(model: MixCL, batch: Batch) -> list[Drawn]:
    """The drawn pixels of every sample of a batch, in the projected label level of V_1 and V_2."""
    projector, samples = model.projector(LABEL_LEVEL), len(batch.views) // 3
    with torch.no_grad():
        trunk = projector.trunk(model.level_maps(model.backbone.encode(batch.views))[LABEL_LEVEL])
        return [
            Drawn(
                pixels, labels,
                (projector.pixels(trunk[k], pixels[0]), projector.pixels(trunk[2 * samples + k], pixels[1])),
            )
            for k, (pixels, labels) in enumerate(zip(batch.pixels, batch.labels, strict=True))
        ]  # fmt: skip


def anchor(drawn: Drawn, label: int, grid: int) -> int:
    """Position of the drawn pixel of P_1 with this label that lies nearest to the middle of all of them.

    ``grid`` is the edge of the label level's grid.
    """
    found = np.flatnonzero(drawn.labels[0].numpy() == label)
    places = np.stack(np.unravel_index(drawn.pixels[0].numpy()[found], (grid,) * 3), 1)
    return int(found[np.square(places - places.mean(0)).sum(1).argmin()])


def row_losses(drawn: Drawn, names: Mapping[int, str], temperature: float = 0.1) -> pd.DataFrame:
    """For each pixel of P_1 that has a positive: its organ and -log(sum over positives / sum over all that count)."""
    scores = drawn.cosines() / temperature
    relation = drawn.relation()
    positive = scores.masked_fill(relation != 1, -torch.inf).logsumexp(1)
    every = scores.masked_fill(relation == -1, -torch.inf).logsumexp(1)
    rows = (relation == 1).any(1)
    organs = [names.get(int(label), BACKGROUND) for label in drawn.labels[0][rows]]
    return pd.DataFrame({"organ": organs, "loss": (every - positive)[rows].numpy()})


def pooled(model: MixCL, config: Experiment, store: Store, each: int = 2, budget: int = 60) -> Points:
    """Labelled pixels of V_1 of ``each`` samples a pre-training collection, at most ``budget`` an organ and sample."""
    embeddings, organs, collections = [], [], []
    for name in config.data.pretrain:
        pairs = scene.pair_stream(config, store, (name,))
        names = store.cases(name)[0].names
        for drawn in embed(model, scene.batch(config, *(pairs[k] for k in range(each)), spatial_prob=0.0)):
            for value in sorted(set(drawn.labels[0].tolist()) & set(names)):
                found = drawn.embeddings[0][drawn.labels[0] == value][:budget].double()
                embeddings.append(torch.nn.functional.normalize(found, dim=1).numpy())
                organs += [names[value]] * len(found)
                collections += [name] * len(found)
    return Points(np.concatenate(embeddings), np.array(organs), np.array(collections))


def principal(embeddings: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The first two principal components of [n, C]: coordinates [n, 2], and the share of the variance of each [2].

    >>> places, shares = principal(np.array([[0.0, 0, 0], [2, 0, 0], [4, 0, 0]]))
    >>> np.abs(places[:, 0]).round(6).tolist(), shares.round(6).tolist()
    ([2.0, 0.0, 2.0], [1.0, 0.0])
    """
    centred = embeddings - embeddings.mean(0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    return left[:, :2] * sizes[:2], sizes[:2] ** 2 / (sizes**2).sum()


def across(points: Points) -> pd.DataFrame:
    """Mean cosine of pixels of different collections, which Eq. 6 never pairs (R29), by whether the organ is the same.

    One row an organ that two collections label; empty where there is none.
    """
    cosines = points.embeddings @ points.embeddings.T
    rows = []
    for organ in dict.fromkeys(points.organs.tolist()):
        mine = points.organs == organ
        if len(set(points.collections[mine].tolist())) > 1:
            apart = points.collections[mine][:, None] != points.collections[None, :]
            same, other = apart & mine[None, :], apart & ~mine[None, :]
            means = [float(cosines[mine][where].mean()) if where.any() else np.nan for where in (same, other)]
            rows.append((organ, *means))
    return pd.DataFrame(rows, columns=["organ", "cosine, same organ", "cosine, other organs"])


def richest(config: Experiment, store: Store) -> str:
    """The collection of the settings that labels most organs; of equal ones the first."""
    return max(
        dict.fromkeys((*config.data.pretrain, *config.data.finetune)), key=lambda n: len(store.cases(n)[0].names)
    )


def conflict(config: Experiment, pair: scene.Pair, budget: int = 40) -> Conflict:
    """What A would say of pixels of a richly labelled pair, if one of two organs had been labelled in each collection.

    The two are those of which the patch with fewer has most voxels.  Collection X labels the first as 1, Y the second
    as 1; all else is their background.
    """
    first, second = (grid.numpy() for grid in pair.grid)
    sizes = {v: min((first == v).sum(), (second == v).sum()) for v in pair.names}
    kept = sorted(sorted(sizes, key=lambda v: -sizes[v])[:2])
    names = [BACKGROUND, *(pair.names[v] for v in kept)]
    true = tuple(_drawn_true(config, grid, kept, budget, k) for k, grid in enumerate(pair.grid))
    x, y = [torch.where(rows == 1, 1, 0) for rows in true], [torch.where(rows == 2, 1, 0) for rows in true]
    full = losses.label_relation(true[0], true[1])
    matrices = {
        "both organs labelled": full,
        f"X labels {names[1]} alone": losses.label_relation(x[0], x[1]),
        "rows from X, columns from Y": losses.label_relation(x[0], y[1]),
    }
    same, organ = true[0][:, None] == true[1][None, :], (true[0][:, None] > 0) | (true[1][None, :] > 0)
    wrong = {t: (((a == 1) & ~same) | ((a == 0) & same & organ)).numpy() for t, a in matrices.items()}
    return Conflict(names, (true[0].numpy(), true[1].numpy()), {t: a.numpy() for t, a in matrices.items()}, wrong)


def _drawn_true(config: Experiment, grid: Tensor, kept: Sequence[int], budget: int, which: int) -> Tensor:
    """Organs, 0 for all but two, of pixels drawn by Eq. 7 on these two organs and the rest."""
    organs = torch.zeros_like(grid, dtype=torch.long)
    for number, value in enumerate(kept, start=1):
        organs[grid == value] = number
    settings, g = config.sampler, torch.Generator().manual_seed(which)
    return organs.flatten()[sampler.sample_pixels(organs, budget, mu=settings.mu, eps=settings.eps, generator=g)]
