"""What a pre-training does to its features, now and then, on patches that never change.

Nothing here is trained on or handed over; weights, random numbers and the order of samples stay as they were.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mixcl import batches, sampler
from mixcl.config.settings import Experiment
from mixcl.data.patches import read_patch
from mixcl.data.store import Case
from mixcl.labels import UNKNOWN
from mixcl.metrics import dice
from mixcl.model import LABEL_LEVEL, Encoded, MixCL, level_edges

CASES, PATCHES = 4, 2  # scans a collection, patches a scan
VOXELS = 2048  # a patch, for the linear probe
PIXELS = 32  # a class and patch, for pairs of embeddings
COLLAPSED = 0.1  # effective rank below this share of its ceiling
CONSTANT = 0.9  # share of a channel's energy in its mean above this
IMBALANCE = 100.0  # the strongest term's pull over the weakest's


class Probe(NamedTuple):
    """N patches of scans."""

    images: Tensor  # [N, 1, E, E, E] in [0, 1]
    grids: Tensor  # uint8 [N, e, e, e], labels on the label level's grid
    collections: tuple[str, ...]  # [N]
    scans: tuple[int, ...]  # [N], number of the scan in its collection
    names: Mapping[str, Mapping[int, str]]  # label value -> name, by collection


def probe(cases: Sequence[Case], config: Experiment) -> Probe:
    """Patches centred on labelled voxels of the first scans of each collection; the same for the same settings."""
    edge = config.model.patch
    patches: list[tuple[NDArray[np.float32], NDArray[np.uint8]]] = []
    origins: list[tuple[str, int]] = []
    for name in dict.fromkeys(case.collection for case in cases):
        for number, case in enumerate([case for case in cases if case.collection == name][:CASES]):
            for which in range(PATCHES):
                g = batches.generator(0, len(patches), 30 + which)
                origin = sampler.choose_origin(case.foreground(), case.shape, edge, foreground_prob=1.0, generator=g)
                patches.append(read_patch(case, origin, edge, config.data.hu))
                origins.append((name, number))
    images, labels = (torch.from_numpy(np.stack(part)) for part in zip(*patches, strict=True))
    grids = batches.coarse(labels, level_edges(config.model)[LABEL_LEVEL])
    collections, scans = zip(*origins, strict=True)
    return Probe(images[:, None], grids, collections, scans, {case.collection: case.names for case in cases})


@torch.no_grad()
def measure_features(model: MixCL, patches: Probe, *, projected: bool = True) -> dict[str, Any]:
    """What the features of the moment are like; ``projected`` where the projectors are trained, so that spectra and
    pairs are taken behind them, else of the encoder.

    By level ``rank`` (effective rank: e to the entropy of the normalised spectrum of the centred covariance),
    ``ceiling`` (the most it can be) and ``mean_share`` (mean over channels of the squared mean over the mean square).
    At the label level ``alignment`` (mean squared distance of normalised embeddings of one class from two scans),
    ``uniformity`` (log of the mean of exp(-2 d^2) over all pairs; Wang and Isola, 2020) and what :func:`agreement` and
    :func:`probe_dice` give.
    """
    device = next(model.parameters()).device
    spectra, embeddings, features = [], [], []
    classes: list[tuple[str, int, int]] = []
    for number, (image, grid) in enumerate(zip(patches.images, patches.grids, strict=True)):
        encoded = model.backbone.encode(image[None].to(device))
        maps = model.level_maps(encoded)
        if projected:
            maps = [model.projector(level)(z) for level, z in enumerate(maps)]
        spectra.append([_sums(z) for z in maps])
        pixels = sampler.sample_pixels(grid, PIXELS, generator=batches.generator(0, number, 32))
        flat = maps[LABEL_LEVEL][0].flatten(1).float()
        embeddings.append(nn.functional.normalize(flat[:, pixels.to(device)].T, dim=1).cpu())
        labels = grid.flatten()[pixels].tolist()
        classes += [(patches.collections[number], label, patches.scans[number]) for label in labels]
        features.append(_at_label_grid(encoded, grid.shape[-1], number).cpu())
    levels = [_spectrum(torch.stack(parts).sum(0)) for parts in zip(*spectra, strict=True)]
    ranks, ceilings, shares = zip(*levels, strict=True)
    rows = torch.cat(embeddings)  # [n, C]
    return {
        "rank": list(ranks), "ceiling": list(ceilings), "mean_share": list(shares), **_pairs(rows, classes),
        **agreement(rows, classes, patches.names), **probe_dice(features, patches),
    }  # fmt: skip


def agreement(
    rows: Tensor, classes: Sequence[tuple[str, int, int]], names: Mapping[str, Mapping[int, str]]
) -> dict[str, float]:
    """Of pixels whose organ another collection annotates too: how often the nearest pixel there is of that organ.

    ``rows`` [n, C] are normalised embeddings, ``classes`` [n] their (collection, label, scan), of which only labelled
    ones take part, ``names`` label value -> name of every collection; a name means one organ wherever it stands.
    ``agreement`` and the share that ``chance`` would give come back; neither where no organ is annotated twice.
    """
    organs = np.array([names[name].get(label, "") for name, label, _ in classes])
    sets = np.array([name for name, *_ in classes])
    near = rows @ rows.T
    hits, chances = [], []
    for row in np.flatnonzero(organs != ""):
        elsewhere = np.flatnonzero((sets != sets[row]) & (organs != ""))
        same = organs[elsewhere] == organs[row]
        if same.any():
            hits.append(same[int(near[row, torch.from_numpy(elsewhere)].argmax())])
            chances.append(same.mean())
    return {"agreement": float(np.mean(hits)), "chance": float(np.mean(chances))} if hits else {}


def probe_dice(features: Sequence[Tensor], patches: Probe) -> dict[str, float]:
    """Dice of a linear classifier of frozen encoder features, learnt on every second scan, tested on the others.

    One classifier a collection, multinomial logistic regression with classes weighted by the root of their rarity; the
    mean over its labels, then over collections.  Nothing where no collection has two scans with one label.
    ``features`` are [c, e^3 or fewer] for each patch, columns as :func:`_voxels` chooses them.
    """
    scores = []
    for name in dict.fromkeys(patches.collections):
        members = [i for i, collection in enumerate(patches.collections) if collection == name]
        y = {i: patches.grids[i].flatten()[_voxels(patches.grids.shape[-1], i)].long() for i in members}
        x = {i: features[i].T[y[i] != UNKNOWN] for i in members}
        y = {i: labels[labels != UNKNOWN] for i, labels in y.items()}
        learn, test = ([i for i in members if patches.scans[i] % 2 == odd] for odd in (0, 1))
        known, hidden = (torch.cat([y[i] for i in part]) if part else torch.empty(0) for part in (learn, test))
        if len(known.unique()) > 1 and len(hidden):  # a sparsely annotated collection (R33) may show none, or one class
            predicted = _logistic(torch.cat([x[i] for i in learn]), known, torch.cat([x[i] for i in test]))
            labels = [v for v in patches.names[name] if (known == v).any() and (hidden == v).any()]
            scores += [np.mean([dice(predicted == v, hidden == v) for v in labels])] if labels else []
    return {"probe_dice": float(np.mean(scores))} if scores else {}


def warnings(measured: Mapping[str, Any], gradients: Mapping[str, float]) -> list[str]:
    """What is wrong, a sentence each with its number: collapsed levels, constant channels, terms that hardly pull."""
    messages = []
    levels = zip(*(measured.get(key, ()) for key in ("rank", "ceiling", "mean_share")), strict=True)
    for level, (rank, ceiling, share) in enumerate(levels):
        if rank < COLLAPSED * ceiling:
            messages.append(f"level {level} collapses: effective rank {rank:.1f} of at most {ceiling}")
        if share > CONSTANT:
            percent = f"{100 * share:.0f} %"
            messages.append(f"level {level} is nearly constant: {percent} of its channels' energy is their mean")
    active = {name: norm for name, norm in gradients.items() if norm > 0}
    if active:
        strong, weak = max(active, key=active.__getitem__), min(active, key=active.__getitem__)
        if active[strong] > IMBALANCE * active[weak]:
            ratio = active[strong] / active[weak]
            messages.append(f"{strong} pulls {ratio:.0f} times as hard at the encoder as {weak} (R26)")
    return messages


def _sums(z: Tensor) -> Tensor:
    """[C + 1, C + 1]: second moments of the channels of [1, C, *spatial] and of a constant 1, float64."""
    flat = z[0].flatten(1).double()
    with_one = torch.cat([flat, flat.new_ones(1, flat.shape[1])])
    return with_one @ with_one.T


def _spectrum(sums: Tensor) -> tuple[float, int, float]:
    """Effective rank of the centred covariance, its ceiling, and the share of energy in the mean."""
    if not sums.isfinite().all():  # of a training that has diverged, as its next record tells
        return math.nan, 1, math.nan
    count, mean = sums[-1, -1], sums[:-1, -1] / sums[-1, -1]
    second = sums[:-1, :-1] / count
    values = torch.linalg.eigvalsh(second - torch.outer(mean, mean)).clamp(min=0)
    p = values / values.sum().clamp(min=1e-300)
    rank = float(torch.exp(-(p * torch.log(p.clamp(min=1e-300))).sum()))
    share = mean.square() / second.diagonal().clamp(min=1e-300)
    return rank, min(len(mean), int(count) - 1), float(share.mean())


def _voxels(edge: int, number: int) -> Tensor:
    """Which voxels of a label grid the linear probe sees."""
    return torch.randperm(edge**3, generator=batches.generator(0, number, 33))[:VOXELS]


def _at_label_grid(encoded: Encoded, edge: int, number: int) -> Tensor:
    """All encoder outputs [c, k] at the probe's voxels, each level by its nearest voxel."""
    columns = _voxels(edge, number)
    parts = []
    for z in (*encoded.skips, encoded.bottleneck):
        resized = nn.functional.interpolate(z.float(), size=(edge,) * 3, mode="nearest-exact")
        parts.append(resized[0].flatten(1)[:, columns.to(z.device)])
    return torch.cat(parts)


