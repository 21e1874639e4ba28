"""One case from its files to the store: checked, turned to RAS+, resampled, windowed, put in its place.

A case is written to a hidden folder and then moved, so a run that is killed leaves whole cases or none.  It
is made again when its files or the settings have changed.
"""

import os
import shutil
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from mixcl.config.settings import DataConfig, LabelGrid
from mixcl.data import arrays
from mixcl.data import store as stored
from mixcl.data.files import Volume
from mixcl.data.files.align import aligned
from mixcl.data.files.grid import resample_linear, resample_nearest, resampled_affine, spacing_of, to_ras
from mixcl.data.files.opened import digest, files_of
from mixcl.data.files.volume import check_hounsfield, known_voxels, label_map, lost, read_volume
from mixcl.errors import InputError
from mixcl.files import write_sealed, writing


@dataclass(frozen=True)
class Job:
    """One case to prepare."""

    collection: str
    case: str
    image: Path
    label: Path
    root: Path
    target: Path
    data: DataConfig
    names: dict[int, str]  # by value in the store
    values: dict[int, int]  # value in the file -> value in the store
    label_grid: LabelGrid = "same"
    verify: bool = False  # compare what is kept with its checksums

    @property
    def settings(self) -> str:
        return stored.settings_hash(self.data, self.values)

    @property
    def files(self) -> dict[str, Path]:
        return {"image": self.image, "label": self.label}


@dataclass(frozen=True)
class Outcome:
    """What became of a case: its record (case.json), or the sentence that says what is wrong with it."""

    job: Job
    record: dict[str, Any] | None
    made: bool = False
    fault: str = ""


def kept(job: Job) -> Outcome | None:
    """What is there of a case, made from these files by these settings; None when it has to be made.

    Files are known by size and date, or, when only the date differs, by their hash.  The date of a stored array is
    that of the file it was made from: a store has the same bytes whenever its sources were written.
    """
    try:
        record = stored.read_json(job.target / "case.json")
        by_rule = record.get("label_grid", job.label_grid) == job.label_grid  # or its labels were not moved at all
        if not by_rule or record["settings"] != job.settings or _damaged(job, record):
            return None
        source = record["source"]
        if any(source[kind] | _stat(job, path) != source[kind] for kind, path in job.files.items()):
            return None
        dates = {kind: max(p.stat().st_mtime_ns for p in [path, *files_of(path)]) for kind, path in job.files.items()}
        if all((job.target / f"{kind}.npy").stat().st_mtime_ns == date for kind, date in dates.items()):
            return Outcome(job, record)
        if any(digest(path) != source[kind]["sha256"] for kind, path in job.files.items()):
            return None
    except Exception:  # whatever is wrong with what is there
        return None
    with writing(job.target):
        _set_dates(job.target, dates)
    return Outcome(job, record)


def make(job: Job) -> Outcome:
    """Prepare a case.

    Raises
    ------
    InputError
        A fault of the machine, not of the case: a full disk, missing permissions.
    """
    try:
        with writing(job.target):
            return Outcome(job, _make(job), made=True)
    except InputError as error:
        if error.kind == "machine":
            raise
        return Outcome(job, None, fault=str(error))


def _damaged(job: Job, record: dict[str, Any]) -> bool:
    fault = stored.damage(job.target, record, content=job.verify)
    if fault and job.verify:
        tqdm.write(f"{fault}; it is made again", file=sys.stderr)
    return fault is not None


def _stat(job: Job, path: Path) -> dict[str, Any]:
    name = path.relative_to(job.root) if path.is_relative_to(job.root) else path  # a table may name any place
    return {"name": name.as_posix(), "bytes": sum(p.stat().st_size for p in files_of(path))}


def _set_dates(folder: Path, dates: dict[str, int]) -> None:
    for kind, date in dates.items():
        os.utime(folder / f"{kind}.npy", ns=(date, date))


