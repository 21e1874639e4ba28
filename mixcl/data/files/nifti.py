"""What a NIfTI header says, and whether that can be: shape, voxel size, directions, units."""

import io
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from mixcl.data.files import Doubt
from mixcl.data.files.grid import spacing_of
from mixcl.errors import InputError

HEADER_BYTES = 540
LARGEST_SPACING = 20.0
"""Voxels longer than this, in mm, are taken for a mistake in the header."""
SKEW, OBLIQUE = 1.0, 15.0
"""Degrees from a right angle, and from the axes of the body, above which it is told."""


def header_of(path: Path, head: bytes) -> Any:
    """The header in the first bytes of a file, as nibabel's object, unchecked."""
    if not head:
        raise InputError(f"{path}: is empty; download or copy it again", "damaged")
    kinds = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
    kind = kinds.get(int.from_bytes(head[:4], "little")) or kinds.get(int.from_bytes(head[:4], "big"))
    magic = head[344:348] if kind is nib.Nifti1Header else head[4:8]
    if kind is None or len(head) < kind.sizeof_hdr or not magic.startswith((b"n+1", b"n+2")):
        raise InputError(f"{path}: not a NIfTI volume (.nii or .nii.gz); convert it, or take it away", "format")
    return kind.from_fileobj(io.BytesIO(head[: kind.sizeof_hdr]), check=False)


def volume_shape(path: Path, header: Any) -> tuple[int, int, int]:
    """The three lengths of the volume that a header announces; see `read_volume` for what is refused."""
    shape = tuple(int(n) for n in header.get_data_shape())
    if len(shape) < 3 or min(shape) < 1:
        raise InputError(f"{path}: has the shape {shape}; store it as one 3-D volume", "dimension")
    if any(n != 1 for n in shape[3:]):
        raise InputError(f"{path}: has {len(shape)} dimensions {shape}; keep one 3-D volume a file", "dimension")
    return shape[0], shape[1], shape[2]


def geometry(path: Path, header: Any, shape: Sequence[int]) -> tuple[NDArray[np.float64], tuple[Doubt, ...]]:
    """The affine of a checked header, and what is odd about it."""
    mend = "write the true voxel size into its header"
    pixdim = header["pixdim"][1:4].astype(float)
    if not np.isfinite(pixdim).all() or (pixdim <= 0).any():
        raise InputError(f"{path}: voxel size {_mm(pixdim)} mm is impossible; {mend}", "spacing")
    affine = np.asarray(header.get_best_affine(), dtype=float)
    edges = np.array(spacing_of(affine))
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise InputError(f"{path}: its affine is singular or not finite; {mend}", "header")
    if edges.max() > LARGEST_SPACING:
        raise InputError(f"{path}: voxel size {_mm(edges)} mm is implausibly large; {mend}", "spacing")
    return affine, tuple(Doubt(kind, f"{path}: {text}") for kind, text in _odd(header, affine, shape))


def _odd(header: Any, affine: NDArray[np.float64], shape: Sequence[int]) -> Iterator[tuple[str, str]]:
    """Kind and text of what is odd about voxel size, directions and units; the file is read all the same."""
    edges, pixdim = spacing_of(affine), header["pixdim"][1:4].astype(float)
    if int(header["sform_code"]) == 0 and int(header["qform_code"]) == 0:
        yield "orientation", "its header gives no orientation; it is taken as the format's default (LAS)"
    if not np.allclose(edges, pixdim, rtol=0.01):
        yield "spacing", f"header says voxels of {_mm(pixdim)} mm, its affine {_mm(edges)} mm; the affine is used"
    if np.allclose(edges, 1.0, atol=1e-4) and max(shape) >= 512:
        yield "spacing", f"voxels of 1 x 1 x 1 mm in a {'x'.join(map(str, shape))} volume: is the true size lost?"
    unit = header.get_xyzt_units()[0]
    if unit in ("meter", "micron"):
        yield "spacing", f"its header gives lengths in {unit}s; the numbers are taken for mm, the unit of a CT"
    if int(header["sform_code"]) > 0 and int(header["qform_code"]) > 0:
        ends = np.array(shape)[:, None] * np.array(list(itertools.product((0, 1), repeat=3))).T
        apart = (affine - header.get_qform())[:3] @ np.vstack([ends, np.ones(8)])
        if (far := float(np.linalg.norm(apart, axis=0).max())) > max(edges):
            yield "orientation", f"its sform and its qform differ by up to {far:.3g} mm; the sform is used"
    axes = affine[:3, :3] / edges
    angles = np.degrees(np.arccos(np.clip(np.abs((axes.T @ axes)[np.triu_indices(3, 1)]), 0, 1)))
    if angles.min() < 90 - SKEW:
        text = f"its axes are not at right angles ({angles.min():.0f} degrees), as from a tilted gantry"
        yield "shear", f"{text}; resample it upright"
    elif (turn := float(np.degrees(np.arccos(np.clip(np.abs(axes).max(axis=0).min(), 0, 1))))) > OBLIQUE:
        yield "orientation", f"it lies oblique in the scanner, by {turn:.0f} degrees; it is taken as if it did not"


def start(header: Any) -> int:
    """Byte at which the voxels begin; files that say 0 mean right after the header."""
    if header["vox_offset"] < 0:
        raise ValueError(f"voxels from byte {int(header['vox_offset'])}")
    return max(int(header["vox_offset"]), int(header["sizeof_hdr"]) + 4)


def _mm(edges: Sequence[float] | NDArray[Any]) -> str:
    return " x ".join(f"{float(edge):.4g}" for edge in edges)
