"""Where a volume lies and how large its voxels are: one set of checks for every format, and the grid of the store.

That has axes turned to RAS+ and one spacing (Sec. 3.1: 1.5 x 1.5 x 2.0 mm).  It covers the same box as the grid before,
to half a voxel, and shares its centre, so that an organ cut by the edge of the scan keeps its volume; MONAI's
``Spacing`` shares the centre of the first voxel, which took 3 % off a lung cut by the last slice.  Values are those of
MONAI's ``SpatialResample`` onto that grid, border clamped; the tests compare with it.  One pass an axis takes a quarter
of the memory and a tenth of the time, and nothing but single additions and multiplications: a store comes out the same
on every machine.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.orientations import (
    aff2axcodes,
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)
from numpy.typing import NDArray

from mixcl.data.files import Doubt
from mixcl.errors import InputError

LARGEST_SPACING = 20.0  # mm; longer voxels are taken for a mistake in the header
SKEW, OBLIQUE = 1.0, 15.0  # degrees from a right angle that are refused, and from the axes of the body that are told
MEND = "write the true voxel size into its header"


def check_grid(path: Path, affine: NDArray[np.float64], shape: Sequence[int]) -> tuple[Doubt, ...]:
    """What is odd about the grid of a volume of ``shape`` with ``affine`` [4, 4] to mm.

    Raises InputError: directions that are none (``header``), voxels longer than 20 mm (``spacing``), axes that are not
    at right angles (``shear``), as of slices from a tilted gantry: every later step takes voxels for boxes.
    """
    edges = np.array(spacing_of(affine))
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise InputError(f"{path}: its affine is singular or not finite; {MEND}", "header")
    if edges.max() > LARGEST_SPACING:
        raise InputError(f"{path}: voxel size {millimetres(edges)} mm is implausibly large; {MEND}", "spacing")
    axes = affine[:3, :3] / edges
    angle = float(np.degrees(np.arccos(np.clip(np.abs((axes.T @ axes)[np.triu_indices(3, 1)]), 0, 1))).min())
    if angle < 90 - SKEW:
        text = f"is tilted: its axes are {90 - angle:.0f} degrees off a right angle, as from a tilted gantry"
        raise InputError(f"{path}: {text}; resample it upright, and its label map or scan with it", "shear")
    doubts: tuple[Doubt, ...] = ()
    if np.allclose(edges, 1.0, atol=1e-4) and max(shape) >= 512:
        text = f"voxels of 1 x 1 x 1 mm in a {'x'.join(map(str, shape))} volume: is the true size lost?"
        doubts += (Doubt("spacing", text),)
    turn = float(np.degrees(np.arccos(np.clip(np.abs(axes).max(axis=0).min(), 0, 1))))
    if turn > OBLIQUE:
        text = f"it lies oblique in the scanner, by {turn:.0f} degrees; it is taken as if it did not"
        doubts += (Doubt("orientation", text),)
    return doubts


def millimetres(edges: Sequence[float] | NDArray[Any]) -> str:
    """Edges of a voxel for people.

    >>> millimetres([0.75, 0.75, 5])
    '0.75 x 0.75 x 5'
    """
    return " x ".join(f"{float(edge):.4g}" for edge in edges)


def to_ras(data: NDArray[Any], affine: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """The array with its axes permuted and flipped to the nearest RAS+, and its affine; a view, no copy."""
    return to_axes(data, affine, "RAS")


def to_axes(data: NDArray[Any], affine: NDArray[np.float64], axes: str) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """The array with its axes permuted and flipped to run like ``axes``, such as LPS, and its affine; no copy."""
    way = ornt_transform(io_orientation(affine), axcodes2ornt(axes))
    return apply_orientation(data, way), affine @ inv_ornt_aff(way, data.shape)


def spacing_of(affine: NDArray[np.float64]) -> tuple[float, float, float]:
    """Edges of a voxel in mm.

    >>> spacing_of(np.diag([-1.5, 1.5, 2.0, 1.0]))
    (1.5, 1.5, 2.0)
    """
    x, y, z = voxel_sizes(affine).tolist()
    return x, y, z


def affines_apart(affine: NDArray[np.float64], other: NDArray[np.float64], shape: Sequence[int]) -> float:
    """How far apart two affines lay the corners of a grid of ``shape``, mm."""
    corners = np.array(list(itertools.product(*((0, n - 1) for n in shape), (1,)))).T
    return float(np.linalg.norm(((affine - other) @ corners)[:3], axis=0).max())


def resampled_shape(shape: Sequence[int], spacing: Sequence[float], target: Sequence[float]) -> tuple[int, ...]:
    """Length of each axis after resampling: as many voxels as the box holds, rounded, and at least one.

    >>> resampled_shape((512, 512, 129), (0.57, 0.57, 1.6), (1.5, 1.5, 2.0))
    (195, 195, 103)
    """
    ratios = (n * a / b for n, a, b in zip(shape, spacing, target, strict=True))
    return tuple(max(round(round(ratio, 6)), 1) for ratio in ratios)


def resampled_affine(affine: NDArray[np.float64], shape: Sequence[int], target: Sequence[float]) -> NDArray[np.float64]:
    """The affine after resampling a grid of ``shape`` to ``target`` mm: same directions, same centre."""
    spacing = spacing_of(affine)
    first = [_first(n, a, b) for n, a, b in zip(shape, spacing, target, strict=True)]
    scaled = affine.copy()
    scaled[:3, 3] = affine[:3, :3] @ first + affine[:3, 3]
    scaled[:3, :3] *= np.asarray(target) / np.asarray(spacing)
    return scaled


def _first(n: int, a: float, b: float) -> float:
    """Where the first new voxel of an axis lies, in voxels of the old one; may lie outside."""
    return (n - (resampled_shape((n,), (a,), (b,))[0] - 1) * b / a - 1) / 2


def _positions(n: int, a: float, b: float) -> NDArray[np.float64]:
    """Where the voxels of the new axis lie, in voxels of the old one, clamped to its ends."""
    (length,) = resampled_shape((n,), (a,), (b,))
    return np.clip(np.round(_first(n, a, b) + np.arange(length) * (b / a), 9), 0.0, n - 1.0)


def resample_linear(data: NDArray[Any], spacing: Sequence[float], target: Sequence[float]) -> NDArray[np.float32]:
    """Trilinear resampling from ``spacing`` to ``target`` mm, axis after axis, the one that shrinks most first."""
    shape = resampled_shape(data.shape, spacing, target)
    order = _memory_order(data)
    part = np.ascontiguousarray(data.transpose(order))
    for axis in sorted(range(3), key=lambda k: shape[k] / data.shape[k]):
        at = _positions(data.shape[axis], spacing[axis], target[axis])
        low = np.floor(at).astype(np.intp)
        high = np.minimum(low + 1, data.shape[axis] - 1)
        place = order.index(axis)
        below = np.take(part, low, axis=place).astype(np.float32, copy=False)
        weight = (at - low).astype(np.float32).reshape([-1 if k == place else 1 for k in range(3)])
        if weight.any():
            above = np.take(part, high, axis=place).astype(np.float32, copy=False)
            above -= below
            above *= weight
            below += above
        part = below
    return part.transpose(np.argsort(order))


def resample_nearest(data: NDArray[Any], spacing: Sequence[float], target: Sequence[float]) -> NDArray[Any]:
    """Nearest-voxel resampling from ``spacing`` to ``target`` mm; halfway, the lower of the two.

    Chosen for label maps by measurement (``reproduce/bench/labels.py``): where each label is interpolated and the
    strongest taken, tubes of 2 to 6 mm lose 7 to 25 % of their volume, with the nearest voxel under 1 %.
    """
    order = _memory_order(data)
    part = np.ascontiguousarray(data.transpose(order))
    for axis in range(3):
        at = _positions(data.shape[axis], spacing[axis], target[axis])
        part = np.take(part, np.ceil(at - 0.5).astype(np.intp), axis=order.index(axis))
    return part.transpose(np.argsort(order))


def _memory_order(data: NDArray[Any]) -> list[int]:
    """The axes from the slowest in memory to the fastest; in this order a copy runs ten times as fast."""
    return sorted(range(3), key=lambda axis: -abs(data.strides[axis]))


class WayBack(NamedTuple):
    """From the prepared grid to that of the original scan, the inverse of what preparation did to its geometry.

    ``positions``: for each axis of the original scan turned to RAS+, where its voxels lie in prepared ones, within
    those.  Axes are independent, because preparation only permutes, flips and stretches them.
    """

    positions: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
    affine: NDArray[np.float64]  # of the original scan

    def nearest(self, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A label map of the prepared grid on that of the original file, by the nearest voxel; halfway, the lower."""
        return self.turned(labels[np.ix_(*(np.ceil(at - 0.5).astype(np.intp) for at in self.positions))])

    def turned(self, data: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """An array on the original grid turned to RAS+, in the axes of the original file; a view, no copy."""
        return to_axes(data, np.eye(4), "".join(aff2axcodes(self.affine)))[0]


def way_back(shape: Sequence[int], affine: NDArray[np.float64], spacing: Sequence[float]) -> WayBack:
    """The way from a prepared grid of ``spacing`` mm to that of the original scan: its voxels [X, Y, Z] and affine."""
    turned, straight = to_ras(np.broadcast_to(np.uint8(0), shape), affine)
    x, y, z = map(_positions_back, turned.shape, spacing_of(straight), spacing)
    return WayBack((x, y, z), affine)


def _positions_back(n: int, a: float, b: float) -> NDArray[np.float64]:
    """Where the ``n`` voxels of ``a`` mm of an axis lie on the one of ``b`` mm made of it, clamped to its ends.

    >>> _positions_back(4, 1.0, 2.0).tolist()
    [0.0, 0.25, 0.75, 1.0]
    """
    (length,) = resampled_shape((n,), (a,), (b,))
    return np.clip(np.round((np.arange(n) - _first(n, a, b)) * (a / b), 9), 0.0, length - 1.0)