def _pairs(rows: Tensor, classes: Sequence[tuple[str, int, int]]) -> dict[str, float]:
    """Alignment of pixels of one class in two scans, uniformity of all pixels."""
    far = (2 - 2 * rows @ rows.T).clamp(min=0)
    keys = {key: number for number, key in enumerate(dict.fromkeys(c[:2] for c in classes))}
    kind = torch.tensor([keys[c[:2]] for c in classes])
    scan, labelled = torch.tensor([c[2] for c in classes]), torch.tensor([c[1] > 0 for c in classes])
    positive = (kind[:, None] == kind) & (scan[:, None] != scan) & labelled
    apart = ~torch.eye(len(rows), dtype=torch.bool)
    uniformity = {"uniformity": float(torch.exp(-2 * far[apart]).mean().log())}
    return uniformity | ({"alignment": float(far[positive].mean())} if positive.any() else {})


@torch.enable_grad()
def _logistic(x: Tensor, y: Tensor, test: Tensor) -> Tensor:
    """Multinomial logistic regression by L-BFGS: features [n, c] and classes [n] -> predicted classes of ``test``."""
    mean, sd = x.mean(0), x.std(0).clamp(min=1e-6)
    x, test = (x - mean) / sd, (test - mean) / sd
    values, index = y.unique(return_inverse=True)
    weight = index.bincount().float().rsqrt()
    w = torch.zeros(len(values), x.shape[1] + 1, requires_grad=True)
    optimizer = torch.optim.LBFGS([w], max_iter=40, history_size=10, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        scores = nn.functional.linear(x, w[:, :-1], w[:, -1])
        value = nn.functional.cross_entropy(scores, index, weight=weight) + 1e-3 * w[:, :-1].square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    predicted: Tensor = values[nn.functional.linear(test, w[:, :-1], w[:, -1]).argmax(1)]
    return predicted
