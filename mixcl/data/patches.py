"""Cubes from the store: image and labels of a box, scaled, and no more memory than that."""

import mmap
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixcl.data.arrays import release_pages
from mixcl.data.store import Case

Patch = tuple[NDArray[np.float32], NDArray[np.uint8]]


def read_patch(case: Case, origin: Sequence[int], size: int, hu: Sequence[float], out: Patch | None = None) -> Patch:
    """Cut a cube of ``size`` voxels an edge; only its box is read.

    ``origin`` is its first voxel, three integers that may be negative or beyond the end, and ``hu`` the window in HU,
    whose ends are scaled to 0 and 1 (Sec. 3.1).  Filled are the arrays ``out``, such as rows of a batch, or new ones.

    Image, float32 [size, size, size] in [0, 1], and labels, uint8 of the same shape, come back.  Outside the scan they
    are 0: the lower end of the window, and background.  Raises InputError: the case's files cannot be read.
    """
    image, label = (np.empty((size,) * 3, np.float32), np.empty((size,) * 3, np.uint8)) if out is None else out
    start = [int(o) for o in origin]
    x, y, z = (slice(max(o, 0), min(o + size, n)) for o, n in zip(start, case.shape, strict=True))
    box = (x, y, z)
    if any(s.stop - s.start != size for s in box):
        image.fill(0.0)
        label.fill(0)
    if all(s.start < s.stop for s in box):
        outer = tuple(slice(s.start - o, s.stop - o) for s, o in zip(box, start, strict=True))
        voxels, values, part = case.image(), case.label(), image[outer]
        prefetch(voxels, box)
        prefetch(values, box)
        scaled(voxels[box], hu, out=part)
        label[outer] = values[box]
        release_pages(voxels.base)
        release_pages(values.base)
    return image, label


def scaled(
    image: NDArray[np.int16], hu: Sequence[float], out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """HU of any shape as float32, into ``out`` or a new array: the window ``hu`` is scaled to [0, 1]."""
    parts = np.subtract(image, np.float32(hu[0]), dtype=np.float32, out=out)
    parts /= np.float32(hu[1] - hu[0])
    return np.clip(parts, 0.0, 1.0, out=parts)


def prefetch(array: NDArray[Any], box: tuple[slice, slice, slice]) -> None:
    """Ask the system for all of a box of a mapped array at once, so that a disk does not serve it piece by piece.

    A patch from files that are not in memory comes five times as fast; else this costs half a millisecond at most.
    """
    mapped: object = array.base
    if not (isinstance(array, np.memmap) and isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_WILLNEED")):
        return
    first = array.offset % mmap.ALLOCATIONGRANULARITY  # of the array in the map
    plane, row, _ = array.strides
    for x in range(box[0].start, box[0].stop):
        start, end = (first + x * plane + y * row for y in (box[1].start, box[1].stop))
        start -= start % mmap.PAGESIZE
        mapped.madvise(mmap.MADV_WILLNEED, start, end - start)
