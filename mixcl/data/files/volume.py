"""One scan as it was given, whatever its format, and whether its values can be those of a CT or of a label map."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mixcl.data.files import Doubt, Volume
from mixcl.data.files.dicom import is_dicom_file
from mixcl.data.files.grid import check_grid
from mixcl.data.files.itk import read_itk
from mixcl.data.files.nifti import read_nifti
from mixcl.data.files.raw import digest, first_bytes
from mixcl.data.files.series import read_series
from mixcl.errors import InputError
from mixcl.labels import UNKNOWN

SMALLEST_RANGE = 50.0  # of the values of an image; one of less is scaled already: noise alone spans more HU
FOREIGN = {
    b"PK\x03\x04": "a zip archive; unpack it", b"\x89PNG": "a PNG picture", b"\xff\xd8\xff": "a JPEG picture",
    b"II*\0": "a TIFF picture", b"MM\0*": "a TIFF picture", b"BM": "a bitmap picture", b"\x89HDF": "an HDF5 file",
    b"MATLAB": "a MATLAB file", b"\x93NUMPY": "a NumPy array", b"%PDF": "a PDF document", b"CDF": "a MINC file",
    b"Rar!": "a rar archive; unpack it", b"7z\xbc\xaf": "a 7z archive; unpack it", b"BZh": "a bzip2 archive; unpack it",
    b"\x28\xb5\x2f\xfd": "a zstd archive; unpack it", b"\xfd7zXZ": "an xz archive; unpack it",
}  # fmt: skip


def read_volume(path: Path) -> Volume:
    """Read a volume: NIfTI (.nii, .nii.gz, .hdr with .img), NRRD, MetaImage, or DICOM (a folder, or a file of frames).

    The first bytes of a file say what it is.  Integers stay integers unless the header scales them.

    Raises InputError: missing, empty, unreadable, not what its name says, cut off or damaged, not one 3-D volume,
    colour or complex voxels, NaN or infinite values, an impossible or implausible geometry (`grid.check_grid`).
    """
    head = b"" if path.is_dir() else first_bytes(path)
    if path.is_dir() or is_dicom_file(path, head):
        read = read_series
    elif what := next((text for mark, text in FOREIGN.items() if head.startswith(mark)), None):
        raise InputError(f"{path}: {what}, no volume; give NIfTI, NRRD, MetaImage or a DICOM series", "format")
    else:
        read = read_itk if head.startswith((b"NRRD", b"ObjectType", b"NDims")) else read_nifti
    data, affine, doubts = read(path)
    if read is not read_series:  # which looks at its grid before it decodes a slice
        doubts += check_grid(path, affine, data.shape)
    if data.dtype.kind == "f" and (bad := data.size - int(np.isfinite(data).sum())):
        raise InputError(f"{path}: {bad} voxels are NaN or infinite; write numbers there, or take the case away", "nan")
    named = tuple(doubt._replace(text=f"{path}: {doubt.text}") for doubt in doubts)
    return Volume(path, data, affine, digest(path), named)


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


def label_map(label: Volume, stored: Mapping[int, int]) -> NDArray[np.uint8]:
    """The label map as uint8, in the file's axes, with the values of the store for those of the file.

    ``stored`` is value -> value, see `mixcl.config.settings.Collection`; what no uint8 holds, such as -1, is unknown.
    Raises InputError: values that are not whole numbers, values other than 0 and those of ``stored``, or no organ.
    """
    data = label.data
    if data.dtype.kind == "f":
        data = np.rint(data)
        if np.abs(label.data - data).max() > 1e-3:
            text = f"{label.path}: its label values are not whole numbers; export it without interpolation"
            raise InputError(text, "fractional label")
    values = ", ".join(map(str, sorted(stored)))
    allowed = f"the collection knows 0 and {values}; mend the map, or the collection's names"
    no_uint8 = [value for value in stored if not 0 < value < 256]
    beyond = np.isin(data, no_uint8) if no_uint8 else None
    if beyond is not None and beyond.any():
        data = np.where(beyond, 0, data)
    if data.min() < 0 or data.max() > 255:
        text = f"{label.path}: label values from {data.min():g} to {data.max():g}, but {allowed}"
        raise InputError(text, "unknown label")
    labels = data.astype(np.uint8)
    present = voxels_of(labels)
    foreign = [value for value in present if value and value not in stored]
    if foreign:
        text = f"unknown label value {', '.join(map(str, foreign))}; {allowed}, or list it there as unknown"
        raise InputError(f"{label.path}: {text}", "unknown label")
    if not any(stored.get(value, UNKNOWN) != UNKNOWN for value in present):
        raise InputError(f"{label.path}: labels nothing; add its labels, or take the case away", "empty label")
    table = np.arange(256, dtype=np.uint8)
    for value in present:
        table[value] = stored.get(value, value)
    labels = table[labels] if any(table[value] != value for value in present) else labels
    if beyond is not None:
        labels[beyond] = UNKNOWN
    return labels


def voxels_of(labels: NDArray[np.uint8]) -> dict[int, int]:
    """Voxels of each value present.

    >>> voxels_of(np.array([0, 2, 2], np.uint8))
    {0: 1, 2: 2}
    """
    flat, counts = labels.ravel(order="K"), np.zeros(256, np.int64)
    for part in np.array_split(flat, flat.size // 2**20 + 1):  # bincount makes a copy eight times as large
        counts += np.bincount(part, minlength=256)
    return {value: int(counts[value]) for value in np.flatnonzero(counts).tolist()}


def known_voxels(labels: NDArray[np.uint8]) -> dict[int, int]:
    """Voxels of the background and of each organ present in a label map with the values of the store."""
    return {value: number for value, number in voxels_of(labels).items() if value != UNKNOWN}


def lost_labels(
    path: Path, before: Mapping[int, int], after: Mapping[int, int], names: Mapping[int, str], spacing: Sequence[float]
) -> str:
    """What of a label map resampling takes away altogether, in a sentence; nothing when every label has a voxel left.

    ``before`` and ``after``, at ``spacing`` mm, count voxels by value.  Raises InputError: no label has a voxel left.

    >>> lost_labels(Path("seg.nii"), {0: 9, 1: 3, 2: 5}, {0: 2, 2: 1}, {1: "spleen", 2: "liver"}, (9, 9, 9))[:63]
    'seg.nii: at 9 x 9 x 9 mm nothing is left of spleen (3 voxels), '
    """
    gone = ", ".join(f"{names[value]} ({before[value]} voxels)" for value in before if value and value not in after)
    grid = " x ".join(f"{edge:g}" for edge in spacing)
    if not any(after):
        text = f"{path}: no labelled voxel is left at {grid} mm of {gone}; choose a finer data.spacing"
        raise InputError(text, "lost label")
    text = f"{path}: at {grid} mm nothing is left of {gone}, which will count as missed; can data.spacing be finer?"
    return text if gone else ""
