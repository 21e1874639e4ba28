"""``mixcl data check``: read every file of every collection once and tell all that is wrong, before a GPU is booked."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from mixcl.config import Collection, Experiment, InputError
from mixcl.data import plausible
from mixcl.data.duplicates import content_of, duplicates
from mixcl.data.findings import Check, Checked, Finding, Severity
from mixcl.data.grid import spacing_of, to_ras
from mixcl.data.layout import match_cases
from mixcl.data.registry import collections, folder
from mixcl.data.volume import Volume, check_hounsfield, check_same_grid, label_map, read_volume, voxels_of

ODD = {"no orientation": "orientation", "header says voxels": "spacing", "1 x 1 x 1": "spacing", "any air": "range"}
THICK = 10.0  # mm between slices


def check(config: Experiment, out: Path, workers: int | None = None, progress: bool = True) -> Check:
    """Check the collections that the settings name; phantoms are made first when ``data.source`` is ``phantom``.

    Parameters
    ----------
    config
        ``config.data`` decides what is checked.
    out
        ``out/data/check.json`` and ``check.html`` are written there.
    workers
        Cases at a time; None is one a core, at most 8.  Each holds one scan in memory.
    progress
        Show a bar.

    Raises
    ------
    InputError
        A collection that is not known, or an ``out`` that cannot be written.
    """
    from mixcl.checkpoint import write_text
    from mixcl.data.checkpage import page

    data, raw = config.data, config.data.raw_dir(out)
    wanted = collections(data)
    if data.source == "phantom":
        from mixcl.data.phantom import write_collections

        write_collections(data, raw, progress=progress)
    jobs, found, counts = _plan(wanted, raw)
    with ThreadPoolExecutor(workers or min(len(os.sched_getaffinity(0)), 8)) as pool:
        done = pool.map(lambda job: check_case(*job), jobs)
        cases = tuple(tqdm(done, desc="check", total=len(jobs), unit="case", disable=not progress))
    found += [finding for case in cases for finding in case.findings]
    if data.source == "files":
        found += [
            Finding("quirk", "note", name, "", f"{name}: {text}") for name, c in wanted.items() for text in c.quirks
        ]
    found += duplicates(cases, set(data.pretrain), set(data.finetune))
    result = Check(counts, cases, tuple(found))
    write_text(out / "data" / "check.json", result.to_json())
    write_text(out / "data" / "check.html", page(result))
    return result


def check_case(name: str, collection: Collection, case: str, image_path: Path, label_path: Path) -> Checked:
    """Everything that can be said of one case without the others."""
    found: list[Finding] = []

    def tell(kind: str, severity: Severity, text: str) -> None:
        found.append(Finding(kind, severity, name, case, text))

    def read(path: Path) -> Volume | None:
        try:
            volume = read_volume(path)
        except InputError as error:
            tell(error.kind, "error", str(error))
            return None
        for text in volume.warnings:
            tell(_odd(text), "warning", text)
        return volume

    image, label = read(image_path), read(label_path)
    small = None
    if label is not None:
        try:
            small = label_map(label, collection.names)
        except InputError as error:
            tell(error.kind, "error", str(error))
    if image is not None:
        try:
            for text in check_hounsfield(image):
                tell(_odd(text), "warning", text)
        except InputError as error:
            tell(error.kind, "error", str(error))
        if label is not None:
            try:
                check_same_grid(image, label)
            except InputError as error:
                small, turned = None, _turned(image, label)
                tell("axes" if turned else error.kind, "error", turned or str(error))
    if image is None:
        return Checked(name, case, tuple(found))
    view = _view(image, small, collection)
    if max(view[1]) > THICK:
        tell("thick slices", "warning", f"{image_path}: voxels of {max(view[1]):.3g} mm; small organs will be missed")
    sizes = _millilitres(small, image, collection) if small is not None else {}
    if not any(one.severity == "error" for one in found):
        for doubt in (*plausible.doubts(view[0]), *plausible.too_large(sizes)):
            severity: Severity = "note" if doubt.kind == "padding" else "warning"
            tell(doubt.kind, severity, f"{image_path}: {doubt.text}")
    picture = _picture(view[0]) if any(one.severity != "note" for one in found) else b""
    return Checked(name, case, tuple(found), content_of(image), picture)


def _plan(
    wanted: dict[str, Collection], raw: Path
) -> tuple[list[tuple[str, Collection, str, Path, Path]], list[Finding], dict[str, tuple[int, int | None]]]:
    """The cases, what is missing of them, and the counts beside the expected ones (R20)."""
    jobs, found, counts = [], [], {}
    for name, collection in wanted.items():
        try:
            pairs, missing = match_cases(collection, folder(collection, raw))
        except InputError as error:
            found.append(Finding("missing collection", "error", name, "", str(error)))
            pairs, missing = {}, {}
        found += [Finding("missing partner", "error", name, case, text) for case, text in missing.items()]
        jobs += [(name, collection, case, *paths) for case, paths in pairs.items()]
        counts[name] = (len(pairs), collection.count)
        if collection.count not in (None, len(pairs)):
            text = f"{name}: {len(pairs)} labelled scans found, {collection.count} expected (R20)"
            found.append(Finding("count", "note", name, "", text))
    return jobs, found, counts


def _odd(text: str) -> str:
    return next((kind for part, kind in ODD.items() if part in text), "other")


def _turned(image: Volume, label: Volume) -> str:
    """A sentence when the label's axes are those of the image flipped or swapped; else nothing."""
    axes = [("".join(map(str, _axes(one.affine)))) for one in (image, label)]
    if axes[0] == axes[1]:
        return ""
    return (
        f"{label.path}: its axes run {axes[1]}, those of {image.path.name} {axes[0]}; turn the label map to the "
        "grid of its image"
    )


def _axes(affine: NDArray[np.float64]) -> tuple[str, ...]:
    import nibabel as nib

    return tuple(nib.orientations.aff2axcodes(affine))


def _view(
    image: Volume, small: NDArray[np.uint8] | None, collection: Collection
) -> tuple[plausible.Scene, tuple[float, ...]]:
    turned, affine = to_ras(image.data, image.affine)
    edges = spacing_of(affine)
    label = None if small is None or small.shape != image.data.shape else to_ras(small, image.affine)[0]
    return plausible.scene(turned, label, edges, collection.names), edges


def _millilitres(small: NDArray[np.uint8], image: Volume, collection: Collection) -> dict[str, float]:
    one = abs(float(np.linalg.det(image.affine[:3, :3]))) / 1000
    return {collection.names[value]: count * one for value, count in voxels_of(small).items() if value}


def _picture(view: plausible.Scene) -> bytes:
    with suppress(Exception):  # a picture is a help; what is wrong has been told
        from mixcl.data.checkpage import thumbnail

        return thumbnail(view)
    return b""
