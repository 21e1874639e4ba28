"""A CT series of DICOM files as one volume in Hounsfield units; pydicom reads the files."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixcl.data.files import Volume
from mixcl.errors import InputError

UNEVEN = 0.05  # of the distance between slices


def files_of(folder: Path) -> list[Path]:
    """The files below a folder that could be slices, in the order of their names."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))


def digest_of(folder: Path) -> str:
    """SHA-256 over the names and bytes of all files below a folder."""
    digest = hashlib.sha256()
    for path in files_of(folder):
        digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def read_series(folder: Path) -> Volume:
    """Read the one CT series below ``folder``, int16 or float32 in HU; slices are ordered by place, not by name.

    Raises
    ------
    InputError
        No series or several, a file that is cut off, slices that are missing, doubled or unlike each other.
    """
    slices = [part for part in map(_slice, files_of(folder)) if part is not None]
    numbers = {part.SeriesInstanceUID for part in slices}
    if len(numbers) != 1 or len(slices) < 2:
        text = f"{folder}: holds {len(slices)} DICOM slices of {len(numbers)} series"
        raise InputError(f"{text}; keep the folder of one CT series", "dicom")
    first = slices[0]
    for key in ("Rows", "Columns", "PixelSpacing", "ImageOrientationPatient"):
        if any(getattr(part, key) != getattr(first, key) for part in slices):
            raise InputError(f"{folder}: its slices differ in {key}; keep the slices of one scan", "dicom")
    across, down = np.split(np.array(first.ImageOrientationPatient, float), 2)
    normal = np.cross(across, down)
    slices.sort(key=lambda part: float(np.dot(normal, np.array(part.ImagePositionPatient, float))))
    places = np.array([part.ImagePositionPatient for part in slices], float)
    step = _step(folder, places @ normal)
    rows, columns = map(float, first.PixelSpacing)
    affine = np.eye(4)
    affine[:3] = np.column_stack([across * columns, down * rows, normal * step, places[0]])
    affine[:2] *= -1  # DICOM counts to the patient's left and back, NIfTI to the right and front
    data = np.stack([_hounsfield(folder, part) for part in slices], axis=2)  # [X, Y, Z]
    return Volume(folder, data, affine, digest_of(folder))


def _slice(path: Path) -> Any:
    """A slice with pixels, or None for any other file."""
    import pydicom

    try:
        part = pydicom.dcmread(path)
    except pydicom.errors.InvalidDicomError:
        return None
    except (OSError, EOFError, ValueError) as error:
        raise InputError(f"{path}: cut off or damaged ({error}); download or copy it again", "damaged") from None
    needed = ("SeriesInstanceUID", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "PixelData")
    return part if all(key in part for key in needed) else None


def _hounsfield(folder: Path, part: Any) -> NDArray[Any]:
    """[X, Y] of a slice in HU."""
    try:
        pixels = part.pixel_array.T
    except Exception as error:
        number = part.get("InstanceNumber", "?")
        raise InputError(f"{folder}: slice {number} cannot be decoded ({error}); get it again", "damaged") from None
    slope, intercept = float(part.get("RescaleSlope", 1)), float(part.get("RescaleIntercept", 0))
    if slope == 1 and intercept == round(intercept):
        return np.asarray(pixels.astype(np.int32) + round(intercept)).astype(np.int16)
    return np.asarray(pixels * np.float32(slope) + np.float32(intercept), np.float32)


def _step(folder: Path, places: NDArray[np.float64]) -> float:
    """Distance of neighbouring slices, mm."""
    steps = np.diff(places)
    step = float(np.median(steps))
    if step <= 0 or np.abs(steps - step).max() > UNEVEN * step:
        text = f"they lie {step:.3g} mm apart, but up to {np.abs(steps).max():.3g} mm"
        raise InputError(f"{folder}: slices are missing or doubled: {text}; get the scan again", "dicom")
    return step
