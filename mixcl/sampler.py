"""Which pixels and which patches take part: Eq. 7 and the choice of P_1 and P_2 (Sec. 2.3).

Every function takes an explicit CPU generator (None is torch's default one), so that a draw depends on nothing else.
R-numbers refer to the table of readings in the README.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

import edt
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = TypeVar("Array", Tensor, NDArray[np.generic])

KEYED = 64  # a class with at most this many voxels a draw is drawn by random keys, a larger one by rejection
ROUNDS = 32  # of rejection, before the rest is drawn by keys


def boundary_distance(labels: Array) -> Array:
    """D(S) of Eq. 7: the distance, in voxels, from each voxel to the nearest voxel of another label (R12, R27).

    Exact and Euclidean, for all labels in one pass (the ``edt`` package).  The background is a label like any other.
    The border of the volume is no boundary: an organ cut off by the patch is not known to end there.

    Parameters
    ----------
    labels
        Integer, one to three dimensions, a tensor on any device or a numpy array; values >= 0.

    Returns
    -------
    Tensor or array
        float32, the same shape (and device).  At least 1; infinite everywhere where there is but one label.

    Raises
    ------
    ValueError
        Not integers, negative, empty, or not of one to three dimensions.

    >>> boundary_distance(np.array([[2, 2, 2, 1, 0]]))
    array([[3., 2., 1., 1., 1.]], dtype=float32)
    """
    return _like(labels, np.sqrt(_squared_distance(_numpy(labels))))


def weight_map(labels: Array, *, mu: float = 8.0, eps: float = 0.05) -> Array:
    """W(S) of Eq. 7: ``0.5 sqrt(D) exp(-D / mu) + eps`` (R27: it peaks at D = mu / 2, not at the boundary).

    Parameters
    ----------
    labels
        As in :func:`boundary_distance`.
    mu, eps
        mu > 0 in voxels; eps >= 0 is the weight far from any boundary.

    Returns
    -------
    Tensor or array
        float32, the same shape; eps everywhere where there is but one label.

    >>> weight_map(np.array([1, 1, 1, 1, 0])).round(4)
    array([0.6565, 0.6452, 0.6007, 0.4912, 0.4912], dtype=float32)
    """
    _check_weights(mu, eps)
    squared = _squared_distance(_numpy(labels))
    if np.isinf(squared.flat[0]):
        return _like(labels, np.full(squared.shape, eps, np.float32))
    table = _weight(np.arange(int(squared.max()) + 1, dtype=np.float64), mu, eps).astype(np.float32)
    return _like(labels, table[squared.astype(np.int32)])


def sample_pixels(
    labels: Tensor, budget: int, *, mu: float = 8.0, eps: float = 0.05, generator: torch.Generator | None = None
) -> Tensor:
    """Draw at most ``budget`` (r) pixels of every label present, without replacement, weighted by W(S) (R13).

    The draws follow the law of successive weighted draws, as ``numpy.random.choice(replace=False, p=W / sum W)`` a
    class.  Large classes are drawn by rejection (propose uniformly, accept with W / max W, drop repeats), small ones
    by exponential keys (the r smallest E / W); both have that law.  There is no limit on the number of voxels.

    Parameters
    ----------
    labels
        Integer tensor of one to three dimensions, on any device; the background 0 is a class like any other.
    budget
        r >= 1; a class with at most r pixels gives them all.
    generator
        CPU generator.

    Returns
    -------
    Tensor
        int64 [n], flat indices into ``labels`` on its device, by ascending label and ascending within a label.

    >>> sample_pixels(torch.tensor([[0, 0, 5], [5, 5, 5]]), 2).shape
    torch.Size([4])
    """
    if budget < 1:
        raise ValueError(f"budget is {budget}: ask for at least 1 pixel a class")
    _check_weights(mu, eps)
    array = _numpy(labels)
    squared, flat = _squared_distance(array).reshape(-1), array.reshape(-1)
    present = np.flatnonzero(np.bincount(flat))
    chosen = [_draw(np.flatnonzero(flat == label), squared, budget, mu, eps, generator) for label in present]
    return torch.from_numpy(np.concatenate(chosen)).to(labels.device)


def choose_pair(
    collections: Sequence[str], *, same_image_prob: float = 0.5, generator: torch.Generator | None = None
) -> tuple[int, int]:
    """Choose the scans I_1 and I_2 that P_1 and P_2 are cut from (Sec. 2.3, R10).

    I_1 is any scan with equal probability.  P_2 comes from I_1 too with ``same_image_prob``, else from another scan
    of the same collection, each with equal probability (from I_1 where its collection has no other).

    Parameters
    ----------
    collections
        The collection each scan belongs to, one entry a scan.

    Returns
    -------
    tuple of int
        Positions of the two scans in ``collections``.
    """
    if not collections:
        raise ValueError("there is no scan to choose from: prepare a collection first")
    first = _integer(len(collections), generator)
    others = [i for i, name in enumerate(collections) if name == collections[first] and i != first]
    if _uniform(generator) < same_image_prob or not others:
        return first, first
    return first, others[_integer(len(others), generator)]


def choose_origin(
    foreground: Mapping[int, NDArray[np.integer]],
    shape: Sequence[int],
    patch: int,
    *,
    foreground_prob: float = 1.0,
    generator: torch.Generator | None = None,
) -> tuple[int, ...]:
    """Choose the corner of a patch: around a labelled voxel, each label present being equally likely (R14).

    Parameters
    ----------
    foreground
        label -> voxel coordinates [k, 3], k >= 1, of that label.
    shape
        Size of the volume, voxels.
    patch
        Edge of the cubic patch, voxels.
    foreground_prob
        Probability of centring on a labelled voxel; otherwise, and where nothing is labelled, anywhere.

    Returns
    -------
    tuple of int
        Index of the patch's first voxel.  The patch lies inside the volume along every axis that is long enough, and
        is centred (so the index is negative) along every axis that is too short.
    """
    labels = sorted(foreground)
    if labels and _uniform(generator) < foreground_prob:
        voxels = foreground[labels[_integer(len(labels), generator)]]
        centre = voxels[_integer(len(voxels), generator)]
        corner = [int(c) - patch // 2 for c in centre]
    else:
        corner = [_integer(max(n - patch, 0) + 1, generator) for n in shape]
    return tuple(
        min(max(c, 0), n - patch) if n >= patch else (n - patch) // 2 for c, n in zip(corner, shape, strict=True)
    )


def _squared_distance(labels: NDArray[np.integer]) -> NDArray[np.float32]:
    """Exact squared distance to the nearest voxel of another label; edt treats 0 as "outside", so shift by one."""
    shifted = labels.astype(np.uint8 if labels.max() < 255 else np.uint32, copy=True)
    shifted += 1
    squared: NDArray[np.float32] = edt.edtsq(shifted, black_border=False, parallel=1)
    return squared


def _weight(squared: NDArray[np.floating], mu: float, eps: float) -> NDArray[np.float64]:
    """Eq. 7 at squared distances; eps at an infinite one, its limit."""
    distance = np.sqrt(np.minimum(squared, 1e12, dtype=np.float64))
    return 0.5 * np.sqrt(distance) * np.exp(-distance / mu) + eps


def _draw(
    voxels: NDArray[np.int64],
    squared: NDArray[np.float32],
    budget: int,
    mu: float,
    eps: float,
    generator: torch.Generator | None,
) -> NDArray[np.int64]:
    """``budget`` of one class's voxels in ascending order, by successive weighted draws."""
    if len(voxels) <= budget:
        return voxels
    taken = np.empty(0, np.int64)
    if len(voxels) > KEYED * budget:
        taken = _reject(voxels, squared, budget, mu, eps, generator)
    if len(taken) < budget:  # what is left to draw is again a successive weighted draw, from the voxels not yet taken
        rest = np.setdiff1d(voxels, taken, assume_unique=True)
        keys = torch.empty(len(rest), dtype=torch.float64).exponential_(generator=generator).numpy()
        keys = keys / np.maximum(_weight(squared[rest], mu, eps), np.finfo(np.float64).tiny)
        smallest = np.argpartition(keys, budget - len(taken) - 1)[: budget - len(taken)]
        taken = np.concatenate([taken, rest[smallest]])
    return np.sort(taken)