def _make(job: Job) -> dict[str, Any]:
    """Prepare one case and put it in its place; its record."""
    source, dates = {}, {}
    for kind, path in job.files.items():  # before it is read, so that a change meanwhile is noticed the next time
        with suppress(OSError):  # a missing file is told below
            source[kind], dates[kind] = _stat(job, path), path.stat().st_mtime_ns
    label = read_volume(job.label)
    label = replace(label, data=label_map(label, job.values))
    image = read_volume(job.image)
    source["label"]["sha256"], source["image"]["sha256"] = label.sha256, image.sha256
    label, moved = aligned(image, label, job.label_grid)
    doubts = [*image.doubts, *label.doubts, *check_hounsfield(image)]
    warnings = [*(doubt.text for doubt in doubts), *filter(None, [moved])]
    rule = {"label_grid": job.label_grid} if moved else {}
    geometry = {"source_shape": image.data.shape, "source_affine": image.affine.tolist(), **rule}
    turned, affine = to_ras(image.data, image.affine)
    spacing, turned_shape = spacing_of(affine), turned.shape
    scan = prepared(image, job.data)
    del image, turned
    labels = np.ascontiguousarray(resample_nearest(to_ras(label.data, label.affine)[0], spacing, job.data.spacing))
    before, after = known_voxels(label.data), known_voxels(labels)
    warnings += filter(None, [lost(job.label, before, after, job.names, job.data.spacing)])
    record = {
        "schema": stored.SCHEMA,
        "settings": job.settings,
        "id": job.case,
        "source": source,
        **geometry,
        "shape": scan.shape,
        "spacing": job.data.spacing,
        "affine": np.round(resampled_affine(affine, turned_shape, job.data.spacing), 6).tolist(),
        "source_voxels": before,
        "voxels": after,
        "warnings": [text.replace(f"{job.root}{os.sep}", "") for text in warnings],
    }
    return _put(job, record, scan, labels, dates)


def _bounded(scan: NDArray[Any]) -> NDArray[Any]:
    """The values as they are, but for those so large that a mean of two would be infinite."""
    far = np.float64(2**24)
    return np.clip(scan, -far, far) if scan.dtype.kind == "f" and max(-scan.min(), scan.max()) > far else scan


def prepared(image: Volume, data: DataConfig) -> NDArray[np.int16]:
    """A scan turned to RAS+, resampled to ``data.spacing`` mm, in whole HU that are clipped to the window ``data.hu``.

    Raises
    ------
    InputError
        None of it lies inside the window.
    """
    turned, affine = to_ras(image.data, image.affine)
    scan = resample_linear(_bounded(turned), spacing_of(affine), data.spacing)
    clipped = np.clip(np.rint(scan, out=scan), *data.hu, out=scan).astype(np.int16, order="C")
    if clipped.min() == clipped.max():
        raise InputError(f"{image.path}: none of it lies inside the window {data.hu} HU; check its units")
    return clipped


def _put(
    job: Job, record: dict[str, Any], scan: NDArray[np.int16], labels: NDArray[np.uint8], dates: dict[str, int]
) -> dict[str, Any]:
    """Write a case to a hidden folder and move it to its place."""
    draft, old = (job.target.with_name(f".{state}-{job.target.name}") for state in ("tmp", "old"))
    draft.mkdir(parents=True)
    hashes = {"image": arrays.content_of(scan), "label": arrays.content_of(labels)}
    points: dict[str, Any] = {str(v): voxels for v, voxels in arrays.draw_foreground(labels, hashes["label"]).items()}
    np.save(draft / "image.npy", scan)
    np.save(draft / "label.npy", labels)
    _set_dates(draft, dates)
    np.savez(draft / "foreground.npz", **points)
    files = {path.name: path.stat().st_size for path in sorted(draft.iterdir())}
    record = {**record, "content": hashes, "files": files}
    write_sealed(draft / "case.json", record)
    if job.target.exists():
        job.target.rename(old)
    draft.rename(job.target)
    shutil.rmtree(old, ignore_errors=True)
    return record
