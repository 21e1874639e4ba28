"""NIfTI, in one file or in two, and its forerunner ANALYZE: header by nibabel, voxels as far as the header promises."""

import io
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from mixcl.data.files import Doubt
from mixcl.data.files.geometry import check_edges, millimetres
from mixcl.data.files.grid import spacing_of
from mixcl.data.files.opened import BEHIND, GZIP, behind, fill, first_bytes, pair, unpacked
from mixcl.errors import InputError

HEADER_BYTES = 540
Read = tuple[NDArray[Any], NDArray[np.float64], tuple[Doubt, ...]]


def read_nifti(path: Path) -> Read:
    """Voxels [X, Y, Z], affine to RAS+ mm, and what is odd about the header.

    Integers stay integers unless the header scales them; no more is read than the header announces.

    Raises
    ------
    InputError
        Not NIfTI, cut off or damaged, not one 3-D volume (trailing axes of length 1 are accepted), colour or complex
        voxels, an impossible voxel size.
    """
    two = path.suffix.lower() in (".img", ".hdr")
    header_path, voxels = pair(path) if two else (path, path)
    with unpacked(header_path) as (file, _):
        head = file.read(HEADER_BYTES)
    try:
        header = _header(header_path, head, two)
        shape = _shape(path, header)
        affine, odd = _geometry(path, header, shape)
        with unpacked(voxels) as (file, room):
            data, more = _voxels(voxels, file, room, header, shape, two)
    except (HeaderDataError, ValueError, KeyError, OverflowError) as error:
        raise InputError(f"{path}: its header makes no sense ({error}); convert the scan anew", "header") from None
    doubts = [Doubt(kind, f"{path}: {text}") for kind, text in odd]
    doubts += behind(path, more)
    if first_bytes(voxels).startswith(GZIP) and not voxels.name.lower().endswith(".gz"):
        doubts.append(Doubt("format", f"{path}: is packed by gzip, though its name says not; it is read so", "note"))
    return data, affine, tuple(doubts)


def announced_grid(path: Path) -> tuple[tuple[int, int, int], NDArray[np.float64]]:
    """Shape and affine to RAS+ mm that a header announces, whatever follows it; raises as `read_nifti`, and more."""
    two = path.suffix.lower() in (".img", ".hdr")
    with unpacked(pair(path)[0] if two else path) as (file, _):
        header = _header(path, file.read(HEADER_BYTES), two)
    shape = _shape(path, header)
    return shape, _geometry(path, header, shape)[0]


def _header(path: Path, head: bytes, two: bool) -> Any:
    """The header in the first bytes of a file, as nibabel's object, unchecked."""
    if not head:
        raise InputError(f"{path}: is empty; download or copy it again", "damaged")
    kinds: dict[int, Any] = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
    kind = kinds.get(int.from_bytes(head[:4], "little")) or kinds.get(int.from_bytes(head[:4], "big"))
    magic = head[344:348] if kind is nib.Nifti1Header else head[4:8]
    if two and kind is nib.Nifti1Header and not magic.startswith(b"n"):
        kind, magic = nib.AnalyzeHeader, b"ni1"
    known = (b"ni1", b"ni2") if two else (b"n+1", b"n+2")
    if kind is None or len(head) < kind.sizeof_hdr or not magic.startswith(known):
        text = "not a NIfTI volume (.nii, .nii.gz or .hdr with .img); convert it, or take it away"
        raise InputError(f"{path}: {text}", "format")
    return kind.from_fileobj(io.BytesIO(head[: kind.sizeof_hdr]), check=False)


def _shape(path: Path, header: Any) -> tuple[int, int, int]:
    """The three lengths of the volume that a header announces."""
    shape = tuple(int(n) for n in header.get_data_shape())
    if len(shape) < 3 or min(shape[:3]) < 1:
        raise InputError(f"{path}: has the shape {shape}; store it as one 3-D volume", "dimension")
    if any(n > 1 for n in shape[3:]):
        raise InputError(f"{path}: has {len(shape)} dimensions {shape}; keep one 3-D volume a file", "dimension")
    return shape[0], shape[1], shape[2]


