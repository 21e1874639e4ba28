"""``mixcl data check``: read every file of every collection once and tell all that is wrong, before a GPU is booked."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mixcl.config.settings import Collection, Experiment
from mixcl.data.check import image_rules, label_rules, slice_rules
from mixcl.data.check.duplicates import content_of, duplicates, profile_of
from mixcl.data.check.findings import Check, Checked, Finding, Severity
from mixcl.data.files.align import aligned, corners_apart, spreads
from mixcl.data.files.grid import spacing_of, to_ras
from mixcl.data.files.layout import match_cases
from mixcl.data.files.volume import Volume, check_hounsfield, label_map, read_volume, voxels_of
from mixcl.data.registry import collections, folder
from mixcl.errors import InputError

ODD = {
    "no orientation": "orientation", "qform": "orientation", "right angles": "shear", "oblique": "orientation",
    "header says voxels": "spacing", "gives lengths": "spacing", "1 x 1 x 1": "spacing", "any air": "range",
    "more bytes": "header",
}  # fmt: skip
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
    from mixcl.data.check.page import page
    from mixcl.files import write_text

    data, raw = config.data, config.data.raw_dir(out)
    wanted = collections(data)
    if data.source == "phantom":
        from mixcl.data.phantom.collections import write_collections

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


class _Case:
    """One case while it is looked at: what was found, and how an error becomes a finding."""

    def __init__(self, collection: str, case: str) -> None:
        self.collection, self.case = collection, case
        self.found: list[Finding] = []

    def tell(self, kind: str, severity: Severity, text: str) -> None:
        self.found.append(Finding(kind, severity, self.collection, self.case, text))

    @property
    def wrong(self) -> bool:
        """Whether anything found is an error."""
        return any(one.severity == "error" for one in self.found)

    @contextmanager
    def errors(self, also: Callable[[], str] = str) -> Iterator[None]:
        """Tell an `InputError` as an error, and what ``also`` has to say of it."""
        try:
            yield
        except InputError as error:
            self.tell(error.kind, "error", f"{error}{also()}")

    def read(self, path: Path) -> Volume | None:
        volume = None
        with self.errors():
            volume = read_volume(path)
            self.odd(volume.warnings)
        return volume

    def odd(self, texts: Iterable[str]) -> None:
        """Tell what a reader of files found odd."""
        for text in texts:
            self.tell(next((kind for part, kind in ODD.items() if part in text), "other"), "warning", text)

    def align(self, image: Volume, label: Volume, collection: Collection) -> Volume | None:
        """The label on its image's grid, and how it got there."""
        vary = spreads(image, label) if corners_apart(image, label) != 0 else {}
        told = ", ".join(f"{spread:.0f} read by {rule}" for rule, spread in vary.items())
        evidence = f" (HU within a label vary by {told})" if told else ""
        moved = None
        with self.errors(lambda: evidence):
            moved, how = aligned(image, label, collection.label_grid)
            doubt = min(vary.values(), default=0) < 0.7 * vary.get(collection.label_grid, 0)
            if how:
                self.tell("axes", "warning" if doubt else "note", how + evidence)
        return moved


def check_case(name: str, collection: Collection, case: str, image_path: Path, label_path: Path) -> Checked:
    """Everything that can be said of one case without the others."""
    here = _Case(name, case)
    image, label = here.read(image_path), here.read(label_path)
    small = None
    if label is not None:
        with here.errors():
            small = replace(label, data=label_map(label, collection.names))
    if image is None:
        return Checked(name, case, tuple(here.found))
    with here.errors():
        here.odd(check_hounsfield(image))
    if small is not None:
        small = here.align(image, small, collection)
    view, edges = _view(image, small, collection)
    if max(edges) > THICK:
        here.tell("thick slices", "warning", f"{image_path}: voxels of {max(edges):.3g} mm; small organs are missed")
    if not here.wrong:
        for doubt in _doubts(image, small, view, collection):
            here.tell(doubt.kind, "note" if doubt.kind == "padding" else "warning", f"{image_path}: {doubt.text}")
    picture = _picture(view) if any(one.severity != "note" for one in here.found) else b""
    return Checked(name, case, tuple(here.found), content_of(image), picture, profile_of(image))


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


def _doubts(
    image: Volume, small: Volume | None, view: image_rules.Scene, collection: Collection
) -> Iterator[image_rules.Doubt]:
    """What a person should look at: values, place and way round of the body, order of its slices, fit of the labels."""
    odd = list(image_rules.doubts(view))
    yield from odd
    label = None if small is None else to_ras(small.data, image.affine)[0]
    turned, affine = to_ras(image.data, image.affine)
    yield from slice_rules.doubts(turned, label, spacing_of(affine)[2])
    if small is not None and view.label is not None and not any(one.kind in ("range", "intercept") for one in odd):
        yield from label_rules.doubts(view, view.label)
        yield from label_rules.too_large(_millilitres(small, collection))


def _view(image: Volume, small: Volume | None, collection: Collection) -> tuple[image_rules.Scene, tuple[float, ...]]:
    turned, affine = to_ras(image.data, image.affine)
    edges = spacing_of(affine)
    label = None if small is None else to_ras(small.data, image.affine)[0]
    return image_rules.scene(turned, label, edges, collection.names), edges


def _millilitres(small: Volume, collection: Collection) -> dict[str, float]:
    one = abs(float(np.linalg.det(small.affine[:3, :3]))) / 1000
    return {collection.names[value]: count * one for value, count in voxels_of(small.data).items() if value}


def _picture(view: image_rules.Scene) -> bytes:
    with suppress(Exception):  # a picture is a help; what is wrong has been told
        from mixcl.data.check.page import thumbnail

        return thumbnail(view)
    return b""
