"""One case from its files to the store: checked, turned to RAS+, resampled, windowed, put in its place.

A run that is killed leaves whole cases or none; one is made again when its files or the settings have changed.
"""

import os
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from mixcl.config.settings import Collection, DataConfig
from mixcl.data import arrays, store
from mixcl.data.files import Volume
from mixcl.data.files.align import aligned
from mixcl.data.files.grid import resample_linear, resample_nearest, resampled_affine, spacing_of, to_ras
from mixcl.data.files.raw import digest, files_of
from mixcl.data.files.volume import check_hounsfield, known_voxels, label_map, lost_labels, read_volume
from mixcl.errors import InputError
from mixcl.files import whole_folder, write_sealed, writing

OWN = ("image.npy", "label.npy", "foreground.npz", "case.json")
"""The files of a prepared case; of a hidden draft they have more around their names."""

OUTSIDE = "{}: none of it lies inside the window {} HU; check its units"


@dataclass(frozen=True)
class Job:
    """One case to prepare: its files below ``root``, its folder ``target`` in the store, and the rules for it."""

    collection: str
    case: str
    image: Path
    label: Path
    root: Path
    target: Path
    data: DataConfig
    rules: Collection
    verify: bool = False  # compare what is kept with its checksums

    @property
    def settings(self) -> str:
        return store.settings_hash(self.data, self.rules.stored)

    @property
    def files(self) -> dict[str, Path]:
        return {"image": self.image, "label": self.label}


def kept(job: Job) -> dict[str, Any] | None:
    """The record of a case that is there, made from these files by these settings; None when it has to be made.

    Files are known by size and date, or, when only the date differs, by their hash.  The date of a stored array is
    that of the file it was made from: a store has the same bytes whenever its sources were written.
    """
    try:
        record = store.read_json(job.target / "case.json")
        by_rule = record.get("label_grid", job.rules.label_grid) == job.rules.label_grid  # or were not moved at all
        if not by_rule or record["settings"] != job.settings:
            return None
        if fault := store.damage(job.target, record, content=job.verify):
            if job.verify:
                tqdm.write(f"{fault}; it is made again", file=sys.stderr)
            return None
        source, dates = record["source"], {}
        for kind, path in job.files.items():
            status, dates[kind] = _status(job, path)
            if source[kind] | status != source[kind]:
                return None
        same = all((job.target / f"{kind}.npy").stat().st_mtime_ns == date for kind, date in dates.items())
        if not same and any(digest(path) != source[kind]["sha256"] for kind, path in job.files.items()):
            return None
    except Exception:  # whatever is wrong with what is there
        return None
    if not same:
        with writing(job.target):
            _set_dates(job.target, dates)
    return record


def prepare_case(job: Job) -> dict[str, Any]:
    """Prepare a case and put it in place; its record, or an `InputError`, of the kind ``machine`` if of the disk."""
    source, dates = {}, {}
    for kind, path in job.files.items():  # before it is read, so that a change meanwhile is noticed the next time
        with suppress(OSError):  # a missing file is told below
            source[kind], dates[kind] = _status(job, path)
    label = read_volume(job.label)
    label = replace(label, data=label_map(label, job.rules.stored))
    image = read_volume(job.image)
    source["label"]["sha256"], source["image"]["sha256"] = label.sha256, image.sha256
    label, moved = aligned(image, label, job.rules.label_grid)
    warnings = [doubt.text for doubt in (*image.doubts, *label.doubts, *check_hounsfield(image))]
    rule = {"label_grid": job.rules.label_grid} if moved else {}
    geometry = {"source_shape": image.data.shape, "source_affine": image.affine.tolist(), **rule}
    given = image.affine  # that of the label too, but for less than a voxel
    turned, affine = to_ras(image.data, given)
    spacing, moved_to = spacing_of(affine), resampled_affine(affine, turned.shape, job.data.spacing)
    scan = prepared(image, job.data)
    del image, turned
    labels = np.ascontiguousarray(resample_nearest(to_ras(label.data, given)[0], spacing, job.data.spacing))
    before, after = known_voxels(label.data), known_voxels(labels)
    warnings += [moved, lost_labels(job.label, before, after, job.rules.organs, job.data.spacing)]
    record = {
        "schema": store.SCHEMA,
        "settings": job.settings,
        "id": job.case,
        "source": source,
        **geometry,
        "shape": scan.shape,
        "spacing": job.data.spacing,
        "affine": np.round(moved_to, 6).tolist(),
        "source_voxels": before,
        "voxels": after,
        "warnings": [text.replace(f"{job.root}{os.sep}", "") for text in warnings if text],
    }
    return _put(job.target, record, scan, labels, dates)


