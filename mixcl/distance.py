"""D(S)^2 of Eq. 7, exact, for all labels of a patch in one pass."""

import edt
import numpy as np
from numpy.typing import NDArray

from mixcl.labels import UNKNOWN

SLAB = 8  # slices whose distances are found together, so that they stay in the processor's cache


def squared_distance(labels: NDArray[np.integer]) -> NDArray[np.float32]:
    """Exact squared distance to the nearest voxel of another known label, by the quicker of two ways; 0 if unknown."""
    unknown = labels == UNKNOWN
    if unknown.any():
        return _known_distance(labels, unknown)
    compact = labels.astype(np.min_scalar_type(int(labels.max()) + 1))
    if max(labels.shape) < 128:
        near = _near_distance(compact.reshape((1,) * (3 - labels.ndim) + labels.shape))
        if near is not None:
            return near.reshape(labels.shape)
    compact += 1  # edt takes 0 for "outside"
    squared: NDArray[np.float32] = edt.edtsq(compact, black_border=False, parallel=1)
    return squared


def _known_distance(labels: NDArray[np.integer], unknown: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Where some voxels are unknown: each label by itself, as if it went on there (R33)."""
    squared = np.zeros(labels.shape, np.float32)
    for value in np.unique(labels[~unknown]):
        own = labels == value
        squared[own] = edt.edtsq((own | unknown).astype(np.uint8), black_border=False, parallel=1)[own]
    return squared


def _near_distance(labels: NDArray[np.integer]) -> NDArray[np.float32] | None:
    """Squared distances in a patch of less than 128 voxels an axis; None when some are too large for this.

    One axis after the other, ``f(i) = min(run(i)^2, min_s f(i + s) + s^2)``, where run is the distance along the axis
    to the next change of label.  It does not matter that i + s may carry another label: a change then lies within s of
    i, so that run(i)^2 is smaller.  All voxels take the step s together, in 16 bits, up to the largest distance.
    """
    far = 255 - max(labels.shape)  # stands for "no change along this line"; any true run is shorter
    runs = [_runs(labels, axis, far) for axis in range(3)]
    if min(int(run.min()) for run in runs) == far:
        return None  # a single label
    squared = np.empty(labels.shape, np.float32)
    for start in range(0, len(labels), SLAB):
        along = [run[start : start + SLAB] for run in runs]
        most = int(np.minimum(np.minimum(along[0], along[1]), along[2]).max())
        second = _lower(_square(along[0]), along[1], 1, most, far)
        squared[start : start + SLAB] = _lower(second, along[2], 2, most, far)
    return squared if squared.max() < far * far else None


def _runs(labels: NDArray[np.integer], axis: int, far: int) -> NDArray[np.uint8]:
    """Distance along an axis to the nearest voxel of another label, ``far`` where the line has but one."""
    lines = np.ascontiguousarray(np.moveaxis(labels, axis, 0))
    same = (lines[1:] != lines[:-1]).view(np.uint8) - np.uint8(1)  # all bits set where the label goes on
    run = np.full(lines.shape, far, np.uint8)
    for i in range(1, len(lines)):
        np.bitwise_and(run[i - 1], same[i - 1], out=run[i])
        run[i] += 1
    back = run[0].copy()
    for i in range(len(lines) - 2, -1, -1):
        back &= same[i]
        back += 1
        np.minimum(run[i], back, out=run[i])
    return np.ascontiguousarray(np.moveaxis(np.minimum(run, far, out=run), 0, axis))


def _lower(values: NDArray[np.uint16], run: NDArray[np.uint8], axis: int, most: int, far: int) -> NDArray[np.uint16]:
    """``min(run(i)^2, min over s <= most of values(i +- s) + s^2)`` along an axis."""
    lines = np.moveaxis(values, axis, 0)
    n, most = len(lines), min(most, len(lines) - 1)
    padded = np.full((n + 2 * most, *lines.shape[1:]), far * far, np.uint16)
    padded[most : most + n] = lines
    best = np.minimum(padded[most : most + n], _square(np.ascontiguousarray(np.moveaxis(run, axis, 0))))
    step = np.empty_like(best)
    for s in range(1, most + 1):
        np.minimum(padded[most - s : most - s + n], padded[most + s : most + s + n], out=step)
        step += np.uint16(s * s)
        np.minimum(best, step, out=best)
        if s % 8 == 0 and s * s >= best.max():
            break
    return np.moveaxis(best, 0, axis)


def _square(run: NDArray[np.uint8]) -> NDArray[np.uint16]:
    squared = run.astype(np.uint16)
    squared *= squared
    return squared
