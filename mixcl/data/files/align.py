"""Label maps on the grid of their images, by a rule that the collection names (``label_grid``).

Public pipelines for NIH Pancreas-CT show why there are rules: some lay the voxels of its labels on the pixels of the
DICOM slices (github.com/twni2016/OrganSegRSTN_PyTorch, DATA2NPY), some flip the labels for scans that dcm2niix wrote
(github.com/mattiaspaul/deedsBCV), and nnU-Net's converter and 3D Slicer go by both headers.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from nibabel.orientations import aff2axcodes
from numpy.typing import NDArray

from mixcl.config.settings import LabelGrid
from mixcl.data.files import Volume
from mixcl.data.files.grid import affines_apart, spacing_of, to_axes
from mixcl.data.files.volume import known_voxels
from mixcl.errors import InputError
from mixcl.labels import UNKNOWN

AFFINE_TOLERANCE = 0.1  # how far image and label may lie apart, as a part of the smallest voxel edge
OWN_HEADER = "or, when its header is wrong but its voxels are in the image's order, set label_grid: voxels"


def aligned(image: Volume, label: Volume, rule: LabelGrid = "same") -> tuple[Volume, str]:
    """The label map on its image's grid, voxel by voxel, and a sentence when it was turned or its header passed over.

    ``same``: the grids have to be equal, to a tenth of a voxel at the corners.  ``header``: the label's axes may run
    otherwise; it is turned, without interpolation, as both headers say.  ``voxels``: the label's header is not
    believed; its voxels are in the order of the image's, for a DICOM series [column, row, slice along the normal].

    Raises InputError: ``shape``, ``affine`` or, for grids that differ in the way their axes run, ``axes``.
    """
    apart = corners_apart(image, label)
    if apart == 0:
        return label, ""
    if rule == "voxels" and apart is not None:
        text = f"{label.path}: its header is passed over, and its voxels are taken in the order of {image.path.name}'s"
        return replace(label, affine=image.affine), f"{text} (label_grid: voxels)"
    axes, own = ("".join(aff2axcodes(volume.affine)) for volume in (image, label))
    turned = _turned(label, image.affine)
    fits = corners_apart(image, turned) == 0
    run = f"its axes run {own}, those of {image.path.name} {axes}"
    if rule == "header" and fits:
        return turned, f"{label.path}: {run}; it is turned as both headers say (label_grid: header)"
    if axes != own:
        mend = "; turn the label map to the grid of its image"
        mend += ", or set label_grid: header when both headers are right" if fits else ""
        mend += f", {OWN_HEADER}" if apart is not None else ""
        also = "" if fits else ", and turned it does not fit either"
        raise InputError(f"{label.path}: {run}{also}{mend}", "axes")
    mend = "give the label map on the grid of its image"
    if apart is None:
        text = f"shape {label.data.shape} differs from {image.data.shape} of {image.path.name}"
        raise InputError(f"{label.path}: {text}; {mend}", "shape")
    text = f"its affine differs from that of {image.path.name} by up to {apart:.3g} mm"
    raise InputError(f"{label.path}: {text}; {mend}, {OWN_HEADER}", "affine")


def corners_apart(image: Volume, label: Volume) -> float | None:
    """How far the corners of two grids lie apart, mm; 0 within the tolerance, None for grids of other shapes."""
    if image.data.shape != label.data.shape:
        return None
    apart = affines_apart(image.affine, label.affine, image.data.shape)
    return apart if apart > AFFINE_TOLERANCE * min(spacing_of(image.affine)) else 0.0


def _turned(label: Volume, affine: NDArray[np.float64]) -> Volume:
    """The label with its axes run like those of ``affine``; a view, no copy."""
    data, moved = to_axes(label.data, label.affine, "".join(aff2axcodes(affine)))
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
