"""One scan as it was given: read as a NIfTI file and checked.

A file is read once: its bytes are hashed, decompressed (which verifies the checksum of gzip) and looked at
without a copy.  Every fault is an `InputError` of one sentence that names the file and says how to mend it.
"""

import gzip
import hashlib
import zlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from mixcl.data.files import Doubt, Volume
from mixcl.data.files.dicom import read_series
from mixcl.data.files.nifti import HEADER_BYTES, geometry, header_of, start, volume_shape
from mixcl.errors import InputError

SMALLEST_RANGE = 50.0
"""Images whose values span less than this are taken to be scaled already: noise alone spans more HU."""


def read_volume(path: Path) -> Volume:
    """Read a ``.nii`` or ``.nii.gz`` file whole, or a folder with a DICOM series.

    Integers stay integers unless the header scales them.

    Raises
    ------
    InputError
        As `read_series` for a folder, or: missing, empty, unreadable, not what its name says, cut off or damaged, not
        one 3-D volume (a trailing axis of length 1 is accepted), colour or complex voxels, NaN or infinite values, an
        implausible spacing.
    """
    if path.is_dir():
        return read_series(path)
    try:
        raw = path.read_bytes()
        sha256 = hashlib.sha256(raw).hexdigest()
        _check_no_text(path, raw[:200])
        if path.name.endswith(".gz"):
            raw = gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error) from None
    header = header_of(path, raw[:HEADER_BYTES])
    try:
        shape = volume_shape(path, header)
        affine, doubts = geometry(path, header, shape)
        data = _voxels(path, raw, header, shape)
        if (more := len(raw) - start(header) - int(np.prod(shape)) * header.get_data_dtype().itemsize) > 0:
            text = f"{path}: holds {more} more bytes than its header announces; is all of the scan read?"
            doubts += (Doubt("header", text),)
    except (HeaderDataError, ValueError, KeyError, OverflowError) as error:
        raise InputError(f"{path}: its header makes no sense ({error}); convert the scan anew", "header") from None
    if data.dtype.kind == "f" and not np.isfinite(data.sum(dtype=np.float64)):
        text = f"{path}: {data.size - np.isfinite(data).sum()} voxels are NaN or infinite"
        raise InputError(f"{text}; write numbers there, or take the case away", "nan")
    return Volume(path, data, affine, sha256, doubts)


def _check_no_text(path: Path, head: bytes) -> None:
    """Refuse what downloads leave in the place of a scan."""
    if head.startswith(b"version https://git-lfs") or b"/annex/objects" in head:
        raise InputError(f"{path}: a pointer of Git LFS or git-annex, not the scan; fetch its content", "pointer")
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise InputError(f"{path}: a web page, not the scan; sign in where it comes from and get it again", "web page")


def _unreadable(path: Path, error: Exception) -> InputError:
    if isinstance(error, FileNotFoundError):
        return InputError(f"{path}: no such file; add it, or take its partner away", "missing")
    if isinstance(error, IsADirectoryError | PermissionError):
        return InputError(f"{path}: cannot be read ({error.strerror}); mend the file or its permissions", "unreadable")
    if isinstance(error, gzip.BadGzipFile) and "Not a gzipped file" in str(error):
        return InputError(f"{path}: not a gzip file although it ends in .gz; compress it, or name it .nii", "format")
    if isinstance(error, EOFError | zlib.error | gzip.BadGzipFile):
        return InputError(f"{path}: cut off or damaged ({error}); download or copy it again", "damaged")
    return InputError(f"{path}: cannot be read ({error}); check the disk, then download or copy it again", "unreadable")


def _voxels(path: Path, raw: bytes, header: Any, shape: tuple[int, int, int]) -> NDArray[Any]:
    dtype, offset = header.get_data_dtype(), start(header)
    if dtype.kind not in "iuf":
        raise InputError(f"{path}: its voxels are of the type {dtype}; store real numbers", "format")
    if len(raw) < offset + int(np.prod(shape)) * dtype.itemsize:
        raise InputError(f"{path}: cut off: the header announces more voxels; download or copy it again", "damaged")
    data: NDArray[Any] = np.frombuffer(raw, dtype, int(np.prod(shape)), offset).reshape(shape, order="F")
    slope, inter = (float(header[key]) for key in ("scl_slope", "scl_inter"))
    if np.isfinite(slope) and slope != 0 and (slope, inter) != (1.0, 0.0):
        data = data.astype(np.float32) * np.float32(slope) + np.float32(inter if np.isfinite(inter) else 0.0)
    return data


