"""Which pixels and which patches take part: Eq. 7 and the choice of P_1 and P_2 (Sec. 2.3).

Every function takes an explicit CPU generator (None is torch's default one), so that a draw depends on
nothing else.  R-numbers refer to reproduce/READINGS.md.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from mixcl.distance import squared_distance
from mixcl.labels import UNKNOWN

Array = TypeVar("Array", Tensor, NDArray[np.generic])

KEYED = 16  # a class with at most this many voxels a draw is drawn by random keys, a larger one by rejection
PROPOSALS = 4  # a draw and round of rejection
ROUNDS = 32  # of rejection, before the rest is drawn by keys


def boundary_distance(labels: Array) -> Array:
    """D(S) of Eq. 7: the distance, in voxels, of each voxel to the nearest voxel of another label (R12, R27, R33).

    Exact and Euclidean.  The background is a label like any other.  The border of the volume is no boundary, and
    neither is that of an unknown region (UNKNOWN, 255): an organ is not known to end there.

    ``labels`` are integers >= 0 of one to three dimensions, else ValueError; a tensor on any device or a numpy array.
    float32 of the same shape (and device) comes back: at least 1, 0 where unknown, infinite where there is but one
    label.  The square is an exact integer up to a distance of 4096 voxels, 2^24 being float32's last consecutive one.

    >>> boundary_distance(np.array([[2, 2, 2, 1, 0]]))
    array([[3., 2., 1., 1., 1.]], dtype=float32)
    """
    return _like(labels, np.sqrt(squared_distance(_numpy(labels))))


def weight(distance: ArrayLike, *, mu: float = 8.0, eps: float = 0.05) -> NDArray[np.float64]:
    """Eq. 7 at a distance: ``0.5 sqrt(D) exp(-D / mu) + eps``; what maps show and what draws use (R27).

    Of D >= 0 in voxels, of any shape; float64, eps at D = 0 and at an infinite D, the limits.  mu > 0 is in voxels;
    eps >= 0 is the weight far from any boundary; both finite, else ValueError.

    >>> weight(4.0).round(5), weight(np.inf)  # the peak is at D = mu / 2
    (np.float64(0.65653), np.float64(0.05))
    """
    if not (mu > 0 and math.isfinite(mu) and eps >= 0 and math.isfinite(eps)):
        raise ValueError(f"mu is {mu} and eps is {eps}: mu must be above 0 and eps at least 0, both finite")
    d = np.asarray(distance, dtype=np.float64)
    d = np.where(np.isinf(d), 0.0, d)
    return np.asarray(0.5 * np.sqrt(d) * np.exp(-d / mu) + eps)[()]


def weight_map(labels: Array, *, mu: float = 8.0, eps: float = 0.05) -> Array:
    """W(S) of Eq. 7: ``0.5 sqrt(D) exp(-D / mu) + eps`` (R27: it peaks at D = mu / 2, not at the boundary).

    Labels as in :func:`boundary_distance`, mu and eps as in :func:`weight`; float32 of the labels' shape comes back,
    eps where there is but one label, and where it is unknown, which is never drawn.

    >>> weight_map(np.array([1, 1, 1, 1, 0])).round(4)
    array([0.6565, 0.6452, 0.6007, 0.4912, 0.4912], dtype=float32)
    """
    distance = np.sqrt(squared_distance(_numpy(labels)), dtype=np.float64)
    return _like(labels, weight(distance, mu=mu, eps=eps).astype(np.float32))


def sample_pixels(
    labels: Tensor, budget: int, *, mu: float = 8.0, eps: float = 0.05, generator: torch.Generator | None = None
) -> Tensor:
    """Draw at most ``budget`` (r) pixels of every label present, without replacement, weighted by W(S) (R13).

    The draws follow the law of successive weighted draws, as ``numpy.random.choice(replace=False, p=W / sum W)`` a
    class.  Large classes are drawn by rejection (propose uniformly, accept with W / max W, drop repeats), small ones by
    exponential keys (the r smallest E / W); both have that law.  The number of voxels has no limit.  int64 [n] comes
    back, flat indices into ``labels`` on its device, by ascending label, ascending within a label.  ``generator`` is a
    CPU generator.

    ``labels`` is an integer tensor of one to three dimensions, on any device; the background 0 is a class, UNKNOWN is
    none.  ``budget`` is r >= 1, else ValueError is raised; a class with at most r pixels gives them all.

    >>> sample_pixels(torch.tensor([[0, 0, 5], [5, 5, 5]]), 2).shape
    torch.Size([4])
    """
    if budget < 1:
        raise ValueError(f"budget is {budget}: ask for at least 1 pixel a class")
    array = _numpy(labels)
    squared = squared_distance(array).reshape(-1)
    if np.isinf(squared.max()):
        squared = np.ones_like(squared)  # a single label: W is eps everywhere, every voxel is as likely
    weights = _Weights(squared, mu, eps)
    chosen = [_draw(voxels, weights, budget, generator) for voxels in _classes(array.reshape(-1))]
    return torch.from_numpy(np.concatenate([*chosen, np.empty(0, np.int64)])).to(labels.device)


def choose_pair(
    collections: Sequence[str], *, same_image_prob: float = 0.5, generator: torch.Generator | None = None
) -> tuple[int, int]:
    """Choose the scans I_1 and I_2 that P_1 and P_2 are cut from (Sec. 2.3, R10).

    I_1 is any scan with equal probability.  P_2 comes from I_1 too with ``same_image_prob``, else from another scan of
    the same collection, each with equal probability (from I_1 where its collection has no other).  ``collections`` has
    the collection of every scan; the positions of the two scans in it come back.  Raises ValueError without any scan.
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

    The index of the first voxel comes back.  The patch lies inside the volume along every axis that is long enough, and
    is centred (so the index is negative) along every axis that is too short.

    ``foreground`` is label -> voxel coordinates [k, 3], k >= 1, of that label; ``shape`` and ``patch`` are the size of
    the volume and the edge of the cubic patch, voxels.  ``foreground_prob`` is the probability of centring on a
    labelled voxel; otherwise, and where nothing is labelled, anywhere.
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


