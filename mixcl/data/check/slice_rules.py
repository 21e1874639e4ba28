"""Do the slices of a scan follow each other?  Blank, repeated, missing or shuffled ones, from head to feet.

Measured on real and drawn scans, neighbouring slices differ about 0.6 times as much as every other one does (drawn
lots give 1), and the largest step is at most 2.6 times the usual one around it, where slices are up to 6 mm apart;
9 mm apart it is up to 4.7 times, so of thick slices nothing is said.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mixcl.data.check.image_rules import AIR
from mixcl.data.files import Doubt

BLOCK = 8  # voxels, averaged so that noise does not count
OUT_OF_ORDER, JUMP = 0.85, 3.5
FEW = 8  # slices too few to say more about their order
THICKEST = 6.6  # mm between slices that still change little by little


def doubts(image: NDArray[Any], label: NDArray[np.uint8], thickness: float) -> Iterator[Doubt]:
    """What is odd about the slices of an image [X, Y, Z] in RAS+ with ``label`` of the same shape; mm."""
    low, high = image.min(axis=(0, 1)), image.max(axis=(0, 1))
    blank = low == high
    yield from _blank(blank, low, label)
    same = [k for k in np.flatnonzero(~blank[:-1]).tolist() if np.array_equal(image[:, :, k], image[:, :, k + 1])]
    if same:
        yield Doubt("repeated slices", f"{len(same)} slices are copies of the slice below them{_where(same)}")
    steps, skips = _steps(image[:, :, ~blank])
    if not len(steps):
        return
    if steps.mean() > OUT_OF_ORDER * skips.mean():
        yield Doubt("slice order", "neighbouring slices differ as much as others do; they may be out of order")
        return
    usual = ndimage.median_filter(steps, 9, mode="nearest")
    jumps = np.flatnonzero(steps > JUMP * np.maximum(usual, 1.0))
    if jumps.size and thickness <= THICKEST:
        at = np.flatnonzero(~blank)[jumps].tolist()
        yield Doubt("slice jump", f"the body changes abruptly between slices{_where(at)}; some may be missing")


def _blank(blank: NDArray[np.bool_], values: NDArray[Any], label: NDArray[np.uint8]) -> Iterator[Doubt]:
    """Slices of one value: harmless air at the ends, else a gap, or voxels that never were."""
    if not blank.any() or blank.all():
        return
    inner = np.flatnonzero(~blank)
    gap = blank & (np.arange(blank.size) > inner[0]) & (np.arange(blank.size) < inner[-1])
    bad = gap | (blank & (label.any(axis=(0, 1)) | (values > AIR)))
    where = _where(np.flatnonzero(bad if bad.any() else blank).tolist())
    if bad.any():
        yield Doubt("blank slices", f"{bad.sum()} slices have one value throughout{where}; get the scan again")
    else:
        yield Doubt("padding", f"{blank.sum()} slices at its ends hold nothing{where}", "note")


def _steps(image: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """How much slices differ from the next, and from the one after it: mean over blocks of clipped HU."""
    n, m, depth = (image.shape[0] // BLOCK, image.shape[1] // BLOCK, image.shape[2])
    if min(n, m) < 4 or depth < FEW:
        return np.empty(0, np.float32), np.empty(0, np.float32)
    blocks = np.empty((n, m, depth), np.float32)
    for k in range(depth):
        plane = np.clip(image[: n * BLOCK, : m * BLOCK, k], -1000, 400).astype(np.float32)
        blocks[:, :, k] = plane.reshape(n, BLOCK, m, BLOCK).mean(axis=(1, 3))
    near, far = (np.abs(blocks[:, :, step:] - blocks[:, :, :-step]).mean(axis=(0, 1)) for step in (1, 2))
    return near, far


def _where(slices: list[int]) -> str:
    """Numbers of slices, from the feet."""
    listed = ", ".join(map(str, slices[:5])) + (", ..." if len(slices) > 5 else "")
    return f" (number {listed}, counted from the feet)"