def _reject(
    voxels: NDArray[np.int64],
    squared: NDArray[np.float32],
    budget: int,
    mu: float,
    eps: float,
    generator: torch.Generator | None,
) -> NDArray[np.int64]:
    """Up to ``budget`` distinct voxels in the order drawn; fewer when ROUNDS of proposals did not give them."""
    highest = float(_weight(np.array(mu * mu / 4), mu, eps))  # W peaks at D = mu / 2
    taken = np.empty(0, np.int64)
    for _ in range(ROUNDS):
        proposed = voxels[torch.randint(len(voxels), (16 * budget,), generator=generator).numpy()]
        level = torch.rand(16 * budget, dtype=torch.float64, generator=generator).numpy() * highest
        taken = np.concatenate([taken, proposed[level < _weight(squared[proposed], mu, eps)]])
        taken = taken[np.sort(np.unique(taken, return_index=True)[1])]  # first occurrences, in order
        if len(taken) >= budget:
            break
    return taken[:budget]


def _numpy(labels: Tensor | NDArray[np.generic]) -> NDArray[np.integer]:
    """Labels as a contiguous numpy array, checked."""
    array = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if array.dtype == bool:
        array = array.astype(np.uint8)
    if not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"labels are {array.dtype}: give integers, 0 for the background")
    if not 1 <= array.ndim <= 3 or array.size == 0:
        raise ValueError(f"labels have shape {array.shape}: give one non-empty volume of one to three dimensions")
    if array.min() < 0:
        raise ValueError(f"labels go down to {array.min()}: they must be 0 (background) or above")
    return np.ascontiguousarray(array)


def _like(labels: Array, values: NDArray[np.float32]) -> Array:
    """``values`` as a tensor on the labels' device, or as the array they are."""
    return torch.from_numpy(values).to(labels.device) if isinstance(labels, Tensor) else values  # type: ignore[return-value]


def _check_weights(mu: float, eps: float) -> None:
    if not (mu > 0 and math.isfinite(mu) and eps >= 0 and math.isfinite(eps)):
        raise ValueError(f"mu is {mu} and eps is {eps}: mu must be above 0 and eps at least 0, both finite")


def _integer(n: int, generator: torch.Generator | None) -> int:
    return int(torch.randint(n, (), generator=generator))


def _uniform(generator: torch.Generator | None) -> float:
    return float(torch.rand((), dtype=torch.float64, generator=generator))
