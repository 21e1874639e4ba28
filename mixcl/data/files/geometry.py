"""Where a volume lies and how large its voxels are: one set of checks for every format."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixcl.data.files import Doubt
from mixcl.data.files.grid import spacing_of
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
        doubts += (Doubt("spacing", f"{path}: {text}"),)
    turn = float(np.degrees(np.arccos(np.clip(np.abs(axes).max(axis=0).min(), 0, 1))))
    if turn > OBLIQUE:
        text = f"it lies oblique in the scanner, by {turn:.0f} degrees; it is taken as if it did not"
        doubts += (Doubt("orientation", f"{path}: {text}"),)
    return doubts


def millimetres(edges: Sequence[float] | NDArray[Any]) -> str:
    """Edges of a voxel for people.

    >>> millimetres([0.75, 0.75, 5])
    '0.75 x 0.75 x 5'
    """
    return " x ".join(f"{float(edge):.4g}" for edge in edges)