def check_hounsfield(image: Volume) -> tuple[Doubt, ...]:
    """Refuse an image that cannot be in Hounsfield units; what is odd but possible comes back.

    Padding far below air, such as -2048, is no fault: the window clips it.
    """
    low, high = float(image.data.min()), float(image.data.max())
    values = f"its values lie between {low:.6g} and {high:.6g}"
    if low == high:
        raise InputError(f"{image.path}: all voxels are {low:.6g}; take the case away", "constant")
    if high - low <= SMALLEST_RANGE:
        raise InputError(f"{image.path}: {values}, so it looks already scaled; give Hounsfield units", "range")
    if low >= 0 and high <= 255:
        raise InputError(f"{image.path}: {values}, so it looks like an 8-bit picture; give Hounsfield units", "range")
    if low >= 0 and high > 1000:
        text = f"{image.path}: {values}, so its intercept (often -1024) is lost; give Hounsfield units"
        raise InputError(text, "intercept")
    text = f"{image.path}: {values} HU, without any air; check that it is in Hounsfield units"
    return (Doubt("range", text),) if low > -500 else ()


def label_map(label: Volume, values: Collection[int]) -> NDArray[np.uint8]:
    """The label map as uint8, in the file's axes.

    Raises
    ------
    InputError
        Values that are not whole numbers, values other than 0 and ``values``, or nothing but 0.
    """
    data = label.data
    if data.dtype.kind == "f":
        whole = np.rint(data)
        if np.abs(data - whole).max() > 1e-3:
            text = f"{label.path}: its label values are not whole numbers; export it without interpolation"
            raise InputError(text, "fractional label")
        data = whole
    known = f"the collection knows 0 and {', '.join(map(str, sorted(values)))}; mend the map or the names"
    if data.min() < 0 or data.max() > 255:
        text = f"{label.path}: label values from {data.min():g} to {data.max():g}, but {known}"
        raise InputError(text, "unknown label")
    small = data.astype(np.uint8)
    present = voxels_of(small)
    unknown = [value for value in present if value and value not in values]
    if unknown:
        raise InputError(f"{label.path}: unknown label value {', '.join(map(str, unknown))}; {known}", "unknown label")
    if list(present) == [0]:
        raise InputError(f"{label.path}: labels nothing; add its labels, or take the case away", "empty label")
    return small


def voxels_of(labels: NDArray[np.uint8]) -> dict[int, int]:
    """Voxels of each value present.

    >>> voxels_of(np.array([0, 2, 2], np.uint8))
    {0: 1, 2: 2}
    """
    flat, counts = labels.ravel(order="K"), np.zeros(256, np.int64)
    for part in np.array_split(flat, flat.size // 2**20 + 1):  # bincount makes a copy eight times as large
        counts += np.bincount(part, minlength=256)
    return {value: int(counts[value]) for value in np.flatnonzero(counts).tolist()}


def lost(
    path: Path, before: Mapping[int, int], after: Mapping[int, int], names: Mapping[int, str], spacing: Sequence[float]
) -> str:
    """What of a label map resampling takes away altogether, in a sentence; nothing when every label has a voxel left.

    Parameters
    ----------
    before, after
        Voxels of each value, see `voxels_of`.
    spacing
        mm, after it.

    Raises
    ------
    InputError
        No label has a voxel left.

    >>> lost(Path("seg.nii"), {0: 9, 1: 3, 2: 5}, {0: 2, 2: 1}, {1: "spleen", 2: "liver"}, (9, 9, 9))[:63]
    'seg.nii: at 9 x 9 x 9 mm nothing is left of spleen (3 voxels), '
    """
    gone = ", ".join(f"{names[value]} ({before[value]} voxels)" for value in before if value and value not in after)
    grid = " x ".join(f"{edge:g}" for edge in spacing)
    if list(after) == [0]:
        text = f"{path}: no labelled voxel is left at {grid} mm of {gone}; choose a finer data.spacing"
        raise InputError(text, "lost label")
    text = f"{path}: at {grid} mm nothing is left of {gone}, which will count as missed; can data.spacing be finer?"
    return text if gone else ""