class _Weights:
    """W(S) of a flattened label map, worked out where it is asked for; ``highest`` is a bound of it."""

    def __init__(self, squared: NDArray[np.float32], mu: float, eps: float) -> None:
        self.squared, self.mu, self.eps = squared, mu, eps
        furthest = math.sqrt(float(squared.max()))
        self.highest = float(weight(min(mu / 2, furthest), mu=mu, eps=eps))  # W rises up to D = mu / 2

    def at(self, voxels: NDArray[np.int64]) -> NDArray[np.float64]:
        return weight(np.sqrt(self.squared[voxels], dtype=np.float64), mu=self.mu, eps=self.eps)

    def log_at(self, voxels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Without underflow far from a boundary, when mu is small and eps is 0."""
        distance = np.sqrt(self.squared[voxels], dtype=np.float64)
        with np.errstate(divide="ignore"):  # log 0
            rising = 0.5 * np.log(distance) - distance / self.mu - np.log(2)
            return np.asarray(np.logaddexp(rising, np.log(self.eps)))


def _classes(flat: NDArray[np.integer]) -> list[NDArray[np.int64]]:
    """The voxels of each known label present, both ascending."""
    order = np.argsort(flat, kind="stable")
    classes = np.split(order, np.flatnonzero(np.diff(flat[order])) + 1)
    return [voxels for voxels in classes if flat[voxels[0]] != UNKNOWN]


def _draw(
    voxels: NDArray[np.int64], weights: _Weights, budget: int, generator: torch.Generator | None
) -> NDArray[np.int64]:
    """``budget`` of one class's voxels in ascending order, by successive weighted draws."""
    if len(voxels) <= budget:
        return voxels
    taken = np.empty(0, np.int64)
    if len(voxels) > KEYED * budget:
        taken = _reject(voxels, weights, budget, generator)
    missing = budget - len(taken)
    if missing:  # what remains is again a successive weighted draw, from the voxels not yet taken
        rest = np.delete(voxels, np.searchsorted(voxels, taken))
        keys = torch.empty(len(rest), dtype=torch.float64).exponential_(generator=generator).log_().numpy()
        keys = keys - weights.log_at(rest)  # E / W on a logarithmic scale
        taken = np.concatenate([taken, rest[np.argpartition(keys, missing - 1)[:missing]]])
    return np.sort(taken)


def _reject(
    voxels: NDArray[np.int64], weights: _Weights, budget: int, generator: torch.Generator | None
) -> NDArray[np.int64]:
    """Up to ``budget`` distinct voxels in the order drawn; fewer when ROUNDS of proposals did not do."""
    n = PROPOSALS * budget
    taken: dict[int, None] = {}  # keeps the order of first draws
    for _ in range(ROUNDS):
        proposed = voxels[torch.randint(len(voxels), (n,), generator=generator).numpy()]
        level = torch.rand(n, dtype=torch.float64, generator=generator).numpy() * weights.highest
        taken.update(dict.fromkeys(proposed[level < weights.at(proposed)].tolist()))
        if len(taken) >= budget:
            break
    return np.fromiter(taken, np.int64, len(taken))[:budget]


def _numpy(labels: Tensor | NDArray[np.generic]) -> NDArray[np.integer]:
    """Labels as a contiguous numpy array, checked."""
    array = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if array.dtype == bool:
        array = array.astype(np.uint8)
    if not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"labels are {array.dtype}: give integers, 0 for the background")
    if not 1 <= array.ndim <= 3 or array.size == 0:
        raise ValueError(f"labels have shape {array.shape}: give one volume of 1 to 3 dimensions, not empty")
    if array.min() < 0:
        raise ValueError(f"labels go down to {array.min()}: they must be 0 (background) or above")
    return np.ascontiguousarray(array)


def _like(labels: Array, values: NDArray[np.float32]) -> Array:
    """``values`` as a tensor on the labels' device, or as the array they are."""
    return torch.from_numpy(values).to(labels.device) if isinstance(labels, Tensor) else values


def _integer(n: int, generator: torch.Generator | None) -> int:
    return int(torch.randint(n, (), generator=generator))


def _uniform(generator: torch.Generator | None) -> float:
    return float(torch.rand((), dtype=torch.float64, generator=generator))
