"""NIfTI, in one file or in two, and its forerunner ANALYZE: header by nibabel, voxels as far as the header promises."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from mixcl.data.files import Doubt, Read
from mixcl.data.files.grid import MEND, affines_apart, millimetres, spacing_of
from mixcl.data.files.raw import GZIP, TRAILING, check_trailing, first_bytes, pair, unpacked
from mixcl.errors import InputError

HEADERS: dict[int, Any] = {348: nib.Nifti1Header, 540: nib.Nifti2Header}


def read_nifti(path: Path) -> Read:
    """Read a volume, and no more than its header announces; integers stay integers unless it scales them.

    Raises InputError: not NIfTI, cut off or damaged, not one 3-D volume (trailing axes of length 1 are accepted),
    colour or complex voxels, an impossible voxel size.
    """
    voxels = pair(path)[-1]
    try:
        header = _header(path)
        shape = _shape(path, header)
        affine, doubts = _geometry(path, header, shape)
        data, surplus = _voxels(voxels, header, shape)
    except (HeaderDataError, ValueError, KeyError, OverflowError) as error:
        raise InputError(f"{path}: its header makes no sense ({error}); convert the scan anew", "header") from None
    doubts += check_trailing(path, surplus)
    if first_bytes(voxels).startswith(GZIP) and not voxels.name.lower().endswith(".gz"):
        doubts.append(Doubt("format", "is packed by gzip, though its name says not; it is read so", "note"))
    return data, affine, tuple(doubts)


def announced_grid(path: Path) -> tuple[tuple[int, int, int], NDArray[np.float64]]:
    """Shape and affine to RAS+ mm that a header announces, whatever follows it; raises as `read_nifti`, and more."""
    header = _header(path)
    shape = _shape(path, header)
    return shape, _geometry(path, header, shape)[0]


def _header(path: Path) -> Any:
    """The header of a file, or of a pair, as nibabel's object, unchecked."""
    two, path = len(pair(path)) > 1, pair(path)[0]
    with unpacked(path) as (file, _):
        head = file.read(max(HEADERS))
    if not head:
        raise InputError(f"{path}: is empty; download or copy it again", "damaged")
    kind = HEADERS.get(int.from_bytes(head[:4], "little")) or HEADERS.get(int.from_bytes(head[:4], "big"))
    magic = head[344:348] if kind is nib.Nifti1Header else head[4:8]
    if two and kind is nib.Nifti1Header and not magic.startswith(b"n"):
        kind, magic = nib.AnalyzeHeader, b"ni1"
    magics = (b"ni1", b"ni2") if two else (b"n+1", b"n+2")
    if kind is None or len(head) < kind.sizeof_hdr or not magic.startswith(magics):
        text = "not a NIfTI volume (.nii, .nii.gz or .hdr with .img); convert it, or take it away"
        raise InputError(f"{path}: {text}", "format")
    return kind.from_fileobj(io.BytesIO(head[: kind.sizeof_hdr]), check=False)


def _shape(path: Path, header: Any) -> tuple[int, int, int]:
    shape = tuple(int(n) for n in header.get_data_shape())
    if len(shape) < 3 or min(shape[:3]) < 1:
        raise InputError(f"{path}: has the shape {shape}; store it as one 3-D volume", "dimension")
    if any(n > 1 for n in shape[3:]):
        raise InputError(f"{path}: has {len(shape)} dimensions {shape}; keep one 3-D volume a file", "dimension")
    return shape[0], shape[1], shape[2]


