"""The paper's equations as plain loops over numpy arrays, to compare with; no code is shared."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Real = NDArray[np.float64]


def reconstruction(restored: Real, patch: Real, reduction: str) -> float:
    """Eq. 3."""
    total = 0.0
    for one, other in zip(restored, patch, strict=True):
        squares = 0.0
        for p, q in zip(one.ravel(), other.ravel(), strict=True):
            squares += (p - q) ** 2
        total += squares if reduction == "sum" else squares / one.size
    return total / len(restored)


def identity(
    levels_a: Sequence[Real],
    levels_b: Sequence[Real],
    lam: float,
    center: bool = False,
    weights: Sequence[float] | None = None,
) -> float:
    """Eq. 4, with C_ij in the second term (R2)."""
    total = 0.0
    for level, (z_a, z_b) in enumerate(zip(levels_a, levels_b, strict=True)):
        c = correlation(z_a, z_b, center)
        bracket = 0.0
        for i in range(len(c)):
            bracket += (1 - c[i, i]) ** 2
            for j in range(len(c)):
                if j != i:
                    bracket += lam * c[i, j] ** 2
        total += bracket * (1.0 if weights is None else weights[level])
    return total


def correlation(z_a: Real, z_b: Real, center: bool = False) -> Real:
    """Eq. 5, with Z' as the second factor (R3); a channel that is 0 everywhere gives 0."""
    channels = z_a.shape[1]
    c = np.zeros((channels, channels))
    for i in range(channels):
        for j in range(channels):
            x, y = z_a[:, i].ravel(), z_b[:, j].ravel()
            if center:
                x, y = x - math.fsum(x) / len(x), y - math.fsum(y) / len(y)
            product = norm_x = norm_y = 0.0
            for p, q in zip(x, y, strict=True):
                product += p * q
                norm_x += p * p
                norm_y += q * q
            c[i, j] = product / math.sqrt(norm_x * norm_y) if norm_x * norm_y > 0 else 0.0
    return c


def relation(labels_a: Sequence[int], labels_b: Sequence[int], background: str) -> NDArray[np.int64]:
    """Fig. 2d with R9 and R33: 255 is unknown."""
    a = np.zeros((len(labels_a), len(labels_b)), np.int64)
    for i, p in enumerate(labels_a):
        for j, q in enumerate(labels_b):
            both, one = p == 0 and q == 0, p == 0 or q == 0
            ignored = both if background == "ignore_pairs" else one
            a[i, j] = -1 if ignored or 255 in (p, q) else int(p == q)
    return a


def label(
    emb_a: Real,
    emb_b: Real,
    labels_a: Sequence[int],
    labels_b: Sequence[int],
    temperature: float,
    reduction: str,
    background: str,
) -> float:
    """Eq. 6 (R7, R8, R9), 0 where no pair is positive (R14)."""
    a = relation(labels_a, labels_b, background)
    e = np.zeros(a.shape)  # exp(cos / tau)
    for i, p in enumerate(emb_a):
        for j, q in enumerate(emb_b):
            cosine = sum(p * q) / (math.sqrt(sum(p * p)) * math.sqrt(sum(q * q)))
            e[i, j] = math.exp(cosine / temperature)
    if not (a == 1).any():
        return 0.0
    if reduction == "ratio":
        return -math.log(e[a == 1].sum() / e[a >= 0].sum())
    rows = []
    for i in range(len(a)):
        positives = [e[i, j] for j in range(len(a[i])) if a[i, j] == 1]
        taking_part = sum(e[i, j] for j in range(len(a[i])) if a[i, j] >= 0)
        if not positives:
            continue
        if reduction == "sum":
            rows.append(-math.log(sum(positives) / taking_part))
        else:
            rows.append(sum(-math.log(p / taking_part) for p in positives) / len(positives))
    return sum(rows) if reduction == "sum" else sum(rows) / len(rows)


def squared_distance(labels: NDArray[np.integer]) -> Real:
    """D(S)^2 of Eq. 7, from every voxel to every other; 255 is unknown, 0 there and no other label's (R33)."""
    d = np.where(labels == 255, 0.0, np.inf)
    voxels = list(itertools.product(*(range(n) for n in labels.shape)))
    for p in voxels:
        for q in voxels:
            if labels[p] != labels[q] and 255 not in (labels[p], labels[q]):
                d[p] = min(d[p], sum((x - y) ** 2 for x, y in zip(p, q, strict=True)))
    return d


def weight(distance: float, mu: float, eps: float) -> float:
    """W(S) of Eq. 7 at one distance."""
    return 0.5 * math.sqrt(distance) * math.exp(-distance / mu) + eps


def inclusion(weights: Sequence[float], draws: int) -> Real:
    """How likely each item is among ``draws`` successive weighted draws, by enumeration of all of them."""
    chance = np.zeros(len(weights))
    for order in itertools.permutations(range(len(weights)), draws):
        left, p = math.fsum(weights), 1.0
        for item in order:
            p *= weights[item] / left
            left -= weights[item]
        for item in order:
            chance[item] += p
    return chance


def gradients(f: Callable[..., float], arrays: Sequence[Real], step: float = 1e-6) -> list[Real]:
    """Central differences of ``f(*arrays)`` in every entry of every array."""
    result = []
    for k, array in enumerate(arrays):
        gradient = np.zeros(array.shape)
        for index in np.ndindex(*array.shape):
            values = []
            for sign in (1, -1):
                moved = [a.copy() for a in arrays]
                moved[k][index] += sign * step
                values.append(f(*moved))
            gradient[index] = (values[0] - values[1]) / (2 * step)
        result.append(gradient)
    return result
