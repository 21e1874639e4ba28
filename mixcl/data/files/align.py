"""Label maps on the grid of their images, by a rule that the collection names (``label_grid``).

Public pipelines for NIH Pancreas-CT show why there are rules.  They lay the voxels of its labels on the pixels of the
DICOM slices, [column, row, slice], without a flip (github.com/twni2016/OrganSegRSTN_PyTorch, DATA2NPY); who reads
scans that dcm2niix wrote, with rows from the back to the front, has to flip the labels
(github.com/mattiaspaul/deedsBCV, README), unless he goes by both headers, as nnU-Net's converter and 3D Slicer do
(its issue 2).  All this agrees with labels whose headers are right and whose axes run otherwise than those of the scan.
"""

from dataclasses import replace
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from mixcl.config.settings import LabelGrid
from mixcl.data.files import Volume
from mixcl.data.files.grid import spacing_of, to_axes
from mixcl.data.files.volume import known_voxels
from mixcl.errors import InputError
from mixcl.labels import UNKNOWN

AFFINE_TOLERANCE = 0.1
"""How far image and label may lie apart, as a part of the smallest voxel edge."""
OWN_HEADER = "or, when its header is wrong but its voxels are in the image's order, set label_grid: voxels"


def aligned(image: Volume, label: Volume, rule: LabelGrid = "same") -> tuple[Volume, str]:
    """The label map on its image's grid, voxel by voxel.

    Parameters
    ----------
    image, label
        As read.
    rule
        ``same``: the grids have to be equal, to a tenth of a voxel at the corners.  ``header``: the label's axes may
        run otherwise; it is turned, without interpolation, as both headers say.  ``voxels``: the label's header is
        not believed; its voxels are in the order of the image's, which for a DICOM series is [column, row, slice
        along the normal].

    Returns
    -------
    The label map, and a sentence when it was turned or its header passed over, else "".

    Raises
    ------
    InputError
        ``shape``, ``affine`` or, for grids that differ in the way their axes run, ``axes``.
    """
    apart = corners_apart(image, label)
    if apart == 0:
        return label, ""
    if rule == "voxels" and image.data.shape == label.data.shape:
        text = f"{label.path}: its header is passed over, and its voxels are taken in the order of {image.path.name}'s"
        return replace(label, affine=image.affine), f"{text} (label_grid: voxels)"
    codes = ["".join(nib.orientations.aff2axcodes(volume.affine)) for volume in (image, label)]
    turned = _turned(label, image.affine)
    if rule == "header" and corners_apart(image, turned) == 0:
        text = f"{label.path}: its axes run {codes[1]}, those of {image.path.name} {codes[0]}; it is turned"
        return turned, f"{text} as both headers say (label_grid: header)"
    mend = "give the label map on the grid of its image"
    if codes[0] != codes[1]:
        fits = corners_apart(image, turned) == 0
        also = "" if fits else ", and turned it does not fit either"
        same = ", or set label_grid: header when both headers are right" if fits else ""
        same += f", {OWN_HEADER}" if apart is not None else ""
        text = f"its axes run {codes[1]}, those of {image.path.name} {codes[0]}"
        raise InputError(f"{label.path}: {text}{also}; turn the label map to the grid of its image{same}", "axes")
    if apart is None:
        text = f"shape {label.data.shape} differs from {image.data.shape} of {image.path.name}"
        raise InputError(f"{label.path}: {text}; {mend}", "shape")
    text = f"its affine differs from that of {image.path.name} by up to {apart:.3g} mm"
    raise InputError(f"{label.path}: {text}; {mend}, {OWN_HEADER}", "affine")


def corners_apart(image: Volume, label: Volume) -> float | None:
    """How far the corners of two grids lie apart, mm; 0 within the tolerance, None for grids of other shapes."""
    if image.data.shape != label.data.shape:
        return None
    ends = [(0, n - 1) for n in image.data.shape]
    corners = np.stack([c.ravel() for c in (*np.meshgrid(*ends, indexing="ij"), np.ones((2, 2, 2)))])
    apart = float(np.sqrt((((image.affine - label.affine) @ corners)[:3] ** 2).sum(axis=0)).max())
    return apart if apart > AFFINE_TOLERANCE * min(spacing_of(image.affine)) else 0.0


def _turned(label: Volume, affine: NDArray[np.float64]) -> Volume:
    """The label with its axes run like those of ``affine``; a view, no copy."""
    data, moved = to_axes(label.data, label.affine, "".join(nib.orientations.aff2axcodes(affine)))
    return replace(label, data=data, affine=moved)


def spreads(image: Volume, label: Volume) -> dict[LabelGrid, float]:
    """How much HU vary within a label, by each rule that gives a grid of the right shape (`spread`).

    On every few voxels; it shows a person which of two readings of a label map fits the scan.
    """
    every = tuple(slice(None, None, max(1, n // 128)) for n in image.data.shape)
    ways: dict[LabelGrid, Volume] = {"header": _turned(label, image.affine), "voxels": label}
    fit = {rule: way.data[every] for rule, way in ways.items() if way.data.shape == image.data.shape}
    return {rule: spread(image.data[every], labels) for rule, labels in fit.items() if any(known_voxels(labels))}


def spread(image: NDArray[Any], label: NDArray[Any]) -> float:
    """Mean distance of labelled voxels from the median of their label, HU.

    An organ is about as bright everywhere, so a label map laid wrongly on its scan spans several times as much.

    >>> spread(np.array([0, 10, 20, 500]), np.array([1, 1, 1, 0]))
    6.666666666666667
    """
    far = total = 0.0
    for value in np.unique(label[(label > 0) & (label != UNKNOWN)]):
        inside = image[label == value].astype(np.float64)
        far += float(np.abs(inside - np.median(inside)).sum())
        total += inside.size
    return far / total