def _geometry(path: Path, header: Any, shape: Sequence[int]) -> tuple[NDArray[np.float64], list[tuple[str, str]]]:
    """The affine, and what is odd about the ways in which the header gives it; kind and text."""
    pixdim = header["pixdim"][1:4].astype(float)
    check_edges(path, pixdim)
    if isinstance(header, nib.Nifti1Header):
        _forgive(header)
        affine = np.asarray(header.get_best_affine(), dtype=float)
        return affine, list(_odd(header, affine, shape)) if np.isfinite(affine).all() else []
    text = "the ANALYZE format gives no orientation; it is taken as its default (LAS)"
    return np.asarray(header.get_best_affine(), dtype=float), [("orientation", text)]


def _forgive(header: Any) -> None:
    """Take a sign of the qform that is none for +1, and a quaternion a rounding too long for one of length 1."""
    if header["pixdim"][0] not in (-1, 1):
        header["pixdim"][0] = 1
    fields = ("quatern_b", "quatern_c", "quatern_d")
    length = float(np.linalg.norm([header[field] for field in fields]))
    if 1 < length < 1.01:
        for field in fields:
            header[field] = header[field] / length * (1 - 1e-7)


def _odd(header: Any, affine: NDArray[np.float64], shape: Sequence[int]) -> Iterator[tuple[str, str]]:
    edges, pixdim = spacing_of(affine), header["pixdim"][1:4].astype(float)
    if int(header["sform_code"]) <= 0 and int(header["qform_code"]) <= 0:
        yield "orientation", "its header gives no orientation; it is taken as the format's default (LAS)"
    if not np.allclose(edges, pixdim, rtol=0.01):
        mm = f"header says voxels of {millimetres(pixdim)} mm, its affine {millimetres(edges)} mm"
        yield "spacing", f"{mm}; the affine is used"
    unit = {1: "meter", 3: "micron"}.get(int(header["xyzt_units"]) % 8)
    if unit:
        yield "spacing", f"its header gives lengths in {unit}s; the numbers are taken for mm, the unit of a CT"
    if int(header["sform_code"]) > 0 and int(header["qform_code"]) > 0:
        try:
            qform = header.get_qform()
        except (HeaderDataError, ValueError):  # it is not used
            return
        ends = np.array(shape)[:, None] * np.array(list(itertools.product((0, 1), repeat=3))).T
        apart = (affine - qform)[:3] @ np.vstack([ends, np.ones(8)])
        if (far := float(np.linalg.norm(apart, axis=0).max())) > max(edges):
            yield "orientation", f"its sform and its qform differ by up to {far:.3g} mm; the sform is used"


def _voxels(
    path: Path, file: BinaryIO, room: int, header: Any, shape: tuple[int, int, int], two: bool
) -> tuple[NDArray[Any], int]:
    """The voxels, scaled as the header says, and how many bytes follow them, as far as that matters."""
    dtype = header.get_data_dtype()
    if dtype.kind not in "iuf":
        raise InputError(f"{path}: its voxels are of the type {dtype}; store real numbers", "format")
    begin, size = _begin(header, two), shape[0] * shape[1] * shape[2] * dtype.itemsize
    cut = InputError(f"{path}: cut off: the header announces more voxels; download or copy it again", "damaged")
    if begin + size > room:
        raise cut
    while begin > 0:
        if not (passed := len(file.read(min(begin, 2**20)))):
            raise cut
        begin -= passed
    raw = np.empty(size, np.uint8)
    if fill(file, raw) < size:
        raise cut
    more = len(file.read(BEHIND + 1))  # at the end of a packed file this verifies its checksum
    data: NDArray[Any] = raw.view(dtype).reshape(shape, order="F")
    scaling = isinstance(header, nib.Nifti1Header)
    slope, inter = (float(header[key]) for key in ("scl_slope", "scl_inter")) if scaling else (0.0, 0.0)
    if np.isnan(slope) and np.isnan(inter):  # how some programs say that nothing is scaled
        slope = inter = 0.0
    if not np.isfinite([slope, inter]).all():
        text = f"its scl_slope is {slope:g} and its scl_inter {inter:g}, so that no value is known; convert it anew"
        raise InputError(f"{path}: {text}", "header")
    if slope != 0 and (slope, inter) != (1.0, 0.0):
        data = data.astype(np.float32) * np.float32(slope) + np.float32(inter)
    return data, more


def _begin(header: Any, two: bool) -> int:
    """Byte at which the voxels begin; single files that say 0 mean right after the header."""
    if header["vox_offset"] < 0:
        raise ValueError(f"voxels from byte {int(header['vox_offset'])}")
    return max(int(header["vox_offset"]), 0 if two else int(header["sizeof_hdr"]) + 4)