def _geometry(path: Path, header: Any, shape: Sequence[int]) -> tuple[NDArray[np.float64], list[Doubt]]:
    """The affine, and what is odd about the ways in which the header gives it."""
    edges = header["pixdim"][1:4].astype(float)
    if not (np.isfinite(edges).all() and (edges > 0).all()):
        raise InputError(f"{path}: voxel size {millimetres(edges)} mm is impossible; {MEND}", "spacing")
    if isinstance(header, nib.Nifti1Header):
        if header["pixdim"][0] not in (-1, 1):  # a sign of the qform that is none
            header["pixdim"][0] = 1
        fields = ("quatern_b", "quatern_c", "quatern_d")
        length = float(np.linalg.norm([header[field] for field in fields]))
        if 1 < length < 1.01:  # a quaternion a rounding too long
            for field in fields:
                header[field] = header[field] / length * (1 - 1e-7)
    affine = np.asarray(header.get_best_affine(), dtype=float)
    return affine, list(_odd(header, affine, shape)) if np.isfinite(affine).all() else []


def _odd(header: Any, affine: NDArray[np.float64], shape: Sequence[int]) -> Iterator[Doubt]:
    if not isinstance(header, nib.Nifti1Header):
        yield Doubt("orientation", "the ANALYZE format gives no orientation; it is taken as its default (LAS)")
        return
    edges, pixdim = spacing_of(affine), header["pixdim"][1:4].astype(float)
    sform, qform = int(header["sform_code"]) > 0, int(header["qform_code"]) > 0
    if not (sform or qform):
        yield Doubt("orientation", "its header gives no orientation; it is taken as the format's default (LAS)")
    if not np.allclose(edges, pixdim, rtol=0.01):
        mm = f"header says voxels of {millimetres(pixdim)} mm, its affine {millimetres(edges)} mm"
        yield Doubt("spacing", f"{mm}; the affine is used")
    unit = {1: "meter", 3: "micron"}.get(int(header["xyzt_units"]) % 8)
    if unit:
        yield Doubt("spacing", f"its header gives lengths in {unit}s; the numbers are taken for mm, the unit of a CT")
    if sform and qform:
        try:
            far = affines_apart(affine, header.get_qform(), [n + 1 for n in shape])
        except (HeaderDataError, ValueError):  # the qform is not used
            return
        if far > max(edges):
            yield Doubt("orientation", f"its sform and its qform differ by up to {far:.3g} mm; the sform is used")


def _voxels(path: Path, header: Any, shape: tuple[int, int, int]) -> tuple[NDArray[Any], int]:
    """The voxels, scaled as the header says, and how many bytes follow them, as far as that matters."""
    dtype = header.get_data_dtype()
    if dtype.kind not in "iuf":
        raise InputError(f"{path}: its voxels are of the type {dtype}; store real numbers", "format")
    begin, size = int(header["vox_offset"]), shape[0] * shape[1] * shape[2] * dtype.itemsize
    if header["vox_offset"] < 0:
        raise ValueError(f"voxels from byte {begin}")
    if len(pair(path)) == 1:  # a single file that says 0 means right after the header
        begin = max(begin, int(header["sizeof_hdr"]) + 4)
    with unpacked(path) as (file, room):
        raw = b""
        if begin + size <= room:
            file.seek(begin)
            raw = file.read(size)
        if len(raw) < size:
            raise InputError(f"{path}: cut off: the header announces more voxels; download or copy it again", "damaged")
        surplus = len(file.read(TRAILING + 1))  # at the end of a packed file this verifies its checksum
    data: NDArray[Any] = np.frombuffer(raw, dtype).reshape(shape, order="F")
    scaling = isinstance(header, nib.Nifti1Header)
    slope, inter = (float(header[key]) for key in ("scl_slope", "scl_inter")) if scaling else (0.0, 0.0)
    if np.isnan(slope) and np.isnan(inter):  # how some programs say that nothing is scaled
        slope = inter = 0.0
    if not np.isfinite([slope, inter]).all():
        text = f"its scl_slope is {slope:g} and its scl_inter {inter:g}, so that no value is known; convert it anew"
        raise InputError(f"{path}: {text}", "header")
    if slope != 0 and (slope, inter) != (1.0, 0.0):
        data = data.astype(np.float32) * np.float32(slope) + np.float32(inter)
    return data, surplus