def prepared(image: Volume, data: DataConfig) -> NDArray[np.int16]:
    """A scan turned to RAS+, resampled to ``data.spacing`` mm, in whole HU that are clipped to the window ``data.hu``.

    Raises InputError: none of it lies inside the window.
    """
    turned, affine = to_ras(image.data, image.affine)
    far = np.float64(2**24)  # a mean of two larger values may be infinite
    if turned.dtype.kind == "f" and max(-turned.min(), turned.max()) > far:
        turned = np.clip(turned, -far, far)
    scan = resample_linear(turned, spacing_of(affine), data.spacing)
    clipped = np.clip(np.rint(scan, out=scan), *data.hu, out=scan).astype(np.int16, order="C")
    if clipped.min() == clipped.max():
        raise InputError(OUTSIDE.format(image.path, data.hu))
    return clipped


def original_label(case: store.Case) -> NDArray[np.uint8]:
    """The label map of the original scan, uint8 [X, Y, Z] in the axes of its file.

    Raises InputError: it is no longer where it was when its collection was prepared, has changed, or cannot be read.
    """
    source = case.source
    if not source.label.exists():
        text = f"{source.label}: the label map of {case.collection}/{case.id} is not there any more"
        raise InputError(f"{text}; set data.root to the folder of the scans and run mixcl prepare again")
    label = read_volume(source.label)
    if label.sha256 != source.label_sha256:
        raise InputError(f"{source.label}: has changed since it was prepared; run mixcl prepare and train again")
    label = replace(label, data=label_map(label, source.stored))
    image = Volume(source.image, np.broadcast_to(np.uint8(0), case.source_shape), case.source_affine, "")
    return aligned(image, label, source.label_grid)[0].data


def _status(job: Job, path: Path) -> tuple[dict[str, Any], int]:
    """Name and bytes of a scan or label map, and the date of the youngest of its files, ns."""
    name = path.relative_to(job.root) if path.is_relative_to(job.root) else path  # a table may name any place
    parts = files_of(path)
    date = max(part.stat().st_mtime_ns for part in [path, *parts])
    return {"name": name.as_posix(), "bytes": sum(part.stat().st_size for part in parts)}, date


def _set_dates(folder: Path, dates: dict[str, int]) -> None:
    for kind, date in dates.items():
        os.utime(folder / f"{kind}.npy", ns=(date, date))


def _put(
    target: Path, record: dict[str, Any], scan: NDArray[np.int16], labels: NDArray[np.uint8], dates: dict[str, int]
) -> dict[str, Any]:
    """Write a case, whole or not at all; only what was one is replaced."""
    hashes = {"image": arrays.content_of(scan), "label": arrays.content_of(labels)}
    points: dict[str, Any] = {str(v): voxels for v, voxels in arrays.draw_foreground(labels, hashes["label"]).items()}
    with writing(target):
        foreign = target.exists() and not is_own(target)
    if foreign:
        raise InputError(f"{target}: is there and is no prepared case; choose another data.store", "machine")
    with whole_folder(target) as draft:
        np.save(draft / "image.npy", scan)
        np.save(draft / "label.npy", labels)
        _set_dates(draft, dates)
        np.savez(draft / "foreground.npz", **points)
        files = {path.name: path.stat().st_size for path in sorted(draft.iterdir())}
        record = {**record, "content": hashes, "files": files}
        write_sealed(draft / "case.json", record)
    return record


def is_own(folder: Path) -> bool:
    """Whether a folder holds nothing but what a prepared case has, so that it may be replaced or taken away."""
    there = folder.is_dir() and not folder.is_symlink()
    return there and all(any(own in name for own in OWN) for name in os.listdir(folder))
