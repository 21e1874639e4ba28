"""A CT series as one volume: slices in their places, and what is odd about them by the names of the files."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from mixcl.data.files import Doubt, Read
from mixcl.data.files.dicom import Slice, pixels_of, slices_of
from mixcl.data.files.grid import check_grid
from mixcl.data.files.itk import LPS
from mixcl.data.files.raw import LARGEST, files_of, reading
from mixcl.errors import InputError
from mixcl.files import human

ALIKE = 1e-4  # of a direction, or mm a pixel
SAME = 0.01  # mm between slices that lie in one place
UNEVEN = 0.1  # of the distance between slices, and of a millimetre at least
ASIDE = 1.0  # mm that a slice may lie beside the line of the others
SHOWN = 3  # names in a sentence
KINDS = {"PixelSpacing": "spacing", "cut off": "damaged", "makes no sense": "damaged", "Rescale": "intercept"}


def read_series(path: Path) -> Read:
    """The CT series in a folder, or in one file of many frames, in HU; slices are ordered by place, not by name.

    Raises InputError: no series or several, a file that cannot be read, slices that are missing, doubled, tilted or
    unlike each other: the files in question are named.
    """
    slices, copies = _gather(path)
    images = [part for part in slices if not part.fault]
    named = {part.series for part in images}
    bad = [part for part in slices if part.fault and (part.series in named or part.kind == "damaged file")]
    if not images:
        bad = bad or [part for part in slices if part.series]
    if bad:
        fault = bad[0].fault
        kind = next((kind for word, kind in KINDS.items() if word in fault), "dicom")
        first = _names(part for part in bad if part.fault == fault)
        _refuse(path, f"{first} {fault}; mend or export the series anew", kind)
    if not images:
        _refuse(path, _contents(path, slices))
    if len(named) > 1:
        by = _tally(images, lambda part: part.series)
        _refuse(path, f"holds {len(images)} DICOM slices of {len(named)} series: {by}; keep the files of one CT series")
    if len(images) < 2:
        _refuse(path, f"holds {len(images)} DICOM slice ({_names(images)}); give a series of two or more")
    _check_alike(path, images)
    images, affine = _stacked(path, images)
    doubts = check_grid(path, affine, (*images[0].shape[::-1], len(images)))
    if copies:
        doubts += (Doubt("doubled slices", f"{_names(copies)} left out, byte for byte the same as another file"),)
    if images[0].rescale is None:
        doubts += (Doubt("rescale", "gives no RescaleSlope and RescaleIntercept; its numbers are taken for HU"),)
    if "CT" not in images[0].kind:
        doubts += (Doubt("modality", f"holds {images[0].kind}; it is taken for a CT"),)
    if len({part.rescale for part in images}) > 1:
        by = _tally(images, lambda part: str(part.rescale))
        doubts += (Doubt("rescale", f"its slices are scaled differently (slope, intercept): {by}"),)
    return _voxels(images), affine, doubts


def _gather(path: Path) -> tuple[list[Slice], list[Slice]]:
    """The slices below a folder, and those that are copies of others."""
    digests: set[bytes] = set()
    slices: list[Slice] = []
    copies: list[Slice] = []
    for file in files_of(path) if path.is_dir() else [path]:
        with reading(file):
            if file.stat().st_size > LARGEST:
                slices.append(Slice(file, "file", fault=f"has more than {human(LARGEST)}; take it away"))
                continue
            raw = file.read_bytes()
        digest = hashlib.sha256(raw).digest()
        (copies if digest in digests else slices).extend(slices_of(file, raw))
        digests.add(digest)
    return slices, copies


def _voxels(images: Sequence[Slice]) -> NDArray[Any]:
    """[X, Y, Z] in HU; a file of many frames is decoded once."""
    decoded, planes = lru_cache(maxsize=1)(pixels_of), []
    for part in images:
        frames = decoded(part.path)
        if frames.shape[:2] != part.shape[::-1] or frames.shape[2] <= part.frame:
            raise InputError(f"{part.path}: cut off or damaged (pixels of {frames.shape}); get it again", "damaged")
        planes.append(_hounsfield(frames[:, :, part.frame], part.rescale))
    return np.stack(planes, axis=2)


def _hounsfield(pixels: NDArray[Any], rescale: tuple[float, float] | None) -> NDArray[Any]:
    """Pixels in HU: integers of 16 or 32 bits where that is exact, else float32.

    >>> _hounsfield(np.array([0, 65535], np.uint16), (1.0, -1024.0))
    array([-1024, 64511], dtype=int32)
    """
    slope, intercept = rescale or (1.0, 0.0)
    ends = [float(end) * slope + intercept for end in (pixels.min(), pixels.max())]
    if slope != round(slope) or intercept != round(intercept) or max(map(abs, ends)) >= 2**31 or pixels.itemsize > 2:
        return np.asarray(pixels * np.float32(slope) + np.float32(intercept), np.float32)
    small = min(ends) >= -(2**15) and max(ends) < 2**15
    whole = pixels.astype(np.int64) * round(slope) + round(intercept)
    return whole.astype(np.int16 if small else np.int32)


def _check_alike(path: Path, images: Sequence[Slice]) -> None:
    """Refuse slices of another size, direction or pixel than most have, or of a localizer."""
    odd = [part for part in images if part.localizer]
    if 0 < len(odd) < len(images):
        _refuse(path, f"{_names(odd)} belong to a localizer, not to the scan; take them away")
    kinds: dict[str, list[Any]] = {
        "Rows and Columns": [part.shape for part in images],
        "ImageOrientationPatient": [[*part.across, *part.down] for part in images],
        "PixelSpacing": [part.edges for part in images],
        "having RescaleSlope and RescaleIntercept": [[part.rescale is not None] for part in images],
    }
    for what, given in kinds.items():
        values = np.array(given, float)
        usual = np.median(values, axis=0) if values.shape[1] > 1 else values.mean(axis=0).round()
        other = np.abs(values - usual).max(axis=1) > ALIKE
        if other.all():
            _refuse(path, f"its slices all differ in {what}; keep the slices of one scan")
        if other.any():
            odd = [part for part, differs in zip(images, other, strict=True) if differs]
            _refuse(path, f"{_names(odd)} differ from the other slices in {what}; keep the slices of one scan")


def _stacked(path: Path, images: Sequence[Slice]) -> tuple[list[Slice], NDArray[np.float64]]:
    """The slices from the first place to the last, and the affine to RAS+ mm by where they truly lie."""
    across, down = (np.mean([getattr(part, key) for part in images], axis=0) for key in ("across", "down"))
    normal = np.cross(across, down)
    images = sorted(images, key=lambda part: float(part.place @ normal))
    places = np.array([part.place for part in images])
    _check_places(path, images, places @ normal)
    step = (places[-1] - places[0]) / (len(images) - 1)
    aside = places - places[0] - np.arange(len(images))[:, None] * step
    aside -= (aside @ normal)[:, None] * normal
    if (far := float(np.linalg.norm(aside, axis=1).max())) > ASIDE:
        odd = [images[int(np.linalg.norm(aside, axis=1).argmax())]]
        _refuse(path, f"its slices do not lie in a line: {_names(odd)} by {far:.3g} mm; get the scan again")
    rows, columns = images[0].edges
    affine = np.eye(4)
    affine[:3] = np.column_stack([across * columns, down * rows, step, places[0]])
    return images, LPS @ affine


def _check_places(path: Path, images: Sequence[Slice], heights: NDArray[np.float64]) -> None:
    """Refuse slices in one place, and places without a slice."""
    steps = np.diff(heights)
    starts = np.flatnonzero(np.r_[True, steps > SAME]).tolist()
    groups = [images[a:b] for a, b in zip(starts, [*starts[1:], len(images)], strict=True)]
    sizes = {len(group) for group in groups}
    phases = _tally(images, lambda part: part.phase) if len({part.phase for part in images}) > 1 else ""
    if sizes != {1}:
        if len(sizes) == 1 and len(groups) > 1:
            text = f"{sizes.pop()} slices lie in each of its {len(groups)} places, as of several phases in one series"
            _refuse(path, f"{text}: {phases or _names(groups[0])}; keep the files of one phase")
        odd = [part for group in groups if len(group) > 1 for part in group]
        text = f"slices are doubled: {_names(odd)} lie where another one does{f' ({phases})' if phases else ''}"
        _refuse(path, f"{text}; keep one of each place")
    step = float(np.median(steps))
    if (gaps := np.flatnonzero(steps > 1.5 * step)).size:
        where = f"between {images[gaps[0]].path.name} and {images[gaps[0] + 1].path.name}"
        text = f"slices are missing in {len(gaps)} places, first {where}, {steps[gaps[0]]:.3g} mm apart, not {step:.3g}"
        _refuse(path, f"{text}; get the scan again")
    even = heights[0] + np.arange(len(images)) * (heights[-1] - heights[0]) / (len(images) - 1)
    if np.abs(heights - even).max() > max(UNEVEN * step, 0.1):
        text = f"its slices are unevenly spaced, {steps.min():.3g} to {steps.max():.3g} mm apart"
        _refuse(path, f"{text}{f' ({phases})' if phases else ''}; resample them evenly, or keep one even part")


def _refuse(path: Path, text: str, kind: str = "dicom") -> NoReturn:
    raise InputError(f"{path}: {text}", kind)


def _names(parts: Iterable[Slice]) -> str:
    """Names of files for a sentence."""
    names = list(dict.fromkeys(part.path.name for part in parts))
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _tally(parts: Sequence[Slice], key: Callable[[Slice], str]) -> str:
    """How many slices have which value, and one of them: ``1 in 40 (a.dcm, ...), 2 in 38 (b.dcm, ...)``."""
    groups: defaultdict[str, list[Slice]] = defaultdict(list)
    for part in parts:
        groups[key(part)].append(part)
    return ", ".join(f"{value or 'none'} in {len(group)} ({group[0].path.name})" for value, group in groups.items())


def _contents(path: Path, parts: Sequence[Slice]) -> str:
    """What is there in the place of a CT series, and what to do."""
    if path.is_file() and not parts:
        return "begins as DICOM does, but is none; download or copy it again"
    if path.is_file():
        return f"a DICOM file that is no CT scan ({parts[0].kind}, it {parts[0].fault}); give the scan"
    files = files_of(path)
    volumes = [file for file in files if file.name.lower().endswith((".nii", ".nii.gz", ".nrrd", ".mha"))]
    if volumes:
        mend = "merge them into one label map, or name the one that is meant" if len(volumes) > 1 else "name that file"
        kind = "NIfTI" if all(".nii" in file.name.lower() for file in volumes) else "NIfTI, NRRD or MetaImage"
        number = f"{len(volumes)} {kind} file{'s' if len(volumes) > 1 else ''}"
        return f"a folder of {number} ({volumes[0].name}), not of a DICOM series; {mend} in the collection"
    if parts:
        kinds = Counter((part.kind, part.fault) for part in parts)
        listed = ", ".join(f"{number} {kind} ({fault})" for (kind, fault), number in kinds.items())
        return f"a folder of DICOM files without a CT series: {listed}; put the scan there"
    if not files:
        return "an empty folder; put the files of a DICOM series there"
    endings = Counter(file.suffix or "no ending" for file in files)
    listed = ", ".join(f"{number} {ending}" for ending, number in endings.most_common(SHOWN))
    return f"a folder of {len(files)} files that are no DICOM ({listed}); put the files of a series there"
