"""The original scan of a prepared case: its label map as it was given, and the way back to its grid."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform
from numpy.typing import NDArray

from mixcl.data.files import Volume
from mixcl.data.files.align import aligned
from mixcl.data.files.grid import positions_back, spacing_of, to_ras
from mixcl.data.files.volume import label_map, read_volume
from mixcl.data.store import Case
from mixcl.errors import InputError


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
        there = ornt_transform(axcodes2ornt("RAS"), io_orientation(self.affine))
        back: NDArray[np.uint8] = apply_orientation(data, there)
        return back


def way_back(shape: Sequence[int], affine: NDArray[np.float64], spacing: Sequence[float]) -> WayBack:
    """The way from a prepared grid of ``spacing`` mm to that of the original scan: its voxels [X, Y, Z] and affine."""
    turned, straight = to_ras(np.broadcast_to(np.uint8(0), shape), affine)
    x, y, z = map(positions_back, turned.shape, spacing_of(straight), spacing)
    return WayBack((x, y, z), affine)


def original_label(case: Case) -> NDArray[np.uint8]:
    """The label map of the original scan, uint8 [X, Y, Z] in the axes of its file.

    Raises InputError: it is no longer where it was when its collection was prepared, has changed, or cannot be read.
    """
    source = case.source
    if not source.label.exists():
        text = f"{source.label}: the label map of {case.collection}/{case.id} is not there any more"
        raise InputError(f"{text}; set data.root to the folder of the scans and run mixcl prepare again")
    label = read_volume(source.label)
    if label.sha256 != source.label_sha256:
        raise InputError(f"{source.label}: has changed since it was prepared; run mixcl prepare and train again")
    label = replace(label, data=label_map(label, source.stored))
    image = Volume(source.image, np.broadcast_to(np.uint8(0), case.source_shape), case.source_affine, "")
    return aligned(image, label, source.label_grid)[0].data
